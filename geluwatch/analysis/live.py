"""Two running processes, by their reports: has one drifted where the other has not?

A report has no histograms, so the distance between two processes cannot be computed from it. What it has is each one's distance from the
baseline. Where that is the same baseline, the triangle inequality bounds the distance between the two: the Kolmogorov-Smirnov distance is
a metric, the largest difference of two distribution functions. Where it is not, there is no such bound, and it is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

LiveOutcome = Literal["same", "drift", "differs", "unjudged"]

Document = Mapping[str, Any]
"""A report as `geluwatch.export.document` writes it."""

_POINTS = ("pre", "post")

_GRAVITY = {"ticket": 1, "page": 2}
"""Of the verdicts that are alarms."""


@dataclass(frozen=True, slots=True)
class LiveLayer:
    """One layer of two processes."""

    layer: str
    outcome: LiveOutcome
    """"drift": in drift in the second and not in the first. "differs": another census, formula or kernel, something grossly wrong, the
    first value that is not finite, or the first layer at which the second's probe moved."""
    distances: Mapping[str, tuple[float, float]]
    """By point, bounds on the Kolmogorov-Smirnov distance between the last windows of the two; left out where there are none."""
    shift: float | None
    """Difference of the means over the first's standard deviation, the larger of the two points; None where unknown."""
    evidence: float | None
    """Most evidence of drift in the second, above 1 a ticket; None where it is not judged."""
    difference: str
    """What differs besides drift, or an empty string."""


@dataclass(frozen=True, slots=True)
class LiveComparison:
    """Two processes."""

    outcome: LiveOutcome
    """"unjudged": nothing can be said, for one of them is not judged, or the first is no measure. "differs" and "drift": as of a layer."""
    layers: tuple[LiveLayer, ...]
    """In the first's order; layers that only the second has come last."""
    sentence: str
    """The outcome in words."""
    notes: tuple[str, ...]
    """What the reports do not tell."""


def compare_reports(known: Document, other: Document) -> LiveComparison:
    """Hold the report of one process against that of another which is known to be good."""
    alike = _baseline(known) is not None and _baseline(known) == _baseline(other)
    layers = tuple(_layers(known, other, alike=alike))
    notes = () if alike else ("They are not judged by the same baseline, so their reports say nothing of the distance between them",)
    outcome, sentence = _outcome(known, other, layers)
    return LiveComparison(outcome, layers, sentence, notes)


def _outcome(known: Document, other: Document, layers: tuple[LiveLayer, ...]) -> tuple[LiveOutcome, str]:
    """Return what is to be said of the whole: first what is certain without a judgement of the traffic, be it there or not."""
    if other.get("first_nonfinite"):
        return "differs", f"The other one has values that are not finite, first in {other['first_nonfinite']}"
    if _moved(other) and not _moved(known):
        return "differs", f"The probe of the other one says that it is not the model of its baseline: it moved{_first_moved(other)}"
    if broken := known.get("first_nonfinite"):
        return "unjudged", f"The known one is no measure for another: it has values that are not finite, first in {broken}"
    for which, report in (("known", known), ("other", other)):
        if why := _unjudged(report):
            return "unjudged", f"The {which} one is not judged, so nothing can be said: {why}"
    return _judged(known, other, layers)


def _judged(known: Document, other: Document, layers: tuple[LiveLayer, ...]) -> tuple[LiveOutcome, str]:
    """Return what is to be said of two processes whose traffic is judged."""
    differing = [each for each in layers if each.outcome == "differs"]
    if differing:
        return "differs", f"{len(differing)} of {len(layers)} layers differ, first {differing[0].layer}: {differing[0].difference}"
    drifting = [each.layer for each in layers if each.outcome == "drift"]
    if drifting:
        first = next((layer for layer in other.get("drifting", ()) if layer in drifting), drifting[0])
        told = f"; {other['cause'].rstrip('.')}" if other.get("cause") else ""
        return "drift", f"The other one has drifted in {len(drifting)} layers where the known one has not, first in {first}{told}"
    if why := _no_measure(known):
        return "unjudged", f"The known one {why}, so it is no measure for another"
    verdicts = known["verdict"], other["verdict"]
    if _GRAVITY.get(verdicts[1], 0) > _GRAVITY.get(verdicts[0], 0):
        return "differs", f"The verdict of the other one is {verdicts[1]}, that of the known one {verdicts[0]}, and no layer says why"
    return "same", "The same: neither has drifted from its baseline"


def _unjudged(report: Document) -> str:
    """Return why nothing can be said of a process, or an empty string; its verdict alone does not tell, for a wrong kernel hides it."""
    if report["verdict"] == "blind":
        return "it is blind, for none of its GELUs can be observed"
    if _baseline(report) is None:
        return "it has no armed baseline"
    judged = any(seen.get("evidence") is not None for layer in report["layers"] for seen in layer["points"].values())
    if report["verdict"] == "warming" or not judged:
        return "it is warming, for it sees no traffic, or its last window had too few rows"
    return ""


def _no_measure(known: Document) -> str:
    """Return in what way the process that should be good has itself moved away from its baseline, or an empty string."""
    if known.get("drifting"):
        return f"is in drift itself, first in {known['drifting'][0]}"
    return f"is not the model of its baseline, for its probe moved{_first_moved(known)}" if _moved(known) else ""


def _moved(report: Document) -> bool:
    """Return whether a probe proves that the model is not the one that its baseline was recorded of."""
    return bool((report.get("probe") or {}).get("moved"))


def _first_moved(report: Document) -> str:
    first = report["probe"].get("first")
    return f", first in {first}" if first else ""


def _layers(known: Document, other: Document, *, alike: bool) -> Iterator[LiveLayer]:
    matches = {each["layer"]: each for each in other["layers"]}
    for each in known["layers"]:
        match = matches.pop(each["layer"], None)
        if match is None:
            yield LiveLayer(each["layer"], "differs", {}, None, None, "the other one lacks it")
        else:
            found = _layer(each, match, (_faults(known, each["layer"]), _faults(other, each["layer"])), alike=alike)
            proven = _proven(known, other, each["layer"])
            yield replace(found, outcome="differs", difference=proven) if proven else found
    for layer in matches:
        yield LiveLayer(layer, "differs", {}, None, None, "the known one lacks it")


def _layer(known: Document, other: Document, faults: tuple[str, str], *, alike: bool) -> LiveLayer:
    pairs = {point: (known["points"].get(point, {}), other["points"].get(point, {})) for point in _POINTS}
    distances = {point: bounds for point, pair in pairs.items() if alike and (bounds := _bounds(*pair)) is not None}
    shifts = [shift for pair in pairs.values() if (shift := _shift(*pair)) is not None]
    evidence = [seen["evidence"] for _, seen in pairs.values() if seen.get("evidence") is not None]
    difference = _difference(known, other) or (faults[1] if not faults[0] else "")
    drifts = any(two.get("alarm") for _, two in pairs.values()) and not any(one.get("alarm") for one, _ in pairs.values())
    outcome: LiveOutcome = "differs" if difference else "drift" if drifts else "same"
    return LiveLayer(
        known["layer"], outcome, distances, max(shifts, key=abs, default=None), max(evidence, default=None), difference
    )  # fmt: skip


def _bounds(known: Document, other: Document) -> tuple[float, float] | None:
    """Return bounds on the distance of two from the distances of both from a third."""
    ends = [each.get(end) for each in (known, other) for end in ("ks", "ks_upper")]
    if any(end is None for end in ends):
        return None
    low, high, other_low, other_high = map(float, ends)  # type: ignore[arg-type]  # none of them is None
    return max(0.0, low - other_high, other_low - high), min(1.0, high + other_high)


def _shift(known: Document, other: Document) -> float | None:
    """Return the difference of two means in standard deviations of the first."""
    if any(each.get(key) is None for each in (known, other) for key in ("mean", "std")) or not known["std"]:
        return None
    return float((other["mean"] - known["mean"]) / known["std"])


def _difference(known: Document, other: Document) -> str:
    """Return what the census says of one that it does not say of the other, or an empty string."""
    if known["state"] != other["state"]:
        return f"it is {known['state']} in one and {other['state']} in the other"
    for what, key in (("formula", "declared"), ("dtype", "dtype")):
        one, two = (_parity(each).get(key) for each in (known, other))
        if one and two and one != two:
            return f"its {what} is {one} in one and {two} in the other"
    return ""


def _proven(known: Document, other: Document, layer: str) -> str:
    """Return what is certain of the second at a layer, whether its traffic is judged or not, or an empty string."""
    if other.get("first_nonfinite") == layer:
        return "the first values that are not finite are here"
    if _moved(other) and not _moved(known) and other["probe"].get("first") == layer:
        return "the probe moved here first"
    return ""


def _parity(layer: Document) -> Document:
    """Return what is known of the kernel behind a layer."""
    return next((found for point in layer["points"].values() if (found := point.get("parity"))), {})


def _faults(report: Document, layer: str) -> str:
    """Return what is wrong with a layer besides drift, or an empty string."""
    for each in report.get("gross", ()):
        if each["layer"] == layer:
            return f"its values are {each['fault']}"
    for each in report.get("kernels", ()):
        if each["layer"] == layer:
            return str(each["fault"])
    ahead = any(each["layer"] == layer for each in report.get("overflow", ()))
    return "an overflow lies ahead of it" if ahead else ""


def _baseline(report: Document) -> tuple[str, Any] | None:
    """Return which baseline a process is judged by."""
    found = report.get("baseline")
    return None if not found else (found["name"], found["created"])
