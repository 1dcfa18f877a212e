"""The tail of calm surprises: counted on windows that were not seen, and continued to where limits stand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import chi2

from geluwatch.core import surprise, tail
from geluwatch.records import Calm, Floats


def iid(rng: np.random.Generator, count: int, keys: int = 4, horizons: int = 1) -> Floats:
    """Deviations (count, keys, horizons) of calm scores that have nothing to do with each other."""
    return rng.standard_normal((count, keys, horizons))


def thinning(rng: np.random.Generator, count: int, decades: float, searches: int = 8) -> Floats:
    """Surprises (count, 1) of windows of independent searches, which take so much more to be met with a tenth as often."""
    return -decades * np.log10(1.0 - rng.random((count, searches)).max(axis=1))[:, None]


def measured(worst: Floats) -> tail.Tail:
    """The tail of a series (n,) or (n, K), in four parts."""
    return tail.measure(np.array_split(worst.reshape(len(worst), -1), 4))


def test_each_quarter_is_judged_by_the_other_three(make_calm) -> None:
    """What is told of a quarter is what a yardstick of the other three says of it, whatever else the quarter holds."""
    calm = make_calm(iid(np.random.default_rng(14), 400))
    parts = tail.unseen(calm, 1, 0.05)
    assert [100] * 4 == [len(part) for part in parts]
    others = Calm(calm.keys, calm.horizons, np.delete(calm.ended, np.s_[100:200]), np.delete(calm.scores, np.s_[100:200], axis=0))
    quarter = Calm(calm.keys, calm.horizons, calm.ended[100:200], calm.scores[100:200])
    assert parts[1].tolist() == tail.most_surprising(surprise.measure(others), quarter, 0.05).tolist()
    spoilt = iid(np.random.default_rng(14), 400)
    spoilt[150] += 20.0
    again = tail.unseen(make_calm(spoilt), 1, 0.05)
    assert again[1][:50].tolist() == parts[1][:50].tolist()
    assert again[1][50].min() > 6.0


def test_what_is_tolerated_surprises_less(make_calm) -> None:
    """A tolerance lowers every surprise or leaves it, and without one more windows lie beyond the threshold."""
    calm = make_calm(iid(np.random.default_rng(15), 400, horizons=2), None, (1, 16))
    strict, lenient = (np.concatenate(tail.unseen(calm, 1, tolerance)) for tolerance in (0.0, 0.05))
    assert (lenient <= strict + 1e-12).all()
    assert lenient.sum() < 0.9 * strict.sum()


@pytest.mark.parametrize("decades", [0.9, 1.0, 1.3])
def test_a_limit_is_exceeded_as_often_as_asked_for(decades: float) -> None:
    """Tails that thin out at several paces: in ten times as many windows a limit of one in ten thousand is exceeded no oftener."""
    rng = np.random.default_rng(16)
    known = measured(thinning(rng, 20_000, decades))
    share = float((thinning(rng, 1_000_000, decades) > known.limit(1e-4)).mean())
    assert 0.2e-4 < share < 1.1e-4


@pytest.mark.parametrize("searches", [1, 30, 1_000])
def test_models_of_any_width_are_counted(searches: int) -> None:
    """Where some surprise is in every window the threshold moves out, and the limit holds all the same."""
    rng = np.random.default_rng(17)
    known = measured(thinning(rng, 4_000, 1.0, searches))
    share = float(np.mean([(thinning(rng, 10_000, 1.0, searches) > known.limit(1e-3)).mean() for _ in range(5)]))
    assert 0.3e-3 < share < 1.3e-3
    assert known.threshold >= 2.5


def test_few_windows_are_taken_for_probabilities(make_calm) -> None:
    """Of a dozen windows nothing is known of the tail: it takes little more than a power of ten of surprise, and a seventh for doubt."""
    known = measured(np.zeros(12))
    assert (2.5, 1 / 12) == (known.threshold, known.rate)
    assert (known.decades, known.doubt) == pytest.approx((1.05, 1.0 / math.sqrt(50.0)))
    assert known.limit(1 / 120) == pytest.approx(2.5 + 1.05 * (1.0 + 1.0 / math.sqrt(50.0)))
    parts = tail.unseen(make_calm(iid(np.random.default_rng(18), 12)), 1, 0.05)
    assert [3] * 4 == [len(part) for part in parts]
    assert 5.0 < tail.measure(parts).limit(2.0 / 43_200) < 9.0


def test_one_incident_does_not_blind() -> None:
    """A window that is off beyond measure raises a limit no more than one of four powers of ten over the threshold."""
    worst = thinning(np.random.default_rng(19), 2_000, 1.0)
    limits = []
    for incident in (6.5, 300.0):
        worst[1_000] = incident
        limits.append(measured(worst).limit(2.0 / 43_200))
    assert limits[0] == pytest.approx(limits[1])


def test_an_excess_ends_where_the_surprise_is_usual_again() -> None:
    """Windows that stay above the median are one excess with their neighbours: averages remember it."""
    worst = np.tile([1.0, 0.0], 200)
    worst[100:110] = 3.0
    worst[200:203] = 3.0, 1.0, 3.0
    assert measured(worst).rate == pytest.approx((2 + math.sqrt(2) + 1) / 400)


def test_a_page_s_limit_allows_for_more_doubt() -> None:
    """More standard errors of the tail's pace put a limit further out, by as much for each."""
    known = measured(thinning(np.random.default_rng(20), 4_000, 1.0))
    steps = np.diff([known.limit(1e-5, certainty) for certainty in (0.0, 1.0, 2.0)])
    assert steps == pytest.approx(known.decades * known.doubt * math.log10(known.rate / 1e-5))


def test_an_incident_does_not_move_the_threshold() -> None:
    """A fortieth of the windows far out, in one stretch that lies across two quarters, raise a limit by less than one power of ten."""
    worst = thinning(np.random.default_rng(22), 2_000, 1.0)
    calm = measured(worst)
    worst[480:530] = 40.0
    found = measured(worst)
    assert calm.threshold <= found.threshold < calm.threshold + 0.1
    assert calm.limit(2.0 / 43_200) < found.limit(2.0 / 43_200) < calm.limit(2.0 / 43_200) + 1.0


def test_an_alarm_lasts_until_the_surprise_has_halved() -> None:
    """Falling below the limit is no end and so no new alarm after it; falling below half of it is."""
    for expected, series in ((1, [0.0, 5.0, 3.0, 2.6, 5.0, 2.5, 9.0]), (2, [0.0, 5.0, 2.4, 4.9, 5.0]), (0, [4.9, 2.0, 4.9]), (0, [])):
        assert expected == tail.alarms(np.array(series).reshape(-1, 1), 5.0)
    assert 0 == tail.alarms(np.array([[300.0], [300.0]]), math.inf)


def test_each_point_ends_its_own_alarm() -> None:
    """Where some point is always between half the limit and it, as in wide models, alarms end all the same; those that overlap are one."""
    two = np.array([[5.0, 4.0], [2.0, 4.0], [2.0, 4.0], [5.0, 4.0], [3.0, 5.0], [2.0, 5.0], [2.0, 1.0]])
    assert 2 == tail.alarms(two, 5.0)


@given(
    found=hnp.arrays(np.float64, st.tuples(st.integers(1, 100), st.integers(1, 3)), elements=st.floats(0, 20)),
    limit=st.floats(0.5, 25),
)
def test_there_are_no_more_alarms_than_windows_at_the_limit(found: Floats, limit: float) -> None:
    """Each alarm has a window that raised it, there is one if any window reaches the limit; of one point they are the peaks."""
    count = tail.alarms(found, limit)
    assert count <= int((found >= limit).any(axis=1).sum())
    assert (count > 0) == bool((found >= limit).any())
    for key in found.T:
        peaks = tail.peaks(key, limit, tail.CLEARED * limit)
        assert len(peaks) == tail.alarms(key[:, None], limit)
        assert (peaks >= limit).all()
        assert not len(peaks) or peaks.max() == key.max()


@pytest.mark.parametrize("spoilt", [0, 30])
def test_the_replay_s_interval_is_garwood_s(make_calm, spoilt: int) -> None:
    """The 95 % interval of the replay is that of the chi-squared quantiles, from zero where nothing was seen."""
    deviations = iid(np.random.default_rng(7), 1000)
    deviations[500 : 500 + 4 * spoilt : 4] += 10.0
    asked, observed, interval = tail.replay(tail.unseen(make_calm(deviations), 1, 0.05))
    assert 10.0 == asked
    assert observed >= spoilt
    low = chi2.ppf(0.025, 2 * observed) / 2 if observed else 0.0
    assert interval == pytest.approx((low, chi2.ppf(0.975, 2 * observed + 2) / 2))


def test_nothing_seen_in_a_replay_starts_the_interval_at_zero(make_calm) -> None:
    """Scores that fall short of any alarm leave 0 to 3.7 false alarms to expect."""
    even = np.tile([[-1.0, 1.0], [1.0, -1.0]], (200, 1))
    _, observed, interval = tail.replay(tail.unseen(make_calm(even), 1, 0.05))
    assert 0 == observed
    assert interval == pytest.approx((0.0, 3.689), abs=1e-3)


def test_an_incident_counts_whichever_quarter_it_is_in(make_calm) -> None:
    """With the quarters in another order the replay sees the same."""
    deviations = iid(np.random.default_rng(14), 1000)
    deviations[510:740:20] += 10.0
    first, second = (tail.replay(tail.unseen(make_calm(each), 1, 0.05)) for each in (deviations, np.roll(deviations, 250, axis=0)))
    assert first == second
    assert first[1] >= 11


def test_a_replay_of_calm_gives_about_what_was_asked_for(make_calm) -> None:
    """On independent windows the false alarms asked for lie within the interval in most of twenty baselines."""
    within = 0
    for seed in range(20):
        asked, _, (low, high) = tail.replay(tail.unseen(make_calm(iid(np.random.default_rng(seed), 2000)), 1, 0.05))
        within += low <= asked <= high
    assert within >= 14
