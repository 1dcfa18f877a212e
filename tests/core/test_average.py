"""Averages: the same window by window as over the whole series, filled when it is said, right in replay and after a rebase."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geluwatch.core import score
from geluwatch.core.average import FILLED, Averages, averaged, needed, replay, smoothing, weighed
from geluwatch.records import Floats, Reference

ROWS = 2000.0


def calm_vectors(rng: np.random.Generator, count: int, channels: int = 32, level: float = 0.0) -> Floats:
    """Vectors (count, 2C) that waver as those of windows of about `ROWS` normal rows do."""
    return np.concatenate([np.full(channels, level), np.zeros(channels)]) + rng.normal(0.0, ROWS**-0.5, (count, 2 * channels))


def learnt(vectors: Floats, rows: float = ROWS) -> Reference:
    """The reference of vectors (m, 2C)."""
    return score.reference(vectors.mean(axis=0), vectors.var(axis=0, ddof=1), rows, len(vectors))


def judged(calm: Reference, vectors: Floats, rows: Floats, horizon: int) -> Floats:
    """The statistics (3, n) of successive windows, one by one."""
    averages = Averages(calm, (horizon,))
    found = []
    for seen, held in zip(vectors, rows, strict=True):
        averages.add(seen, float(held), 0.0)
        found.append(averages.statistics()[:, 0])
    return np.array(found).T


@pytest.mark.parametrize("horizon", [1, 4, 16])
@given(rows=st.lists(st.integers(1, 5000), min_size=1, max_size=50), seed=st.integers(0, 2**31))
def test_an_average_kept_window_by_window_is_that_of_the_series(horizon: int, rows: list[int], seed: int) -> None:
    """Given windows of unequal rows one by one, the statistics are those of what `averaged` and `weighed` give for the whole series."""
    calm = score.reference(np.zeros(6), np.ones(6), 1000.0, 40)
    vectors = np.random.default_rng(seed).normal(0.5, 1.0, (len(rows), 6))
    thin = 1000.0 / np.array(rows)
    z = np.stack([score.tamed(score.standardised(calm, seen), each) for seen, each in zip(vectors, thin, strict=True)])
    weights, noises, uneven = weighed(thin, horizon)
    expected = score.statistics(averaged(z, horizon), noises + weights**2 / 40, uneven, score.bias(calm))
    expected[:, : needed(horizon) - 1] = np.nan
    found = judged(calm, vectors, np.array(rows), horizon)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4, nan_ok=True)  # sums are kept in float32


@pytest.mark.parametrize("horizon", [1, 2, 4, 16, 60])
def test_a_filled_average_has_the_variance_of_its_horizon(horizon: int) -> None:
    """In the long run equal windows' weights make the noise of `horizon` windows plainly averaged, and the score starts before that."""
    weights, noises, uneven = weighed(np.ones(40 * horizon), horizon)
    assert noises[-1] / weights[-1] ** 2 == pytest.approx(1.0 / horizon, rel=1e-6)
    assert 0.0 == uneven.max()
    worth = np.square(weights) / noises / horizon
    assert needed(horizon) == int(np.argmax(worth >= FILLED - 1e-12)) + 1
    assert 0.5 * horizon <= needed(horizon) <= horizon


def test_the_newest_window_weighs_what_is_said() -> None:
    """At horizon 1 nothing else counts; at horizon 3 it has half."""
    assert [1.0, 0.5] == smoothing((1, 3)).tolist()


@pytest.mark.parametrize("horizon", [1, 4, 16])
def test_nothing_is_scored_until_the_average_is_filled(horizon: int) -> None:
    """The first scores are NaN for most of the horizon, and from then on each window has all three statistics."""
    rng = np.random.default_rng(horizon)
    calm = learnt(calm_vectors(rng, 30))
    assert np.isnan(Averages(calm, (horizon,)).statistics()).all()
    found = judged(calm, calm_vectors(rng, 40), np.full(40, ROWS), horizon)
    missing = needed(horizon) - 1
    assert np.isnan(found[:, :missing]).all()
    assert np.isfinite(found[:, missing:]).all()
    assert {1: 0, 4: 3, 16: 15}[horizon] == missing


def test_horizons_do_not_disturb_each_other() -> None:
    """Several horizons side by side have the statistics that each has alone."""
    rng = np.random.default_rng(2)
    calm, vectors = learnt(calm_vectors(rng, 50)), calm_vectors(rng, 30)
    together = Averages(calm, (1, 4, 16))
    for seen in vectors:
        together.add(seen, ROWS, 0.0)
    alone = np.stack([judged(calm, vectors, np.full(30, ROWS), horizon)[:, -1] for horizon in (1, 4, 16)], axis=1)
    assert together.statistics() == pytest.approx(alone, rel=1e-5)


def test_a_rebased_average_goes_on_as_if_it_had_always_been_compared_with_the_new_reference() -> None:
    """After a change of reference in the middle of a series, statistics are those of averages that had the new one from the start."""
    rng = np.random.default_rng(4)
    early, late = learnt(calm_vectors(rng, 40)), learnt(calm_vectors(rng, 400, level=0.02), 1500.0)
    moving, always = Averages(early, (1, 4, 16)), Averages(late, (1, 4, 16))
    for number, seen in enumerate(calm_vectors(rng, 60)):
        if number == 30:
            moving.rebase(late)
        moving.add(seen, 1500.0, 0.0)
        always.add(seen, 1500.0, 0.0)
    assert moving.statistics() == pytest.approx(always.statistics(), rel=0.02, abs=0.02)  # thinness before was by the early one


def naive_replay(vectors: Floats, rows: Floats, horizon: int, gap: int) -> Floats:
    """Judge every window against a reference made anew from the windows that lie outside its average and the gap."""
    found = np.full((4, len(vectors)), np.nan)
    for at in range(len(vectors)):
        outside = [k for k in range(len(vectors)) if k < at - max(2 * horizon - 2, gap) or k > at + gap]
        if len(outside) >= 2:
            calm = learnt(vectors[outside], float(np.median(rows)))
            found[:, at] = judged(calm, vectors[: at + 1], rows[: at + 1], horizon)[:, -1]
    return found


@pytest.mark.parametrize(("windows", "horizon", "gap"), [(12, 1, 1), (20, 4, 2), (60, 16, 3), (14, 4, 2), (40, 1, 5), (30, 4, 9)])
def test_replay_equals_the_naive_leave_neighbours_out(windows: int, horizon: int, gap: int) -> None:
    """Updating sums gives what making each reference anew gives, for uneven rows too."""
    rng = np.random.default_rng(windows)
    vectors = calm_vectors(rng, windows, 7)
    rows = rng.integers(60, 3000, windows).astype(float)
    found = replay(vectors, rows, np.zeros(windows), horizon, gap)
    assert np.isfinite(found[0]).sum() >= 5
    assert found == pytest.approx(naive_replay(vectors, rows, horizon, gap), rel=0.02, abs=0.02, nan_ok=True)


def test_replay_is_exact_far_from_zero() -> None:
    """A level two hundred times the noise changes no statistic but through the smallest noise that is believed at that level."""
    vectors = calm_vectors(np.random.default_rng(5), 40, 7)
    near, far = (
        replay(vectors + offset, np.full(40, ROWS), np.zeros(40), 4, 3) for offset in (0.0, np.concatenate([np.full(7, 5.0), np.zeros(7)]))
    )
    assert far == pytest.approx(near, rel=1e-3, abs=1e-3, nan_ok=True)


def test_replay_counts_requests() -> None:
    """Windows of as many rows from a quarter of the usual requests are judged as thin, as they are when they come later."""
    rng = np.random.default_rng(6)
    vectors, rows = calm_vectors(rng, 60), np.full(60, ROWS)
    requests = np.where(np.arange(60) % 2, 8.0, 32.0)
    usual, thin = replay(vectors, rows, np.zeros(60), 1, 7)[0], replay(vectors, rows, requests, 1, 7)[0]
    assert (thin[1::2] < 0.9 * usual[1::2]).all()
    assert thin[::2] == pytest.approx(usual[::2])


def test_replay_sees_a_shift_that_scoring_in_sample_half_forgives() -> None:
    """Five shifted windows in a calm series score above all others, and higher than against a reference that has seen them."""
    rng = np.random.default_rng(3)
    vectors = calm_vectors(rng, 60, 64)
    vectors[30:35, :64] += 0.05 * rng.choice([-1.0, 1.0], 64)
    found = replay(vectors, np.full(60, ROWS), np.zeros(60), 1, 7)[0]
    others = np.delete(found, slice(30, 35))
    assert found[30:35].min() > others.max()
    in_sample = judged(learnt(vectors), vectors, np.full(60, ROWS), 1)[0]
    assert (found[30:35] > 1.3 * in_sample[30:35]).all()


def test_replay_of_too_few_windows_gives_nothing() -> None:
    """Where fewer than two windows lie outside the gap there is nothing to compare with."""
    assert np.isnan(replay(np.zeros((5, 4)), np.full(5, 9.0), np.zeros(5), 4, 4)).all()
