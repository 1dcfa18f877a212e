"""Onset: which layer was first, when drift began, and whether it is the traffic or the model."""

from __future__ import annotations

import numpy as np
import pytest

from geluwatch.core import onset
from geluwatch.core.contrast import by_layer
from geluwatch.core.onset import History, Onset
from geluwatch.records import POINTS, Floats, PointKey

LAYERS = tuple(f"layer.{number}" for number in range(6))
KEYS: tuple[PointKey, ...] = tuple((layer, point) for layer in LAYERS for point in POINTS)
POSITIONS = {layer: number for number, layer in enumerate(LAYERS)}
WINDOWS, BEGAN = 40, 25
MINUTE = 60.0
LEVEL, CONTRAST, SHIFT, SCALE = range(4)


def calm(seed: int = 0, windows: int = WINDOWS) -> Floats:
    """Deviations (n, 4, K, 1) of calm windows."""
    return np.random.default_rng(seed).standard_normal((windows, 4, len(KEYS), 1))


def history(deviations: Floats) -> History:
    """The history of successive minutes' deviations."""
    kept = History(KEYS, by_layer(KEYS))
    for number, seen in enumerate(deviations):
        kept.add(number * MINUTE, seen)
    return kept


def found(deviations: Floats, layers: tuple[int, ...], family: int = LEVEL) -> Onset:
    """The onset with all points of some layers in alarm, the strongest being that of the highest last deviation."""
    alarmed = {key: (family, 0) for key in KEYS if POSITIONS[key[0]] in layers}
    strongest = max(alarmed, key=lambda key: deviations[-1, family, KEYS.index(key), 0])
    return history(deviations).onset(alarmed, strongest, POSITIONS)


def raised(deviations: Floats, layer: int, since: int, by: float, family: int | slice = slice(None)) -> None:
    """Raise one layer's deviations from a window on."""
    deviations[since:, family, 2 * layer : 2 * layer + 2] += by


def test_without_an_alarm_there_is_no_onset() -> None:
    """Nothing in alarm has no layers, no times and no scope."""
    assert Onset((), {}, "") == history(calm()).onset({}, None, POSITIONS)


@pytest.mark.parametrize("family", [LEVEL, CONTRAST, SHIFT])
def test_the_layer_that_moved_first_is_named_first(family: int) -> None:
    """A later layer that began well before an earlier one comes first; the times are right to three windows."""
    deviations = calm()
    raised(deviations, 4, BEGAN, 6.0)
    raised(deviations, 1, BEGAN + 10, 6.0)
    seen = found(deviations, (1, 4), family)
    assert (("layer.4", "layer.1"), "model") == (seen.layers, seen.scope)
    for (layer, _), time in seen.times.items():
        assert (BEGAN + (0 if layer == "layer.4" else 10)) * MINUTE == pytest.approx(time, abs=3 * MINUTE)
    assert {("layer.1", "pre"), ("layer.1", "post"), ("layer.4", "pre"), ("layer.4", "post")} == set(seen.times)


def test_layers_that_moved_at_once_come_in_the_model_s_order() -> None:
    """Of layers that began together the first is the one nearest to the input, however much further the others are."""
    deviations = calm()
    for layer, by in ((5, 20.0), (3, 12.0), (2, 6.0)):
        raised(deviations, layer, BEGAN, by)
    assert ("layer.2", "layer.3", "layer.5") == found(deviations, (2, 3, 5)).layers


@pytest.mark.parametrize("ahead", [1, 2, 3])
def test_noise_downstream_that_runs_ahead_does_not_take_the_first_place(ahead: int) -> None:
    """A layer downstream that was high by chance a few windows before the fault is not taken for its origin."""
    deviations = calm()
    raised(deviations, 2, BEGAN, 8.0)
    raised(deviations, 4, BEGAN - ahead, 8.0)
    assert "layer.2" == found(deviations, (2, 4)).layers[0]


def test_a_slow_rise_is_dated_near_its_beginning() -> None:
    """Drift that grows by a fifth of a deviation a window is dated to when it rose above noise, not to the alarm."""
    deviations = 0.5 * calm()
    deviations[20:, :, 6:8] += 0.2 * np.arange(WINDOWS - 20)[:, None, None, None]
    began = found(deviations, (3,)).times["layer.3", "pre"] / MINUTE
    assert 18 <= began <= 28


@pytest.mark.parametrize("seed", range(5))
def test_what_moves_all_layers_is_the_traffic(seed: int) -> None:
    """Where most layers moved alike it is the traffic, and the first layer of the model is named first, whichever showed it first."""
    deviations = calm(seed)
    for layer in range(6):
        raised(deviations, layer, BEGAN - (8 if layer == 3 else 0), 5.0 + layer, LEVEL)
    seen = found(deviations, tuple(range(6)))
    assert ("traffic", LAYERS) == (seen.scope, seen.layers)


@pytest.mark.parametrize("seed", range(5))
def test_what_moves_few_layers_or_one_much_further_is_the_model(seed: int) -> None:
    """One layer out alone is the model's doing, and so is one that is far beyond what the others share."""
    alone, beyond = calm(seed), calm(seed)
    raised(alone, 3, BEGAN, 9.0)
    assert "model" == found(alone, (3,)).scope
    for layer in range(6):
        raised(beyond, layer, BEGAN, 30.0 if layer == 2 else 5.0)
    assert "model" == found(beyond, (2,)).scope


def test_points_without_a_score_do_not_spoil_the_search() -> None:
    """Windows in which a layer was not judged count as calm, and a layer never judged is nobody's traffic."""
    deviations = calm()
    raised(deviations, 2, BEGAN, 8.0)
    deviations[30:33, :, 4:6] = np.nan
    deviations[:, :, 8:] = np.nan
    seen = found(deviations, (2,))
    assert "model" == seen.scope
    assert BEGAN * MINUTE == pytest.approx(seen.times["layer.2", "pre"], abs=3 * MINUTE)


def test_only_so_many_windows_are_remembered() -> None:
    """Drift that began before the memory is dated to the oldest window in it, and no more windows than that are kept."""
    windows = onset.REMEMBERED + 30
    deviations = calm(windows=windows)
    raised(deviations, 1, 5, 8.0)
    kept = history(deviations)
    assert onset.REMEMBERED == len(kept._windows)
    seen = kept.onset({("layer.1", "pre"): (LEVEL, 0)}, ("layer.1", "pre"), POSITIONS)
    assert {("layer.1", "pre"): 30 * MINUTE} == seen.times


def test_a_scale_that_fell_is_dated_as_one_that_rose() -> None:
    """Shifts and scales go either way: the beginning of a fall is found where that of the rise would be."""
    deviations = calm(3)
    raised(deviations, 3, BEGAN, 8.0, SCALE)
    rose = found(deviations, (3,), SCALE).times
    deviations[:, SCALE] *= -1.0
    assert rose == found(deviations, (3,), SCALE).times
    assert rose["layer.3", "pre"] / MINUTE == pytest.approx(BEGAN, abs=1)
