"""What a report tells: facts gathered from a model's history, frozen; pages and digests are made of nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from geluwatch.analysis.report.grid import Grid
from geluwatch.core.follow import NAME as FOLLOWING
from geluwatch.records import Alarm, Baseline, Floats, Histogram, Panel, Point, Resolution

Kind = Literal["nonfinite", "drift", "blind", "other"]
"""What an episode is about; "other" is an alarm that the history does not tell more of: a dead layer, an overflow ahead, a wrong kernel."""

Status = Literal["silent", "blind", "page", "ticket", "again", "well", "unjudged"]
"""How the model is: "page" and "ticket" while such an episode is on, "again" where one is over, "unjudged" without a baseline, or
where no window could be judged by it."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of which nothing is known; times are seconds since the epoch."""

    started: float
    ended: float
    kind: Literal["silent", "idle"]
    """"silent" where no window was kept, "idle" where windows were kept and no pass was made."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Windows kept at one resolution."""

    resolution: Resolution
    started: float
    ended: float
    windows: int


@dataclass(frozen=True, slots=True)
class Episode:
    """A stretch in alarm; times are seconds since the epoch."""

    kind: Kind
    alarm: Alarm
    """The gravest that was raised: "ticket" or "page"."""
    version: str
    started: float
    ended: float
    """End of the last window that was in it."""
    ongoing: bool
    """Whether the newest windows are in it."""
    layers: tuple[str, ...]
    """First the one where it began; empty where the history names none."""
    onsets: Mapping[str, float]
    """By layer, the beginning of the first window that was in it."""
    scope: str = ""
    cause: str = ""
    evidence: float = 0.0
    """The most; 0 where it is not about drift."""
    peak: float = 0.0
    """When that was: the middle of the window."""
    forwards: int = 0
    """Forward passes with a NaN or Inf."""
    sources: int = 0
    """Processes that saw it; 0 where windows of several are merged."""
    alive: int = 0
    """Processes that ran then; 0 where windows of several are merged."""


@dataclass(frozen=True, slots=True)
class LayerFinding:
    """One GELU over the whole period. Arrays are of shape (bins,), see `Findings.grid`."""

    layer: str
    position: int
    blind: str
    """Why it was blind when the baseline was recorded; empty where it was observed."""
    evidence: Floats
    """Most evidence of the windows in each bin, NaN where nothing was judged."""
    seen: npt.NDArray[np.bool_]
    """Whether it gave rows."""
    nonfinite: npt.NDArray[np.int64]
    """Non-finite elements seen; of a span longer than a bin, all in its first."""
    mute: npt.NDArray[np.bool_]
    """Whether it gave no rows while the model ran."""
    most: float
    """Most evidence of all; NaN where nothing was judged."""
    when: float
    """Middle of the window that had it; NaN where nothing was judged."""
    ks: Mapping[Point, float]
    """Largest certified lower end of the KS distance."""
    alarm: Alarm
    trend: float
    """Median evidence of the period's last quarter minus that of its first; NaN where too little of it is told apart."""

    @property
    def elements(self) -> int:
        """Non-finite elements of the whole period."""
        return int(self.nonfinite.sum())


@dataclass(frozen=True, slots=True)
class Seen:
    """A distribution and the time it is of."""

    histogram: Histogram
    started: float
    ended: float


@dataclass(frozen=True, slots=True)
class Portrait:
    """One layer's distributions at one point: calm, where evidence was most, and last."""

    layer: str
    point: Point
    calm: Histogram | None
    """Of the baseline; None where that is not known."""
    worst: Seen
    last: Seen
    panel: Panel | None
    """How the worst differs from calm; None without a baseline."""


@dataclass(frozen=True, slots=True)
class BaselineFinding:
    """The baseline that was armed last."""

    name: str
    version: str
    """The model version it was armed for."""
    stored: Baseline | None
    """None where the store does not hold it, or it cannot be read."""
    damage: str = ""
    """Why it cannot be read, in one sentence."""

    @property
    def follows(self) -> bool:
        """Whether it is none, but the run's own past."""
        return self.stored is None and self.name == FOLLOWING


@dataclass(frozen=True, slots=True)
class AgentFinding:
    """The agent's own work over the period."""

    hook_seconds: float = 0.0
    flush_seconds: float = 0.0
    forward_seconds: float = 0.0
    dropped_rows: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    blind: int = 0
    """Most sites blind at a time."""
    warming: int = 0
    """Windows of which nothing was judged."""


@dataclass(frozen=True, slots=True)
class Signal:
    """Something below an alarm that a person should hear of some time this week."""

    text: str
    """One sentence; layers and commands stand between backticks."""
    runbook: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything a report of one model tells; times are seconds since the epoch."""

    model: str
    versions: tuple[str, ...]
    """In the order in which they were seen."""
    since: float
    until: float
    grid: Grid
    """The bins of time that layers and traffic are told by."""
    first: float
    """Beginning of the first window kept."""
    last: float
    """End of the last one."""
    windows: int
    kept: tuple[Kept, ...]
    sources: int
    """Processes told apart; 0 where all windows are merged ones."""
    forwards: int
    nonfinite_forwards: int
    traffic: Floats
    """(bins,) forward passes; NaN where no window was kept."""
    gaps: tuple[Gap, ...]
    baseline: BaselineFinding | None
    """None where none was armed."""
    armed: bool
    """Whether one was armed when the last window was kept."""
    layers: tuple[LayerFinding, ...]
    """In the model's order."""
    portraits: tuple[Portrait, ...]
    """The layers worth a large picture, worst first."""
    episodes: tuple[Episode, ...]
    """In the order of their beginning."""
    agent: AgentFinding
    status: Status
    widened: bool = False
    """Whether the period is wider than was asked for, by more than a bin: hours and days that are kept merged are told whole."""
    damage: str = ""
    """What of the history cannot be read and is left out, in a sentence or two."""
    signals: tuple[Signal, ...] = ()

    @property
    def page_evidence(self) -> float:
        """Evidence from which drift pages; infinite where it cannot."""
        stored = self.baseline.stored if self.baseline else None
        if stored is None or not stored.certificate.paging or not 0.0 < stored.certificate.ticket_limit < float("inf"):
            return float("inf")
        return stored.certificate.page_limit / stored.certificate.ticket_limit

    @property
    def gravest(self) -> Episode | None:
        """The episode to speak of first: one that is on before one that is over, a page before a ticket, the latest."""
        return max(
            self.episodes, key=lambda each: (each.ongoing, each.alarm == "page", each.kind == "nonfinite", each.started), default=None
        )
