"""Windows of the monitor: carried over, closed by hand, of another width, and nothing lost between them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monitored import LAYERS, MINUTE, NAN_AT_1, ROWS, SITES, Traffic

from geluwatch.errors import BaselineError
from geluwatch.records import POINTS, Drained, Nonfinite, Rows

steps = st.lists(st.one_of(st.integers(0, 90), st.just("close"), st.just("nan")), max_size=25)


@given(plan=steps)
@settings(max_examples=40)
def test_nothing_is_lost_between_windows(plan: list[int | str]) -> None:
    """However batches and closings alternate, closed windows and the open one add up to the totals."""
    traffic = Traffic(sites=SITES[:1])
    windows = []
    for step in plan:
        if step == "close":
            windows.append(traffic.closed())
        else:
            traffic.monitor.ingest(NAN_AT_1 if step == "nan" else traffic.batch(rows=int(step), channels=2, layers=LAYERS[:1]))
    windows.append(traffic.closed())
    totals = traffic.report().totals
    assert totals.forwards == sum(window.forwards for window in windows)
    assert totals.sampled_forwards == sum(window.sampled_forwards for window in windows)
    assert totals.windows == len(windows)
    key = LAYERS[0], POINTS[0]
    elements = sum(window.points[key].histogram.finite for window in windows if key in window.points)
    assert traffic.report().sites[key].totals.elements == elements
    nans = sum(window.nonfinite[LAYERS[1]].forwards for window in windows if LAYERS[1] in window.nonfinite)
    assert nans == totals.nonfinite.get(LAYERS[1], Nonfinite()).forwards == plan.count("nan")


def test_a_thin_timed_window_is_carried_over() -> None:
    """Below the minimum of rows the window is not ready to close; more traffic makes it ready, and all of it is in it."""
    traffic = Traffic()
    assert not traffic.monitor.ready_to_close()
    traffic.monitor.ingest(traffic.batch(rows=63))
    assert not traffic.monitor.ready_to_close()
    traffic.monitor.ingest(traffic.batch(rows=1))
    assert traffic.monitor.ready_to_close()
    traffic.monitor.close(MINUTE)
    assert {64} == {seen.rows for seen in traffic.report().sites.values()}
    assert not traffic.monitor.ready_to_close()


def test_a_starving_site_does_not_hold_the_window_open() -> None:
    """With enough rows at one site the window is ready, though another has a single one; so it is after a NaN without rows."""
    traffic = Traffic()
    traffic.monitor.ingest(traffic.batch(rows=1))
    assert not traffic.monitor.ready_to_close()
    traffic.monitor.ingest(traffic.batch(rows=64, layers=LAYERS[:1]))
    assert traffic.monitor.ready_to_close()
    traffic.monitor.close(MINUTE)
    traffic.monitor.ingest(Drained(forwards=1, nonfinite_forwards=1, first_nonfinite=LAYERS[0]))
    assert traffic.monitor.ready_to_close()


def test_a_window_closed_by_hand_with_few_rows_is_not_judged() -> None:
    """Ten rows closed by hand leave no judgement and no ticket, however far off they are."""
    traffic = Traffic()
    traffic.armed()
    traffic.minute(traffic.batch(rows=10, at_0=50.0))
    seen = traffic.report()
    assert (10, "") == (seen.sites[LAYERS[0], "pre"].rows, seen.sites[LAYERS[0], "pre"].alarm)
    assert math.isnan(seen.sites[LAYERS[0], "pre"].evidence)


def test_a_baseline_of_other_layers_is_refused() -> None:
    """Arming a baseline that knows none of the model's layers names what it has."""
    traffic = Traffic()
    baseline = traffic.armed(15)
    stranger = Traffic(sites=(replace(SITES[0], layer="decoder.0.act"),))
    with pytest.raises(BaselineError, match=r"Baseline 'v1' has none of this model's layers \(it has encoder\.0\.act"):
        stranger.monitor.arm(baseline)
    assert stranger.report().baseline is None


def test_layers_that_are_blind_now_may_be_armed() -> None:
    """What is compiled is observed from its first call on, and what is switched off may be switched on: neither makes it a stranger."""
    baseline = Traffic().armed(15)
    blind = Traffic(sites=tuple(replace(site, state="blind", reason="not called yet") for site in SITES))
    blind.monitor.arm(baseline)
    assert "v1" == blind.report().baseline


def test_a_baseline_that_is_too_small_is_refused_with_its_reason() -> None:
    """Eleven windows cannot be armed, and one more can."""
    traffic = Traffic()
    for _ in range(11):
        traffic.minute()
    with pytest.raises(BaselineError, match=r"^Baseline 'v1' cannot be armed: 11 usable windows are too few .* 1 more are needed"):
        traffic.monitor.arm(traffic.monitor.make_baseline("v1", traffic.now))
    traffic.minute()
    assert traffic.monitor.arm(traffic.monitor.make_baseline("v1", traffic.now)).armed


def test_a_new_width_is_refused_and_the_guard_goes_on() -> None:
    """A window of another width is closed and says why it was not judged; it counts, no stale judgement stays, NaN still pages."""
    traffic = Traffic()
    traffic.armed()
    traffic.minute()
    traffic.minute(traffic.batch(channels=8))
    assert str(traffic.monitor.misfit).startswith("encoder.0.act now has 8 channels, the armed baseline 'v1' has 16")
    seen = traffic.report()
    assert ("warming", 62) == (seen.verdict, seen.totals.windows)
    traffic.monitor.ingest(NAN_AT_1)
    assert traffic.report().verdict == "page"
    traffic.minute()
    assert traffic.monitor.misfit is None


def test_a_width_that_changes_within_a_window_costs_rows_only() -> None:
    """Rows of a second width are dropped and counted; windows go on closing and other layers keep theirs."""
    traffic = Traffic()
    odd = traffic.batch(rows=5, channels=8, layers=LAYERS[:1])
    traffic.minute(traffic.batch(), replace(odd, dropped_rows=2), NAN_AT_1)
    seen = traffic.report()
    assert (7, 3, "page") == (seen.totals.dropped_rows, seen.totals.forwards, seen.verdict)
    assert {ROWS} == {site.rows for site in seen.sites.values()}
    traffic.minute()
    assert traffic.report().totals.windows == 2


def test_rows_that_cannot_be_counted_do_not_take_a_nan_with_them() -> None:
    """When folding rows fails, the batch's passes and its non-finite values have been counted already."""
    traffic = Traffic()
    crooked = Rows(LAYERS[0], "float32", np.ones((2, 3), np.float32), np.ones(5, np.float32))
    with pytest.raises((IndexError, ValueError)):
        traffic.monitor.ingest(replace(NAN_AT_1, rows=(crooked,)))
    assert ("page", 1) == (traffic.report().verdict, traffic.report().totals.nonfinite_forwards)
