"""Two reports: what follows from them is told, and what does not is not."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geluwatch.analysis.live import compare_reports

BASELINE = {"name": "v1", "created": 1.0, "certificate": None}


def point(**changed: Any) -> dict[str, Any]:
    """Return one point of a calm layer."""
    return {"ks": 0.01, "ks_upper": 0.012, "mean": 1.0, "std": 2.0, "evidence": 0.3, "alarm": "", "parity": None, **changed}


def layer(name: str, **changed: Any) -> dict[str, Any]:
    """Return a calm layer."""
    return {"layer": name, "state": "observed", "points": {"pre": point(), "post": point()}, **changed}


def report(**changed: Any) -> dict[str, Any]:
    """Return the report of a calm process of two layers."""
    return {"model": "tiny", "model_version": "1", "verdict": "ok", "baseline": BASELINE, "layers": [layer("a"), layer("b")], **changed}


def test_two_calm_processes_are_the_same() -> None:
    """The same baseline, no alarm: the same, with bounds on the distance and how far the means are apart."""
    other = report(layers=[layer("a"), layer("b", points={"pre": point(mean=1.5, ks=0.05, ks_upper=0.06), "post": point()})])
    found = compare_reports(report(), other)
    assert ("same", ()) == (found.outcome, found.notes)
    assert ["same", "same"] == [each.outcome for each in found.layers]
    low, high = found.layers[1].distances["pre"]
    assert (low, high) == pytest.approx((0.038, 0.072))
    assert (0.25, 0.3) == (found.layers[1].shift, found.layers[1].evidence)


def test_drift_of_the_second_alone_is_drift() -> None:
    """A layer that alarms in one and not in the other is named, with the cause that the process itself tells."""
    moved = layer("b", points={"pre": point(alarm="ticket", evidence=2.5), "post": point()})
    other = report(verdict="ticket", drifting=["b"], cause="Its inputs have shifted.", layers=[layer("a"), moved])
    found = compare_reports(report(), other)
    assert ("drift", ["same", "drift"]) == (found.outcome, [each.outcome for each in found.layers])
    assert found.sentence == "The other one has drifted in 1 layers where the known one has not, first in b; Its inputs have shifted"
    both = compare_reports(other, other)
    assert ("unjudged", "The known one is in drift itself, first in b, so it is no measure for another") == (both.outcome, both.sentence)


@pytest.mark.parametrize("verdict", ["blind", "warming"])
def test_what_is_not_judged_passes_nothing(verdict: str) -> None:
    """A process that is not judged is no reason to say that all is well."""
    for pair in ((report(verdict=verdict), report()), (report(), report(verdict=verdict))):
        found = compare_reports(*pair)
        assert "unjudged" == found.outcome
        assert f"is {verdict}, so nothing can be said" in found.sentence


def test_other_baselines_give_no_distance() -> None:
    """Distances from two different baselines bound nothing, and the outcome says so."""
    found = compare_reports(report(), report(baseline={**BASELINE, "created": 2.0}))
    assert not any(each.distances for each in found.layers)
    assert ("They are not judged by the same baseline, so their reports say nothing of the distance between them",) == found.notes
    assert "same" == found.outcome


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"layers": [layer("a")]}, "the other one lacks it"),
        ({"layers": [layer("a"), layer("b"), layer("c")]}, "the known one lacks it"),
        ({"layers": [layer("a"), layer("b", state="blind")]}, "it is observed in one and blind in the other"),
        ({"kernels": [{"layer": "a", "fault": "it computes tanh"}]}, "it computes tanh"),
        ({"gross": [{"layer": "a", "point": "post", "fault": "dead"}]}, "its values are dead"),
        ({"overflow": [{"layer": "a", "point": "pre"}]}, "an overflow lies ahead of it"),
        ({"first_nonfinite": "b"}, "values that are not finite, first in b"),
    ],
)
def test_what_differs_besides_drift_is_named(changed: dict[str, Any], told: str) -> None:
    """Census, kernels, gross faults, overflows and values that are not finite make a difference, unless the known one has them too."""
    found = compare_reports(report(), report(**changed))
    assert "differs" == found.outcome
    assert told in found.sentence
    assert "same" == compare_reports(report(**changed), report(**copy.deepcopy(changed))).outcome


@pytest.mark.parametrize(("key", "what"), [("declared", "formula"), ("dtype", "dtype")])
def test_another_formula_or_dtype_is_named(key: str, what: str) -> None:
    """What the kernels' pairs tell of both is compared."""
    pair = [report(layers=[layer("a", points={"pre": point(), "post": point(parity={key: value})})]) for value in ("one", "two")]
    assert f"its {what} is one in one and two in the other" in compare_reports(*pair).sentence


samples = st.lists(st.floats(-5, 5), min_size=1, max_size=30)


def distance(one: list[float], two: list[float]) -> float:
    """Return the Kolmogorov-Smirnov distance of two samples, from its definition."""
    places = np.array(one + two)
    shares = [np.searchsorted(np.sort(sample), places, side="right") / len(sample) for sample in (one, two)]
    return float(np.abs(shares[0] - shares[1]).max())


@given(samples, samples, samples, st.floats(0, 0.1))
def test_the_bounds_hold_the_distance(baseline: list[float], one: list[float], two: list[float], width: float) -> None:
    """Whatever the three samples, the distance of two lies between the bounds from their distances to the third."""
    sides = []
    for sample in (one, two):
        exact = distance(sample, baseline)
        told = point(ks=max(0.0, exact - width), ks_upper=min(1.0, exact + width))
        sides.append(report(layers=[layer("a", points={"pre": told, "post": point()})]))
    low, high = compare_reports(*sides).layers[0].distances["pre"]
    assert low - 1e-12 <= distance(one, two) <= high + 1e-12
