"""The weekly digest: the period's alarms and low signals as a short Markdown text, for a mail or a ticket."""

from __future__ import annotations

from collections.abc import Iterator

from geluwatch import __version__
from geluwatch.analysis.report import words
from geluwatch.analysis.report.findings import Findings
from geluwatch.analysis.report.opening import RUNBOOKS, opening, told

FOOT = "Made by `geluwatch report --digest`"
"""How the last line of a digest of ours begins."""


def digest(found: Findings) -> str:
    """Return the digest of a period, with one newline at its end."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Findings) -> Iterator[str]:
    first = opening(found)
    yield f"# {first.head}: {found.model} {', '.join(found.versions)}, {words.period(found.since, found.until)}"
    yield ""
    yield from first.sentences
    if first.cause:
        yield f"What changed: {first.cause}"
    yield ""
    yield f"## Alarms ({len(found.episodes)})"
    yield ""
    yield from _alarms(found)
    yield ""
    yield f"## Low signals ({len(found.signals)})"
    yield ""
    yield from [f"- {each.text}{_see(each.runbook)}" for each in found.signals] or ["None."]
    yield ""
    yield from _watch(found)
    yield ""
    yield f"{FOOT}, geluwatch {__version__}. Times are in UTC."


def _alarms(found: Findings) -> Iterator[str]:
    for each in found.episodes:
        yield f"- **{each.alarm.capitalize()}.** {told(each, found)}{_see(RUNBOOKS[each.kind])}"
    if not found.episodes:
        yield "None."


def _see(runbook: str) -> str:
    return f" See `geluwatch runbook {runbook}`." if runbook else ""


def _watch(found: Findings) -> Iterator[str]:
    """Yield what was watched, and what that cost."""
    agent = found.agent
    baseline = f"baseline {found.baseline.name}" if found.baseline else "no baseline"
    kept = f"{words.plural(found.windows, 'window')} of {words.plural(found.forwards, 'forward pass')}"
    yield f"Watched: {words.plural(len(found.layers), 'GELU')} in {kept}, {baseline}."
    yield f"Cost: row capture took {words.share(agent.hook_seconds, agent.forward_seconds)} of the time of the forward passes."
