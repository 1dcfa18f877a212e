"""Readers of what a report says about kernels: what each GELU declares, and what its values were measured to be."""

from __future__ import annotations

from collections.abc import Iterator

from geluwatch.export.traffic import Reading
from geluwatch.records import Parity, Report


def mismatch(report: Report) -> Iterator[Reading]:
    """Yield whether each measured GELU is another than it declares, with both in words."""
    for labels, found in _parities(report):
        yield {**labels, "declared": _declared(found), "measured": _measured(found)}, bool(found.fault)


def error(report: Report) -> Iterator[Reading]:
    """Yield the error that 99 % of the values of each measured GELU keep to, in units of last place."""
    for labels, found in _parities(report):
        yield labels, found.most


def _parities(report: Report) -> Iterator[tuple[dict[str, str], Parity]]:
    """Yield (labels, parity), in the model's order; it is measured at one point of a layer."""
    for seen in sorted(report.sites.values(), key=lambda seen: (seen.position, seen.layer)):
        if seen.parity is not None:
            yield {"layer": seen.layer}, seen.parity


def _declared(found: Parity) -> str:
    """Return what a site declares in words, such as "erf in float32"."""
    return f"{found.declared} in {found.dtype}"


def _measured(found: Parity) -> str:
    """Return what was measured in words: a formula, or "undecided" or "other", and the precision where one explains the values."""
    return f"{found.variant or 'undecided'} in {found.precision}" if found.precision else found.variant
