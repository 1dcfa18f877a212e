"""The windows of ordinary days as they are kept: one after the other at first, merged by the hour and by the day later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from geluwatch.records.names import Alarm, PointKey, Verdict
from geluwatch.records.observed import Window

Resolution = Literal["raw", "hour", "day"]
RESOLUTIONS: tuple[Resolution, ...] = ("raw", "hour", "day")


@dataclass(frozen=True, slots=True)
class PointSummary:
    """What was said of one (layer, point); of merged windows, the worst."""

    evidence: float = 0.0
    """Most evidence: drift from 1 on; 0 where nothing was judged."""
    ks: float = 0.0
    """Largest certified lower end of the distance from the baseline; 0 without a baseline."""
    alarm: Alarm = ""
    nonfinite: int = 0
    """Non-finite elements seen, added up."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What the reports of the windows said; of merged windows, counts are added up and the worst is told."""

    verdicts: Mapping[Verdict, int] = field(default_factory=dict)
    """Windows by verdict."""
    points: Mapping[PointKey, PointSummary] = field(default_factory=dict)
    drifting: tuple[str, ...] = ()
    """Layers in drift, first the one where it began, in the window with most evidence."""
    scope: str = ""
    """Of that window: "traffic", "model" or "unknown"; empty without drift."""
    cause: str = ""
    """Of that window: what changed, in one sentence; empty where nothing could be named."""
    first_nonfinite: str | None = None
    """First layer of the earliest non-finite pass."""
    baseline: str | None = None
    """Name of the baseline that was armed last."""
    nonfinite_forwards: int = 0
    hook_seconds: float = 0.0
    """Time that row capture took in the model's threads."""
    flush_seconds: float = 0.0
    """Time of the background thread."""
    forward_seconds: float = 0.0
    """Host time of the forward passes themselves."""
    dropped_rows: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    """Failures inside the agent, by part."""
    blind: int = 0
    """Most sites blind at a time."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of kept windows: one, or all of an hour or a day merged."""

    model: str
    model_version: str
    resolution: Resolution
    source: str
    """Which process saw it, for example "host:1234"; empty where several are merged."""
    windows: int
    """Windows merged in it."""
    window: Window
    """All of them as one: histograms are merged exactly, channel moments may have been let go (no rows, no channels)."""
    summary: Summary
