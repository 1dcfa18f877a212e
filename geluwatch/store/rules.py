"""What every store demands of a baseline, what it says of one that is taken or missing, and what lists show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from geluwatch.errors import BaselineError, UnknownBaselineError
from geluwatch.records import RESOLUTIONS, Baseline, Resolution, Weights
from geluwatch.retention import DAY, HOUR

LATEST = "latest"
"""Stands for the newest baseline of a model version, so no baseline can have it as its name."""

KEY_LENGTH = 255
"""Longest model, version or name; three of them in one index is the most that every common database takes."""

LENGTHS: tuple[tuple[Resolution, float], ...] = (("hour", HOUR), ("day", DAY))
"""Seconds of a merged span: it is of the whole hour or day, in UTC, that its last window ended in."""

OTHERS = 99
"""Windows of other processes by which a process sees whether its clock has run away."""

_LISTED = 10


class Key(NamedTuple):
    """What a baseline is stored under."""

    model: str
    model_version: str
    name: str

    def __str__(self) -> str:
        return f'baseline "{self.name}" of {_version(self.model, self.model_version)}'

    @property
    def called(self) -> str:
        """How a sentence about it begins."""
        return f"B{str(self)[1:]}"


def key_of(baseline: Baseline) -> Key:
    """Return what a baseline is stored under."""
    return Key(baseline.model, baseline.model_version, baseline.name)


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
    traffic: str = ""
    dtype: str = ""
    """Of most parameters; empty, like the next, where no provenance was recorded."""
    device: str = ""
    """Kind of device that most parameters lay on."""
    signer: str = ""
    """Which key signed it, in short; empty where none did."""
    state: str = "recorded"
    """"recorded", "promoted" or "retired"."""


def info_of(baseline: Baseline) -> BaselineInfo:
    """Return what a list shows of a baseline, without what the log tells."""
    weights = baseline.provenance.weights if baseline.provenance else Weights()
    return BaselineInfo(
        *key_of(baseline),
        baseline.created,
        baseline.certificate.windows,
        len(baseline.sites),
        baseline.certificate.armed,
        baseline.traffic,
        next(iter(weights.dtypes), ""),
        next(iter(weights.devices), ""),
        baseline.signature.signer if baseline.signature else "",
    )


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


def is_key(text: str) -> bool:
    """Return whether every store can keep a text as a model, a version or a name: 1 to `KEY_LENGTH` printable characters."""
    return 1 <= len(text) <= KEY_LENGTH and text.isprintable()


def check(baseline: Baseline) -> None:
    """Refuse a baseline that some store could not keep.

    Raises:
        BaselineError: The model, version or name is empty, too long, not printable or reserved, or a time is not finite.
    """
    for field in ("model", "model_version", "name"):
        value = getattr(baseline, field)
        if not is_key(value):
            raise BaselineError(f"The {field} of a baseline must be 1 to {KEY_LENGTH} printable characters, got {_short(value)}.")
    if len(baseline.traffic) > KEY_LENGTH or not baseline.traffic.isprintable():
        raise BaselineError(f"The traffic of a baseline must be at most {KEY_LENGTH} printable characters, got {_short(baseline.traffic)}.")
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


def unknown(key: Key, stored: Sequence[Key]) -> UnknownBaselineError:
    """Return the error for a baseline that is not there.

    Args:
        key: What was asked for.
        stored: All that there are, oldest first.
    """
    model, model_version, name = key
    asked = _version(model, model_version)
    names = [f'"{entry.name}"' for entry in stored if entry[:2] == (model, model_version)]
    if names and name == LATEST:
        return UnknownBaselineError(f"All {len(names)} baselines of {asked} are retired; record another one.")
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


def whole(since: float, until: float, length: float) -> tuple[float, float]:
    """Return a period widened to whole hours or days; what ended after its beginning and by its end is of one that the period touches."""
    return since // length * length, math.ceil(until / length) * length


def reaching(period: tuple[float, float], ended: Sequence[float], length: float) -> tuple[float, float]:
    """Return a period widened to the whole hours or days that ended at such moments."""
    ends = [math.ceil(each / length) * length for each in ended]
    return min([period[0], *(end - length for end in ends)]), max([period[1], *ends])
