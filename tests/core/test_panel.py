"""The panel: exact where counts are, within its stated bound where it is not, and finite or NaN on the worst of inputs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from scipy.special import ndtr

from geluwatch.core import histogram, ks, lattice, panel
from geluwatch.core.window import merge_points, observe
from geluwatch.records import Point, PointWindow

finite = hnp.arrays(np.float32, st.tuples(st.integers(1, 30), st.just(3)), elements=st.floats(-1e6, 1e6, width=32))


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Values cut to bfloat16, as float32."""
    return (values.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def compare(then: np.ndarray, now: np.ndarray, dtype: str = "float32", point: Point = "pre") -> panel.Panel:
    """The panel of rows against rows."""
    then, now = (values.astype(np.float32) for values in (then, now))
    return panel.measure(panel.prepare(observe(then, dtype), point), observe(now, dtype))


@given(then=finite, now=finite)
def test_shares_and_moments_are_those_of_the_values(then: np.ndarray, now: np.ndarray) -> None:
    """Gates, zeros, mean shift, spread and the certified distance agree with the values themselves."""
    found = compare(then, now)
    assert (now <= -3).mean() == pytest.approx(found.gate_closed)
    assert (now >= 3).mean() == pytest.approx(found.gate_open)
    assert (now == 0).mean() == pytest.approx(found.zeros)
    exact = stats.ks_2samp(then.ravel(), now.ravel(), method="asymp").statistic
    assert found.ks.lower - 1e-12 <= exact <= found.ks.upper + 1e-12
    assert found.ks == ks.distance(observe(now, "float32").histogram, observe(then, "float32").histogram)
    if then.std(dtype=float) > 1e-3:
        assert (now.mean(dtype=float) - then.mean(dtype=float)) / then.std(dtype=float) == pytest.approx(
            found.mean_shift, rel=1e-6, abs=1e-6
        )


@given(then=finite, now=finite)
def test_the_wasserstein_distance_is_exact_for_bfloat16_and_bounded_for_float32(then: np.ndarray, now: np.ndarray) -> None:
    """It is scipy's on the lattice; off it the error is a 256th of the mean magnitudes, or a 16th of 1/256 near zero."""
    spread = then.std(dtype=float)
    if spread > 1e-2:
        exact = stats.wasserstein_distance(then.ravel(), now.ravel()) / spread
        bound = (2.0**-8 * (np.abs(then).mean(dtype=float) + np.abs(now).mean(dtype=float)) + 2.0**-11) / spread
        assert abs(compare(then, now).wasserstein - exact) <= bound * 1.001
    low = [to_bfloat16(values) for values in (then, now)]
    if low[0].std(dtype=float) > 1e-2:
        exact = stats.wasserstein_distance(low[0].ravel(), low[1].ravel()) / low[0].std(dtype=float)
        assert compare(*low, "bfloat16").wasserstein == pytest.approx(exact, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("point", ["pre", "post"])
def test_calm_traffic_moves_nothing(point: Point) -> None:
    """Two samples of one distribution: small distances, .1 % in each tail that has no point mass, no PSI."""
    rng = np.random.default_rng(0)
    then, now = (rng.normal(0, 1, (1000, 100)) for _ in range(2))
    if point == "post":
        then, now = then * ndtr(then), now * ndtr(now)
    found = compare(then, now, point=point)
    assert max(found.ks.upper, found.wasserstein, abs(found.mean_shift), abs(found.log_spread)) < 0.02
    assert (0.002 if point == "pre" else 0.001) == pytest.approx(found.tails, rel=0.4)
    assert found.psi < 0.001
    assert (point == "post", point == "post") == (math.isnan(found.gate_closed), math.isnan(found.gate_open))


@pytest.mark.parametrize("shift", [-0.5, 0.5])
def test_a_shift_is_located_and_signed(shift: float) -> None:
    """The functions of two normals differ most half way between their means, and the sign tells which way values went."""
    rng = np.random.default_rng(1)
    found = compare(rng.normal(1, 2, (1000, 100)), rng.normal(1 + 2 * shift, 2, (1000, 100)))
    assert found.location == pytest.approx(1 + shift, abs=0.2)
    assert (1 if shift > 0 else -1) == found.sign
    assert (shift, abs(shift)) == pytest.approx((found.mean_shift, found.wasserstein), abs=0.02)
    assert found.psi > 0.1


def test_spread_and_tails_follow_the_scale() -> None:
    """Twice the spread is a log spread of ln 2, and 12 % lie beyond what held .2 %."""
    rng = np.random.default_rng(2)
    found = compare(rng.normal(0, 1, (1000, 100)), rng.normal(0, 2, (1000, 100)))
    assert math.log(2) == pytest.approx(found.log_spread, abs=0.02)
    assert 2 * stats.norm.sf(stats.norm.isf(0.001) / 2) == pytest.approx(found.tails, abs=0.005)


def test_psi_is_the_formula_s_on_the_deciles_of_the_baseline() -> None:
    """For whole numbers 0 to 9, a decile each, it equals the sum by hand with half a count added to each bin."""
    then, now = np.tile(np.arange(10.0), 50).reshape(-1, 5), np.repeat(np.arange(10.0), np.arange(10) * 10).reshape(-1, 5)
    expected = np.full(10, 0.1)
    shares = (np.arange(10) * 10 + 0.5) / (450 + 5)
    assert float(((shares - expected) * np.log(shares / expected)).sum()) == pytest.approx(compare(then, now).psi)


def test_a_coarser_window_is_compared_on_the_common_lattice() -> None:
    """Against a 16-bit history, or a bounded window, everything that counts decide stays close to the full comparison."""
    rng = np.random.default_rng(3)
    then, now = (observe(rng.normal(0, 1, (500, 100)).astype(np.float32), "float32") for _ in range(2))
    full = panel.measure(panel.prepare(then, "pre"), now)
    for bits in (lattice.COARSE_BITS, lattice.compose(16, 124)):
        old = PointWindow(histogram.coarsen(then.histogram, bits), then.moments)
        new = PointWindow(histogram.coarsen(now.histogram, bits), now.moments)
        for found in (panel.measure(panel.prepare(old, "pre"), now), panel.measure(panel.prepare(then, "pre"), new)):
            assert (full.gate_closed, full.gate_open, full.zeros, full.mean_shift) == (
                found.gate_closed,
                found.gate_open,
                found.zeros,
                found.mean_shift,
            )
            assert full.wasserstein == pytest.approx(found.wasserstein, abs=0.01)
            assert (full.tails, full.psi) == pytest.approx((found.tails, found.psi), abs=0.002)
            assert found.ks.lower <= full.ks.upper
            assert full.ks.lower <= found.ks.upper


def test_infinities_count_as_open_and_closed_gates_and_leave_the_area_finite() -> None:
    """A tenth of +Inf is a tenth of open gates; the Wasserstein distance is that of the finite values."""
    rng = np.random.default_rng(4)
    values = rng.uniform(-1, 1, (100, 10)).astype(np.float32)
    seen = observe(values, "float32")
    overflown = PointWindow(histogram.merge([seen.histogram, histogram.from_values([np.inf] * 100 + [-np.inf] * 25)]), seen.moments)
    found = panel.measure(panel.prepare(seen, "pre"), overflown)
    assert (100 / 1125, 25 / 1125) == pytest.approx((found.gate_open, found.gate_closed))
    assert found.wasserstein == pytest.approx(0.0, abs=1e-9)
    assert found.tails > 0.1


@pytest.mark.parametrize("empty_side", ["then", "now", "both"])
def test_nothing_gives_nan(empty_side: str) -> None:
    """Where a side has no values every statistic is NaN, and none raises."""
    something, nothing = observe(np.ones((3, 2), np.float32), "float32"), observe(np.empty((0, 2), np.float32), "float32")
    then, now = (nothing if empty_side in {side, "both"} else something for side in ("then", "now"))
    found = panel.measure(panel.prepare(then, "pre"), now)
    assert all(math.isnan(value) for value in (found.location, found.wasserstein, found.mean_shift, found.tails, found.psi))
    assert math.isnan(found.ks.upper)


def test_constants_are_measured_without_a_warning() -> None:
    """A layer that never moves is at distance 0 from itself, and infinitely many deviations from another constant."""
    same, moved = (compare(np.full((50, 4), 0.5), np.full((50, 4), value)) for value in (0.5, 0.75))
    assert (0.0, 0.0, 0.0, 0) == (same.wasserstein, same.mean_shift, same.log_spread, same.sign)
    assert (math.inf, math.inf, 0.0, 1) == (moved.wasserstein, moved.mean_shift, moved.log_spread, moved.sign)
    assert (0.5, 1.0) == (moved.location, moved.tails)


def test_a_window_merged_of_parts_has_the_panel_of_all_rows() -> None:
    """Merging captures first changes no statistic beyond rounding."""
    rng = np.random.default_rng(5)
    rows = rng.normal(0, 1, (600, 20)).astype(np.float32)
    reference = panel.prepare(observe(rng.normal(0.2, 1, (600, 20)).astype(np.float32), "float32"), "pre")
    whole = panel.measure(reference, observe(rows, "float32"))
    parts = panel.measure(reference, merge_points([observe(rows[at : at + 150], "float32") for at in range(0, 600, 150)]))
    assert (whole.ks, whole.tails, whole.psi, whole.location) == (parts.ks, parts.tails, parts.psi, parts.location)
    assert (whole.mean_shift, whole.log_spread) == pytest.approx((parts.mean_shift, parts.log_spread))
