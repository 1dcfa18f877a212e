"""The drift score: about 1 in calm whatever the horizon, the scale or the volume; growing where a shift lasts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr

from geluwatch.core import moments, score
from geluwatch.core.score import Average
from geluwatch.records import Floats, Moments, Reference

ROWS = 2000


def calm_vectors(make_moments, rng: np.random.Generator, count: int, rows: int = ROWS, channels: int = 64, **how: float) -> Floats:
    """Vectors (count, 2C) of windows of independent normal rows."""
    return np.stack([score.vector(make_moments(rng, rows, channels, **how)) for _ in range(count)])


def learnt(vectors: Floats, rows: float = ROWS) -> Reference:
    """The reference of vectors (m, 2C)."""
    return score.reference(vectors.mean(axis=0), vectors.var(axis=0, ddof=1), rows, len(vectors))


def scored(calm: Reference, vectors: Floats, rows: float | Floats = ROWS, horizon: int = 1) -> Floats:
    """The score (n,) of each of successive windows, one by one, as a judge takes them."""
    average = Average.empty(horizon, vectors.shape[1])
    found = []
    for seen, held in zip(vectors, np.broadcast_to(np.asarray(rows, float), len(vectors)), strict=True):
        average.add(seen, score.scarcity(calm, float(held)))
        found.append(average.score(calm))
    return np.array(found)


def post_gelu_moments(rng: np.random.Generator, rows: int, channels: int = 64) -> Moments:
    """Moments of skewed, heavy-tailed rows: GELU outputs of inputs that are mostly negative."""
    before = rng.normal(-0.5, 1.0, (rows, channels))
    return moments.from_rows(before * ndtr(before))


def naive_replay(vectors: Floats, rows: Floats, horizon: int, gap: int) -> Floats:
    """Score every window against a reference made anew from the windows that lie outside its average and the gap."""
    found = []
    typical = float(np.median(rows))
    average = Average.empty(horizon, vectors.shape[1])
    for at, (seen, held) in enumerate(zip(vectors, rows, strict=True)):
        average.add(seen, max(1.0, typical / held))
        outside = [k for k in range(len(vectors)) if k < at - max(2 * horizon - 2, gap) or k > at + gap]
        found.append(average.score(learnt(vectors[outside], typical)) if len(outside) >= 2 else float("nan"))
    return np.array(found)


@pytest.mark.parametrize("horizon", [1, 4, 16])
@given(rows=st.lists(st.integers(1, 5000), min_size=1, max_size=50), seed=st.integers(0, 2**31))
def test_an_average_kept_window_by_window_is_that_of_the_series(horizon: int, rows: list[int], seed: int) -> None:
    """`Average`, given windows of unequal rows one by one, holds what `averaged` and `averaged_noise` give for the whole series."""
    vectors = np.random.default_rng(seed).normal(3.0, 2.0, (len(rows), 6))
    scarce = np.maximum(1.0, 1000.0 / np.array(rows))
    sums, weights = score.averaged(vectors, horizon)
    noises, squares, shares = score.averaged_noise(scarce, horizon)
    average = Average.empty(horizon, 6)
    for at in range(len(rows)):
        average.add(vectors[at], float(scarce[at]))
        assert average.vector == pytest.approx(sums[at], rel=1e-4, abs=1e-4)  # the one is kept in float32
        assert (average.weight, average.noise) == pytest.approx((weights[at], noises[at]), rel=1e-9)
        assert (average.squares, average.scarce) == pytest.approx((squares[at], shares[at]), rel=1e-9)


@pytest.mark.parametrize("horizon", [1, 2, 4, 16, 60])
def test_a_filled_average_has_the_variance_of_its_horizon(horizon: int) -> None:
    """In the long run equal windows' weights make the noise of `horizon` windows plainly averaged, and the score starts before that."""
    _, weights = score.averaged(np.ones(40 * horizon), horizon)
    noises, squares, _ = score.averaged_noise(np.ones(40 * horizon), horizon)
    assert noises[-1] / weights[-1] ** 2 == pytest.approx(1.0 / horizon, rel=1e-6)
    share = [score.filled(weight, square, horizon) for weight, square in zip(weights, squares, strict=True)]
    assert sorted(share) == share
    first = int(np.argmax(np.array(share) >= score.FILLED)) + 1
    assert 0.5 * horizon <= first <= horizon


@pytest.mark.parametrize("horizon", [1, 4, 16])
def test_nothing_is_scored_until_the_average_is_filled(make_moments, horizon: int) -> None:
    """The first scores are NaN for most of the horizon, and from then on each window has one."""
    rng = np.random.default_rng(horizon)
    calm = learnt(calm_vectors(make_moments, rng, 30))
    assert np.isnan(Average.empty(horizon, 128).score(calm))
    found = scored(calm, calm_vectors(make_moments, rng, 40), horizon=horizon)
    missing = int(np.isnan(found).sum())
    assert np.isnan(found[:missing]).all()
    assert {1: 0, 4: 2, 16: 10}[horizon] <= missing < horizon


@pytest.mark.parametrize(("windows", "horizon", "gap"), [(12, 1, 1), (20, 4, 2), (60, 16, 3), (14, 4, 2), (40, 1, 5), (30, 4, 9)])
@pytest.mark.parametrize("level", [0.0, 1e4])
def test_replay_equals_the_naive_leave_neighbours_out(make_moments, windows: int, horizon: int, gap: int, level: float) -> None:
    """Updating sums gives what making each reference anew gives, for uneven rows and levels far from zero too."""
    rng = np.random.default_rng(windows)
    vectors = calm_vectors(make_moments, rng, windows, channels=7, level=level)
    rows = rng.integers(60, 3000, windows).astype(float)
    expected = naive_replay(vectors - vectors.mean(axis=0), rows, horizon, gap) if level == 0.0 else None
    found = score.replay(vectors, rows, horizon, gap)
    assert np.isfinite(found).sum() >= 5
    if expected is not None:
        # Centred means make the naive one's float32 as exact as the other's float64; the noise floor hangs on the level.
        assert found == pytest.approx(expected, rel=0.02, nan_ok=True)
    else:
        shifted = score.replay(vectors - np.concatenate([np.full(7, level), np.zeros(7)]), rows, horizon, gap)
        assert (np.isnan(shifted) == np.isnan(found)).all()


def test_replay_sees_a_shift_that_scoring_in_sample_half_forgives(make_moments) -> None:
    """Five shifted windows in a calm series score above all others, and higher than against a reference that has seen them."""
    rng = np.random.default_rng(3)
    vectors = calm_vectors(make_moments, rng, 60)
    vectors[30:35, :64] += 0.05 * rng.choice([-1.0, 1.0], 64)
    found = score.replay(vectors, np.full(60, float(ROWS)), 1, 7)
    others = np.delete(found, slice(30, 35))
    assert found[30:35].min() > others.max()
    in_sample = scored(learnt(vectors), vectors)
    assert (found[30:35] > 1.3 * in_sample[30:35]).all()


def test_replay_of_too_few_windows_gives_no_score() -> None:
    """Where fewer than two windows lie outside the gap there is nothing to compare with."""
    assert np.isnan(score.replay(np.zeros((5, 4)), np.full(5, 9.0), 4, 4)).all()


@pytest.mark.parametrize("horizon", [1, 4, 16])
def test_calm_scores_lie_about_one_at_every_horizon(make_moments, horizon: int) -> None:
    """Unseen calm windows of a wide layer score 1 on average, to within a few percent."""
    rng = np.random.default_rng(horizon)
    calm = learnt(calm_vectors(make_moments, rng, 300, channels=256))
    found = scored(calm, calm_vectors(make_moments, rng, 300, channels=256), horizon=horizon)
    assert np.nanmean(found) == pytest.approx(1.0, abs=0.04)


@pytest.mark.parametrize("horizon", [1, 4, 16])
def test_replayed_scores_of_calm_lie_about_one(make_moments, horizon: int) -> None:
    """A baseline's own windows, replayed, score as unseen ones do."""
    rng = np.random.default_rng(20 + horizon)
    vectors = calm_vectors(make_moments, rng, 200, channels=256)
    assert np.nanmean(score.replay(vectors, np.full(200, float(ROWS)), horizon, 25)) == pytest.approx(1.0, abs=0.05)


def test_a_lasting_shift_scores_higher_the_longer_the_horizon(make_moments) -> None:
    """A shift of a fiftieth of the spread is next to invisible in one window and unmistakable in sixteen."""
    rng = np.random.default_rng(5)
    calm = learnt(calm_vectors(make_moments, rng, 200))
    shifted = calm_vectors(make_moments, rng, 40, level=0.02)
    one, four, sixteen = (float(scored(calm, shifted, horizon=horizon)[-1]) for horizon in (1, 4, 16))
    assert one < 2.0 < four < sixteen
    assert sixteen > 4.0


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1.0, 1e3, 1e12])
def test_the_score_does_not_depend_on_the_unit(make_moments, scale: float) -> None:
    """Scaling a layer's values by any factor changes neither its calm score nor that of a shift or a wider spread."""

    def scores(unit: float) -> list[float]:
        rng = np.random.default_rng(6)
        calm = learnt(calm_vectors(make_moments, rng, 60, scale=unit))
        windows = [
            make_moments(rng, ROWS, 64, scale=unit),
            make_moments(rng, ROWS, 64, level=0.1 * unit, scale=unit),
            make_moments(rng, ROWS, 64, scale=1.1 * unit),
        ]
        return [float(scored(calm, score.vector(window)[None])[0]) for window in windows]

    expected = scores(1.0)
    assert expected[0] < 1.5 < 5.0 < min(expected[1:])
    assert scores(scale) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("draw", ["normal", "gelu"])
@pytest.mark.parametrize("rows", [64, 100, 500])
def test_fewer_rows_never_raise_the_expected_score(make_moments, draw: str, rows: int) -> None:
    """Against a baseline of 2,000 rows a window, calm windows of few rows score no higher on average, at any horizon."""
    rng = np.random.default_rng(rows)
    take = post_gelu_moments if draw == "gelu" else lambda rng, rows: make_moments(rng, rows, 64)
    calm = learnt(np.stack([score.vector(take(rng, ROWS)) for _ in range(100)]))
    scarce = np.stack([score.vector(take(rng, rows)) for _ in range(160)])
    for horizon in (1, 4, 16):
        assert np.nanmean(scored(calm, scarce, rows, horizon)) < 1.15  # a reference of 100 windows is that uncertain


def test_more_rows_never_raise_the_expected_score() -> None:
    """Against a baseline of 64 heavy-tailed rows a window, calm windows of 2,000 rows score lower, not higher."""
    rng = np.random.default_rng(8)
    calm = learnt(np.stack([score.vector(post_gelu_moments(rng, 64)) for _ in range(100)]), 64)
    ample = np.stack([score.vector(post_gelu_moments(rng, ROWS)) for _ in range(40)])
    for horizon in (1, 4, 16):
        assert np.nanmax(scored(calm, ample, horizon=horizon)) < 1.0


def test_forgiving_few_rows_does_not_forgive_a_collapse(make_moments) -> None:
    """A tenth less spread in windows of 200 rows is still seen, although few rows explain some shortfall."""
    rng = np.random.default_rng(9)
    calm = learnt(calm_vectors(make_moments, rng, 100))
    narrow = calm_vectors(make_moments, rng, 40, rows=200, scale=0.9)
    assert scored(calm, narrow, 200, 16)[-1] > 5.0


@given(rows=st.floats(1.0, 1e6), typical=st.floats(1.0, 1e6))
def test_scarcity_is_the_ratio_of_rows_and_never_below_one(rows: float, typical: float) -> None:
    """A window with fewer rows than the reference's may vary by their ratio more, one with as many or more no less."""
    calm = Reference(np.zeros(2, np.float32), np.ones(2, np.float32), typical, 10)
    assert score.scarcity(calm, rows) == pytest.approx(max(1.0, typical / rows))
    assert score.scarcity(calm, 0.0) == typical


def test_scarcity_is_that_of_rows_or_of_requests_whichever_is_scarcer() -> None:
    """As many rows from a quarter of the requests vary four times as much; a side that does not know its requests is not asked."""
    calm = Reference(np.zeros(2, np.float32), np.ones(2, np.float32), 640.0, 10, requests=32.0)
    assert (4.0, 2.0) == (score.scarcity(calm, 640, 8.0), score.scarcity(calm, 320, 32.0))
    assert (1.0, 1.0) == (score.scarcity(calm, 640, 0.0), score.scarcity(replace(calm, requests=0.0), 640, 8.0))


def test_an_odd_text_does_not_carry_the_score_away(make_moments) -> None:
    """Channels thrown out by a heavy tail, as one unusual text does it, raise the score far less than the mean of squares."""
    rng = np.random.default_rng(12)
    calm = learnt(calm_vectors(make_moments, rng, 60, channels=512))
    thrown = calm_vectors(make_moments, rng, 1, channels=512)
    before = float(scored(calm, thrown)[0])
    at = rng.choice(512, 10, replace=False)
    thrown[0, at] += rng.choice([-1, 1], 10) * 15 / np.sqrt(ROWS)
    plain = float((np.square(thrown[0] - calm.mean) / calm.variance).mean())
    assert plain > 3.0
    assert before < scored(calm, thrown)[0] < before + 0.2


def test_a_few_dead_channels_still_count(make_moments) -> None:
    """One channel in fifty going silent is seen in a single window of a wide layer."""
    rng = np.random.default_rng(13)
    calm = learnt(calm_vectors(make_moments, rng, 60, channels=500))
    usual = scored(calm, calm_vectors(make_moments, rng, 100, channels=500))
    drawn = make_moments(rng, ROWS, 500)
    drawn.m2[:10], drawn.mean[:10] = 0.0, -0.17
    assert scored(calm, score.vector(drawn)[None])[0] > usual.mean() + 5 * usual.std()


def test_constant_channels_do_not_explode(make_moments) -> None:
    """Half of the channels constant in the baseline and wavering by rounding later leave the score near 1; coming alive does not."""
    rng = np.random.default_rng(10)

    def window(wavering: float) -> Floats:
        live = make_moments(rng, ROWS, 32)
        still = 0.7 * (1 + wavering * rng.standard_normal(32))
        drawn = Moments(ROWS, np.concatenate([live.mean, still]), np.concatenate([live.m2, np.full(32, (wavering * 0.7) ** 2)]))
        return score.vector(drawn)[None]

    calm = learnt(np.concatenate([window(0.0) for _ in range(60)]))
    assert scored(calm, window(1e-7))[0] < 1.5
    assert scored(calm, window(0.1))[0] > 20.0


@pytest.mark.parametrize("level", [0.0, 1.0, -3e4, 1e15])
def test_a_layer_that_never_moves_is_scored_with_finite_numbers(level: float) -> None:
    """Baseline windows equal to the last bit forgive rounding, flag a change, and overflow nowhere."""
    still = Moments(ROWS, np.full(8, level), np.zeros(8))
    calm = learnt(np.stack([score.vector(still)] * 20))
    rounded = Moments(ROWS, still.mean * (1 + 1e-7), np.square(1e-7 * still.mean))
    assert scored(calm, score.vector(rounded)[None], 64)[0] < 1e-2
    moved = Moments(ROWS, still.mean * 1.1 + 0.1, np.zeros(8))
    assert 10.0 < scored(calm, score.vector(moved)[None])[0] < np.inf
    replayed = score.replay(np.stack([score.vector(still)] * 30), np.full(30, float(ROWS)), 4, 2)
    assert np.isfinite(replayed[3:]).all()


def test_one_outlying_channel_does_not_blind_the_others(make_moments) -> None:
    """A channel ten thousand times as wide as the rest leaves their drift visible."""
    rng = np.random.default_rng(11)
    scale = np.ones(64)
    scale[5] = 1e4

    def window(level: float) -> Floats:
        drawn = make_moments(rng, ROWS, 64, level=level)
        return score.vector(Moments(ROWS, drawn.mean * scale, drawn.m2 * scale**2))[None]

    calm = learnt(np.concatenate([window(0.0) for _ in range(60)]))
    assert scored(calm, window(0.0))[0] < 1.6
    assert scored(calm, window(0.2))[0] > 5.0


def test_finite_values_however_large_have_a_score() -> None:
    """Activations of 1e20, whose square no float32 holds, give a large score and no warning."""
    calm = score.reference(np.zeros(8), np.ones(8), 100.0, 50)
    assert 1e30 < float(score.score(calm, score.vector(Moments(100, np.full(4, 1e20), np.full(4, 1e40))), 1.0, 1.0)) < np.inf
    wild = score.reference(np.full(8, 1e30), np.full(8, 1e60), 100.0, 50)
    assert np.isfinite(wild.variance).all()


def test_one_wild_window_is_soon_forgotten() -> None:
    """A window a million deviations out counts ten in an average: the longest is back among calm scores within 40 windows."""
    rng = np.random.default_rng(0)
    calm = score.reference(np.zeros(128), np.ones(128), 100.0, 500)
    average = score.Average.empty(16, 128)
    scores = []
    for number in range(120):
        vector = rng.standard_normal(128) + (1e6 if number == 60 else 0.0)
        average.add(score.tamed(calm, vector, 1.0), 1.0)
        scores.append(average.score(calm))
    assert max(scores[61:65]) > 5.0
    assert max(scores[100:]) < 2.0
