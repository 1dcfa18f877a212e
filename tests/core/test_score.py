"""The drift score: about 1 in calm whatever the horizon, the scale or the volume; growing where a shift lasts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

from geluwatch.core import moments, score
from geluwatch.records import Floats, Moments

ROWS = 2000


def calm_vectors(make_moments, rng: np.random.Generator, count: int, rows: int = ROWS, channels: int = 64, **how: float) -> Floats:
    """Vectors (count, 2C) of windows of independent normal rows."""
    return np.stack([score.vector(make_moments(rng, rows, channels, **how)) for _ in range(count)])


def full(count: int, rows: float = ROWS) -> Floats:
    """The rows of `count` equal windows."""
    return np.full(count, float(rows))


def post_gelu_moments(rng: np.random.Generator, rows: int, channels: int = 64) -> Moments:
    """Moments of skewed, heavy-tailed rows: GELU outputs of inputs that are mostly negative."""
    before = rng.normal(-0.5, 1.0, (rows, channels))
    return moments.from_rows(before * ndtr(before))


def naive_replay(vectors: Floats, rows: Floats, horizon: int, gap: int) -> Floats:
    """Score every run against a reference made anew from the windows outside its block."""
    scores = []
    for start in range(len(vectors) - horizon + 1):
        outside = [k for k in range(len(vectors)) if k < start - gap or k >= start + horizon + gap]
        if len(outside) >= 2:
            calm = score.reference(vectors[outside], rows[outside])
            scores.append(score.score(calm, vectors[start : start + horizon], rows[start : start + horizon]))
    return np.array(scores)


@pytest.mark.parametrize(("windows", "horizon", "gap"), [(12, 1, 1), (20, 4, 2), (30, 16, 3), (9, 4, 2), (40, 1, 5)])
@pytest.mark.parametrize("level", [0.0, 1e4])
def test_replay_equals_the_naive_leave_block_out(make_moments, windows: int, horizon: int, gap: int, level: float) -> None:
    """Updating sums gives what making each reference anew gives, for uneven rows and levels far from zero too."""
    rng = np.random.default_rng(windows)
    vectors = calm_vectors(make_moments, rng, windows, channels=7, level=level)
    rows = rng.integers(60, 3000, windows).astype(float)
    expected = naive_replay(vectors, rows, horizon, gap)
    assert expected.size > 0
    assert score.replay(vectors, rows, horizon, gap) == pytest.approx(expected, rel=1e-6)


def test_replay_of_too_few_windows_is_empty() -> None:
    """Where fewer than two windows lie outside every block there is no score."""
    assert score.replay(np.zeros((5, 4)), full(5), 4, 1).size == 0


@pytest.mark.parametrize("horizon", [1, 4, 16])
def test_calm_scores_lie_about_one_at_every_horizon(make_moments, horizon: int) -> None:
    """Unseen calm runs score 1 on average, to within what a reference of 200 windows can be off."""
    rng = np.random.default_rng(horizon)
    calm = score.reference(calm_vectors(make_moments, rng, 200), full(200))
    scores = [score.score(calm, calm_vectors(make_moments, rng, horizon), full(horizon)) for _ in range(100)]
    assert 0.95 < np.mean(scores) < 1.05 * (1 + horizon / 200)


def test_a_lasting_shift_scores_higher_the_longer_the_horizon(make_moments) -> None:
    """A shift of a hundredth of the spread is invisible in one window and unmistakable in sixteen."""
    rng = np.random.default_rng(5)
    calm = score.reference(calm_vectors(make_moments, rng, 200), full(200))
    shifted = calm_vectors(make_moments, rng, 16, level=0.02)
    one, four, sixteen = (score.score(calm, shifted[-horizon:], full(horizon)) for horizon in (1, 4, 16))
    assert one < 2.0 < four < sixteen
    assert sixteen > 5.0


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1.0, 1e3, 1e12])
def test_the_score_does_not_depend_on_the_unit(make_moments, scale: float) -> None:
    """Scaling a layer's values by any factor changes neither its calm score nor that of a shift or a wider spread."""

    def scores(unit: float) -> list[float]:
        rng = np.random.default_rng(6)
        calm = score.reference(calm_vectors(make_moments, rng, 60, scale=unit), full(60))
        windows = [
            make_moments(rng, ROWS, 64, scale=unit),
            make_moments(rng, ROWS, 64, level=0.1 * unit, scale=unit),
            make_moments(rng, ROWS, 64, scale=1.1 * unit),
        ]
        return [score.score(calm, score.vector(window)[None], full(1)) for window in windows]

    expected = scores(1.0)
    assert expected[0] < 1.5 < 5.0 < min(expected[1:])
    assert scores(scale) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("draw", ["normal", "gelu"])
@pytest.mark.parametrize("rows", [64, 100, 500])
def test_fewer_rows_never_raise_the_expected_score(make_moments, draw: str, rows: int) -> None:
    """Against a baseline of 2,000 rows a window, calm windows of few rows score no higher on average, at any horizon."""
    rng = np.random.default_rng(rows)
    take = post_gelu_moments if draw == "gelu" else lambda rng, rows: make_moments(rng, rows, 64)
    baseline = np.stack([score.vector(take(rng, ROWS)) for _ in range(100)])
    calm = score.reference(baseline, full(100))
    scarce = np.stack([score.vector(take(rng, rows)) for _ in range(160)])
    for horizon in (1, 4, 16):
        runs = [score.score(calm, scarce[k : k + horizon], full(horizon, rows)) for k in range(0, 160, horizon)]
        assert np.mean(runs) < 1.1 * (1 + horizon / 100)


def test_more_rows_never_raise_the_expected_score() -> None:
    """Against a baseline of 64 heavy-tailed rows a window, calm windows of 2,000 rows score lower, not higher."""
    rng = np.random.default_rng(8)
    calm = score.reference(np.stack([score.vector(post_gelu_moments(rng, 64)) for _ in range(100)]), full(100, 64))
    ample = np.stack([score.vector(post_gelu_moments(rng, ROWS)) for _ in range(16)])
    for horizon in (1, 4, 16):
        assert score.score(calm, ample[:horizon], full(horizon)) < 1.0


def test_forgiving_few_rows_does_not_forgive_a_collapse(make_moments) -> None:
    """A tenth less spread in windows of 200 rows is still seen, although few rows explain some shortfall."""
    rng = np.random.default_rng(9)
    calm = score.reference(calm_vectors(make_moments, rng, 100), full(100))
    narrow = calm_vectors(make_moments, rng, 16, rows=200, scale=0.9)
    assert score.score(calm, narrow, full(16, 200)) > 10.0


def test_an_odd_text_does_not_carry_the_score_away(make_moments) -> None:
    """Channels thrown out by a heavy tail, as one unusual text does it, raise the score far less than the mean of squares."""
    rng = np.random.default_rng(12)
    calm = score.reference(calm_vectors(make_moments, rng, 60, channels=512), full(60))
    thrown = calm_vectors(make_moments, rng, 1, channels=512)
    at = rng.choice(512, 10, replace=False)
    thrown[0, at] += rng.choice([-1, 1], 10) * 15 / np.sqrt(ROWS)
    plain = float((np.square(thrown[0] - calm.mean) / calm.variance).mean())
    assert plain > 3.0
    assert score.score(calm, thrown, full(1)) < 1.4


def test_a_few_dead_channels_still_count(make_moments) -> None:
    """One channel in fifty going silent is seen in a single window."""
    rng = np.random.default_rng(13)
    calm = score.reference(calm_vectors(make_moments, rng, 60, channels=500), full(60))
    drawn = make_moments(rng, ROWS, 500)
    drawn.m2[:10], drawn.mean[:10] = 0.0, -0.17
    assert score.score(calm, score.vector(drawn)[None], full(1)) > 1.8


def test_constant_channels_do_not_explode(make_moments) -> None:
    """Half of the channels constant in the baseline and wavering by rounding later leave the score near 1; coming alive does not."""
    rng = np.random.default_rng(10)

    def window(wavering: float) -> Floats:
        live = make_moments(rng, ROWS, 32)
        still = 0.7 * (1 + wavering * rng.standard_normal(32))
        return score.vector(
            Moments(ROWS, np.concatenate([live.mean, still]), np.concatenate([live.m2, np.full(32, (wavering * 0.7) ** 2)]))
        )

    calm = score.reference(np.stack([window(0.0) for _ in range(60)]), full(60))
    assert score.score(calm, window(1e-7)[None], full(1)) < 1.5
    assert score.score(calm, window(0.1)[None], full(1)) > 100.0


@pytest.mark.parametrize("level", [0.0, 1.0, -3e4, 1e30])
def test_a_layer_that_never_moves_is_scored_with_finite_numbers(level: float) -> None:
    """Baseline windows equal to the last bit forgive rounding, flag a change, and overflow nowhere."""
    still = Moments(ROWS, np.full(8, level), np.zeros(8))
    calm = score.reference(np.stack([score.vector(still)] * 20), full(20))
    rounded = Moments(ROWS, still.mean * (1 + 1e-7), np.square(1e-7 * still.mean))
    assert score.score(calm, score.vector(rounded)[None], full(1, 64)) < 1e-3
    moved = Moments(ROWS, still.mean * 1.1 + 0.1, np.zeros(8))
    assert 10.0 < score.score(calm, score.vector(moved)[None], full(1)) < np.inf
    assert np.isfinite(score.replay(np.stack([score.vector(still)] * 20), full(20), 4, 2)).all()


def test_one_outlying_channel_does_not_blind_the_others(make_moments) -> None:
    """A channel ten thousand times as wide as the rest leaves their drift visible."""
    rng = np.random.default_rng(11)
    scale = np.ones(64)
    scale[5] = 1e4

    def window(level: float) -> Floats:
        drawn = make_moments(rng, ROWS, 64, level=level)
        return score.vector(Moments(ROWS, drawn.mean * scale, drawn.m2 * scale**2))

    calm = score.reference(np.stack([window(0.0) for _ in range(60)]), full(60))
    assert score.score(calm, window(0.0)[None], full(1)) < 1.6
    assert score.score(calm, window(0.2)[None], full(1)) > 20.0
