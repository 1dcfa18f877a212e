"""Is what one baseline holds what another would call normal? The question a gate asks of a new release, or of another month's traffic.

The windows that the second baseline kept whole are judged one after the other against the first, as if they had come while
it was armed: with its noise, its horizons, and its budget of false alarms. So the answer is no opinion on the size of a
distance. The distances of all values together are given beside it, for people.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from geluwatch.config import Config
from geluwatch.core import ks, lattice
from geluwatch.core.judge import Judge, Judged
from geluwatch.core.recorder import revived
from geluwatch.errors import BaselineError
from geluwatch.records import POINTS, Baseline, Interval, Point, PointKey, Site, Window

_LATTICES = {lattice.COARSE_BITS: "bfloat16", lattice.FINE_BITS: "float16", lattice.SINGLE_BASE: "float32"}
"""What values were, by the base of the lattice that they were counted on."""

Outcome = Literal["same", "drift", "differs"]


@dataclass(frozen=True, slots=True)
class LayerComparison:
    """One layer of both baselines."""

    layer: str
    distances: dict[Point, Interval]
    """Kolmogorov-Smirnov distance of all values together; a point that either lacks is left out."""
    alarms: int
    """Windows of the second in which the layer is in drift from the first."""
    evidence: float
    """Most evidence of any window: its surprise over the ticket's limit; 0 where nothing was judged."""
    difference: str
    """What differs in the census, or an empty string."""

    @property
    def outcome(self) -> Outcome:
        """What is to be said of the layer: that the census differs, else whether a window alarmed."""
        return "differs" if self.difference else "drift" if self.alarms else "same"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one baseline says of another."""

    windows: int
    """Windows of the second that were judged."""
    layers: tuple[LayerComparison, ...]
    """In the order of the first's model; layers that only the second has come last."""
    first_layer: str
    """Where drift began, or an empty string."""
    scope: str
    """"traffic", "model" or "unknown", as in a report; empty without drift."""
    cause: str
    """What changed there, in words; empty without drift or where no one cause stands out."""

    @property
    def outcome(self) -> Outcome:
        """The worst of the layers': a census that differs is worse than drift."""
        found = {layer.outcome for layer in self.layers}
        return "differs" if "differs" in found else "drift" if "drift" in found else "same"


def compare(known: Baseline, other: Baseline, config: Config) -> Comparison:
    """Compare a baseline with one that is known to be good.

    Raises:
        BaselineError: The first cannot be armed, the second kept no window whole, or they have no layer in common.
    """
    known, other = revived(known, config), revived(other, config)
    if not known.certificate.armed:
        raise BaselineError(f"Baseline {known.name!r} cannot judge another: {known.certificate.reason}")
    shared = frozenset(known.references) & frozenset(other.references)
    alike = frozenset(key for key in shared if known.references[key].mean.size == other.references[key].mean.size)
    if not alike:
        raise BaselineError(
            f"Baselines {known.name!r} and {other.name!r} have no layer of the same width in common, so they cannot be compared."
        )
    if not other.windows:
        raise BaselineError(f"Baseline {other.name!r} kept no window whole, so there is nothing to judge; record it with this release.")
    judge = Judge(known, config)
    judged = [judge.judge(_whole(window, other, alike)) for window in other.windows]
    alarmed = [each for each in judged if each.onset.layers]
    told = alarmed[-1] if alarmed else Judged()
    return Comparison(
        windows=len(judged),
        layers=tuple(_layer(layer, known, other, alike, judged) for layer in _layers(known, other)),
        first_layer=told.onset.layers[0] if alarmed else "",
        scope=told.onset.scope,
        cause=told.cause,
    )


def _whole(window: Window, baseline: Baseline, keys: frozenset[PointKey]) -> Window:
    """Return a window of the keys, with the values of all windows together in place of its own, which are not kept."""
    points = {key: replace(seen, histogram=baseline.histograms[key]) for key, seen in window.points.items() if key in keys}
    return replace(window, points=points)


def _layers(known: Baseline, other: Baseline) -> Iterator[str]:
    """Yield the layers of both, those of the first in its model's order, then those that only the second has."""
    yield from dict.fromkeys(site.layer for each in (known, other) for site in sorted(each.sites, key=lambda site: site.position))


def _layer(layer: str, known: Baseline, other: Baseline, alike: frozenset[PointKey], judged: list[Judged]) -> LayerComparison:
    keys = [(layer, point) for point in POINTS]
    seen = [[each.points[key] for key in keys if key in each.points] for each in judged]
    return LayerComparison(
        layer,
        {key[1]: ks.distance(known.histograms[key], other.histograms[key]) for key in keys if key in alike},
        sum(any(point.alarm for point in points) for points in seen),
        max((point.evidence for points in seen for point in points), default=0.0),
        _difference(layer, known, other),
    )


def _difference(layer: str, known: Baseline, other: Baseline) -> str:
    """Return what the census of the second says of a layer that the first's does not."""
    before, after = (_site(layer, each) for each in (known, other))
    if before is None or after is None:
        return "it is new" if before is None else "it is gone"
    for what, one, two in (
        ("formula", before.variant, after.variant),
        ("class", before.kind, after.kind),
        ("state", before.state, after.state),
    ):
        if one != two:
            return f"its {what} was {one}, and is {two}"
    dtypes = [
        _LATTICES[lattice.split(each.histograms[layer, "pre"].bits)[0]] for each in (known, other) if (layer, "pre") in each.histograms
    ]
    if len(set(dtypes)) > 1:
        return f"its values were {dtypes[0]}, and are {dtypes[1]}"
    widths = [each.references[layer, "pre"].mean.size // 2 for each in (known, other) if (layer, "pre") in each.references]
    return f"it had {widths[0]} channels, and has {widths[1]}" if len(set(widths)) > 1 else ""


def _site(layer: str, baseline: Baseline) -> Site | None:
    return next((site for site in baseline.sites if site.layer == layer), None)
