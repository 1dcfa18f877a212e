"""The end of the demonstration: what was promised, what was seen, after how long, and where to read on."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from geluwatch.cli.demo.display import duration
from geluwatch.cli.demo.outcome import Finding, Outcome
from geluwatch.cli.demo.webhook import Alert


def show(outcome: Outcome, console: Console) -> None:
    """Print every promise with what came of it, and the whole in a sentence."""
    listed = Table.grid(padding=(0, 2, 0, 0))
    for finding in outcome.findings:
        mark = Text("✔" if finding.kept else "✘", style=_style(kept=finding.kept))
        listed.add_row(mark, Text(finding.promise, style="bold"), Text("\n").join(_lines(finding)))
    console.print()
    console.print(listed)
    console.print()
    console.print(Text(outcome.verdict, style=_style(kept=outcome.good)))
    console.print(Text(f"It took {duration(outcome.seconds)}.", style="dim"))


def show_notification(alert: Alert, console: Console) -> None:
    """Print a notification as the receiver got it."""
    labels = (f"{name}={alert.labels[name]}" for name in ("severity", "owner", "job", "model", "model_version") if name in alert.labels)
    console.print(Text(f"\nThe page, as it was received at {time.strftime('%H:%M:%S', time.localtime(alert.received))}:\n", style="bold"))
    for line in (f"{alert.name}  {'  '.join(labels)}", *_annotations(alert)):
        console.print(Text(f"  {line}".rstrip()), soft_wrap=True)


def _annotations(alert: Alert) -> Iterator[str]:
    yield from (alert.annotations.get("summary", ""), "", *alert.annotations.get("description", "").strip().splitlines(), "")
    for name in ("runbook_url", "dashboard_url"):
        yield f"{name.removesuffix('_url'):9}  {alert.annotations.get(name, '')}"


def show_links(outcome: Outcome, console: Console) -> None:
    """Print the pages that are open for as long as the demonstration stays."""
    console.print("\nOpen until Ctrl-C, with calm traffic going on:")
    width = max(map(len, outcome.links), default=0)
    for what, url in outcome.links.items():
        console.print(Text.assemble(f"  {what.ljust(width)}  ", (url, "cyan")), soft_wrap=True)


def _lines(finding: Finding) -> Iterator[Text]:
    yield Text(finding.note)
    if finding.seen_after is not None:
        where = f", first at {finding.layer}" if finding.layer else ""
        yield Text(f"seen after {duration(finding.seen_after)}{where}")
    if finding.alert:
        when = f" arrived after {duration(finding.alert_after)}" if finding.alert_after is not None else ""
        yield Text.assemble(f"alert {finding.alert}{when}; what to do: ", (f"geluwatch runbook {finding.alert}", "cyan"))


def _style(*, kept: bool) -> str:
    return "green" if kept else "bold red"
