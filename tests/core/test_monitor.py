"""The monitor, driven by hand: verdicts, pages, carried-over windows, and nothing lost."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geluwatch.config import Config
from geluwatch.core import calibrate
from geluwatch.core.monitor import KEPT_WINDOWS, Identity, Monitor
from geluwatch.core.window import nbytes
from geluwatch.errors import BaselineError
from geluwatch.records import POINTS, Baseline, Drained, Nonfinite, Report, Rows, Site

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
            captured.append(Rows(layer, "float32", before, np.maximum(before, 0)))
        return Drained(forwards=1, sampled_forwards=1, samples=4, rows=tuple(captured), hook_seconds=1e-4, last_forward=self.now)

    def minute(self, *batches: Drained) -> None:
        """Ingest batches, a calm one by default, and close the window a minute later."""
        for drained in batches or (self.batch(),):
            self.monitor.ingest(drained)
        self.now += MINUTE
        self.monitor.close(self.now)

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
    assert all(0.0 < seen.evidence < 1.0 and seen.ks <= seen.ks_upper for seen in calm.sites.values())
    traffic.minute(traffic.batch(at_1=0.5))
    drifted = traffic.report()
    assert ("ticket", (LAYERS[1],)) == (drifted.verdict, drifted.drifting)
    assert {(LAYERS[1], point) for point in POINTS} == {key for key, seen in drifted.sites.items() if seen.drifting}


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
    for step in plan:
        if step == "close":
            traffic.monitor.close(traffic.now)
        else:
            traffic.monitor.ingest(NAN_AT_1 if step == "nan" else traffic.batch(rows=int(step), channels=2, layers=LAYERS[:1]))
    traffic.monitor.close(traffic.now)
    windows, totals = tuple(traffic.monitor._closed), traffic.report().totals
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


def test_kept_windows_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where windows are large, fewer are kept than the number allows, the newest ones."""
    traffic = Traffic()
    traffic.minute(traffic.batch(rows=64))
    monkeypatch.setattr("geluwatch.core.monitor.KEPT_BYTES", 4 * nbytes(traffic.monitor._closed[0]))
    for _ in range(20):
        traffic.minute(traffic.batch(rows=64))
    assert 2 <= len(traffic.monitor._closed) <= 5
    assert traffic.report().totals.windows == 21


def test_a_window_closed_by_hand_with_few_rows_is_not_judged() -> None:
    """Ten rows closed by hand leave no judgement and no ticket, however far off they are."""
    traffic = Traffic()
    traffic.armed()
    traffic.minute(traffic.batch(rows=10, at_0=50.0))
    seen = traffic.report()
    assert (10, False) == (seen.sites[LAYERS[0], "pre"].rows, seen.sites[LAYERS[0], "pre"].drifting)
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
    baseline = traffic.armed(20)
    shares = traffic.report().sites[LAYERS[0], "pre"].baseline_cdf
    assert list(shares) == sorted(shares)
    assert shares[-1] == 1.0
    assert shares[12] == pytest.approx(0.5, abs=0.01)
    fewer = tuple(
        replace(window, points={key: seen for key, seen in window.points.items() if key[0] != LAYERS[0]}) for window in baseline.windows
    )
    traffic.monitor.arm(replace(baseline, windows=fewer))
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


def test_the_default_horizons_can_all_be_calibrated_from_the_windows_kept() -> None:
    """Even with a tenth of the kept windows unfit, the longest default horizon has its windows."""
    fit = KEPT_WINDOWS - KEPT_WINDOWS // 10
    assert all(fit >= calibrate.windows_needed(horizon) for horizon in Config().horizons)


def test_memory_stops_growing_with_the_windows_kept() -> None:
    """Two thousand windows hold what a thousand do: kept windows are capped and traced memory is level."""
    traffic = Traffic(sites=SITES[:1])

    def run(windows: int) -> int:
        for _ in range(windows):
            traffic.minute(traffic.batch(rows=64, channels=2, layers=LAYERS[:1]))
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        full = run(1000)
        grown = run(1000) - full
    finally:
        tracemalloc.stop()
    assert len(traffic.monitor._closed) == KEPT_WINDOWS
    assert traffic.report().totals.windows == 2000
    assert grown < 0.02 * full
