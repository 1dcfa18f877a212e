"""What is kept of a period, and its gaps."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from geluwatch.analysis.report.coverage import Coverage
from geluwatch.analysis.report.grid import grid
from geluwatch.records import Span, Summary, Window

START = 1_741_003_200.0
MINUTE = 60.0


def span(minute: int, forwards: int, source: str = "a") -> Span:
    """A window of a minute."""
    started = START + MINUTE * minute
    return Span("m", "1", "raw", source, 1, Window(started, started + MINUTE, forwards, forwards, {}), Summary())


def covered(spans: list[Span], minutes: int = 600) -> Coverage:
    """What spans cover of ten hours."""
    found = Coverage(grid(START, START + MINUTE * minutes))
    for each in sorted(spans, key=lambda each: each.window.ended):
        found.take(each)
    return found


minutes = st.lists(st.tuples(st.integers(0, 599), st.sampled_from([0, 0, 3]), st.sampled_from("ab")), min_size=1, max_size=60)


@given(kept=minutes)
def test_gaps_and_traffic_share_the_period(kept: list[tuple[int, int, str]]) -> None:
    """Gaps are in order and apart, none lies over traffic, silence lies over no window, and what is no gap is near traffic."""
    spans = [span(*each) for each in kept]
    until = START + MINUTE * 600
    found = covered(spans)
    gaps = found.gaps(until)
    for one, other in pairwise(gaps):
        assert one.ended <= other.started
        assert one.kind != other.kind or one.ended < other.started
    for gap in gaps:
        assert found.first <= gap.started < gap.ended <= until
        overlapping = [each for each in spans if each.window.started < gap.ended and each.window.ended > gap.started]
        assert not [each for each in overlapping if each.window.forwards]
        assert gap.kind == "idle" or not overlapping
    busy = sorted({each.window.started for each in spans if each.window.forwards} | {found.first})
    for moment in np.arange(found.first, until, MINUTE).tolist():
        if not any(gap.started <= moment < gap.ended for gap in gaps):
            assert min(abs(moment - start) for start in [*busy, until]) <= found.patience + MINUTE


@given(kept=minutes)
def test_traffic_adds_up(kept: list[tuple[int, int, str]]) -> None:
    """Bins hold every pass once, and are unknown exactly where no window was kept."""
    spans = [span(*each) for each in kept]
    traffic = covered(spans).traffic
    assert math.isclose(sum(each.window.forwards for each in spans), np.nansum(traffic))
    assert len({int((each.window.started - START) // (5 * MINUTE)) for each in spans}) == (~np.isnan(traffic)).sum()


def test_idle_is_told_from_silent() -> None:
    """Windows without a pass are no traffic; no windows are silence; a short pause is neither."""
    spans = [*(span(at, 5) for at in range(60)), *(span(at, 0) for at in range(60, 120)), *(span(at, 5) for at in range(240, 590))]
    told = [(gap.kind, (gap.started - START) / MINUTE, (gap.ended - START) / MINUTE) for gap in covered(spans).gaps(START + MINUTE * 600)]
    assert [("idle", 60.0, 120.0), ("silent", 120.0, 240.0)] == told


def test_merged_spans_are_told_by_resolution() -> None:
    """What is kept is listed oldest and coarsest first, with the windows merged in it."""
    day = Span("m", "1", "day", "", 1440, Window(START - 86400.0, START, 9, 9, {}), Summary())
    kept = covered([span(0, 1), span(1, 1), day]).kept
    assert [("day", 1440), ("raw", 2)] == [(each.resolution, each.windows) for each in kept]
