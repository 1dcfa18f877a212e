"""The drift score: about 1 in calm whatever the horizon, the scale or the volume; growing where a shift lasts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr

from geluwatch.core import moments, score
from geluwatch.core.average import Averages, replay
from geluwatch.records import Floats, Moments, Reference

ROWS = 2000


def calm_vectors(make_moments, rng: np.random.Generator, count: int, rows: int = ROWS, channels: int = 64, **how: float) -> Floats:
    """Vectors (count, 2C) of windows of independent normal rows."""
    return np.stack([score.vector(make_moments(rng, rows, channels, **how)) for _ in range(count)])


def learnt(vectors: Floats, rows: float = ROWS) -> Reference:
    """The reference of vectors (m, 2C)."""
    return score.reference(vectors.mean(axis=0), vectors.var(axis=0, ddof=1), rows, len(vectors))


def judged(calm: Reference, vectors: Floats, rows: float | Floats = ROWS, horizon: int = 1) -> Floats:
    """The statistics (3, n) of successive windows, one by one, as a judge takes them."""
    averages = Averages(calm, (horizon,))
    found = []
    for seen, held in zip(vectors, np.broadcast_to(np.asarray(rows, float), len(vectors)), strict=True):
        averages.add(seen, float(held), 0.0)
        found.append(averages.statistics()[:, 0])
    return np.array(found).T


def scored(calm: Reference, vectors: Floats, rows: float | Floats = ROWS, horizon: int = 1) -> Floats:
    """The score (n,) of each of successive windows."""
    found: Floats = judged(calm, vectors, rows, horizon)[0]
    return found


def post_gelu_moments(rng: np.random.Generator, rows: int, channels: int = 64) -> Moments:
    """Moments of skewed, heavy-tailed rows: GELU outputs of inputs that are mostly negative."""
    before = rng.normal(-0.5, 1.0, (rows, channels))
    return moments.from_rows(before * ndtr(before))


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
    assert np.nanmean(replay(vectors, np.full(200, float(ROWS)), np.zeros(200), horizon, 25)[0]) == pytest.approx(1.0, abs=0.05)


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
def test_thinness_is_the_ratio_of_rows(rows: float, typical: float) -> None:
    """A window with half the usual rows is twice as thin, one with more is below 1, and none at all counts as one row."""
    assert score.thinness(rows, 0.0, typical, 0.0) == pytest.approx(typical / rows)
    assert score.thinness(0.0, 0.0, typical, 0.0) == typical


def test_thinness_is_that_of_rows_or_of_requests_whichever_is_scarcer() -> None:
    """As many rows from a quarter of the requests are four times as thin; a side that does not know its requests is not asked."""
    assert (4.0, 2.0) == (score.thinness(640, 8.0, 640.0, 32.0), score.thinness(320, 32.0, 640.0, 32.0))
    assert (1.0, 1.0) == (score.thinness(640, 0.0, 640.0, 32.0), score.thinness(640, 8.0, 640.0, 0.0))


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
    replayed = replay(np.stack([score.vector(still)] * 30), np.full(30, float(ROWS)), np.zeros(30), 4, 2)
    assert np.isfinite(replayed[:, 3:]).all()


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
    far = score.vector(Moments(100, np.full(4, 1e20), np.full(4, 1e40)))
    found = score.statistics(score.standardised(calm, far), np.ones(()), np.zeros(()), score.bias(calm))
    assert (found[0] > 1e30, np.isfinite(found).all()) == (True, True)
    assert np.isfinite(judged(calm, far[None])).all()
    still = score.reference(np.zeros(8), np.full(8, 1e-24), 100.0, 50)
    assert np.isfinite(judged(still, far[None])).all()
    wild = score.reference(np.full(8, 1e30), np.full(8, 1e60), 100.0, 50)
    assert np.isfinite(wild.variance).all()


def test_one_wild_window_is_soon_forgotten() -> None:
    """A window a million deviations out counts ten in an average: the longest is back among calm scores within 40 windows."""
    rng = np.random.default_rng(0)
    calm = score.reference(np.zeros(128), np.ones(128), 100.0, 500)
    vectors = rng.standard_normal((120, 128))
    vectors[60] += 1e6
    scores = scored(calm, vectors, 100.0, 16)
    assert max(scores[61:65]) > 5.0
    assert max(scores[100:]) < 2.0


def test_shift_and_scale_of_calm_are_standard_normal(make_moments) -> None:
    """With independent channels both have mean 0 and deviation 1 in calm, at every horizon."""
    rng = np.random.default_rng(30)
    calm = learnt(calm_vectors(make_moments, rng, 400, channels=256))
    unseen = calm_vectors(make_moments, rng, 1200, channels=256)
    for horizon in (1, 4, 16):
        found = judged(calm, unseen, horizon=horizon)[1:3]
        independent = found[:, ~np.isnan(found[0])][:, :: 2 * horizon]
        assert independent.mean(axis=1) == pytest.approx(0.0, abs=0.4)
        assert independent.std(axis=1) == pytest.approx(1.0, abs=0.3)


def test_the_matched_filters_see_what_the_score_does_not(make_moments) -> None:
    """All channels a hundredth wider, or moved a twentieth of their noise one way, stand out in their lean, hardly in the score."""
    rng = np.random.default_rng(31)
    calm = learnt(calm_vectors(make_moments, rng, 200, channels=1024))
    wider = judged(calm, calm_vectors(make_moments, rng, 8, channels=1024, scale=1.01))
    moved = judged(calm, calm_vectors(make_moments, rng, 8, channels=1024, level=0.3 / np.sqrt(ROWS)))
    assert wider[2].min() > 10.0 > 3.0 > np.abs(wider[1]).max()
    assert moved[1].min() > 5.0 > 3.0 > np.abs(moved[2]).max()
    assert (wider[0].max() < 2.2, moved[0].max() < 1.5) == (True, True)


def test_a_lean_has_the_sign_of_the_change(make_moments) -> None:
    """Narrower channels lean below zero, lower means too."""
    rng = np.random.default_rng(32)
    calm = learnt(calm_vectors(make_moments, rng, 100))
    found = judged(calm, calm_vectors(make_moments, rng, 1, level=-0.1, scale=0.9))
    assert found[1:3, 0].max() < -5.0


def test_the_largest_is_the_channel_that_is_furthest_out(make_moments) -> None:
    """Of calm channels it is what the largest of so many normal numbers is, at any horizon; one that moves shows there alone."""
    rng = np.random.default_rng(34)
    calm = learnt(calm_vectors(make_moments, rng, 400, channels=512))
    for horizon in (1, 4, 16):
        assert np.nanmedian(judged(calm, calm_vectors(make_moments, rng, 60, channels=512), horizon=horizon)[3]) == pytest.approx(
            3.4, abs=0.3
        )
    moved = calm_vectors(make_moments, rng, 40, channels=512)
    moved[:, 7] += 6.0 * np.sqrt(calm.variance[7])
    found = judged(calm, moved, horizon=4)[:, 10:]
    assert (np.median(found[3]) > 10.0, np.median(found[0]) < 1.3) == (True, True)


def test_a_channel_that_never_moves_spoils_no_scale(make_moments) -> None:
    """Its log spread has no variance to speak of, so nothing is taken off the scale of windows of other volumes for its sake."""
    rng = np.random.default_rng(35)
    vectors = calm_vectors(make_moments, rng, 100)
    calm = learnt(vectors)
    constant = vectors.copy()
    half = vectors.shape[1] // 2
    constant[:, 3], constant[:, half + 3] = 1.0, -8.0
    short = score.bias(learnt(constant))
    assert 0.0 == short[3]
    assert np.delete(short, 3) == pytest.approx(np.delete(score.bias(calm), 3))


@pytest.mark.parametrize("draw", ["normal", "gelu"])
@pytest.mark.parametrize(("known", "held"), [(2000, 64), (2000, 500), (64, 2000)])
def test_neither_few_rows_nor_many_make_a_scale(make_moments, draw: str, known: int, held: int) -> None:
    """The bias of log spreads from other volumes than the baseline's leaves calm scales within what calm shows, at any horizon."""
    rng = np.random.default_rng(known + held)
    take = post_gelu_moments if draw == "gelu" else lambda rng, rows: make_moments(rng, rows, 64)
    calm = learnt(np.stack([score.vector(take(rng, known)) for _ in range(100)]), known)
    others = np.stack([score.vector(take(rng, held)) for _ in range(160)])
    for horizon in (1, 4, 16):
        assert np.nanmean(np.square(judged(calm, others, held, horizon)[2])) < 1.3


def test_a_large_allowance_is_that_of_each_channel(make_moments) -> None:
    """Channels of short log spreads are forgiven by their own bias: the score of thin windows is that of the formula in full."""
    rng = np.random.default_rng(33)
    calm = learnt(calm_vectors(make_moments, rng, 50, rows=100), 100)
    z = rng.standard_normal(128).astype(np.float32)
    uneven = np.array(9.0)
    found = float(score.statistics(z, np.array(10.0), uneven, score.bias(calm))[0])
    variance = np.concatenate([np.full(64, 10.0), 10.0 + np.square(9.0 * score.bias(calm))])
    typical = np.sqrt(np.abs(z) / np.sqrt(variance)).mean() ** 4
    assert found == pytest.approx(typical / 0.4570, rel=1e-3)
