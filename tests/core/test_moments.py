"""Channel moments: merged parts equal numpy over all rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geluwatch.core import moments
from geluwatch.errors import LatticeError


def assert_close(rows: np.ndarray, found: moments.Moments) -> None:
    """Compare with numpy over all rows, in float64."""
    exact = rows.astype(np.float64)
    size = np.abs(exact).max(axis=0) + 1e-300
    assert len(rows) == found.rows
    assert np.allclose(exact.mean(axis=0), found.mean, rtol=1e-10, atol=1e-14 * size.max())
    assert np.allclose(np.square(exact - exact.mean(axis=0)).sum(axis=0), found.m2, rtol=1e-10, atol=1e-24 * np.square(size).max())


@given(cuts=st.lists(st.integers(0, 400), max_size=8), seed=st.integers(0, 2**31), offset=st.sampled_from([0.0, 3.0, -1e4]))
def test_parts_merge_to_the_moments_of_all_rows(cuts: list[int], seed: int, offset: float) -> None:
    """Cut anywhere, into empty parts too and far from zero, the merge equals numpy's two passes to 1e-10."""
    rows = (np.random.default_rng(seed).normal(offset, 2.0, (400, 5))).astype(np.float32)
    parts = [moments.from_rows(part) for part in np.split(rows, sorted(cuts))]
    assert_close(rows, moments.merge(parts))
    assert_close(rows, moments.merge(reversed(parts)))


@given(sizes=st.lists(st.integers(1, 50), min_size=3, max_size=3), seed=st.integers(0, 2**31))
def test_merging_is_associative(sizes: list[int], seed: int) -> None:
    """Grouping changes the last bits only."""
    rng = np.random.default_rng(seed)
    a, b, c = (moments.from_rows(rng.normal(0, 1, (size, 4)).astype(np.float32)) for size in sizes)
    left, right = moments.merge([moments.merge([a, b]), c]), moments.merge([a, moments.merge([b, c])])
    assert left.rows == right.rows
    assert left.mean == pytest.approx(right.mean, rel=1e-10, abs=1e-12)
    assert left.m2 == pytest.approx(right.m2, rel=1e-10, abs=1e-12)


def test_no_rows_are_the_identity() -> None:
    """Merging with the moments of no rows changes nothing."""
    seen = moments.from_rows(np.arange(12, dtype=np.float32).reshape(4, 3))
    for merged in (moments.merge([moments.empty(3), seen]), moments.merge([seen, moments.empty(3)])):
        assert (seen.rows, seen.mean.tolist(), seen.m2.tolist()) == (merged.rows, merged.mean.tolist(), merged.m2.tolist())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_with_a_non_finite_value_are_left_out_whole(bad: float) -> None:
    """One bad channel drops its row from all channels, so that the rows stay the same for each."""
    rows = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    spoilt = rows.copy()
    spoilt[[3, 17], [0, 2]] = bad
    assert_close(np.delete(rows, [3, 17], axis=0), moments.from_rows(spoilt))


def test_rows_that_are_all_non_finite_leave_no_rows() -> None:
    """Nothing finite gives no rows, no variance, and NaN for the pooled figures."""
    seen = moments.from_rows(np.full((4, 3), np.nan, np.float32))
    assert (0, [0.0] * 3) == (seen.rows, moments.variance(seen).tolist())
    assert all(math.isnan(figure) for figure in moments.pooled(seen))


def test_other_widths_are_refused() -> None:
    """Moments of 3 and 4 channels have nothing in common, even where one has no rows."""
    with pytest.raises(LatticeError, match="Cannot merge moments of 3 and 4 channels"):
        moments.merge([moments.from_rows(np.ones((2, 3))), moments.empty(4)])
    with pytest.raises(LatticeError, match="no part"):
        moments.merge([])


@given(seed=st.integers(0, 2**31), rows=st.integers(1, 60), channels=st.integers(1, 9))
def test_pooled_figures_are_numpy_s_over_all_elements(seed: int, rows: int, channels: int) -> None:
    """Mean and standard deviation over rows and channels together, from the channel moments alone."""
    rng = np.random.default_rng(seed)
    values = rng.normal(rng.normal(0, 3, channels), rng.uniform(0.1, 2, channels), (rows, channels)).astype(np.float32)
    exact = values.astype(np.float64)
    mean, std = moments.pooled(moments.from_rows(values))
    assert mean == pytest.approx(exact.mean(), rel=1e-10, abs=1e-12)
    assert std == pytest.approx(exact.std(), rel=1e-10, abs=1e-12)


def test_variance_is_the_population_s() -> None:
    """The variance divides by the number of rows, as numpy's var does."""
    rows = np.random.default_rng(1).normal(size=(37, 4))
    assert moments.variance(moments.from_rows(rows)) == pytest.approx(rows.var(axis=0), rel=1e-10)


def test_float32_rows_far_from_zero_keep_their_spread() -> None:
    """A spread a ten-thousandth of the level survives, for sums run in float64 around the mean."""
    rows = (np.random.default_rng(2).normal(size=(4096, 2)) + 1e4).astype(np.float32)
    assert_close(rows, moments.from_rows(rows))
