"""The end of the demonstration: what was promised, what was seen, after how long, and where to read on."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from geluwatch.cli.demo.display import duration
from geluwatch.cli.demo.outcome import Finding, Outcome


def show(outcome: Outcome, console: Console) -> None:
    """Print the outcome: a table of the promises, a sentence, the runbooks to read and the pages to open."""
    console.print()
    console.print(_table(outcome))
    console.print(Text(outcome.verdict, style="bold green" if outcome.good else "bold red"))
    console.print(Text(f"It took {duration(outcome.seconds)}.", style="dim"))
    names = dict.fromkeys(finding.alert for finding in outcome.findings if finding.alert)
    if names:
        console.print("\nWhat to do when it is your model:")
    for name in names:
        console.print(Text(f"  geluwatch runbook {name}", style="cyan"))


def show_links(outcome: Outcome, console: Console) -> None:
    """Print the pages that are open."""
    width = max(map(len, outcome.links), default=0)
    for what, url in outcome.links.items():
        console.print(Text.assemble(f"  {what.ljust(width)}  ", (url, "cyan")), soft_wrap=True)


def _table(outcome: Outcome) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for name in ("", "promise", "seen after", "first layer", "alert", "alert after"):
        table.add_column(name, justify="right" if name.endswith("after") else "left")
    for finding in outcome.findings:
        table.add_row(
            Text("✔" if finding.kept else "✘", style=_style(finding)),
            Text.assemble(finding.promise, (f"\n{finding.note}", "dim")),
            _seconds(finding.seen_after),
            finding.layer or "-",
            finding.alert or "-",
            _seconds(finding.alert_after),
        )
    return table


def _style(finding: Finding) -> str:
    return "green" if finding.kept else "bold red"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"
