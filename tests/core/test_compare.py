"""One baseline judged by another: the same traffic is the same, a layer that moved is named, a census that differs is told."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from geluwatch.config import Config
from geluwatch.core import histogram
from geluwatch.core.compare import compare
from geluwatch.core.recorder import Recorder
from geluwatch.errors import BaselineError
from geluwatch.records import POINTS, Baseline, Moments, PointWindow, Site, Window

LAYERS = tuple(f"encoder.{number}.act" for number in range(4))
ROWS, CHANNELS = 512, 48


@cache
def recorded(
    seed: int, *, moved: int | None = None, by: float = 0.0, windows: int = 60, layers: tuple[str, ...] = LAYERS, channels: int = CHANNELS
) -> Baseline:
    """Return a baseline of windows in which nothing changes but the texts; the channels' means of one layer may lie elsewhere."""
    chance = np.random.default_rng(seed)
    recorder = Recorder(Config())
    for index in range(windows):
        points: dict[Any, PointWindow] = {}
        for number, layer in enumerate(layers):
            shift = by if number == moved else 0.0
            for point in POINTS:
                values = histogram.from_values((chance.normal(size=1024) + shift).astype(np.float32))
                mean = chance.normal(size=channels) / np.sqrt(ROWS) + shift
                points[layer, point] = PointWindow(values, Moments(ROWS, mean, ROWS * chance.uniform(0.9, 1.1, channels)))
        ended = 1_700_000_000.0 + 60.0 * index
        recorder.add(Window(ended - 60.0, ended, 10, 10, points), layers)
    sites = tuple(Site(layer, position, "module", "GELUActivation", "erf") for position, layer in enumerate(layers))
    return recorder.baseline(model="minilm", model_version="1", name=f"b{seed}", created=1_700_000_000.0, sites=sites)


def test_the_same_traffic_is_the_same() -> None:
    """A baseline against itself, and others of the same traffic, twenty times over: no drift, however short the windows."""
    known = recorded(0)
    for other in (known, *(recorded(seed) for seed in range(1, 21))):
        found = compare(known, other, Config())
        assert ("same", 60, "", "") == (found.outcome, found.windows, found.first_layer, found.cause)
        assert [*LAYERS] == [layer.layer for layer in found.layers]
    assert all(
        interval == (0.0, interval.upper) for layer in compare(known, known, Config()).layers for interval in layer.distances.values()
    )


@pytest.mark.parametrize("moved", range(4))
def test_a_layer_that_moved_is_named(moved: int) -> None:
    """A shift of a tenth of a standard deviation at one layer is drift there first, and at no other layer."""
    found = compare(recorded(0), recorded(1, moved=moved, by=0.1), Config())
    assert ("drift", LAYERS[moved], "model") == (found.outcome, found.first_layer, found.scope)
    assert [LAYERS[moved]] == [layer.layer for layer in found.layers if layer.outcome == "drift"]
    layer = found.layers[moved]
    assert layer.alarms > 50
    assert layer.evidence > 1.0
    assert all(interval.lower > 0.02 for interval in layer.distances.values())


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("variant", "tanh", "its formula was erf, and is tanh"), ("kind", "GELU", "its class was GELUActivation, and is GELU")],
)
def test_another_census_differs(field: str, value: str, said: str) -> None:
    """Another formula or class at one layer differs, whatever the values say."""
    known = recorded(0)
    sites = tuple(replace(site, **{field: value}) if site.position == 2 else site for site in known.sites)
    found = compare(known, replace(known, sites=sites), Config())
    assert "differs" == found.outcome
    assert {LAYERS[2]: said} == {layer.layer: layer.difference for layer in found.layers if layer.difference}


def test_another_precision_differs() -> None:
    """A model cast to bfloat16 differs at every layer by what its values are, whose distances say how much that is."""
    known, other = recorded(0), recorded(1)
    cast = {key: histogram.coarsen(values, 16) for key, values in other.histograms.items()}
    found = compare(known, replace(other, histograms=cast), Config())
    assert ["its values were float32, and are bfloat16"] * 4 == [layer.difference for layer in found.layers]
    assert {"differs"} == {layer.outcome for layer in found.layers}


def test_layers_that_come_and_go_differ() -> None:
    """A layer that only one has is told as gone or new, and the rest is judged all the same."""
    found = compare(recorded(0), recorded(1, layers=(*LAYERS[:3], "head.act")), Config())
    assert {LAYERS[3]: "it is gone", "head.act": "it is new"} == {
        layer.layer: layer.difference for layer in found.layers if layer.difference
    }
    assert ["same"] * 3 == [layer.outcome for layer in found.layers[:3]]


@pytest.mark.parametrize(
    ("known", "other", "said"),
    [
        (recorded(0, windows=8), recorded(1), "Baseline 'b0' cannot judge another: "),
        (recorded(0), replace(recorded(1), windows=()), "Baseline 'b1' kept no window whole, so there is nothing to judge; record it with"),
        (recorded(0), recorded(1, channels=8), "Baselines 'b0' and 'b1' have no layer of the same width in common, so they cannot be"),
    ],
)
def test_what_cannot_be_compared_is_refused(known: Baseline, other: Baseline, said: str) -> None:
    """A first that cannot be armed, a second without windows, and two of nothing in common are refused with the reason."""
    with pytest.raises(BaselineError, match=said):
        compare(known, other, Config())
