"""The monitor, driven by hand: verdicts, pages, gross faults, carried-over windows, and nothing lost."""

from __future__ import annotations

import gc
import math
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from geluwatch.catalog import FULL_EDGES
from geluwatch.config import Config
from geluwatch.core.monitor import Identity, Monitor
from geluwatch.core.recorder import KEPT_WINDOWS
from geluwatch.core.surprise import FAMILIES
from geluwatch.errors import BaselineError
from geluwatch.records import POINTS, Baseline, Drained, Nonfinite, Report, Rows, Site, Window

LAYERS = ("encoder.0.act", "encoder.1.act", "encoder.2.act")
SITES = tuple(Site(layer, position, "module", "GELU", "erf") for position, layer in enumerate(LAYERS))
CHANNELS, ROWS = 16, 128
MINUTE = 60.0

NAN_AT_1 = Drained(
    forwards=1,
    nonfinite_forwards=1,
    nonfinite={LAYERS[1]: Nonfinite(1, 1, 0, {("pre", "nan"): 3}), LAYERS[2]: Nonfinite(1, 0, 0, {("pre", "nan"): 48})},
    first_nonfinite=LAYERS[1],
)


class Traffic:
    """A model's traffic and the monitor that watches it, minute by minute."""

    def __init__(self, seed: int = 0, sites: tuple[Site, ...] = SITES, **settings: object) -> None:
        self.rng = np.random.default_rng(seed)
        config = Config(**{"minimum_rows": 64, "horizons": (1, 4), **settings})  # type: ignore[arg-type]
        self.monitor = Monitor(Identity("minilm", "1", {"region": "eu"}, "test 0"), sites, config, 0.0)
        self.now = 0.0

    def batch(self, rows: int = ROWS, channels: int = CHANNELS, layers: tuple[str, ...] = LAYERS, **shift: float) -> Drained:
        """One forward; `shift` is the level at the layers named by their last number, as in `at_1=0.5`."""
        captured = []
        for layer in layers:
            level = shift.get(f"at_{LAYERS.index(layer)}", 0.0)
            before = self.rng.normal(level, 1, (rows, channels)).astype(np.float32)
            captured.append(Rows(layer, "float32", before, (before * ndtr(before)).astype(np.float32)))
        return Drained(forwards=1, sampled_forwards=1, samples=4, rows=tuple(captured), hook_seconds=1e-4, last_forward=self.now)

    def minute(self, *batches: Drained) -> None:
        """Ingest batches, a calm one by default, and close the window a minute later."""
        for drained in batches or (self.batch(),):
            self.monitor.ingest(drained)
        self.now += MINUTE
        self.monitor.close(self.now)

    def closed(self) -> Window:
        """Close the open window at once, and return it."""
        self.monitor.close(self.now)
        assert self.monitor._last is not None
        return self.monitor._last

    def report(self) -> Report:
        """What the monitor reports now."""
        return self.monitor.report(self.now)

    def armed(self, windows: int = 60) -> Baseline:
        """Record calm minutes as a baseline and arm it."""
        for _ in range(windows):
            self.minute()
        baseline = self.monitor.make_baseline("v1", self.now)
        self.monitor.arm(baseline)
        return baseline


def test_from_warming_over_ok_to_a_ticket_at_the_layer_that_drifts() -> None:
    """Unarmed and freshly armed is warming, a calm window is ok, a shift at one layer is a ticket there and only there."""
    traffic = Traffic()
    assert traffic.report().verdict == "warming"
    baseline = traffic.armed()
    assert ("warming", "v1") == (traffic.report().verdict, traffic.report().baseline)
    assert baseline.certificate.armed
    traffic.minute()
    calm = traffic.report()
    assert ("ok", ()) == (calm.verdict, calm.drifting)
    for seen in calm.sites.values():
        assert 0.0 < seen.evidence < 1.0
        assert seen.evidence == pytest.approx(seen.surprise / baseline.certificate.ticket_limit)
        assert ("", None) == (seen.alarm, seen.onset)
        assert seen.ks <= seen.ks_upper
    traffic.minute(traffic.batch(at_1=0.5))
    drifted = traffic.report()
    assert ("ticket", (LAYERS[1],), "model") == (drifted.verdict, drifted.drifting, drifted.scope)
    assert {(LAYERS[1], point) for point in POINTS} == {key for key, seen in drifted.sites.items() if seen.alarm}
    for point in POINTS:
        seen = drifted.sites[LAYERS[1], point]
        assert ("ticket", traffic.now - MINUTE) == (seen.alarm, seen.onset)
        assert seen.evidence >= 1.0
        assert seen.family in FAMILIES
        assert seen.horizon in baseline.certificate.horizons


def test_drift_far_enough_out_pages_where_the_baseline_is_long_enough() -> None:
    """With a hundred independent looks behind it a gross shift of one layer is a page, with fewer it is a ticket."""
    traffic = Traffic(horizons=(1,))
    assert traffic.armed(150).certificate.paging
    traffic.minute(traffic.batch(at_1=3.0))
    seen = traffic.report()
    assert ("page", "page") == (seen.verdict, seen.sites[LAYERS[1], "pre"].alarm)
    short = Traffic(horizons=(1,))
    assert not short.armed(40).certificate.paging
    short.minute(short.batch(at_1=3.0))
    assert ("ticket", "ticket") == (short.report().verdict, short.report().sites[LAYERS[1], "pre"].alarm)


def test_drifting_layers_come_in_the_model_s_order() -> None:
    """Two layers in drift are named from the input on."""
    traffic = Traffic()
    traffic.armed()
    traffic.minute(traffic.batch(at_2=0.9, at_0=0.5))
    assert traffic.report().drifting == (LAYERS[0], LAYERS[2])


def test_a_nonfinite_pass_pages_at_once_and_until_a_clean_window_has_closed() -> None:
    """The page is there before the window closes and in the report of its close, and gone after the next clean one."""
    traffic = Traffic()
    traffic.armed()
    traffic.minute()
    assert traffic.report().verdict == "ok"
    traffic.monitor.ingest(NAN_AT_1)
    at_once = traffic.report()
    assert ("page", LAYERS[1]) == (at_once.verdict, at_once.first_nonfinite)
    traffic.minute()
    at_close = traffic.report()
    assert ("page", LAYERS[1]) == (at_close.verdict, at_close.first_nonfinite)
    assert (3, 0) == tuple(at_close.sites[LAYERS[1], point].nonfinite for point in POINTS)
    traffic.minute()
    after = traffic.report()
    assert ("ok", None) == (after.verdict, after.first_nonfinite)
    assert after.totals.nonfinite[LAYERS[2]].elements == {("pre", "nan"): 48}


def test_the_page_names_the_earliest_layer_of_the_incident() -> None:
    """While an incident spans two windows, the layer where it began stays named."""
    traffic = Traffic()
    traffic.minute(NAN_AT_1)
    traffic.monitor.ingest(replace(NAN_AT_1, first_nonfinite=LAYERS[2]))
    assert traffic.report().first_nonfinite == LAYERS[1]
    traffic.minute()
    assert traffic.report().first_nonfinite == LAYERS[2]


def test_arming_starts_the_next_baseline_afresh() -> None:
    """Windows of the armed baseline are not recorded again: right after arming there is nothing, then what closed since."""
    traffic = Traffic()
    traffic.armed(20)
    with pytest.raises(BaselineError, match="No window has been closed yet"):
        traffic.monitor.make_baseline("v2", traffic.now)
    for _ in range(3):
        traffic.minute()
    assert 3 == traffic.monitor.make_baseline("v2", traffic.now).certificate.windows


def test_arming_keeps_no_window_of_the_baseline() -> None:
    """Windows kept whole are what takes the memory of a baseline; once it is armed the monitor holds none of them."""
    traffic = Traffic()
    for _ in range(20):
        traffic.minute()
    baseline = traffic.monitor.make_baseline("v1", traffic.now)
    held = [window.points for window in baseline.windows]
    assert 20 == len(held)
    traffic.monitor.arm(baseline)
    del baseline
    gc.collect()
    assert {3} == {sys.getrefcount(points) for points in held}  # the list, the loop and the question itself


def test_arming_does_not_take_a_page_back() -> None:
    """A baseline armed right after a window with a NaN leaves the page standing."""
    traffic = Traffic()
    for _ in range(20):
        traffic.minute()
    traffic.minute(traffic.batch(), NAN_AT_1)
    traffic.monitor.arm(traffic.monitor.make_baseline("v1", traffic.now))
    assert traffic.report().verdict == "page"


def test_padding_never_pages() -> None:
    """A NaN at padding rows only is counted and nothing more."""
    traffic = Traffic()
    traffic.minute(traffic.batch(), Drained(forwards=1, nonfinite={LAYERS[0]: Nonfinite(padding_forwards=1)}))
    seen = traffic.report()
    assert ("warming", 1) == (seen.verdict, seen.totals.nonfinite[LAYERS[0]].padding_forwards)


def test_drift_does_not_hide_a_page() -> None:
    """A page outranks a ticket."""
    traffic = Traffic()
    traffic.armed()
    traffic.minute(traffic.batch(at_0=0.9), NAN_AT_1)
    seen = traffic.report()
    assert ("page", (LAYERS[0],)) == (seen.verdict, seen.drifting)


def test_a_model_without_an_observed_site_is_blind() -> None:
    """When the census turns every site blind the verdict follows, and the reason is in the report."""
    traffic = Traffic()
    traffic.minute()
    traffic.monitor.census(tuple(replace(site, state="blind", reason="compiled before attach") for site in SITES))
    seen = traffic.report()
    assert seen.verdict == "blind"
    assert {("blind", "compiled before attach")} == {(site.state, site.reason) for site in seen.sites.values()}


def test_totals_only_grow() -> None:
    """Over windows, arming and incidents every counter of every report is at least that of the one before."""
    traffic = Traffic()
    before = traffic.report()
    for step in range(60):
        traffic.monitor.ingest(NAN_AT_1 if step == 50 else traffic.batch(rows=40))
        if step % 3 == 2:
            traffic.now += MINUTE
            traffic.monitor.close(traffic.now)
        if step == 45:
            traffic.monitor.arm(traffic.monitor.make_baseline("v1", traffic.now))
        traffic.monitor.count("sink", errors=1, flush_seconds=0.1)
        after = traffic.report()
        for name in ("forwards", "sampled_forwards", "nonfinite_forwards", "samples", "windows", "hook_seconds", "flush_seconds"):
            assert getattr(after.totals, name) >= getattr(before.totals, name)
        for key, old in before.sites.items():
            new = after.sites[key].totals
            assert new.elements >= old.totals.elements
            assert all(a >= b for a, b in zip(new.buckets, old.totals.buckets, strict=False))
            assert min(new.abs_sum_pos - old.totals.abs_sum_pos, new.abs_sum_neg - old.totals.abs_sum_neg) >= 0
        before = after
    assert (60, 20, 60) == (before.totals.forwards, before.totals.windows, before.totals.errors["sink"])
    assert 59 * 40 * CHANNELS == before.sites[LAYERS[0], "pre"].totals.elements


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
    """Closing a window of another width raises a sentence; the window counts, no stale judgement stays, NaN still pages."""
    traffic = Traffic()
    traffic.armed()
    traffic.minute()
    with pytest.raises(BaselineError, match=r"encoder\.0\.act now has 8 channels, the armed baseline 'v1' has 16"):
        traffic.minute(traffic.batch(channels=8))
    seen = traffic.report()
    assert ("warming", 62) == (seen.verdict, seen.totals.windows)
    traffic.monitor.ingest(NAN_AT_1)
    assert traffic.report().verdict == "page"


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


def test_a_report_is_frozen() -> None:
    """A report stays as it was while the monitor goes on, and cannot be written to."""
    traffic = Traffic()
    traffic.minute(NAN_AT_1, traffic.batch())
    kept = traffic.report()
    before = repr(kept)
    traffic.minute(NAN_AT_1, traffic.batch())
    traffic.monitor.count("sink", errors=1)
    assert before == repr(kept)
    with pytest.raises(FrozenInstanceError):
        kept.verdict = "ok"  # type: ignore[misc]


def test_the_report_s_figures_are_those_of_the_window() -> None:
    """Rows, elements, mean and deviation are numpy's over what was captured in the last window."""
    traffic = Traffic()
    batches = [traffic.batch(rows=40, at_0=1.0), traffic.batch(rows=50)]
    traffic.minute(*batches)
    values = np.concatenate([drained.rows[0].pre for drained in batches]).astype(np.float64)
    seen = traffic.report().sites[LAYERS[0], "pre"]
    assert (90, values.size) == (seen.rows, seen.elements)
    assert seen.mean == pytest.approx(values.mean(), rel=1e-10)
    assert seen.std == pytest.approx(values.std(), rel=1e-10)
    assert (0.0, MINUTE) == (traffic.report().window_started, traffic.report().window_ended)


def test_the_baseline_s_distribution_is_reported_at_the_catalogue_s_edges() -> None:
    """After arming, cumulative shares rise from 0 to 1; arming another baseline replaces them all."""
    traffic = Traffic()
    traffic.armed(20)
    shares = traffic.report().sites[LAYERS[0], "pre"].baseline_cdf
    assert list(shares) == sorted(shares)
    assert shares[-1] == 1.0
    assert shares[FULL_EDGES["pre"].index(0.0)] == pytest.approx(0.5, abs=0.01)
    other = Traffic(sites=SITES[1:])
    for _ in range(20):
        other.minute(other.batch(layers=LAYERS[1:]))
    traffic.monitor.arm(other.monitor.make_baseline("v2", other.now))
    assert traffic.report().sites[LAYERS[0], "pre"].baseline_cdf == ()


def test_a_baseline_leaves_unclean_windows_out_and_counts_them() -> None:
    """Of thirty windows one with a NaN and one thin are left out; the certificate says two."""
    traffic = Traffic()
    for k in range(30):
        traffic.minute(*{3: (traffic.batch(), NAN_AT_1), 7: (traffic.batch(rows=5),)}.get(k, ()))
    baseline = traffic.monitor.make_baseline("v1", traffic.now)
    assert (28, 2, 28) == (baseline.certificate.windows, baseline.certificate.left_out, len(baseline.windows))
    assert ("minilm", "1", "v1", traffic.now, SITES) == (
        baseline.model,
        baseline.model_version,
        baseline.name,
        baseline.created,
        baseline.sites,
    )


def test_memory_grows_by_scores_only() -> None:
    """Recording on and on keeps no more whole windows than their number, and takes some bytes a window beyond it."""
    traffic = Traffic(sites=SITES[:1])

    def run(windows: int) -> int:
        for _ in range(windows):
            drained = traffic.batch(rows=64, channels=2, layers=LAYERS[:1])
            # On few cells, so that the histogram of all windows is soon as large as it gets.
            traffic.minute(replace(drained, rows=tuple(replace(each, post=np.maximum(each.pre, 0)) for each in drained.rows)))
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        full = run(KEPT_WINDOWS + 60)
        grown = run(600) - full
    finally:
        tracemalloc.stop()
    assert KEPT_WINDOWS == len(traffic.monitor._recorder._kept)
    assert traffic.report().totals.windows == KEPT_WINDOWS + 660
    assert grown / 600 < 400


def dead(traffic: Traffic, layer: str = LAYERS[1]) -> Drained:
    """A batch in which one layer's gates are closed for everything."""
    drained = traffic.batch()
    closed = np.full((ROWS, CHANNELS), -9.0, np.float32)
    rows = tuple(replace(each, pre=closed, post=0 * closed) if each.layer == layer else each for each in drained.rows)
    return replace(drained, rows=rows)


def impossible(traffic: Traffic, layer: str = LAYERS[1]) -> Drained:
    """A batch in which one layer gives values after the GELU that no GELU gives."""
    drained = traffic.batch()
    rows = tuple(replace(each, post=each.post - 2.0) if each.layer == layer else each for each in drained.rows)
    return replace(drained, rows=rows)


@pytest.mark.parametrize(("batch", "fault"), [(dead, "dead"), (impossible, "impossible")])
def test_a_gross_fault_pages_without_a_baseline_until_it_is_over(batch: Callable[[Traffic], Drained], fault: str) -> None:
    """The first window that holds one pages and names its point, no baseline needed, and the next sound one ends it."""
    traffic = Traffic()
    traffic.minute(batch(traffic))
    seen = traffic.report()
    assert ("page", None) == (seen.verdict, seen.baseline)
    assert {(LAYERS[1], "post"): fault} == {key: site.gross for key, site in seen.sites.items() if site.gross}
    traffic.minute()
    assert ("warming", {""}) == (traffic.report().verdict, {site.gross for site in traffic.report().sites.values()})


def test_a_layer_that_repeats_itself_pages_before_the_gelu() -> None:
    """A layer that gives one row whatever comes in is dead at its input, and the report says so there."""
    traffic = Traffic()
    drained = traffic.batch()
    stuck = tuple(
        replace(each, pre=np.repeat(each.pre[:1], ROWS, 0), post=np.repeat(each.post[:1], ROWS, 0)) if each.layer == LAYERS[2] else each
        for each in drained.rows
    )
    traffic.minute(replace(drained, rows=stuck))
    assert ("page", "dead") == (traffic.report().verdict, traffic.report().sites[LAYERS[2], "pre"].gross)


@pytest.mark.parametrize(("batch", "fault", "left"), [(dead, "dead", "ok"), (impossible, "impossible", "ticket")])
def test_what_was_so_in_the_baseline_does_not_page(batch: Callable[[Traffic], Drained], fault: str, left: str) -> None:
    """A layer dead for good, or one that always overshoots, pages while nothing is armed; armed, it is no fault, another's is.

    That a kernel does not compute what it declares stays a ticket, for a baseline does not say what is declared.
    """
    traffic = Traffic()
    for _ in range(40):
        traffic.minute(batch(traffic))
    assert traffic.report().verdict == "page"
    traffic.monitor.arm(traffic.monitor.make_baseline("v1", traffic.now))
    traffic.minute(batch(traffic))
    seen = traffic.report()
    assert (left, "") == (seen.verdict, seen.sites[LAYERS[1], "post"].gross)
    traffic.minute(batch(traffic, LAYERS[0]))  # type: ignore[call-arg]  # both take a layer
    seen = traffic.report()
    assert ("page", fault) == (seen.verdict, seen.sites[LAYERS[0], "post"].gross)


def test_a_layer_that_dies_after_the_baseline_pages() -> None:
    """With a baseline armed in which the layer lived its death is a page, beside the drift that it is too."""
    traffic = Traffic()
    traffic.armed()
    traffic.minute(dead(traffic))
    seen = traffic.report()
    assert ("page", "dead") == (seen.verdict, seen.sites[LAYERS[1], "post"].gross)
    assert LAYERS[1] in seen.drifting


def test_no_drift_is_left_of_a_gross_fault_that_is_mended() -> None:
    """The window in which the fault is mended still holds some of it; the one behind it is calm at every horizon."""
    traffic = Traffic()
    traffic.armed()
    for _ in range(5):
        traffic.minute(dead(traffic))
    traffic.minute(dead(traffic), traffic.batch())
    assert LAYERS[1] in traffic.report().drifting
    traffic.minute()
    assert ("ok", ()) == (traffic.report().verdict, traffic.report().drifting)
