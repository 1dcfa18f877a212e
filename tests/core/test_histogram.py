"""Laws of histograms: exact in any order, reversible, and equal to counting by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import ndtr

from geluwatch.catalog import FULL_EDGES
from geluwatch.core import histogram, lattice
from geluwatch.errors import LatticeError
from geluwatch.records import Histogram

DTYPES = ("float32", "bfloat16", "float16")

any_floats = hnp.arrays(np.float32, st.integers(0, 60), elements=st.floats(width=32))
dtypes = st.sampled_from(DTYPES)


def content(seen: Histogram) -> tuple[object, ...]:
    """What was counted, for comparison; not the mark of losslessness, which tells of provenance."""
    return seen.bits, seen.cells.tolist(), seen.counts.tolist(), seen.nan, seen.posinf, seen.neginf


def identical(left: Histogram, right: Histogram) -> bool:
    """Whether two histograms are the same to the last bit."""
    arrays = zip((left.cells, left.counts), (right.cells, right.counts), strict=True)
    same_bytes = all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in arrays)
    return same_bytes and content(left) == content(right) and left.lossless == right.lossless


def awkward(rng: np.random.Generator, size: int) -> np.ndarray:
    """Values with bucket edges, zeros of both signs, subnormals and everything non-finite among them."""
    special = np.array(
        [*FULL_EDGES["pre"], *FULL_EDGES["post"], 0.0, -0.0, 1e-42, -1e-42, np.nan, np.inf, -np.inf, 3e38, -3e38], np.float32
    )
    return np.where(rng.random(size) < 0.3, rng.choice(special, size), rng.normal(0, 2, size)).astype(np.float32)


@given(left=any_floats, right=any_floats, dtype=dtypes)
def test_counting_together_equals_merging(left: np.ndarray, right: np.ndarray, dtype: str) -> None:
    """The histogram of two samples is the merge of their histograms."""
    together = histogram.from_values(np.concatenate([left, right]), dtype)
    merged = histogram.merge([histogram.from_values(left, dtype), histogram.from_values(right, dtype)])
    if left.size + right.size:
        assert identical(together, merged)


@given(values=any_floats, dtype=dtypes)
def test_merging_with_nothing_changes_nothing(values: np.ndarray, dtype: str) -> None:
    """The empty histogram is the identity at either resolution."""
    seen = histogram.from_values(values, dtype)
    for nothing in (histogram.empty(), histogram.empty(19), histogram.from_values([], dtype)):
        expected = seen if values.size else histogram.empty()
        assert identical(expected, histogram.merge([nothing, seen]))
        assert identical(expected, histogram.merge([seen, nothing]))


def test_merging_nothing_at_all_gives_nothing() -> None:
    """No part gives the empty histogram."""
    assert identical(histogram.empty(), histogram.merge([]))


def test_64_parts_merge_bit_identically_in_any_order_and_grouping() -> None:
    """Shuffled and grouped at random twenty times, 64 workers' parts give the same bytes."""
    rng = np.random.default_rng(1)
    parts = [histogram.from_values(awkward(rng, int(rng.integers(1, 3000))), DTYPES[k % 3]) for k in range(64)]
    expected = histogram.merge(parts)
    for _ in range(20):
        heap = [parts[k] for k in rng.permutation(64)]
        while len(heap) > 1:
            taken = int(rng.integers(2, min(9, len(heap)) + 1))
            at = int(rng.integers(0, len(heap) - taken + 1))
            heap[at : at + taken] = [histogram.merge(heap[at : at + taken])]
        assert identical(expected, heap[0])


@given(left=any_floats, right=any_floats, dtype=dtypes)
def test_subtracting_a_part_leaves_the_rest(left: np.ndarray, right: np.ndarray, dtype: str) -> None:
    """What was merged can be taken out again exactly."""
    a, b = histogram.from_values(left, dtype), histogram.from_values(right, dtype)
    rest = histogram.subtract(histogram.merge([a, b]), b)
    assert (a.cells.tolist(), a.counts.tolist()) == (rest.cells.tolist(), rest.counts.tolist())
    assert (a.nan, a.posinf, a.neginf) == (rest.nan, rest.posinf, rest.neginf)


@pytest.mark.parametrize(
    ("whole", "part", "message"),
    [
        ([1.0, 2.0], [3.0], "never counted"),
        ([1.0, 2.0], [1.0, 1.0], "never counted"),
        ([1.0, 2.0], [float("nan")], "never counted"),
        ([1.0, 2.0], [float("inf")], "never counted"),
    ],
)
def test_subtracting_what_was_not_counted_is_refused(whole: list[float], part: list[float], message: str) -> None:
    """A part that the whole does not hold is refused, be it a cell, a count or a non-finite value."""
    with pytest.raises(LatticeError, match=message):
        histogram.subtract(histogram.from_values(whole), histogram.from_values(part))


def test_subtracting_across_resolutions_is_refused() -> None:
    """A fine histogram cannot be taken from a coarse one; the message says how to go on."""
    with pytest.raises(LatticeError, match="Cannot subtract a 19-bit histogram from a 16-bit one; coarsen both"):
        histogram.subtract(histogram.from_values([1.0], "bfloat16"), histogram.from_values([1.0], "float16"))


def test_no_function_changes_its_arguments() -> None:
    """Merging, subtracting, coarsening and reading leave every array as it was."""
    rng = np.random.default_rng(2)
    values = awkward(rng, 500)
    kept = values.tobytes()
    a, b = histogram.from_values(values, "float16"), histogram.from_values(values[:100], "float16")
    before = [array.tobytes() for array in (a.cells, a.counts, b.cells, b.counts)]
    whole = histogram.merge([a, b, histogram.from_values(values)])
    histogram.subtract(histogram.merge([a, b]), b)
    histogram.coarsen(a)
    histogram.bucket_counts(a, FULL_EDGES["pre"])
    assert kept == values.tobytes()
    assert before == [array.tobytes() for array in (a.cells, a.counts, b.cells, b.counts)]
    assert not any(np.shares_memory(whole.counts, part.counts) for part in (a, b))


@given(values=any_floats, dtype=dtypes)
def test_every_value_is_counted_once(values: np.ndarray, dtype: str) -> None:
    """Finite values, NaN and the infinities are told apart, and nothing is lost."""
    seen = histogram.from_values(values, dtype)
    expected = int(np.isnan(values).sum()), int(np.isposinf(values).sum()), int(np.isneginf(values).sum())
    assert expected == (seen.nan, seen.posinf, seen.neginf)
    assert int(np.isfinite(values).sum()) == seen.finite
    assert values.size == seen.finite + seen.nonfinite
    assert (np.diff(seen.cells) > 0).all()
    assert (seen.counts > 0).all()
    assert (np.dtype(np.int32), np.dtype(np.int64)) == (seen.cells.dtype, seen.counts.dtype)


def test_shapes_and_sequences_are_taken_as_they_come() -> None:
    """A scalar, a list, a strided view and a matrix count like the flat array of their values."""
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    assert content(histogram.from_values(values[::2, ::3])) == content(histogram.from_values([0.0, 3.0, 12.0, 15.0]))
    assert content(histogram.from_values(values.T)) == content(histogram.from_values(values))
    assert histogram.from_values(1.5).finite == 1


def test_losslessness_is_read_off_the_values() -> None:
    """A dtype that promises more than the values hold is not believed, and float32 values on the lattice are lossless."""
    between = np.array([0.1, 0.2], np.float32)
    assert not histogram.from_values(between, "bfloat16").lossless
    assert not histogram.from_values(between, "float16").lossless
    assert histogram.from_values(between.astype(np.float16), "float16").lossless
    assert histogram.from_values(np.array([0.5, 0.0, np.nan]), "float32").lossless


def test_mixed_resolutions_merge_to_the_common_one() -> None:
    """A float16 part merged with a float32 part equals both counted as float32 and coarsened to the lattice of both."""
    rng = np.random.default_rng(3)
    half, single = rng.normal(size=700).astype(np.float16), rng.normal(size=900).astype(np.float32)
    merged = histogram.merge([histogram.from_values(half, "float16"), histogram.from_values(single, "float32")])
    together = histogram.from_values(np.concatenate([half.astype(np.float32), single]))
    assert content(histogram.coarsen(together, lattice.FINE_BITS)) == content(merged)
    assert not merged.lossless


def test_coarsening_twice_is_coarsening_once() -> None:
    """A coarse histogram is returned as it is; a fine one is lossless no more."""
    fine = histogram.from_values(np.linspace(-1, 1, 99, dtype=np.float16), "float16")
    coarse = histogram.coarsen(fine)
    assert coarse is histogram.coarsen(coarse)
    assert (True, False) == (fine.lossless, coarse.lossless)
    assert fine.finite == coarse.finite


def by_hand(values: np.ndarray, edges: tuple[float, ...]) -> list[int]:
    """Cumulative counts by comparison."""
    return [*(int((values <= edge).sum()) for edge in edges), int((~np.isnan(values)).sum())]


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Float32 values cut to bfloat16."""
    return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def to_float16(values: np.ndarray) -> np.ndarray:
    """Values rounded to float16, clipped into its range, as float32."""
    return np.clip(values, -6e4, 6e4, where=np.isfinite(values), out=values.copy()).astype(np.float16).astype(np.float32)


@pytest.mark.parametrize("point", ["pre", "post"])
@pytest.mark.parametrize(("dtype", "cut"), [("bfloat16", to_bfloat16), ("float16", to_float16)])
def test_low_precision_buckets_are_exact(point: str, dtype: str, cut: Callable[[np.ndarray], np.ndarray]) -> None:
    """For bfloat16 and float16 every bucket is exact, with atoms on edges, zeros and infinities."""
    values = cut(awkward(np.random.default_rng(4), 20_000))
    assert by_hand(values, FULL_EDGES[point]) == list(histogram.bucket_counts(histogram.from_values(values, dtype), FULL_EDGES[point]))


@pytest.mark.parametrize("point", ["pre", "post"])
def test_float32_buckets_are_exact_but_for_atoms_on_positive_edges(point: str) -> None:
    """For float32 only values equal to a positive edge are counted one bucket late, none other."""
    values = awkward(np.random.default_rng(5), 20_000)
    edges = FULL_EDGES[point]
    late = [int((values == edge).sum()) if edge > 0 else 0 for edge in edges]
    expected = [count - moved for count, moved in zip(by_hand(values, edges), [*late, 0], strict=True)]
    assert max(late) > 0
    assert expected == list(histogram.bucket_counts(histogram.from_values(values), edges))


def test_buckets_of_nothing_are_zero() -> None:
    """An empty histogram has a zero at every edge and at +Inf."""
    assert (0,) * (len(FULL_EDGES["pre"]) + 1) == histogram.bucket_counts(histogram.empty(), FULL_EDGES["pre"])


def test_a_million_activations_take_less_than_48_kb() -> None:
    """The merged state of a million normal float32 values at one (site, point) is under 48 kB, however many merge."""
    rng = np.random.default_rng(6)
    parts = [histogram.from_values(rng.standard_normal(100_000).astype(np.float32)) for _ in range(10)]
    merged = histogram.merge(parts)
    assert merged.finite == 1_000_000
    assert merged.cells.nbytes + merged.counts.nbytes < 48_000


def wide(rng: np.random.Generator, size: int, dtype: str) -> Histogram:
    """Values over a hundred octaves, which occupy as many cells as they may."""
    values = rng.choice([-1.0, 1.0], size) * np.exp2(rng.uniform(-60, 40, size))
    return histogram.from_values(to_float16(values) if dtype == "float16" else values, dtype)


def test_a_histogram_that_fits_is_returned_as_it_is() -> None:
    """Within the cap nothing is given up."""
    seen = histogram.from_values(np.random.default_rng(8).standard_normal(100_000))
    assert seen is histogram.bounded(seen)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("most_bytes", [65_536, 40_000, 20_000])
def test_a_bounded_histogram_fits_and_keeps_every_count(dtype: str, most_bytes: int) -> None:
    """Of half a million values over a hundred octaves none is lost, the cap holds, and losslessness is not claimed."""
    seen = wide(np.random.default_rng(9), 500_000, dtype)
    kept = histogram.bounded(seen, most_bytes)
    assert seen.cells.nbytes + seen.counts.nbytes > 65_536
    assert kept.cells.nbytes + kept.counts.nbytes <= most_bytes
    assert (seen.finite, seen.nonfinite, False) == (kept.finite, kept.nonfinite, kept.lossless)
    assert identical(kept, histogram.bounded(kept, most_bytes))


def test_activations_of_every_dtype_keep_their_large_cells_when_bounded() -> None:
    """A million values before and after a GELU fit into 64 kB, with 16 bits or more kept from 1/256 on."""
    before = np.random.default_rng(10).normal(0, 1, 1_000_000)
    for values in (before, before * ndtr(before)):
        for dtype, cut in (("float32", np.float32), ("bfloat16", lambda v: to_bfloat16(v.astype(np.float32))), ("float16", to_float16)):
            kept = histogram.bounded(histogram.from_values(cut(values), dtype))
            assert lattice.split(kept.bits)[1] <= 119


def test_a_cap_below_the_coarsest_lattice_is_refused() -> None:
    """The message says what the least is."""
    with pytest.raises(LatticeError, match=r"cannot be kept to 100 bytes: \d+ is the least"):
        histogram.bounded(wide(np.random.default_rng(11), 10_000, "float32"), 100)


@given(left=any_floats, right=any_floats, dtype=dtypes, floors=st.tuples(st.integers(0, 255), st.integers(0, 255)))
def test_bounded_and_unbounded_histograms_merge_and_subtract_exactly(
    left: np.ndarray, right: np.ndarray, dtype: str, floors: tuple[int, int]
) -> None:
    """Whichever side was coarsened, the merge is that of the values on the common lattice, and subtraction undoes it."""
    a, b = histogram.from_values(left, dtype), histogram.from_values(right, dtype)
    coarse = [
        histogram.coarsen(side, lattice.compose(lattice.split(side.bits)[0], floor)) for side, floor in zip((a, b), floors, strict=True)
    ]
    for one, other in ((a, coarse[1]), (coarse[0], b), (coarse[0], coarse[1])):
        merged = histogram.merge([one, other])
        if left.size and right.size:
            assert content(histogram.coarsen(histogram.merge([a, b]), merged.bits)) == content(merged)
        rest = histogram.subtract(merged, other)
        assert content(histogram.coarsen(one, rest.bits))[1:] == content(rest)[1:]


def test_bounding_before_or_after_a_merge_agrees_on_the_common_lattice() -> None:
    """Sixty-four parts, each bounded or not at random, merge to the same bytes in any order."""
    rng = np.random.default_rng(12)
    parts = [wide(rng, int(rng.integers(1, 5000)), DTYPES[k % 3]) for k in range(64)]
    parts = [histogram.bounded(part, 20_000) if rng.random() < 0.5 else part for part in parts]
    expected = histogram.merge(parts)
    for _ in range(10):
        shuffled = [parts[k] for k in rng.permutation(64)]
        grouped = [histogram.merge(shuffled[at : at + 7]) for at in range(0, 64, 7)]
        assert identical(expected, histogram.merge(grouped))


def test_buckets_of_a_bounded_histogram_stay_exact() -> None:
    """Every published edge is a point of the coarsest lattice, so no floor moves a count across it."""
    values = np.random.default_rng(13).normal(0, 1, 50_000).astype(np.float32)
    seen = histogram.from_values(values)
    for point in FULL_EDGES:
        expected = histogram.bucket_counts(seen, FULL_EDGES[point])
        assert expected == histogram.bucket_counts(histogram.coarsen(seen, lattice.compose(16, 255)), FULL_EDGES[point])


def test_coarsening_to_a_lattice_that_holds_every_value_stays_lossless() -> None:
    """Bfloat16 values of 1/256 or more lose nothing beside float32's floor; one below it does."""
    values = np.array([1.0078125, -0.0078125, 0.0], np.float32)
    for seen, kept in ((values, True), (np.append(values, np.float32(1.0078125 * 2.0**-9)), False)):
        assert kept == histogram.coarsen(histogram.from_values(seen, "bfloat16"), lattice.SINGLE_BITS).lossless
