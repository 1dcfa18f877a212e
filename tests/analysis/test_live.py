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
        assert f"is not judged, so nothing can be said: it is {verdict}, for " in found.sentence


UNJUDGED = [layer("a", points={"pre": point(evidence=None), "post": point(evidence=None)})]
WRONG = {"verdict": "ticket", "kernels": [{"layer": "a", "fault": "it computes tanh"}]}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"baseline": None, "layers": UNJUDGED}, "it has no armed baseline"),
        ({"layers": UNJUDGED}, "it is warming, for it sees no traffic, or its last window had too few rows"),
    ],
)
def test_an_alarm_does_not_hide_that_nothing_is_judged(changed: dict[str, Any], why: str) -> None:
    """A wrong kernel makes a ticket of "warming": without a baseline, or evidence, in either or both, nothing can be said all the same."""
    hidden, judged = report(**WRONG, **changed), report(**WRONG, layers=[layer("a")])
    for pair, which in (((hidden, hidden), "known"), ((hidden, judged), "known"), ((judged, hidden), "other")):
        found = compare_reports(*pair)
        assert ("unjudged", f"The {which} one is not judged, so nothing can be said: {why}") == (found.outcome, found.sentence)


def test_a_known_one_that_is_not_finite_is_no_measure() -> None:
    """NaN in the second is a difference whether the first has it or not, and judged or not; in the first alone it ends the comparison."""
    broken = report(verdict="page", first_nonfinite="b")
    told = ("differs", "The other one has values that are not finite, first in b")
    for known in (report(), broken, report(verdict="warming")):
        found = compare_reports(known, broken)
        assert told == (found.outcome, found.sentence)
        assert ["same", "differs"] == [each.outcome for each in found.layers]
    assert told[0] == compare_reports(report(), report(verdict="page", first_nonfinite="a", baseline=None)).outcome
    alone = compare_reports(broken, report())
    assert "The known one is no measure for another: it has values that are not finite, first in b" == alone.sentence
    assert "unjudged" == alone.outcome


def test_a_probe_that_moved_in_the_second_alone_is_a_difference() -> None:
    """The probe proves that the model is another, drift or not, with traffic or without; the layer is named where there is one."""
    moved = {"verdict": "ticket", "probe": {"moved": True, "first": "b"}}
    said = "The probe of the other one says that it is not the model of its baseline: it moved"
    for known in (report(), report(probe=None), report(probe={"moved": False, "first": None})):
        found = compare_reports(known, report(**moved))
        assert ("differs", f"{said}, first in b") == (found.outcome, found.sentence)
        assert ["", "the probe moved here first"] == [each.difference for each in found.layers]
    assert said == compare_reports(report(), report(verdict="ticket", probe={"moved": True, "first": None})).sentence
    assert "differs" == compare_reports(report(), report(**moved, layers=UNJUDGED)).outcome
    assert "same" == compare_reports(report(), report(probe={"moved": False, "first": None})).outcome


def test_a_known_one_whose_probe_moved_is_no_measure() -> None:
    """Whether the second is the model that the baseline was recorded of, or has moved as well, the first cannot tell."""
    moved = report(verdict="ticket", probe={"moved": True, "first": "b"})
    for other in (report(), moved):
        found = compare_reports(moved, other)
        assert ("unjudged", ["same", "same"]) == (found.outcome, [each.outcome for each in found.layers])
    assert "The known one is not the model of its baseline, for its probe moved, first in b, so it is no measure for" in found.sentence


@pytest.mark.parametrize(("known", "other"), [("ok", "ticket"), ("ok", "page"), ("ticket", "page")])
def test_a_graver_verdict_is_never_the_same(known: str, other: str) -> None:
    """Whatever an alarm of the second comes from, it is no reason to pass it while the first is better off."""
    found = compare_reports(report(verdict=known), report(verdict=other))
    told = f"The verdict of the other one is {other}, that of the known one {known}, and no layer says why"
    assert ("differs", told) == (found.outcome, found.sentence)
    assert "same" == compare_reports(report(verdict=other), report(verdict=known)).outcome


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
    ],
)
def test_what_differs_besides_drift_is_named(changed: dict[str, Any], told: str) -> None:
    """Census, kernels, gross faults and overflows make a difference, unless the known one has them too."""
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
