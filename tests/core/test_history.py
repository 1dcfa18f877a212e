"""Spans: what is kept of a window and its report, and what merging keeps of spans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geluwatch.core import histogram, history, ks
from geluwatch.core.window import observe
from geluwatch.records import (
    Moments,
    Nonfinite,
    PointKey,
    PointReport,
    PointSummary,
    PointWindow,
    Report,
    Span,
    Summary,
    Totals,
    Traffic,
    Window,
)

PRE: PointKey = ("act", "pre")
DTYPES = ("float32", "float16", "bfloat16")


def span(values: np.ndarray, number: int = 0, dtype: str = "float32", summary: Summary | None = None, **changes: Any) -> Span:
    """Return a minute in which one point saw values of shape (n, C)."""
    window = Window(60.0 * number, 60.0 * number + 60.0, 2, 1, {PRE: observe(values.astype(np.float32), dtype)}, samples=3)
    return Span("m", "1", "raw", changes.pop("source", "host:1"), 1, replace(window, **changes), summary or Summary({"ok": 1}))


def in_pieces(spans: Sequence[Span], cuts: Sequence[int]) -> Span:
    """Return spans merged first between the cuts, then all together."""
    edges = [0, *sorted({cut % len(spans) for cut in cuts} - {0}), len(spans)]
    return history.merge([history.merge(spans[a:b], "hour") for a, b in pairwise(edges)], "day")


PARTS = st.lists(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 40), st.floats(-3, 3), st.sampled_from(DTYPES)), min_size=1, max_size=12
)


@settings(max_examples=60)
@given(PARTS, st.lists(st.integers(0, 100), max_size=4), st.integers(0, 2**32 - 1))
def test_ks_of_a_merged_span_is_that_of_its_windows(parts: list[tuple[int, int, float, str]], cuts: list[int], seed: int) -> None:
    """However windows of any dtypes are grouped into hours and a day: the distance from any other histogram is the same to the last bit."""
    spans = []
    for number, (own, rows, location, dtype) in enumerate(parts):
        values = np.random.default_rng(own).normal(location, 1.0, (rows, 3))
        spans.append(span(values.astype(np.float16) if dtype == "float16" else values, number, dtype))
    merged = in_pieces(spans, cuts)
    raw = [each.window.points[PRE].histogram for each in spans]
    other = histogram.from_values(np.random.default_rng(seed).normal(size=200).astype(np.float32))
    assert ks.distance(histogram.merge(raw), other) == ks.distance(merged.window.points[PRE].histogram, other)
    assert sum(each.finite for each in raw) == merged.window.points[PRE].histogram.finite
    assert len(spans) == merged.windows


def test_ks_of_lossless_spans_is_scipys() -> None:
    """For values of bfloat16 the distance of two merged days is the statistic of `scipy.stats.ks_2samp` on all values."""
    from scipy.stats import ks_2samp

    random = np.random.default_rng(3)
    days = []
    for shift in (0.0, 0.05):
        values = [(random.normal(shift, 1, (50, 4)).astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32) for _ in range(20)]
        days.append((np.concatenate(values), in_pieces([span(each, n, "bfloat16") for n, each in enumerate(values)], [5, 9])))
    (one, early), (other, late) = days
    found = ks.distance(early.window.points[PRE].histogram, late.window.points[PRE].histogram)
    assert pytest.approx(ks_2samp(one.ravel(), other.ravel()).statistic, abs=1e-15) == found.lower == found.upper


def test_an_hour_has_the_moments_of_those_that_kept_them_and_a_day_none() -> None:
    """Channel moments merge exactly over the windows that have them, whose rows they count; in a day they are let go."""
    random = np.random.default_rng(1)
    values = [random.normal(size=(10, 3)).astype(np.float32) for _ in range(3)]
    spans = [span(each, number) for number, each in enumerate(values)]
    spans[1] = replace(spans[1], window=history.without_moments(spans[1].window))
    hour = history.merge(spans, "hour")
    kept, both = hour.window.points[PRE].moments, np.concatenate([values[0], values[2]]).astype(np.float64)
    assert 20 == kept.rows
    np.testing.assert_allclose(kept.mean, both.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(kept.m2, ((both - both.mean(axis=0)) ** 2).sum(axis=0), rtol=1e-12)
    gone = history.merge([hour], "day").window.points[PRE].moments
    assert (0, 0, 0) == (gone.rows, gone.mean.size, gone.m2.size)


def test_a_layer_that_changed_its_width_merges_all_the_same() -> None:
    """Channels of two widths have no moments in common; the values count together."""
    spans = [span(np.ones((4, width)), number) for number, width in enumerate((2, 3))]
    merged = history.merge(spans, "hour").window.points[PRE]
    assert (20, 0) == (merged.histogram.finite, merged.moments.rows)


def test_what_is_counted_adds_up() -> None:
    """A merged window begins with the first and ends with the last; passes, samples, sums and non-finite passes are added."""
    one = span(np.array([[1.0, -2.0]]), 0, nonfinite={"act": Nonfinite(1, 1, 0, {("pre", "nan"): 2})}, first_nonfinite="act")
    two = span(np.array([[3.0, -4.0]]), 1, nonfinite={"act": Nonfinite(2, 0, 1)}, blind=("b",), thinned=True)
    three = span(np.array([[5.0, -6.0]]), 2, first_nonfinite="b", blind=("b", "c"))
    merged = history.merge([three, one, two], "hour").window
    assert (0.0, 180.0, 6, 3, 9) == (merged.started, merged.ended, merged.forwards, merged.sampled_forwards, merged.samples)
    assert {"act": Nonfinite(3, 1, 1, {("pre", "nan"): 2})} == merged.nonfinite
    assert ("act", ("b", "c"), True) == (merged.first_nonfinite, merged.blind, merged.thinned)
    point = merged.points[PRE]
    assert (9.0, 12.0, 91.0) == (point.abs_sum_pos, point.abs_sum_neg, point.squares)


def test_the_worst_is_told() -> None:
    """Of merged windows, verdicts and counters are added; layers, scope and cause are those of the window with most evidence of drift."""
    calm = Summary({"ok": 1}, {PRE: PointSummary(0.4, 0.01)}, baseline="old", dropped_rows=1, errors={"sink": 1}, hook_seconds=0.5, blind=1)
    worst = Summary(
        {"ticket": 1},
        {PRE: PointSummary(2.0, 0.3, "ticket", 3)},
        ("act",),
        "model",
        "weights",
        "act",
        "new",
        2,
        0.25,
        1.0,
        2.0,
        3,
        {"sink": 2},
    )
    after = Summary({"ticket": 1}, {PRE: PointSummary(1.5, 0.5, "ticket"), ("b", "pre"): PointSummary(1.0)}, ("b",), "traffic", "texts")
    merged = history.merge([span(np.ones((1, 1)), n, summary=each) for n, each in enumerate((calm, worst, after))], "hour").summary
    assert {"ok": 1, "ticket": 2} == merged.verdicts
    assert {PRE: PointSummary(2.0, 0.5, "ticket", 3), ("b", "pre"): PointSummary(1.0)} == merged.points
    assert (("act",), "model", "weights") == (merged.drifting, merged.scope, merged.cause)
    assert ("act", "new", 2, 4, {"sink": 3}) == (
        merged.first_nonfinite,
        merged.baseline,
        merged.nonfinite_forwards,
        merged.dropped_rows,
        merged.errors,
    )
    assert (0.75, 1.0, 2.0, 1) == (merged.hook_seconds, merged.flush_seconds, merged.forward_seconds, merged.blind)


def test_the_source_is_told_where_it_is_one() -> None:
    """Windows of one process keep its name; of several, none."""
    spans = [span(np.ones((1, 1)), number, source=source) for number, source in enumerate(("a:1", "a:1", "b:1"))]
    assert "a:1" == history.merge(spans[:2], "hour").source
    assert "" == history.merge(spans, "hour").source


def report(windows: int, **totals: Any) -> Report:
    """Return a report of a site that is judged, one that is not, and a blind one."""
    sites = {
        PRE: PointReport("act", "pre", 0, "observed", evidence=1.5, ks=0.2, alarm="ticket"),
        ("act", "post"): PointReport("act", "post", 0, "observed"),
        ("b", "pre"): PointReport("b", "pre", 1, "blind"),
        ("b", "post"): PointReport("b", "post", 1, "blind"),
    }
    counted = Totals(windows=windows, **totals)
    return Report("m", "2", 60.0, "ticket", sites, drifting=("act",), scope="model", cause="weights", baseline="v1", totals=counted)  # type: ignore[arg-type]


def test_a_window_is_kept_with_what_its_report_said() -> None:
    """A summary holds what was judged of each observed point, 0 where nothing was, and what was counted since the window before."""
    before = Totals(windows=4, nonfinite_forwards=1, dropped_rows=5, hook_seconds=1.0, errors={"sink": 1}, traffic=Traffic(seconds=10.0))
    now = report(5, nonfinite_forwards=3, dropped_rows=5, hook_seconds=1.5, errors={"sink": 1, "rows": 2}, traffic=Traffic(seconds=12.0))
    window = span(np.ones((1, 1)), nonfinite={"act": Nonfinite(2, 2, 0, {("pre", "nan"): 4, ("post", "nan"): 9})}).window
    kept = history.observed(window, now, before, "host:1")
    assert ("m", "2", "raw", "host:1", 1) == (kept.model, kept.model_version, kept.resolution, kept.source, kept.windows)
    assert window is kept.window
    expected = {PRE: PointSummary(1.5, 0.2, "ticket", 4), ("act", "post"): PointSummary(0.0, 0.0, "", 9)}
    assert Summary({"ticket": 1}, expected, ("act",), "model", "weights", None, "v1", 2, 0.5, 0.0, 2.0, 0, {"rows": 2}, 1) == kept.summary


def test_what_was_judged_earlier_is_not_said_of_a_window_without_values() -> None:
    """A point that saw nothing keeps its alarm, and has no evidence: what the report still holds is of an earlier window."""
    window = replace(span(np.ones((1, 1))).window, points={})
    assert PointSummary(0.0, 0.0, "ticket", 0) == history.observed(window, report(5), Totals(windows=4), "host:1").summary.points[PRE]


def test_a_probe_knows_better_where_drift_comes_from() -> None:
    """Where a probe has told data from model, that is kept as the scope; else what the layers suggest."""
    window = span(np.ones((1, 1))).window
    for origin, scope in (("data", "traffic"), ("model", "model"), ("unknown", "model"), ("", "model")):
        told = replace(report(5), origin=origin)  # type: ignore[arg-type]  # one of the literals
        assert scope == history.observed(window, told, Totals(windows=4), "host:1").summary.scope


def test_counters_of_another_start_do_not_count() -> None:
    """In a forked child counters begin anew, as the number of windows tells: nothing is subtracted from them."""
    now = report(1, dropped_rows=2)
    assert 2 == history.observed(span(np.ones((1, 1))).window, now, Totals(windows=7, dropped_rows=50), "host:2").summary.dropped_rows


def test_an_idle_window_says_nothing_of_what_was_judged_before() -> None:
    """It comes with the last report, whose verdict, alarms and counters are those of an earlier window, and counts none of them again."""
    before = report(5, nonfinite_forwards=3, hook_seconds=2.0).totals
    idle = history.observed(Window(60.0, 120.0, 0, 0, {}), report(5, nonfinite_forwards=3, hook_seconds=2.5), before, "host:1").summary
    assert Summary({}, {}, (), "", "", None, "v1", 0, 0.5, blind=1) == idle


def test_windows_of_no_rows_merge() -> None:
    """Points without values or channels, as a stalled model gives them, are merged like any other."""
    nothing = PointWindow(histogram.empty(), Moments(0, np.zeros(4), np.zeros(4)))
    spans = [
        replace(span(np.ones((1, 4)), n), window=Window(60.0 * n, 60.0 * n + 60.0, 0, 0, {PRE: nothing} if n else {})) for n in range(3)
    ]
    merged = history.merge(spans, "hour").window
    assert (180.0, 0, 0) == (merged.ended, merged.points[PRE].histogram.finite, merged.points[PRE].moments.rows)
