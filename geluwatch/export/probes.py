"""Readers of what a report says about the last replay of a probe."""

from __future__ import annotations

from collections.abc import Iterator

from geluwatch.export.traffic import Reading
from geluwatch.records import Report


def moved(report: Report) -> Iterator[Reading]:
    """Yield whether the model has changed."""
    if report.probe is not None:
        yield {}, report.probe.moved


def first(report: Report) -> Iterator[Reading]:
    """Yield how far the first layer that moved is out, on the side of the GELU where it shows."""
    found = report.probe
    if found is not None and found.first is not None:
        yield {"layer": found.first.layer, "point": "post" if found.within else "pre"}, found.size


def difference(report: Report) -> Iterator[Reading]:
    """Yield how far each layer is out on both sides of its GELU, where it has values to compare."""
    for each in report.probe.layers if report.probe is not None else ():
        if each.rows:
            yield {"layer": each.layer, "point": "pre"}, each.before
            yield {"layer": each.layer, "point": "post"}, each.after


def time(report: Report) -> Iterator[Reading]:
    """Yield when it was."""
    if report.probe is not None:
        yield {}, report.probe.time
