"""The monitor, driven by hand: verdicts, pages, baselines, reports and what it keeps."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from monitored import CHANNELS, LAYERS, MINUTE, NAN_AT_1, SITES, Traffic

from geluwatch.catalog import FULL_EDGES
from geluwatch.core.recorder import KEPT_WINDOWS
from geluwatch.core.surprise import FAMILIES
from geluwatch.errors import BaselineError
from geluwatch.records import POINTS, Drained, Nonfinite


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
