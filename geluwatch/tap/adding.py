"""Arithmetic of the threads' counters: those of all threads together, and what they have grown by between two drains."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from geluwatch.core.totals import add_traffic
from geluwatch.records import Nonfinite, Point
from geluwatch.tap.state import Counters, SiteCounters


def at(sites: Sequence[SiteCounters], position: int) -> SiteCounters:
    """Return a site's counters; one found after they were taken had none."""
    return sites[position] if position < len(sites) else SiteCounters()


def add(left: Counters, right: Counters) -> Counters:
    """Return the sum of two threads' counters."""
    last = max((t for t in (left.last_forward, right.last_forward) if t is not None), default=None)
    return Counters(
        left.forwards + right.forwards,
        left.sampled_forwards + right.sampled_forwards,
        left.nonfinite_forwards + right.nonfinite_forwards,
        left.samples + right.samples,
        left.dropped_rows + right.dropped_rows,
        left.hook_seconds + right.hook_seconds,
        left.timed_seconds + right.timed_seconds,
        left.completed + right.completed,
        left.whole + right.whole,
        last,
        add_traffic(left.traffic, right.traffic),
    )


def add_sites(left: Sequence[SiteCounters], right: Sequence[SiteCounters]) -> tuple[SiteCounters, ...]:
    """Return the sums of two threads' counters of each site."""
    return tuple(_add_site(at(left, position), at(right, position)) for position in range(max(len(left), len(right))))


def _add_site(left: SiteCounters, right: SiteCounters) -> SiteCounters:
    return SiteCounters(
        forwards=left.forwards + right.forwards,
        first=left.first + right.first,
        padding_forwards=left.padding_forwards + right.padding_forwards,
        elements=_combine(left.elements, right.elements, lambda x, y: x + y),
        op_seconds=left.op_seconds + right.op_seconds,
        passes=left.passes + right.passes,
        alone=left.alone + right.alone,
        backwards=left.backwards + right.backwards,
        first_backward=left.first_backward + right.first_backward,
    )


def nonfinite_delta(before: SiteCounters, after: SiteCounters) -> Nonfinite | None:
    """Return the increase of a site's counters, or None where nothing changed."""
    elements = {key: count for key, count in _combine(after.elements, before.elements, lambda x, y: x - y).items() if count}
    forwards, padding = after.forwards - before.forwards, after.padding_forwards - before.padding_forwards
    backwards = after.backwards - before.backwards
    if not (forwards or padding or elements or backwards):
        return None
    return Nonfinite(forwards, after.first - before.first, padding, elements, backwards, after.first_backward - before.first_backward)


def _combine(
    left: dict[tuple[Point, str], int], right: dict[tuple[Point, str], int], operation: Callable[[int, int], int]
) -> dict[tuple[Point, str], int]:
    # Copied first: the model's thread may be adding a key.
    left, right = dict(left), dict(right)
    return {key: operation(left.get(key, 0), right.get(key, 0)) for key in {**left, **right}}


def increase_of(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """Return what has grown, by how much."""
    return {part: count - before.get(part, 0) for part, count in after.items() if count > before.get(part, 0)}
