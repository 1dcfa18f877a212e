"""How many series a watched model costs whoever scrapes it, worked out from the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from geluwatch import catalog
from geluwatch.catalog import BATCH_EDGES, EDGES, FAULTS, FULL_EDGES, KINDS, LATENCY_EDGES, METRICS, PARTS, SIGNS, TIERS, Metric
from geluwatch.profiles import Profile, within
from geluwatch.records import POINTS, VERDICTS

_VALUES = {
    "point": len(POINTS),
    "kind": len(KINDS),
    "sign": len(SIGNS),
    "tier": len(TIERS),
    "fault": len(FAULTS),
    "part": len(PARTS),
    "verdict": len(VERDICTS),
}
"""Values that a label has; those of `layer` and `device` are the model's, and any other has one at a time."""

_EDGES: Mapping[Profile, tuple[tuple[float, ...], ...]] = {
    "lean": ((), ()),
    "standard": tuple(EDGES.values()),
    "full": tuple(FULL_EDGES.values()),
}
"""Edges at both points; to each +Inf is added."""

_SUM_COUNT_AND_INFINITY = 3
_STEP = 1000


def series(metric: Metric, profile: Profile, layers: int, devices: int = 1) -> int:
    """Return the most series that a metric has for a model of so many GELUs on so many devices."""
    if not within(metric.profile, profile):
        return 0
    if metric in (catalog.FIRST_DRIFT, catalog.PROBE_FIRST):  # only the first has it
        return min(layers, 1)
    if metric is catalog.FORWARD_SECONDS:
        return len(LATENCY_EDGES) + _SUM_COUNT_AND_INFINITY
    if metric is catalog.BATCH_SIZE:
        return len(BATCH_EDGES) + _SUM_COUNT_AND_INFINITY
    if metric in (catalog.VALUES, catalog.BASELINE_CDF):
        return layers * sum(len(each) + 1 for each in _EDGES[profile])
    values = {**_VALUES, "layer": layers, "device": devices}
    return prod(values.get(label, 1) for label in metric.labels)


def most_series(profile: Profile, layers: int, devices: int = 1) -> int:
    """Return the most series of one process: a model in training, judged, with every layer in drift and near an overflow."""
    return sum(series(metric, profile, layers, devices) for metric in METRICS)


def sample_limit(profile: Profile, layers: int, devices: int = 1) -> int:
    """Return the `sample_limit` to scrape with: twice the most series, up to the next thousand.

    A target beyond its limit is not scraped at all, so the limit has to be far from what is normal.
    """
    return -(-2 * most_series(profile, layers, devices) // _STEP) * _STEP
