"""What becomes of kept spans as they age, one step at a time: which are merged into an hour or a day, and which go.

Hours and days are UTC's, and a span belongs to the one it ended in: an hour begins just after one full hour and ends with the
next. What comes late, from a process that had to wait for the database, is merged into the hour or the day that is there already.
Every step leaves fewer spans, or the same number at a coarser resolution, so that steps come to an end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from geluwatch.records import Resolution
from geluwatch.retention import DAY, HOUR, Retention

MOST_MERGED = 32
"""Most spans merged in a step: a second's work of a large model, in which the database has a lock to wait for."""

MOST_DROPPED = 500
"""Most spans dropped in a step."""

_LENGTH = {"hour": HOUR, "day": DAY}
_FINER: dict[str, Resolution] = {"hour": "raw", "day": "hour"}


@dataclass(frozen=True, slots=True)
class Kept:
    """One kept span of a model, as far as the rules look at it."""

    id: int
    model_version: str
    resolution: Resolution
    ended: float
    """Seconds since the epoch."""
    size: int
    """Bytes it takes."""
    readable: bool = True
    """Whether it can be merged; one that cannot stays as it is until it is dropped."""


@dataclass(frozen=True, slots=True)
class Step:
    """Spans that become one of a coarser resolution, or that are dropped."""

    ids: tuple[int, ...]
    into: Resolution | None
    """None drops them."""


def next_step(kept: Iterable[Kept], retention: Retention, now: float) -> Step | None:
    """Return what is to be done first with the spans of one model; None when nothing is.

    Args:
        kept: All of them, in any order.
        retention: What is kept, and for how long.
        now: Seconds since the epoch.
    """
    oldest_first = sorted(kept, key=attrgetter("ended", "id"))
    expired = [span for span in oldest_first if span.ended <= now - retention.daily_days * DAY]
    if expired:
        return Step(_ids(expired[:MOST_DROPPED]), None)
    return (
        _merging(oldest_first, "hour", now - retention.raw_hours * HOUR)
        or _merging(oldest_first, "day", now - retention.hourly_days * DAY)
        or _shrinking(oldest_first, retention.most_bytes, now)
    )


def _merging(oldest_first: Sequence[Kept], into: Resolution, by: float) -> Step | None:
    """Return the merge of the oldest hour, or day, that was over by some moment and has finer spans; with the coarse one, if any."""
    length, finer = _LENGTH[into], _FINER[into]
    belongs = _stretch(length)
    readable = [span for span in oldest_first if span.readable]
    first = next((span for span in readable if span.resolution == finer and (belongs(span)[1] + 1) * length <= by), None)
    if first is None:
        return None
    members = [span for span in readable if span.resolution in {into, finer} and belongs(span) == belongs(first)]
    members.sort(key=lambda span: span.resolution == finer)  # the coarse one is always among them
    return Step(_ids(members[:MOST_MERGED]), into)


def _stretch(length: float) -> Callable[[Kept], tuple[str, int]]:
    return lambda span: (span.model_version, math.ceil(span.ended / length) - 1)


def _shrinking(oldest_first: Sequence[Kept], most_bytes: int, now: float) -> Step | None:
    """Return what makes too large a history smaller: merging early what is complete, else dropping the oldest days, else the oldest."""
    excess = sum(span.size for span in oldest_first) - most_bytes
    if excess <= 0:
        return None
    early = _merging(oldest_first, "hour", now) or _merging(oldest_first, "day", now)
    return early or Step(_ids(_oldest([span for span in oldest_first if span.resolution == "day"] or oldest_first, excess)), None)


def _oldest(oldest_first: Sequence[Kept], excess: int) -> list[Kept]:
    """Return as many of the oldest as take the excess together, or those of one step."""
    chosen: list[Kept] = []
    for span in oldest_first[:MOST_DROPPED]:
        if excess <= 0:
            break
        chosen.append(span)
        excess -= span.size
    return chosen


def _ids(spans: Iterable[Kept]) -> tuple[int, ...]:
    return tuple(span.id for span in spans)
