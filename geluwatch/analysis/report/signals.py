"""What lies below an alarm and is worth an hour of somebody's week: gathered here so that it pages nobody."""

from __future__ import annotations

import math
from collections.abc import Iterator

from geluwatch.analysis.report import words
from geluwatch.analysis.report.findings import Findings, Signal

NEAR = 0.8
"""Evidence from which a layer counts as near the limit for a ticket; lower down are the worst windows of every calm week."""

RISING = 0.15
"""Rise of a layer's median evidence, from the first quarter of the period to the last, that is told."""

_OLD = 90 * 86400.0
"""Age of a baseline that is told; the alert on it says the same."""

_LATE = 3600.0
"""Seconds by which a history may begin after the period, as its windows and hours do."""

_NAMED = 6
"""Layers named before the rest are counted."""


def signals(found: Findings) -> Iterator[Signal]:
    """Yield the low signals of a period: layers first, then what limits the watch itself."""
    yield from _near(found)
    yield from _rising(found)
    yield from _blind(found)
    yield from _gaps(found)
    if found.damage:
        yield Signal(found.damage)
    yield from _baseline(found)
    yield from _agent(found)


def _near(found: Findings) -> Iterator[Signal]:
    near = sorted((each for each in found.layers if not each.alarm and each.most >= NEAR), key=lambda each: -each.most)
    if near:
        listed = words.listed([f"`{each.layer}` ({each.most:.2f} on {words.moment(each.when)})" for each in near], _NAMED)
        yield Signal(f"Evidence came near the limit of 1 for a ticket, without an alarm, at {listed}.", "GeluwatchActivationDrift")


def _rising(found: Findings) -> Iterator[Signal]:
    rising = sorted((each for each in found.layers if not each.alarm and each.trend >= RISING), key=lambda each: -each.trend)
    if rising:
        listed = words.listed([f"`{each.layer}` (+{each.trend:.2f})" for each in rising], _NAMED)
        yield Signal(f"Evidence rose over the period, without an alarm, at {listed}.", "GeluwatchActivationDrift")


def _blind(found: Findings) -> Iterator[Signal]:
    always = [each for each in found.layers if each.blind]
    if always:
        listed = words.listed([f"`{each.layer}` ({each.blind})" for each in always], _NAMED)
        yield Signal(f"{words.plural(len(always), 'GELU')} cannot be observed since the baseline: {listed}.", "GeluwatchSitesBlind")
    elif found.agent.blind and not any(each.kind == "blind" for each in found.episodes):
        yield Signal(f"Up to {words.plural(found.agent.blind, 'GELU')} at a time could not be observed.", "GeluwatchSitesBlind")


def _gaps(found: Findings) -> Iterator[Signal]:
    if found.first - found.since > _LATE:
        yield Signal(f"The history begins on {words.moment(found.first)} only; nothing is known of what was before.")
    for kind, what, runbook in (
        ("silent", "Nothing was kept", "GeluwatchAgentMissing"),
        ("idle", "No forward pass was made", ""),
    ):
        gaps = [gap for gap in found.gaps if gap.kind == kind and gap.ended < found.until]
        if gaps:
            longest = max(gaps, key=lambda gap: gap.ended - gap.started)
            total = words.lasting(sum(gap.ended - gap.started for gap in gaps))
            times = f"once, from {words.moment(longest.started)} for {total}"
            if len(gaps) > 1:
                times = f"{len(gaps)} times, {total} together, longest from {words.moment(longest.started)}"
            yield Signal(f"{what} {times}.", runbook)


def _baseline(found: Findings) -> Iterator[Signal]:
    if found.baseline is None:
        yield Signal(
            "No baseline is armed, so drift is not judged; NaN, Inf and dead layers are caught all the same.", "GeluwatchBaselineMissing"
        )
        return
    if found.agent.warming:
        yield Signal(f"{words.plural(found.agent.warming, 'window')} came before anything could be judged.")
    stored = found.baseline.stored
    if found.baseline.follows:
        return
    if found.baseline.damage:
        yield Signal(f"Nothing can be shown against baseline {found.baseline.name}: {found.baseline.damage}", "GeluwatchBaselineMissing")
        return
    if stored is None:
        yield Signal(
            f"Baseline {found.baseline.name} is not in this store, so nothing can be shown against it.", "GeluwatchBaselineMissing"
        )
        return
    age = found.until - stored.created
    if age > _OLD:
        yield Signal(f"Baseline {stored.name} is {words.lasting(age)} old; see whether it still fits.", "GeluwatchBaselineStale")
    if math.isinf(found.page_evidence):
        reason = stored.certificate.paging_reason or "drift cannot page on it"
        yield Signal(f"Baseline {stored.name}: {reason.rstrip('.')}.")


def _agent(found: Findings) -> Iterator[Signal]:
    agent = found.agent
    if agent.errors:
        parts = words.listed([f"{part} {words.count(number)}" for part, number in sorted(agent.errors.items())], _NAMED)
        yield Signal(f"Failures were caught inside the agent: {parts}.", "GeluwatchAgentFaulty")
    if agent.dropped_rows:
        yield Signal(f"{words.plural(agent.dropped_rows, 'captured row')} had to be dropped; windows with such are no use for a baseline.")
