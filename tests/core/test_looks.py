"""Looks: how much a series of calm scores tells, of its spread, its tail, its memory and its hours."""

from __future__ import annotations

import numpy as np
import pytest

from geluwatch.core import surprise
from geluwatch.core.average import averaged, weighed
from geluwatch.core.looks import independent, spread
from geluwatch.records import Floats

LEVEL, CONTRAST = 0, 1


def averages(series: Floats, horizon: int) -> Floats:
    """The series (n, K) and its exponential averages over a horizon, side by side as (n, K, 2)."""
    slow = averaged(series, horizon) / weighed(np.ones(len(series)), horizon)[0][:, None]
    return np.stack([series, slow], axis=2)


def autoregressive(rng: np.random.Generator, count: int, keys: int, memory: float) -> Floats:
    """Normal series (count, keys) of deviation 1 in which each value resembles the one before."""
    series = rng.standard_normal((count, keys))
    for at in range(1, count):
        series[at] = memory * series[at - 1] + np.sqrt(1 - memory**2) * series[at]
    return series


def test_heavier_tails_above_get_fewer_degrees_of_freedom(make_calm) -> None:
    """Scores with the tail of Student's t with 5 degrees above are judged by a heavier tail than normal ones; below it is no matter."""
    rng = np.random.default_rng(3)
    normal = rng.standard_normal((3000, 4))
    wild = np.abs(rng.standard_t(5, (3000, 4)))
    upper, lower = np.where(normal > 0, wild, normal), np.where(normal < 0, -wild, normal)
    plain, above, below = (surprise.measure(make_calm(deviations)).freedom[LEVEL, :, 0] for deviations in (normal, upper, lower))
    assert above.max() < 20.0 < 100.0 < plain.min()
    assert below.min() > 100.0


def test_scores_skewed_to_the_left_do_not_widen_the_upper_spread(make_calm) -> None:
    """A long tail below leaves the spread above narrower than the standard deviation; one above makes it wider."""
    rng = np.random.default_rng(4)
    normal = rng.standard_normal((3000, 4))
    left = np.where(normal < 0, 4.0 * normal, normal)
    unit = surprise.measure(make_calm(normal)).level_spread[0]
    for deviations, wider in ((left, False), (-left, True)):
        ratio = surprise.measure(make_calm(deviations)).level_spread[0] / deviations.std(axis=0)[:, None] / unit
        assert (ratio > 1.1).all() if wider else (ratio < 0.9).all()


@pytest.mark.parametrize(("memory", "time"), [(0.0, 1.0), (0.5, 3.0), (0.9, 19.0)])
def test_looks_fall_by_the_autocorrelation_time(make_calm, memory: float, time: float) -> None:
    """Windows that resemble the last are worth their number over (1 + rho) / (1 - rho) independent ones, to a factor of two."""
    series = autoregressive(np.random.default_rng(5), 4000, 4, memory)
    looks = surprise.measure(make_calm(series)).looks[:CONTRAST]
    assert (looks > 4000 / time / 2).all()
    assert (looks < 4000 / time * 2).all()


@pytest.mark.parametrize(("horizon", "time"), [(1, 1.0), (4, 2.125), (16, 8.03)])
def test_averages_are_worth_no_more_than_their_overlap_allows(horizon: int, time: float) -> None:
    """Even white deviations count less at long horizons, as squares of overlapping averages would."""
    white = np.random.default_rng(6).standard_normal((1000, 3, 1))
    assert independent(white, (horizon,))[0] == pytest.approx(1000 / time, rel=0.08)


def test_windows_without_a_score_count_for_no_look() -> None:
    """Looks are counted over the windows in which every point has a score; a point without any is passed over."""
    series = np.random.default_rng(7).standard_normal((400, 3, 1))
    series[:100, 0] = np.nan
    series[:, 1] = np.nan
    assert independent(series, (1,))[0] == pytest.approx(300, rel=0.15)


def test_hours_that_scatter_more_get_as_much_more(make_calm) -> None:
    """Where hours are told apart a restless one has its own spread, so that its calm is no surprise; quiet ones keep that of all."""
    rng = np.random.default_rng(26)
    ended = np.arange(1, 3601) * 300.0
    at = surprise.stratum(ended, 24)
    wide = np.where((at >= 9) & (at <= 12), 4.0, 1.0)[:, None]
    yardstick = surprise.measure(make_calm(wide * rng.standard_normal((3600, 3)), seconds=300.0))
    assert yardstick.level_spread[10] == pytest.approx(4.0 * 0.15, rel=0.2)
    quiet = yardstick.level_spread[[0, 5, 18]]
    assert quiet == pytest.approx(quiet.min(), rel=0.1)
    fresh = make_calm(4.0 * rng.standard_normal((20_000, 3))).scores
    deviations = yardstick.deviations(fresh, np.full(20_000, 10))
    surprises = yardstick.surprise(deviations, np.full_like(deviations[:, 0], np.nan))[:, LEVEL]
    assert 1e-3 < (surprises >= 2.0).mean() < 0.013


def test_variances_at_long_horizons_borrow_from_the_other_points() -> None:
    """Of independent points whose averages lower the variance alike, each is known better together: more degrees, closer to the truth."""
    rng = np.random.default_rng(30)
    alone, together, freedom = [], [], []
    for _ in range(40):
        series = averages(rng.standard_normal((120, 12)), 16)
        one = [spread(series[:, place : place + 1], (1, 16), np.zeros(120, np.intp), 1) for place in range(12)]
        alone += [float(each.deviation[0, 0, 1]) for each in one]
        all_of_them = spread(series, (1, 16), np.zeros(120, np.intp), 1)
        together += all_of_them.deviation[0, :, 1].tolist()
        freedom.append((np.median(all_of_them.freedom[:, 1]), np.median([each.freedom[0, 1] for each in one])))
    assert np.std(together) < 0.6 * np.std(alone)
    more, own = np.median(freedom, axis=0)
    assert more > 2.0 * own


def test_points_that_move_together_or_differ_lend_each_other_nothing() -> None:
    """The same series twelve times is no more than one; and points with memories of their own keep their own variances."""
    rng = np.random.default_rng(31)
    same = averages(np.repeat(rng.standard_normal((120, 1)), 12, axis=1), 16)
    first, twelve = (spread(part, (1, 16), np.zeros(120, np.intp), 1).freedom for part in (same[:, :1], same))
    assert twelve[:, 1] == pytest.approx(first[0, 1], rel=0.01)
    white, slow = rng.standard_normal((2000, 6)), autoregressive(rng, 2000, 6, 0.95)
    mixed = spread(averages(np.concatenate([white, slow], axis=1), 16), (1, 16), np.zeros(2000, np.intp), 1).deviation[0, :, 1]
    assert 2.5 * mixed[:6].max() < mixed[6:].min()


def test_a_point_that_hardly_ever_moves_blinds_no_other() -> None:
    """One whose series is nothing at the shortest horizon, and something where averages remember, has little part in the others' spread."""
    rng = np.random.default_rng(32)
    series = averages(rng.standard_normal((600, 6)), 16)
    series[:, 0] = 0.0
    series[180:240, 0, 0], series[180:260, 0, 1] = 5.0, 5.0
    found = spread(series, (1, 16), np.zeros(600, np.intp), 1).deviation[0]
    others = spread(series[:, 1:], (1, 16), np.zeros(600, np.intp), 1).deviation[0]
    assert found[1:] == pytest.approx(others, rel=0.25)
