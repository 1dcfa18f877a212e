"""Combs: rounding is told by the bits it keeps, and calm samples show none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from geluwatch.core import comb, histogram, lattice
from geluwatch.records import Histogram


def keep(significant: int) -> Callable[[np.ndarray], np.ndarray]:
    """A rounding to so many significant bits."""

    def cast(values: np.ndarray) -> np.ndarray:
        step = np.exp2(np.floor(np.log2(np.abs(values))) + 1 - significant)
        return np.round(values / step) * step

    return cast


@pytest.mark.parametrize("significant", [3, 4, 5, 7, 8, 11])
@pytest.mark.parametrize("size", [20_000, 200_000])
def test_a_comb_tells_the_precision(significant: int, size: int) -> None:
    """Values of fp8, bfloat16, float16 and others in float32 tensors are told apart by the bits that they keep."""
    rng = np.random.default_rng(8)
    then, now = (rng.normal(0, 1, count) for count in (100_000, size))
    found = comb.coarser_grid(histogram.from_values(then), histogram.from_values(keep(significant)(now)))
    assert found is not None
    assert (significant, 1.0) == (found.significant, found.share)
    assert found.expected < 0.7


@pytest.mark.parametrize(("significant", "like"), [(3, "fp8 e5m2"), (4, "fp8 e4m3"), (8, "bfloat16"), (11, "float16")])
def test_known_formats_are_named(significant: int, like: str) -> None:
    """The format with so many significant bits is in the words."""
    rng = np.random.default_rng(9)
    then, now = (rng.normal(0, 1, 100_000) for _ in range(2))
    found = comb.coarser_grid(histogram.from_values(then), histogram.from_values(keep(significant)(now)))
    assert found is not None
    assert found.like == f" (as {like} does)"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("size", [0, 10, 1000, 100_000])
def test_calm_values_show_no_comb(dtype: str, size: int) -> None:
    """Few values or many, a second sample of one distribution lies on no coarser grid."""
    rng = np.random.default_rng(9)
    then, now = (histogram.from_values(rng.normal(0, 1, count).astype(np.float16), dtype) for count in (100_000, size))
    assert comb.coarser_grid(then, now) is None


def test_even_levels_are_a_grid_without_a_number_of_bits() -> None:
    """Values on 255 even levels fill few of the baseline's cells."""
    rng = np.random.default_rng(10)
    then, now = (rng.normal(0, 1, 100_000) for _ in range(2))
    found = comb.coarser_grid(histogram.from_values(then), histogram.from_values(np.round(now * 30) / 30))
    assert found is not None
    assert found.significant == 0
    assert found.expected < 0.5


@pytest.mark.parametrize("bits", [lattice.COARSE_BITS, lattice.compose(16, 124), lattice.compose(16, 130), lattice.compose(16, 255)])
def test_a_bounded_histogram_is_not_taken_for_a_comb(bits: int) -> None:
    """Coarser cells on either side are no rounding of the values."""
    rng = np.random.default_rng(11)
    then, now = (histogram.from_values(rng.normal(0, 1, 100_000)) for _ in range(2))
    assert comb.coarser_grid(then, histogram.coarsen(now, bits)) is None
    assert comb.coarser_grid(histogram.coarsen(then, bits), now) is None


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("size", [64, 2_000, 50_000])
def test_values_that_fell_on_a_grid_are_told_from_calm_ones(dtype: str, size: int) -> None:
    """The quick look at the cells filled lets fp8 through and stops calm windows, of many values or of few rows over and over."""
    rng = np.random.default_rng(11)

    def counted(values: np.ndarray) -> Histogram:
        cast = torch.from_numpy(values.astype(np.float32)).to(getattr(torch, dtype)).float().numpy()
        return histogram.from_values(cast, dtype)

    then = counted(rng.normal(0, 1, 200_000))
    filled = comb.filling(then)
    few = np.repeat(rng.normal(0, 1, max(size // 64, 8)), 64)
    for calm in (rng.normal(0, 1, size), rng.normal(0.3, 1.2, size), few, np.round(few * 30) / 30):
        assert comb.fallen(then, filled, counted(calm)) is None
    found = comb.fallen(then, filled, counted(keep(4)(rng.normal(0, 1, max(size, 2_000)))))
    assert found is not None
    assert found.significant == 4


def test_a_baseline_without_values_says_nothing_of_a_grid() -> None:
    """Neither an empty baseline nor an empty window is compared."""
    empty, some = histogram.empty(), histogram.from_values(np.arange(100.0))
    assert comb.fallen(empty, comb.filling(empty), some) is None
    assert comb.fallen(some, comb.filling(some), empty) is None
