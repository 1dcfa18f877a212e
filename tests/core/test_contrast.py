"""Contrast: what the other layers share, and how a contrast depends on it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geluwatch.core import contrast, surprise
from geluwatch.core.contrast import Bend, by_layer, shared
from geluwatch.records import POINTS, Floats

CONTRAST = 1

shapes = st.tuples(st.integers(1, 4), st.integers(1, 3))


@given(shape=shapes, seed=st.integers(0, 2**31), gaps=st.booleans())
def test_what_the_others_share_is_their_median(shape: tuple[int, int], seed: int, gaps: bool) -> None:
    """For each point it is the median of the other layers' points, a missing one standing at the median of all; one layer has none."""
    layers, points = shape
    rng = np.random.default_rng(seed)
    belongs = np.repeat(np.arange(layers), points)
    keys = tuple((f"layer.{layer}", POINTS[0]) for layer in belongs)
    levels = rng.normal(size=(5, layers * points, 2)).round(1)  # rounded, so that there are ties
    if gaps:
        levels[rng.random(levels.shape) < 0.3] = np.nan
    found = shared(levels, by_layer(keys))
    for window, key, horizon in np.ndindex(levels.shape):
        across = levels[window, :, horizon]
        if layers == 1 or np.isnan(across[key]):
            assert np.isnan(found[window, key, horizon])
        else:
            filled = np.where(np.isnan(across), np.nanmedian(across), across)
            assert found[window, key, horizon] == pytest.approx(np.median(filled[belongs != belongs[key]]))


def bent(rng: np.random.Generator, count: int) -> tuple[Floats, Floats]:
    """Deviations (n, 5) of layers that scatter less the higher they all are, and the level (n,) that they share."""
    common = rng.uniform(-1.7, 1.7, count)
    return 4.0 * common[:, None] + 1.2 * np.exp(-0.7 * common)[:, None] * rng.standard_normal((count, 5)), common


def test_a_bend_makes_quiet_and_busy_traffic_alike(make_calm) -> None:
    """Contrasts that scatter four times as much in quiet traffic have one spread in the outer quintiles once straightened."""
    rng = np.random.default_rng(11)
    yardstick = surprise.measure(make_calm(bent(rng, 2000)[0]))
    flat = replace(yardstick, bend=replace(yardstick.bend, slope=np.zeros((5, 1)), tilt=np.zeros((5, 1))))
    deviations, common = bent(rng, 5000)
    scores = make_calm(deviations).scores
    quiet, busy = common < np.quantile(common, 0.2), common > np.quantile(common, 0.8)

    def ratio(by: surprise.Yardstick) -> float:
        contrasts = by.deviations(scores)[:, CONTRAST, :, 0]
        return float(contrasts[quiet].std() / contrasts[busy].std())

    assert ratio(flat) > 3.0
    assert 0.75 < ratio(yardstick) < 1.4


def test_a_contrast_without_a_bend_is_left_almost_straight(make_calm) -> None:
    """What chance alone would show is shrunk: independent scores get hardly any slope or tilt."""
    rng = np.random.default_rng(12)
    bend = surprise.measure(make_calm(rng.standard_normal((2000, 5)))).bend
    assert np.abs(bend.tilt).max() < 0.1


def test_a_bend_is_flat_outside_of_what_was_seen() -> None:
    """Levels beyond those of the baseline are straightened as the outermost of them, at the middle nothing is done."""
    bend = Bend(*(np.array([[value]]) for value in (-1.0, 2.0, 0.5, 0.3, -0.4)))
    at = {others: float(bend.straighten(np.array([[1.0]]), np.array([[others]]))[0, 0]) for others in (-9.0, -1.0, 0.5, 2.0, 99.0)}
    assert 1.0 == at[0.5]
    assert (at[-9.0], at[99.0]) == (at[-1.0], at[2.0])
    assert at[2.0] == pytest.approx((1.0 - 0.3 * 1.5) * np.exp(0.4 * 1.5))


def test_the_layers_before_a_layer_are_asked_for_their_median() -> None:
    """Each key has the median of all keys of earlier layers, NaN left out; those of the first layer have none."""
    levels = np.array([[1.0], [3.0], [np.nan], [5.0], [7.0]])
    found = contrast.before(levels, np.array([0, 0, 1, 1, 2]))
    assert [np.inf, np.inf, 2.0, 2.0, 3.0] == found[:, 0].tolist()
    assert np.isinf(contrast.before(np.array([[np.nan], [5.0]]), np.array([0, 1]))).all()


def test_a_place_in_any_order_is_a_place() -> None:
    """The keys' order is not the model's."""
    found = contrast.before(np.array([[9.0], [1.0]]), np.array([4, 2]))
    assert [1.0, np.inf] == found[:, 0].tolist()
