"""Two running processes, by their reports: has one drifted where the other has not?

A report has no histograms, so the distance between two processes cannot be computed from it. What it has is each one's distance from the
baseline. Where that is the same baseline, the triangle inequality bounds the distance between the two: the Kolmogorov-Smirnov distance is
a metric, the largest difference of two distribution functions. Where it is not, there is no such bound, and it is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

LiveOutcome = Literal["same", "drift", "differs", "unjudged"]

Document = Mapping[str, Any]
"""A report as `geluwatch.export.document` writes it."""

_POINTS = ("pre", "post")


@dataclass(frozen=True, slots=True)
class LiveLayer:
    """One layer of two processes."""

    layer: str
    outcome: LiveOutcome
    """"drift": in drift in the second and not in the first. "differs": another census, formula or kernel, or something grossly wrong."""
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
    """Return what is to be said of the whole."""
    for which, report in (("known", known), ("other", other)):
        if report["verdict"] in ("blind", "warming"):
            return (
                "unjudged",
                f"The {which} one is {report['verdict']}, so nothing can be said: it has no armed baseline, or sees no traffic",
            )
    if other.get("first_nonfinite") and not known.get("first_nonfinite"):
        return "differs", f"The other one has values that are not finite, first in {other['first_nonfinite']}"
    differing = [each for each in layers if each.outcome == "differs"]
    if differing:
        return "differs", f"{len(differing)} of {len(layers)} layers differ, first {differing[0].layer}: {differing[0].difference}"
    drifting = [each.layer for each in layers if each.outcome == "drift"]
    if drifting:
        first = next((layer for layer in other.get("drifting", ()) if layer in drifting), drifting[0])
        told = f"; {other['cause'].rstrip('.')}" if other.get("cause") else ""
        return "drift", f"The other one has drifted in {len(drifting)} layers where the known one has not, first in {first}{told}"
    if known.get("drifting"):
        return "unjudged", f"The known one is in drift itself, first in {known['drifting'][0]}, so it is no measure for another"
    return "same", "The same: neither has drifted from its baseline"


def _layers(known: Document, other: Document, *, alike: bool) -> Iterator[LiveLayer]:
    matches = {each["layer"]: each for each in other["layers"]}
    for each in known["layers"]:
        match = matches.pop(each["layer"], None)
        if match is None:
            yield LiveLayer(each["layer"], "differs", {}, None, None, "the other one lacks it")
        else:
            yield _layer(each, match, (_faults(known, each["layer"]), _faults(other, each["layer"])), alike=alike)
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
