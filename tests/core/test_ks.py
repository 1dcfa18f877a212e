"""The KS interval: certain to hold scipy's exact statistic, tight where it can be."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtr

from geluwatch.core import histogram, ks, lattice
from geluwatch.records import Histogram

Draw = Callable[[np.random.Generator, int], np.ndarray]

SHAPES: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(rng.normal(0, 0.2), rng.uniform(0.8, 1.3), n),
    "gelu": lambda rng, n: (x := rng.normal(rng.normal(-0.5, 0.2), 1, n)) * ndtr(x),
    "laplace": lambda rng, n: rng.laplace(0, 1, n),
    "cauchy": lambda rng, n: np.clip(rng.standard_cauchy(n), -1e30, 1e30),
    "tiny": lambda rng, n: rng.normal(0, 1e-41, n),
    "ties": lambda rng, n: rng.integers(-3, 4, n) / 4,
    "constant": lambda rng, n: np.full(n, rng.choice([0.0, -0.0, 0.1, -2.5])),
    "atom at zero": lambda rng, n: np.where(rng.random(n) < 0.4, 0.0, rng.normal(0, 1, n)),
    "point masses": lambda rng, n: rng.choice(np.array([-1.1, -0.17, 0.0, 0.3, 7.7]), n),
    "one cell": lambda rng, n: rng.uniform(1.0, 1.0078, n),
    "infinities": lambda rng, n: rng.choice(np.array([-np.inf, np.inf, 0.5, -0.5]), n, p=[0.1, 0.2, 0.3, 0.4]),
    "point mass and tail": lambda rng, n: np.where(rng.random(n) < 0.3, 0.0, rng.standard_t(2, n)),
    "gelu of a heavy tail": lambda rng, n: (x := rng.standard_t(3, n)) * ndtr(x),
    "overflowing": lambda rng, n: np.where(rng.random(n) < 0.05, np.inf, rng.normal(0, 1, n)),
}


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Values cut to bfloat16, as float32."""
    return (values.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def to_float16(values: np.ndarray) -> np.ndarray:
    """Values rounded to float16, clipped into its range, as float32."""
    finite = np.isfinite(values)
    return np.clip(values, -6e4, 6e4, where=finite, out=values.copy()).astype(np.float16).astype(np.float32)


def pairs(seed: int, count: int, round_to: Callable[[np.ndarray], np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of samples: every shape against itself and against the others, sizes from 1 to thousands."""
    rng = np.random.default_rng(seed)
    names = list(SHAPES)
    drawn = []
    for k in range(count):
        left = names[k % len(names)]
        right = left if rng.random() < 0.5 else names[int(rng.integers(len(names)))]
        sizes = np.exp(rng.uniform(0, math.log(3000), 2)).astype(int)
        drawn.append((round_to(SHAPES[left](rng, int(sizes[0]))), round_to(SHAPES[right](rng, int(sizes[1])))))
    return drawn


def exact(left: np.ndarray, right: np.ndarray) -> float:
    """Scipy's two-sample statistic of the values themselves."""
    with np.errstate(divide="ignore"):  # its p-value, which nobody asked for, divides by zero on tiny samples
        return float(stats.ks_2samp(left, right, method="asymp").statistic)


def largest_shared_cell(left: Histogram, right: Histogram) -> float:
    """Max over cells of the smaller of the two shares."""
    p = dict(zip(left.cells.tolist(), (left.counts / (left.finite + left.posinf + left.neginf)).tolist(), strict=True))
    q = dict(zip(right.cells.tolist(), (right.counts / (right.finite + right.posinf + right.neginf)).tolist(), strict=True))
    return max((min(share, q[cell]) for cell, share in p.items() if cell in q), default=0.0)


def test_the_interval_holds_scipy_s_statistic_on_ten_thousand_float32_pairs() -> None:
    """Never once outside, no wider than the largest share of a cell both hold, and in the median at most .002 wide."""
    widths = []
    for k, (left, right) in enumerate(pairs(11, 10_000, lambda values: values.astype(np.float32))):
        a, b = histogram.from_values(left), histogram.from_values(right)
        found = ks.distance(a, b)
        assert found.lower - 1e-12 <= exact(left, right) <= found.upper + 1e-12
        widths.append(found.upper - found.lower)
        if k % 20 == 0:
            assert found == ks.distance(b, a)
            assert found.upper <= found.lower + largest_shared_cell(a, b) + 1e-12
    assert np.median(widths) <= 0.002


@pytest.mark.parametrize(("dtype", "round_to"), [("bfloat16", to_bfloat16), ("float16", to_float16)])
def test_low_precision_distance_equals_scipy_s_on_ten_thousand_pairs(dtype: str, round_to: Callable[[np.ndarray], np.ndarray]) -> None:
    """For bfloat16 and float16 both ends are the exact statistic of the full data."""
    for left, right in pairs(12, 10_000, round_to):
        found = ks.distance(histogram.from_values(left, dtype), histogram.from_values(right, dtype))
        assert abs(exact(left, right) - found.lower) <= 1e-12
        assert found.lower == found.upper


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_bounded_histograms_still_hold_the_exact_statistic(dtype: str) -> None:
    """With either side coarsened to a random floor or base the exact statistic stays inside; an old 16-bit side changes nothing."""
    round_to = {"bfloat16": to_bfloat16, "float16": to_float16}.get(dtype, lambda values: values.astype(np.float32))
    rng = np.random.default_rng(18)
    for left, right in pairs(19, 500, round_to):
        a, b = histogram.from_values(left, dtype), histogram.from_values(right, dtype)
        bases = lattice.split(a.bits)[0], 16
        coarse = histogram.coarsen(b, lattice.compose(bases[int(rng.integers(2))], int(rng.choice([0, 110, 119, 124, 128, 255]))))
        for found in (ks.distance(a, coarse), ks.distance(coarse, a), ks.distance(coarse, histogram.coarsen(a))):
            assert found.lower - 1e-12 <= exact(left, right) <= found.upper + 1e-12


def test_mixed_precision_still_holds_the_exact_statistic() -> None:
    """A float16 window against a float32 baseline, or a bfloat16 one, is bounded on both sides."""
    rng = np.random.default_rng(13)
    single = rng.normal(0, 1, 3000).astype(np.float32)
    for dtype, round_to in (("float16", to_float16), ("bfloat16", to_bfloat16)):
        low = round_to(rng.normal(0.1, 1, 2000))
        found = ks.distance(histogram.from_values(low, dtype), histogram.from_values(single))
        assert found.lower <= exact(low, single) <= found.upper


def test_a_dtype_that_overpromises_does_not_break_the_certificate() -> None:
    """Float32 values said to be bfloat16 are still bounded, where believing it would claim distance zero."""
    rng = np.random.default_rng(14)
    left, right = (rng.uniform(low, low + 0.003, 500).astype(np.float32) for low in (1.0, 1.004))
    found = ks.distance(histogram.from_values(left, "bfloat16"), histogram.from_values(right, "bfloat16"))
    assert exact(left, right) == 1.0
    assert found.lower <= 1.0 <= found.upper


@pytest.mark.parametrize("shape", list(SHAPES))
def test_a_sample_is_at_distance_zero_from_itself(shape: str) -> None:
    """The lower end is 0 for float32 and the whole interval for bfloat16."""
    values = SHAPES[shape](np.random.default_rng(15), 800)
    single, low = histogram.from_values(values.astype(np.float32)), histogram.from_values(to_bfloat16(values), "bfloat16")
    assert ks.distance(single, single).lower == 0.0
    assert ks.distance(low, low) == (0.0, 0.0)


def test_exact_zeros_do_not_widen_the_interval() -> None:
    """With four values in ten exactly zero, the interval is as narrow as without them: a zero is a point, not a range."""
    rng = np.random.default_rng(16)
    left, right = (histogram.from_values(SHAPES["atom at zero"](rng, 20_000).astype(np.float32)) for _ in range(2))
    found = ks.distance(left, right)
    assert found.upper - found.lower < 0.003


@pytest.mark.parametrize(("shape", "most"), [("pre", 0.002), ("post", 0.004)])
@pytest.mark.parametrize("level", [0.0, -0.5, -0.8])
def test_the_interval_of_calm_activations_is_narrow(shape: str, most: float, level: float) -> None:
    """Over 60 pairs of 2,000 to 20,000 float32 values of one distribution, before a GELU or after it, however centred."""
    rng = np.random.default_rng(17)
    widths = []
    for _ in range(60):
        drawn = [rng.normal(level, 1, int(rng.integers(2000, 20_000))) for _ in range(2)]
        a, b = (histogram.from_values((x if shape == "pre" else x * ndtr(x)).astype(np.float32)) for x in drawn)
        found = ks.distance(a, b)
        widths.append(found.upper - found.lower)
    assert np.median(widths) <= most


def test_nothing_is_at_no_distance_from_anything() -> None:
    """Where a side holds no value but NaN, both ends are NaN."""
    one = histogram.from_values([1.0])
    for empty in (histogram.empty(), histogram.from_values([float("nan")])):
        assert all(math.isnan(end) for end in ks.distance(one, empty))
        assert all(math.isnan(end) for end in ks.distance(empty, one))


def test_infinities_are_points_at_the_ends() -> None:
    """A third of +Inf on one side only is a distance of a third."""
    left, right = np.array([0.0, 0.5, np.inf], np.float32), np.array([0.0, 0.5, 0.5], np.float32)
    assert ks.distance(histogram.from_values(left), histogram.from_values(right)).lower == pytest.approx(1 / 3)


def test_nan_is_left_out() -> None:
    """NaN values change nothing about the distance of the others."""
    left, right = [0.0, 1.0, 2.0], [0.5, 1.0]
    expected = ks.distance(histogram.from_values(left), histogram.from_values(right))
    assert expected == ks.distance(histogram.from_values([*left, float("nan")]), histogram.from_values(right))
