"""Surprise: what it calls once in a thousand looks happens once in a thousand looks of calm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geluwatch.core import surprise
from geluwatch.core.surprise import MOST
from geluwatch.records import Calm, Floats

LEVEL, CONTRAST, SHIFT, SCALE = range(4)


def scores(levels: Floats, shift: float = 0.0, scale: float = 0.0) -> Floats:
    """Statistics (3, K, H) with the given scores (K, H), and the same shift and scale everywhere."""
    return np.stack([levels, np.full_like(levels, shift), np.full_like(levels, scale)])


def said(yardstick: surprise.Yardstick, deviations: Floats) -> Floats:
    """The surprise of deviations of which nothing is known to have lasted."""
    return yardstick.surprise(deviations, np.full_like(deviations[..., 0, :, :], np.nan))


def exceeding(yardstick: surprise.Yardstick, calm: Calm, least: float) -> Floats:
    """The share (4,) of each family whose surprise is at least `least`."""
    found = said(yardstick, yardstick.deviations(calm.scores))
    share: Floats = (found >= least).mean(axis=(0, 2, 3))
    return share


@pytest.mark.parametrize("least", [1.0, 2.0])
def test_a_surprise_has_the_probability_that_it_states(make_calm, least: float) -> None:
    """Of calm windows unseen before, a tenth have a level with a surprise of 1, a hundredth one of 2; and so in each family."""
    rng = np.random.default_rng(1)
    known, unseen = (
        make_calm(rng.standard_normal((count, 6)), 3, leans=7.0 * rng.standard_normal((count, 2, 6, 1))) for count in (4000, 20_000)
    )
    found = exceeding(surprise.measure(known), unseen, least)
    assert found[CONTRAST:] == pytest.approx(np.full(3, 10.0**-least), rel=0.3)
    assert 0.3 * 10.0**-least < found[LEVEL] < 1.1 * 10.0**-least  # of which a burst may be the reason


def test_hours_told_apart_keep_the_promise_too(make_calm) -> None:
    """With two days of ten-minute windows, each hour's mean resting on few of them, a surprise of 2 is no commoner than stated."""
    rng = np.random.default_rng(17)
    found = []
    for _ in range(30):
        leans = rng.standard_normal((2300, 2, 4, 1))
        yardstick = surprise.measure(make_calm(rng.standard_normal((300, 4)), seconds=600.0, leans=leans[:300]))
        assert 24 == len(yardstick.level)
        fresh = make_calm(rng.standard_normal((2000, 4)), leans=leans[300:]).scores
        at = rng.integers(0, 24, 2000)
        found.append((said(yardstick, yardstick.deviations(fresh, at)) >= 2.0).mean(axis=(0, 2, 3)))
    assert np.mean(found, axis=0)[CONTRAST:] == pytest.approx(1e-2, rel=0.45)
    assert 0.3e-2 < np.mean(found, axis=0)[LEVEL] < 1.2e-2


def test_a_mean_of_few_looks_widens_what_is_usual(make_calm) -> None:
    """A deviation counts the uncertainty of the mean that it is taken from: that of its stratum's share of the looks."""
    for windows, seconds, strata in ((20, 60.0, 1), (300, 600.0, 24)):
        yardstick = surprise.measure(make_calm(np.random.default_rng(18).standard_normal((windows, 1)), seconds=seconds))
        certain = replace(yardstick, looks=np.full((4, 1), 1e12))
        found, narrow = (float(each.deviations(scores(np.full((1, 1), 1.5)))[LEVEL, 0, 0]) for each in (yardstick, certain))
        assert narrow / found == pytest.approx(np.sqrt(1 + strata / yardstick.looks[LEVEL, 0]))


def test_short_baselines_keep_the_promise_too(make_calm) -> None:
    """Averaged over 200 baselines of 20 windows, a surprise of 2 comes no more than twice as often as stated."""
    rng, apart = np.random.default_rng(2), np.random.default_rng(25)
    found = []
    for _ in range(200):
        leans = apart.standard_normal((220, 2, 4, 1))
        yardstick = surprise.measure(make_calm(rng.standard_normal((20, 4)), leans=leans[:20]))
        found.append(exceeding(yardstick, make_calm(rng.standard_normal((200, 4)), leans=leans[20:]), 2.0))
    assert (np.mean(found, axis=0) < 2e-2).all()
    assert (np.mean(found, axis=0) > 2e-3).all()


def test_one_layer_has_levels_and_no_contrast(make_calm) -> None:
    """Where there is nothing to contrast with, only the level is judged, without a warning."""
    rng = np.random.default_rng(8)
    yardstick = surprise.measure(make_calm(rng.standard_normal((200, 2)), 1))
    deviations = yardstick.deviations(scores(np.ones((2, 1))))
    assert np.isfinite(deviations[LEVEL]).all()
    assert np.isnan(deviations[CONTRAST]).all()


def test_two_layers_are_each_other_s_contrast(make_calm) -> None:
    """With two layers what one has alone stands out at both, and above calm at that one only."""
    rng = np.random.default_rng(9)
    yardstick = surprise.measure(make_calm(rng.standard_normal((500, 2))))
    deviations = yardstick.deviations(make_calm(np.array([[8.0, 0.0]])).scores[0])
    assert deviations[CONTRAST, 0, 0] > 4.0
    assert deviations[CONTRAST, 1, 0] < -4.0


def test_the_contrast_is_blind_to_what_all_layers_share_and_sees_what_one_has_alone(make_calm) -> None:
    """On traffic that moves all layers by much, a small fault of one layer stands out in its contrast alone; more traffic does not."""
    rng = np.random.default_rng(10)
    yardstick = surprise.measure(make_calm(4.0 * rng.standard_normal((1000, 1)) + 0.4 * rng.standard_normal((1000, 5))))
    fault, surge = np.zeros((1, 5)), np.full((1, 5), 12.0)
    fault[0, 2] = 4.0
    alone, together = (yardstick.deviations(make_calm(each).scores)[0, :, :, 0] for each in (fault, surge))
    assert alone[CONTRAST, 2] > 5.0 > 2.0 > np.abs(alone[LEVEL]).max()
    assert np.abs(together[CONTRAST]).max() < 2.0 < together[LEVEL].min()


@pytest.mark.parametrize(("hours", "strata"), [(47, 1), (48, 24), (335, 24), (336, 168)])
def test_hours_are_told_apart_once_each_was_there_twice(make_calm, hours: int, strata: int) -> None:
    """Below two days all hours are one stratum, from then on the day's are told apart, from two weeks on the week's."""
    rng = np.random.default_rng(13)
    yardstick = surprise.measure(make_calm(rng.standard_normal((8 * hours + 1, 2)), seconds=450.0))
    assert strata == len(yardstick.level)


def test_hours_with_few_windows_are_not_told_apart(make_calm) -> None:
    """Two weeks of hourly windows would compare each hour with little more than itself: only the hours of the day are told apart."""
    rng = np.random.default_rng(13)
    assert 24 == len(surprise.measure(make_calm(rng.standard_normal((14 * 24 + 1, 2)), seconds=3600.0)).level)
    assert 1 == len(surprise.measure(make_calm(rng.standard_normal((3 * 24 + 1, 2)), seconds=3600.0)).level)


@given(moment=st.floats(0, 4e9), strata=st.sampled_from([1, 24, 168]))
def test_a_stratum_is_an_hour_and_comes_again(moment: float, strata: int) -> None:
    """Each moment has its stratum, the next hour the next, and one period later it is the same again."""
    moment = float(np.floor(moment))
    at = int(surprise.stratum(moment, strata))
    assert 0 <= at < strata
    assert (at + 1) % strata == int(surprise.stratum(moment + 3600, strata))
    assert at == int(surprise.stratum(moment + 3600 * strata, strata))


def test_a_daily_cycle_is_no_surprise_where_hours_are_told_apart(make_calm) -> None:
    """Scores that swing by the hour keep the narrow spread of their noise after two days, and are one wide cloud before."""
    rng = np.random.default_rng(14)

    def swinging(windows: int) -> Floats:
        phase = 2 * np.pi * np.arange(1, windows + 1) * 600 / 86_400
        return 10.0 * np.sin(phase)[:, None] + rng.standard_normal((windows, 3))

    short, long = (surprise.measure(make_calm(swinging(windows), seconds=600.0)) for windows in (200, 1440))
    assert (1, 24) == (len(short.level), len(long.level))
    assert 4.0 * long.level_spread.max() < short.level_spread.min()
    peak, trough = (surprise.stratum(hour * 3600.0 + 60, 24) for hour in (6, 18))
    peaking = make_calm(np.full((1, 3), 10.0)).scores[0]
    found = [float(long.deviations(peaking, at)[LEVEL].max()) for at in (peak, trough)]
    assert abs(found[0]) < 1.5 < 5.0 < found[1]


def test_what_is_tolerated_grows_with_the_horizon(make_calm) -> None:
    """A long average sees more of a lasting shift, so it is allowed more; a tolerance of zero allows nothing."""
    horizons = (1, 4, 16, 64)
    allowed = surprise.tolerated(0.05, horizons, 1000)
    assert sorted(set(allowed)) == list(allowed)
    calm = make_calm(np.random.default_rng(19).standard_normal((500, 3, 4)), None, horizons)
    yardstick = surprise.measure(calm)
    strict = yardstick.deviations(calm.scores, 0, surprise.tolerated(0.0, horizons, 1000))
    assert strict == pytest.approx(yardstick.deviations(calm.scores))


def test_a_tolerated_level_counts_from_there_and_a_contrast_is_excused_less(make_calm) -> None:
    """A score as much higher as is tolerated has the level of a calm one; its contrast is lower for it, but still above."""
    rng = np.random.default_rng(15)
    yardstick = surprise.measure(make_calm(rng.standard_normal((500, 3))))
    nothing, allowed = (surprise.tolerated(tolerance, (1,), 500) for tolerance in (0.0, 0.5))
    usual, shifted = scores(np.ones((3, 1))), scores(np.ones((3, 1)))
    shifted[0, 0] = 1 + 0.5 / (1 + 1 / 500)
    plain, raised, excused = (
        yardstick.deviations(seen, 0, given) for seen, given in ((usual, nothing), (shifted, nothing), (shifted, allowed))
    )
    assert plain[LEVEL, 0, 0] == pytest.approx(excused[LEVEL, 0, 0], abs=1e-9)
    assert raised[LEVEL, 0, 0] > plain[LEVEL, 0, 0] + 1.0
    assert plain[CONTRAST, 0, 0] < excused[CONTRAST, 0, 0] < raised[CONTRAST, 0, 0]
    assert excused[CONTRAST, 0, 0] > plain[CONTRAST, 0, 0] + 0.5


@pytest.fixture(scope="module")
def yardstick(make_calm) -> surprise.Yardstick:
    """The yardstick of two layers with few looks and two with many."""
    return surprise.measure(make_calm(np.random.default_rng(16).standard_normal((50, 2))))


@given(deviations=hnp.arrays(np.float64, (3, 4, 2, 1), elements=st.floats(-1e6, 1e6)), more=st.floats(0, 1e6))
def test_surprise_grows_with_the_deviation(yardstick: surprise.Yardstick, deviations: Floats, more: float) -> None:
    """Further out is never less surprising, nothing is below zero or above the most."""
    deviations[:, SHIFT:] = np.abs(deviations[:, SHIFT:])
    found, further = said(yardstick, deviations), said(yardstick, deviations + more)
    assert (found <= further + 1e-12).all()
    assert (found >= 0).all()
    assert (further <= MOST).all()


def test_the_most_surprising_is_a_finite_number(yardstick: surprise.Yardstick) -> None:
    """An infinite deviation has the most surprise there is, the middle has that of one in two, and a missing one none."""
    found = said(yardstick, np.array([np.inf, 0.0, np.nan, -np.inf]).reshape(4, 1, 1, 1) * np.ones((4, 4, 2, 1)))[:, LEVEL, 0, 0]
    assert [MOST, pytest.approx(np.log10(2)), pytest.approx(np.nan, nan_ok=True), pytest.approx(0.0)] == list(found)


@pytest.mark.parametrize("score", [1.0, 0.0, 1e17])
def test_scores_that_never_vary_make_a_finite_yardstick(make_calm, score: float) -> None:
    """Constant scores, of any size, leave every figure finite and a score beyond them surprising."""
    calm = make_calm(np.zeros((40, 3)))
    constant = surprise.measure(replace(calm, scores=np.full_like(calm.scores, score) * [[[1.0]], [[0.0]], [[0.0]]]))
    for figures in (
        constant.level,
        constant.level_spread,
        constant.contrast,
        constant.contrast_spread,
        constant.looks,
        constant.freedom,
        constant.lean_spread,
    ):
        assert np.isfinite(figures).all()
    usual, beyond = (said(constant, constant.deviations(scores(np.full((3, 1), value)))) for value in (score, 2.0 * score + 0.1))
    assert usual[LEVEL].max() < 1.0
    assert beyond[LEVEL].min() > 5.0


def test_shifts_and_scales_surprise_to_either_side(make_calm) -> None:
    """As far below zero as above it is as surprising, twice as likely as one side alone, and a level far below is not."""
    leans = 3.0 * np.random.default_rng(20).standard_normal((500, 2, 4, 1))
    yardstick = surprise.measure(make_calm(np.random.default_rng(21).standard_normal((500, 4)), leans=leans))
    above, below = (yardstick.deviations(scores(np.ones((4, 1)), lean, -lean)) for lean in (12.0, -12.0))
    assert above[SHIFT:] == pytest.approx(-below[SHIFT:])
    assert np.abs(above[SHIFT:]) == pytest.approx(4.0, rel=0.15)
    assert said(yardstick, above)[SHIFT:] == pytest.approx(said(yardstick, below)[SHIFT:])
    alone = replace(yardstick, freedom=np.full_like(yardstick.freedom, 50.0))
    out = said(alone, np.full((4, 4, 1), 4.0))
    assert out[SHIFT] == pytest.approx(out[CONTRAST] - np.log10(2))
    assert said(alone, np.full((4, 4, 1), -4.0))[LEVEL].max() < 0.01


def test_leans_are_measured_against_how_far_the_other_layers_are_out(make_calm) -> None:
    """The same scale counts for less while all layers are far out, and for no more while they are nearer than usual."""
    rng = np.random.default_rng(22)
    calm = make_calm(rng.standard_normal((500, 4)), leans=rng.standard_normal((500, 2, 4, 1)))
    yardstick = surprise.measure(calm)
    near, usual, far = (yardstick.deviations(scores(np.full((4, 1), level), scale=5.0))[SCALE, 0, 0] for level in (0.9, 1.0, 16.0))
    assert near == pytest.approx(usual, rel=0.05)
    assert far == pytest.approx(usual / 4.0, rel=0.1)
    alone = make_calm(rng.standard_normal((500, 1)), leans=rng.standard_normal((500, 2, 1, 1)))
    assert np.isfinite(surprise.measure(alone).deviations(scores(np.ones((1, 1)), 5.0))[SHIFT:]).all()


def test_a_lean_is_judged_from_zero_until_hours_are_told_apart(make_calm) -> None:
    """A lasting lean of a baseline's own windows widens what is usual; where hours are told apart each has its own mean."""
    rng = np.random.default_rng(23)
    leans = 10.0 + rng.standard_normal((2000, 2, 3, 1))
    short, long = (surprise.measure(make_calm(rng.standard_normal((2000, 3)), seconds=seconds, leans=leans)) for seconds in (60.0, 600.0))
    assert (1, 24) == (len(short.lean), len(long.lean))
    assert short.lean_spread == pytest.approx(10.0, rel=0.05)
    assert long.lean_spread == pytest.approx(1.0, rel=0.15)
    assert long.lean == pytest.approx(10.0, rel=0.05)


def test_a_tolerated_lean_counts_from_there(make_calm) -> None:
    """What a tolerated shift moves a lean by is taken off its deviation, to zero at the most, and from neither sign to the other."""
    rng = np.random.default_rng(24)
    yardstick = surprise.measure(make_calm(rng.standard_normal((500, 3)), leans=rng.standard_normal((500, 2, 3, 1))))
    allowed = surprise.tolerated(0.25, (1,), 10**9)
    plain, excused = (yardstick.deviations(scores(np.ones((3, 1)), 3.0, -0.2), 0, given)[SHIFT:] for given in (0.0, allowed))
    assert plain[0] - excused[0] == pytest.approx(0.5, rel=0.05)
    assert excused[1] == pytest.approx(0.0)
    assert np.signbit(excused[1]).all()


def test_a_level_that_lasts_is_believed_and_a_burst_less(make_calm) -> None:
    """The same level surprises by what the baseline shows once it was there in twelve windows, and far less in the first."""
    rng = np.random.default_rng(40)
    yardstick = surprise.measure(make_calm(rng.standard_normal((4000, 4))))
    levels = np.full((20, 4, 1), 6.0)
    levels[2] = 0.0
    least = surprise.lasting(levels)
    assert np.isnan(least[:11]).all()
    assert [0.0, 0.0, 0.0, 6.0, 6.0] == least[11:16, 0, 0].tolist()
    deviations = np.zeros((20, 4, 4, 1))
    deviations[:, LEVEL] = levels
    found = yardstick.surprise(deviations, least)[:, LEVEL, 0, 0]
    assert 3.0 < found[13] < 4.5 < 8.0 < found[14]


def test_a_window_without_a_level_does_not_end_what_lasts() -> None:
    """What starves in one window or in six of twelve has a least level all the same, from the others; in seven of them none."""
    levels = np.full((20, 3, 1), 6.0)
    levels[10, 0], levels[6:12, 1], levels[6:13, 2] = np.nan, np.nan, np.nan
    assert [6.0, 6.0] == surprise.lasting(levels)[15, :2, 0].tolist()
    assert np.isnan(surprise.lasting(levels)[15, 2, 0])


def test_lasting_counts_the_windows_between() -> None:
    """Of every fourth window three in a row are as long as twelve."""
    levels = np.arange(10.0)[:, None, None]
    assert [0.0, 1.0, 2.0] == surprise.lasting(levels, 4)[2:5, 0, 0].tolist()
    assert np.isnan(surprise.lasting(levels, 4)[:2]).all()
    assert np.isnan(surprise.lasting(levels[:2], 4)).all()


def test_one_channel_far_out_surprises_where_the_sums_do_not(make_calm) -> None:
    """The largest has a family of its own, judged from above, over how far the other layers are out."""
    rng = np.random.default_rng(41)
    largest = np.exp(0.1 * rng.standard_normal((2000, 4, 1)) + 1.2)
    yardstick = surprise.measure(make_calm(rng.standard_normal((2000, 4)), largest=largest))
    usual = np.concatenate([scores(np.ones((4, 1))), np.full((1, 4, 1), np.exp(1.2))])
    out = usual.copy()
    out[-1, 1] *= 2.0
    calm, found = (yardstick.deviations(each)[-1, :, 0] for each in (usual, out))
    assert calm == pytest.approx(0.0, abs=0.3)
    assert found[1] == pytest.approx(np.log(2.0) / 0.1, rel=0.15)
    assert found[[0, 2, 3]] == pytest.approx(calm[[0, 2, 3]])
    stirred = out.copy()
    stirred[0] = 4.0  # then channels of all layers are twice as far out
    assert yardstick.deviations(stirred)[-1, 1, 0] == pytest.approx(0.0, abs=1.0)
    allowed = surprise.tolerated(0.25, (1,), 10**9)
    assert yardstick.deviations(out, 0, allowed)[-1, 1, 0] < found[1] - 0.5


def test_an_incident_in_one_stretch_leaves_the_yardstick_as_it_was(make_calm) -> None:
    """One window far out, or two hours of thirty-three, change what is usual by little; the same in every stretch is what is usual."""
    rng = np.random.default_rng(42)
    calm, leans = rng.standard_normal((2000, 4)), rng.standard_normal((2000, 2, 4, 1))
    known = surprise.measure(make_calm(calm, leans=leans))
    window, hours, often = (leans.copy() for _ in range(3))
    window[900, :, 1] = 60.0
    hours[900:1020, :, 1] += 8.0
    often[::16, :, 1] += 8.0
    one, two, many = (surprise.measure(make_calm(calm, leans=each)) for each in (window, hours, often))
    for found in (one, two):
        assert found.lean_spread == pytest.approx(known.lean_spread, rel=0.15)
        assert (found.freedom > 20.0).all()
    assert many.lean_spread[0, :, 1].min() > 1.3
    assert many.freedom[SHIFT:, 1].max() < 10.0
