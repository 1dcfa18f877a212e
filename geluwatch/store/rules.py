"""What every store demands of a baseline, what it says of one that is taken or missing, and what lists show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from geluwatch.errors import BaselineError, UnknownBaselineError
from geluwatch.records import RESOLUTIONS, Baseline, Resolution

LATEST = "latest"
"""Stands for the newest baseline of a model version, so no baseline can have it as its name."""

KEY_LENGTH = 255
"""Longest model, version or name; three of them in one index is the most that every common database takes."""

_LISTED = 10


@dataclass(frozen=True, slots=True)
class BaselineInfo:
    """What a list of baselines shows of one."""

    model: str
    model_version: str
    name: str
    created: float
    """Seconds since the epoch."""
    windows: int
    """Windows behind its calibration; of a long baseline, fewer are kept whole."""
    sites: int
    armed: bool
    """Whether drift tickets can be armed on it."""


@dataclass(frozen=True, slots=True)
class HistoryInfo:
    """What a list of the history shows of one model version at one resolution."""

    model: str
    model_version: str
    resolution: Resolution
    spans: int
    windows: int
    """Windows that they are of."""
    size: int
    """Bytes that they take."""
    started: float
    """Beginning of the first, seconds since the epoch."""
    ended: float
    """End of the last."""


def in_order(listing: Iterable[HistoryInfo]) -> tuple[HistoryInfo, ...]:
    """Return a list by model and version, finest resolution first; by ourselves, since each database orders text by its own collation."""
    return tuple(sorted(listing, key=lambda info: (info.model, info.model_version, RESOLUTIONS.index(info.resolution))))


def check(baseline: Baseline) -> None:
    """Refuse a baseline that some store could not keep.

    Raises:
        BaselineError: The model, version or name is empty, too long, not printable or reserved, or a time is not finite.
    """
    for field in ("model", "model_version", "name"):
        value = getattr(baseline, field)
        if not 1 <= len(value) <= KEY_LENGTH or not value.isprintable():
            raise BaselineError(f"The {field} of a baseline must be 1 to {KEY_LENGTH} printable characters, got {_short(value)}.")
    if baseline.name == LATEST:
        raise BaselineError(f'The name "{LATEST}" stands for the newest baseline; give another one.')
    times = (baseline.created, *(time for window in baseline.windows for time in (window.started, window.ended)))
    for time in times:
        if not math.isfinite(time):
            raise BaselineError(f"The times of a baseline and of its windows must be finite, got {time!r}.")


def taken(baseline: Baseline) -> BaselineError:
    """Return the error for a name that another baseline has."""
    return BaselineError(
        f'A baseline "{baseline.name}" is stored already for {_version(baseline.model, baseline.model_version)}; '
        "baselines are never replaced, give another name."
    )


def unknown(model: str, model_version: str, name: str, stored: Sequence[tuple[str, str, str]]) -> UnknownBaselineError:
    """Return the error for a baseline that is not there.

    Args:
        model: The model asked for.
        model_version: Its version.
        name: The name asked for.
        stored: (model, version, name) of all that there are, oldest first.
    """
    asked = _version(model, model_version)
    names = [f'"{entry[2]}"' for entry in stored if entry[:2] == (model, model_version)]
    if names:
        return UnknownBaselineError(f'No baseline "{name}" is stored for {asked}; there are {_list(names)}.')
    versions = [_version(*entry[:2]) for entry in dict.fromkeys(entry[:2] for entry in stored)]
    if versions:
        return UnknownBaselineError(f"No baseline is stored for {asked}, only for {_list(versions)}; record one first.")
    return UnknownBaselineError(f"No baseline is stored for {asked}, nor for any other model; record one first.")


def _version(model: str, model_version: str) -> str:
    return f'model "{model}" version "{model_version}"'


def _list(entries: Sequence[str]) -> str:
    newest = ", ".join(entries[-_LISTED:])
    return newest if len(entries) <= _LISTED else f"{len(entries) - _LISTED} older ones and {newest}"


def _short(value: str) -> str:
    return repr(value) if len(value) <= KEY_LENGTH else f"{len(value)} characters"
