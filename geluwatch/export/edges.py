"""What is known of activations at each `le` that a profile has: the core counts at the full edges, exporters pick from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from geluwatch.catalog import EDGES, FULL_EDGES
from geluwatch.export.traffic import le_texts
from geluwatch.profiles import Profile
from geluwatch.records import POINTS, Point, PointReport

# The live histogram and the baseline's gauge are joined by Prometheus on this text, so it is made once for both.
_FULL: Mapping[Point, tuple[str, ...]] = {point: le_texts(FULL_EDGES[point]) for point in POINTS}
_PICKED: Mapping[Profile, Mapping[Point, frozenset[str]]] = {
    "lean": {point: frozenset(le_texts(())) for point in POINTS},
    "standard": {point: frozenset(le_texts(EDGES[point])) for point in POINTS},
    "full": {point: frozenset(_FULL[point]) for point in POINTS},
}


def buckets(seen: PointReport, profile: Profile) -> Iterator[tuple[str, float]]:
    """Yield each `le` with the count of values up to it, zeros where none were sampled."""
    return _picked(seen.point, seen.totals.buckets or (0,) * len(_FULL[seen.point]), profile)


def shares(seen: PointReport, profile: Profile) -> Iterator[tuple[str, float]]:
    """Yield each `le` with the baseline's share of values up to it; nothing without a baseline."""
    return _picked(seen.point, seen.baseline_cdf, profile) if seen.baseline_cdf else iter(())


def _picked(point: Point, values: Sequence[float], profile: Profile) -> Iterator[tuple[str, float]]:
    picked = _PICKED[profile][point]
    return ((le, value) for le, value in zip(_FULL[point], values, strict=True) if le in picked)
