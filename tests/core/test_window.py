"""Windows: what is folded bit by bit equals what is counted at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geluwatch.core import gross, histogram, lattice
from geluwatch.core.window import COUNTED_CHANNELS, WindowBuilder, merge_nonfinite, merge_points, observe, observe_rows
from geluwatch.records import Drained, Nonfinite, PointWindow, Rows

LAYER = "encoder.0.act"


def batch(values: np.ndarray, layer: str = LAYER, dtype: str = "float32") -> Rows:
    """Paired rows whose post side is the pre side's positive part."""
    return Rows(layer, dtype, values, np.maximum(values, 0))


def fold(builder: WindowBuilder, drained: Drained) -> None:
    """Give a builder one batch, as the monitor does."""
    fitting = builder.fitting(drained)
    builder.add(fitting)
    builder.gather(observe_rows(fitting.rows))


def assert_same(expected: PointWindow, found: PointWindow) -> None:
    """Counts exactly, moments and sums to rounding."""
    left, right = expected.histogram, found.histogram
    assert (left.bits, left.cells.tolist(), left.counts.tolist()) == (right.bits, right.cells.tolist(), right.counts.tolist())
    assert (left.nan, left.posinf, left.neginf) == (right.nan, right.posinf, right.neginf)
    assert expected.moments.rows == found.moments.rows
    assert expected.moments.mean == pytest.approx(found.moments.mean, rel=1e-10, abs=1e-12)
    assert expected.moments.m2 == pytest.approx(found.moments.m2, rel=1e-10, abs=1e-12)
    assert expected.abs_sum_pos == pytest.approx(found.abs_sum_pos, rel=1e-12)
    assert expected.abs_sum_neg == pytest.approx(found.abs_sum_neg, rel=1e-12)
    assert expected.squares == pytest.approx(found.squares, rel=1e-12)


@given(values=hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.floats(width=32)))
def test_sums_are_those_of_the_finite_values(values: np.ndarray) -> None:
    """Sums of either sign and of squares match exact summation, are never negative, and leave NaN and Inf out."""
    seen = observe(values, "float32")
    finite = [float(value) for value in values[np.isfinite(values)]]
    assert seen.abs_sum_pos == pytest.approx(math.fsum(v for v in finite if v > 0), rel=1e-12)
    assert seen.abs_sum_neg == pytest.approx(math.fsum(-v for v in finite if v < 0), rel=1e-12)
    assert seen.squares == pytest.approx(math.fsum(v * v for v in finite), rel=1e-12)
    assert math.copysign(1.0, seen.abs_sum_pos) == math.copysign(1.0, seen.abs_sum_neg) == 1.0


def test_a_small_side_is_not_lost_beside_a_large_one() -> None:
    """The negative sum is summed on its own, not as the difference of two large sums."""
    values = np.concatenate([np.full(1000, 1e8), [-1e-6]]).astype(np.float32).reshape(-1, 1)
    assert observe(values, "float32").abs_sum_neg == pytest.approx(1e-6, rel=1e-6)


def test_strided_rows_are_observed_like_contiguous_ones() -> None:
    """A view of every other row and channel gives what its copy gives."""
    values = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    assert_same(observe(values[::2, 1::2].copy(), "float32"), observe(values[::2, 1::2], "float32"))


def wide(rows: int, width: int) -> np.ndarray:
    """Rows (rows, width) of which each holds its number, from 1 on."""
    return np.repeat(np.arange(1, rows + 1, dtype=np.float32)[:, None], width, axis=1)


def numbers(seen: PointWindow) -> np.ndarray:
    """The numbers of the rows that were counted whole; ends of batches are single values."""
    values = lattice.lower_edges(seen.histogram.cells, seen.histogram.bits)
    return values[seen.histogram.counts > 1000]


@given(rows=st.integers(1, 250), width=st.sampled_from([1025, 1536, 3072, 11008]), before=st.integers(0, 10**6))
def test_of_wide_layers_as_many_values_are_counted_as_of_narrow_ones(rows: int, width: int, before: int) -> None:
    """The moments are of every row; the histogram and the sums are of the same part of them, and of the two ends."""
    values = wide(rows, width)
    seen = observe(values, "float32", before)
    whole = numbers(seen)
    ends = [end for end in {1.0, float(rows)} if end not in whole]
    assert (rows, [(rows + 1) / 2]) == (seen.moments.rows, pytest.approx(np.unique(seen.moments.mean)))
    assert whole.size == pytest.approx(rows * COUNTED_CHANNELS / width, abs=2.7)  # 2 2/3 at most, wherever the rows begin
    assert seen.histogram.finite == whole.size * width + len(ends)
    assert seen.abs_sum_pos == pytest.approx(width * whole.sum() + sum(ends), rel=1e-12)
    assert seen.squares == pytest.approx(width * np.square(whole).sum() + sum(end * end for end in ends), rel=1e-12)


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_the_same_rows_of_a_window_are_counted_however_they_come_in(sizes: list[int]) -> None:
    """A row is counted for its number in the window, before a GELU and after it alike, whatever the batches."""
    values = wide(sum(sizes), 3072)
    at_once = set(numbers(observe(values, "float32")))
    builder = WindowBuilder(0.0)
    for part in np.split(values, np.cumsum(sizes)[:-1]):
        builder.gather(observe_rows([batch(part)], builder.rows))
    window = builder.close(60.0, [LAYER])
    assert at_once == set(numbers(window.points[LAYER, "pre"])) == set(numbers(window.points[LAYER, "post"]))


def test_a_single_value_far_out_is_counted_wherever_it_is() -> None:
    """The smallest and the largest finite value are always among those counted, also beside NaN and Inf."""
    rng = np.random.default_rng(0)
    for turn in range(50):
        values = rng.normal(size=(20, 3072)).astype(np.float32)
        values[turn % 20, 7], values[(turn + 9) % 20, 1500] = -1e4, 6e4
        if turn % 2:
            values[(turn + 5) % 20, 3], values[(turn + 6) % 20, 3] = np.nan, -np.inf
        assert (-9984.0, 59904.0) == gross.extremes(observe(values, "float32", turn).histogram)
    assert 0 == observe(np.full((3, 3072), np.nan, np.float32), "float32", 1).histogram.finite


@pytest.mark.parametrize("period", [2, 3, 8, 16, 34, 55, 64])
def test_no_place_in_a_pass_is_counted_more_than_others(period: int) -> None:
    """Of a hundred passes of one length every place is counted in about a third, about as evenly as chance would have it."""
    seen = observe(np.tile(wide(period, 3072), (100, 1)), "float32").histogram
    assert seen.counts / 3072 == pytest.approx(np.full(period, 100 * COUNTED_CHANNELS / 3072), abs=18)


@given(sizes=st.lists(st.integers(0, 90), min_size=1, max_size=25), seed=st.integers(0, 2**31))
def test_folding_in_pairs_equals_merging_at_once(sizes: list[int], seed: int) -> None:
    """However traffic comes in, the window's counts are exact and its moments close."""
    rng = np.random.default_rng(seed)
    builder, parts = WindowBuilder(0.0), []
    for size in sizes:
        values = rng.normal(0, 1, (size, 3)).astype(np.float32)
        values[rng.random((size, 3)) < 0.02] = np.nan
        parts.append(values)
        fold(builder, Drained(forwards=1, sampled_forwards=1, rows=(batch(values),)))
    everything = observe(np.concatenate(parts), "float32")
    assert everything.moments.rows == builder.rows((LAYER, "pre"))
    window = builder.close(9.0, [LAYER])
    assert_same(everything, window.points[LAYER, "pre"])
    assert_same(merge_points([observe(part, "float32") for part in parts]), window.points[LAYER, "pre"])


def test_a_long_window_holds_few_parts() -> None:
    """A thousand flushes leave at most a dozen parts a point, so that memory does not follow the window's length."""
    builder = WindowBuilder(0.0)
    for _ in range(1000):
        fold(builder, Drained(forwards=1, sampled_forwards=1, rows=(batch(np.ones((4, 2), np.float32)),)))
    assert max(len(parts) for parts in builder._points.values()) <= 12
    assert builder.close(1.0, [LAYER]).points[LAYER, "pre"].histogram.finite == 8000


def test_rows_of_one_layer_are_counted_in_one_go_whatever_their_dtype() -> None:
    """Two batches of one dtype and one of another add up to the coarser resolution."""
    rng = np.random.default_rng(1)
    halves = [rng.normal(size=(5, 3)).astype(np.float16).astype(np.float32) for _ in range(2)]
    single = rng.normal(size=(7, 3)).astype(np.float32)
    found = observe_rows([batch(halves[0], dtype="float16"), batch(single), batch(halves[1], dtype="float16")])
    assert {(LAYER, "pre"), (LAYER, "post")} == set(found)
    expected = histogram.from_values(np.concatenate([*halves, single]))
    assert expected.counts.tolist() == found[LAYER, "pre"].histogram.counts.tolist()
    assert found[LAYER, "pre"].moments.rows == 17


def test_observing_leaves_its_rows_alone() -> None:
    """The captured arrays are read only."""
    values = np.random.default_rng(2).normal(size=(40, 3)).astype(np.float32)
    values.setflags(write=False)
    observe(values, "float16")


def test_nonfinite_counts_add_up_layer_by_layer() -> None:
    """Passes, firsts, padding and elements by kind are added; layers on one side only are kept; arguments are untouched."""
    left = {"a": Nonfinite(2, 1, 0, {("pre", "nan"): 5})}
    right = {"a": Nonfinite(1, 1, 4, {("pre", "nan"): 1, ("post", "posinf"): 2}), "b": Nonfinite(0, 0, 3)}
    merged = merge_nonfinite(left, right)
    assert {"a": Nonfinite(3, 2, 4, {("pre", "nan"): 6, ("post", "posinf"): 2}), "b": Nonfinite(0, 0, 3)} == merged
    assert {"a": Nonfinite(2, 1, 0, {("pre", "nan"): 5})} == left
    assert merge_nonfinite(merge_nonfinite({}, left), right) == merged


def test_the_first_nonfinite_layer_of_a_window_is_the_earliest() -> None:
    """A later batch does not take the name away."""
    builder = WindowBuilder(0.0)
    for first in (None, "b", "a"):
        builder.add(Drained(forwards=1, first_nonfinite=first))
    assert builder.close(1.0, []).first_nonfinite == "b"


def test_sites_that_stay_silent_while_others_are_sampled_are_named() -> None:
    """A site without rows is blind in a window that captured some, not in one that captured none or saw no traffic."""
    builder = WindowBuilder(0.0)
    fold(builder, Drained(forwards=3, sampled_forwards=1, rows=(batch(np.ones((2, 2), np.float32)),)))
    assert builder.close(1.0, [LAYER, "silent"]).blind == ("silent",)
    unsampled = WindowBuilder(0.0)
    unsampled.add(Drained(forwards=3))
    assert unsampled.close(1.0, [LAYER, "silent"]).blind == ()


@pytest.mark.parametrize(
    ("drained", "clean"),
    [
        (Drained(forwards=1), True),
        (Drained(forwards=1, dropped_rows=1), False),
        (Drained(forwards=1, disabled=("rows",)), False),
        (Drained(forwards=1, first_nonfinite="a", nonfinite={"a": Nonfinite(1, 1)}), False),
        (Drained(forwards=1, nonfinite={"a": Nonfinite(padding_forwards=1)}), True),
    ],
)
def test_a_window_is_clean_unless_something_is_wrong_with_it(drained: Drained, clean: bool) -> None:
    """Dropped rows, a part switched off and a non-finite value spoil a window for baselines; bad padding does not."""
    builder = WindowBuilder(0.0)
    builder.add(drained)
    assert clean == builder.close(1.0, []).clean


def test_a_layer_that_changes_its_width_loses_rows_not_the_window() -> None:
    """Rows of another width are dropped and counted, the window closes all the same, and other layers keep theirs."""
    builder = WindowBuilder(0.0)
    fold(builder, Drained(forwards=1, sampled_forwards=1, rows=(batch(np.ones((4, 3), np.float32)),)))
    mixed = (batch(np.ones((5, 2), np.float32)), batch(np.ones((6, 7), np.float32), "other"), batch(np.ones((2, 3), np.float32)))
    assert builder.fitting(Drained(rows=mixed, dropped_rows=1)).dropped_rows == 6
    fold(builder, Drained(forwards=1, sampled_forwards=1, rows=mixed))
    window = builder.close(1.0, [LAYER, "other"])
    assert (6, 6) == (window.points[LAYER, "pre"].moments.rows, window.points["other", "post"].moments.rows)
    assert window.thinned
