"""Gross faults: dead layers and impossible values, told without any baseline."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr

from geluwatch.core import gross, histogram
from geluwatch.core.window import observe
from geluwatch.records import PointKey, PointWindow, Site

LAYERS = ("a", "b")
SITES = tuple(Site(layer, position, "module", "GELU", "erf") for position, layer in enumerate(LAYERS))

FORMS = {
    "erf": lambda x: x * ndtr(x),
    "tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "quick": lambda x: x / (1 + np.exp(-1.702 * x)),
}


def erf(values: np.ndarray) -> np.ndarray:
    """The GELU."""
    return (values * ndtr(values)).astype(np.float32)


def points(dtype: str = "float32", **pre: Any) -> dict[PointKey, PointWindow]:
    """A window of the layers named, from their values before the GELU, or a pair of those before and after it."""
    found: dict[PointKey, PointWindow] = {}
    for layer, given_ in pre.items():
        before, after = given_ if isinstance(given_, tuple) else (given_, erf(given_))
        found[layer, "pre"] = observe(before.astype(np.float32), dtype)
        found[layer, "post"] = observe(after.astype(np.float32), dtype)
    return found


def faults(seen: dict[PointKey, PointWindow], sites: tuple[Site, ...] = SITES) -> dict[PointKey, str]:
    """What is grossly wrong, where twenty rows are enough to tell."""
    return dict(gross.faults(seen, sites, 20))


def normal(seed: int = 0, rows: int = 50, level: float = 0.0) -> np.ndarray:
    """Normal rows (rows, 8)."""
    return np.random.default_rng(seed).normal(level, 1.0, (rows, 8)).astype(np.float32)


def test_calm_has_no_fault() -> None:
    """Normal rows in both layers are no fault at any point."""
    assert {} == faults(points(a=normal(1), b=normal(2)))


def test_closed_gates_are_a_dead_layer() -> None:
    """Where all values lie far below zero the output is next to nothing: the layer is dead, though its rows differ."""
    assert {("b", "post"): "dead"} == faults(points(a=normal(1), b=normal(2, level=-12.0)))
    assert {("a", "post"): "dead"} == faults(points(a=np.zeros((20, 8)) - 5.0, b=normal(2)))


def test_one_open_gate_keeps_a_layer_alive() -> None:
    """A single value that comes through is enough not to call a layer dead."""
    closed = normal(2, level=-12.0)
    closed[3, 4] = 0.5
    assert {} == faults(points(a=normal(1), b=closed))


def test_one_row_repeated_is_a_dead_layer_where_another_layer_varies() -> None:
    """A layer that gives the same row whatever comes in is dead before the GELU, as long as others tell that the input varies."""
    stuck = np.repeat(normal(3, rows=1), 50, axis=0)
    assert {("b", "pre"): "dead"} == faults(points(a=normal(1), b=stuck))


def test_the_same_input_over_and_over_is_no_fault() -> None:
    """Where every layer repeats its row it is the input that never changes."""
    one, other = (np.repeat(normal(seed, rows=1), 50, axis=0) for seed in (3, 4))
    assert {} == faults(points(a=one, b=other))


@pytest.mark.parametrize(("rows", "told"), [(1, False), (19, False), (20, True)])
def test_few_rows_tell_nothing(rows: int, told: bool) -> None:
    """Below the minimum of rows nothing is called dead or impossible, however far off it is."""
    closed = points(a=normal(1), b=normal(2, rows=rows, level=-12.0))
    low = points(a=normal(1), b=(normal(2, rows=rows), normal(3, rows=rows) - 9.0))
    assert ({("b", "post"): "dead"} if told else {}) == faults(closed)
    assert ({("b", "post"): "impossible"} if told else {}) == faults(low)


def test_a_single_row_is_never_dead() -> None:
    """Even where one row is enough to be judged, it takes two to repeat one."""
    assert {} == gross.faults(points(a=normal(1), b=normal(2, rows=1, level=-12.0)), SITES, 1)


def test_rows_with_a_nan_are_left_to_the_guard() -> None:
    """A layer with a NaN in every row is not called dead for having no sound rows."""
    spoilt = normal(2)
    spoilt[:, 3] = np.nan
    assert {} == faults(points(a=normal(1), b=(spoilt, spoilt)))


@pytest.mark.parametrize("least", [-0.18, -1.0, -np.finfo(np.float32).max])
def test_values_below_the_minimum_of_a_gelu_are_impossible(least: float) -> None:
    """One value after the GELU that no GELU gives is a fault, whatever it is."""
    after = erf(normal(2))
    after[7, 3] = least
    assert {("b", "post"): "impossible"} == faults(points(a=normal(1), b=(normal(2), after)))


def test_an_activation_with_a_formula_of_its_own_has_no_bounds_but_can_be_dead() -> None:
    """Where the variant is "other" low values are fine, while an output of nothing is not."""
    sites = (SITES[0], Site("b", 1, "module", "Custom", "other"))
    assert {} == faults(points(a=normal(1), b=(normal(2), normal(3) - 5.0)), sites)
    assert {("b", "post"): "dead"} == faults(points(a=normal(1), b=(normal(2), np.zeros((50, 8)))), sites)


def test_layers_without_rows_and_layers_unknown_are_passed_over() -> None:
    """A site that gave nothing, and a point that no site claims, are no fault."""
    assert {} == faults({})
    assert {} == faults(points(a=normal(1), c=normal(2, level=-12.0)))


@pytest.mark.parametrize("variant", ["erf", "tanh", "quick"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_no_form_of_the_gelu_is_called_impossible(variant: str, dtype: str) -> None:
    """The whole curve of each form, rounded to each dtype's lattice as a model would round it, is possible."""
    before = np.linspace(-8, 8, 200_000, dtype=np.float64).reshape(-1, 8)
    after = FORMS[variant](before).astype(np.float32)
    if dtype == "float16":
        after = after.astype(np.float16).astype(np.float32)
    elif dtype == "bfloat16":  # to nearest, ties to even
        patterns = after.view(np.uint32)
        after = ((patterns + 0x7FFF + ((patterns >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
    site = Site("a", 0, "module", "GELU", variant)
    assert {} == faults(points(dtype, a=(before, after)), (site,))


@given(values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=30))
def test_extremes_are_those_of_the_values_to_within_a_cell(values: list[float]) -> None:
    """The smallest and the largest are read off to a part in 64, or to 2 ** -13 near zero, always towards zero."""
    low, high = gross.extremes(histogram.from_values(np.array(values, np.float32)))
    for found, exact in ((low, min(values)), (high, max(values))):
        assert abs(found) <= abs(exact)
        assert abs(found) == pytest.approx(abs(exact), rel=1 / 64, abs=2.0**-13)


def test_nothing_counted_has_its_extremes_at_zero() -> None:
    """An empty histogram, or one of nothing but NaN, gives zeros."""
    assert (0.0, 0.0) == gross.extremes(histogram.empty())
    assert (0.0, 0.0) == gross.extremes(histogram.from_values(np.array([np.nan, np.inf])))


def test_a_fault_is_the_same_where_calm_had_it_too() -> None:
    """A layer dead for good and values that overshot before are no news; a living layer's death and clean values' are."""
    calm, dead = (histogram.from_values(erf(normal(1, level=level))) for level in (0.0, -12.0))
    low = histogram.from_values(normal(1))
    assert gross.the_same("dead", dead)
    assert gross.the_same("impossible", low)
    assert not gross.the_same("dead", calm)
    assert not gross.the_same("impossible", calm)
