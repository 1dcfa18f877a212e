"""What a display of the demonstration has to do, and the readings that every display shows in the same words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from geluwatch.records import PointReport, Report

Tone = Literal["info", "good", "ticket", "page", "bad"]
State = Literal["blind", "watched", "calm", "drift", "drift 1st", "overflow", "kernel", "gross", "non-finite", "first"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; `at` is seconds since the demonstration began."""

    at: float
    tone: Tone
    text: str


class Display(Protocol):
    """Shows the story as it goes on. `event` may be called from any thread, the others from the story's alone."""

    def plan(self, titles: Sequence[str]) -> None:
        """Learn the titles of all phases, before the first."""
        ...

    def begin(self, phase: int) -> None:
        """A phase begins."""
        ...

    def progress(self, done: int, total: int) -> None:
        """The phase under way has done so many of its steps; a total of 0: there is no telling how many there are."""
        ...

    def report(self, report: Report) -> None:
        """A watch has something new."""
        ...

    def event(self, event: Event) -> None:
        """Something happened."""
        ...

    def end(self, phase: int, *, good: bool) -> None:
        """A phase is over."""
        ...


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer of a report, both sides of its GELU together: what a table shows."""

    name: str
    """The layer without what all layers' names end with."""
    state: State
    mean: float
    """Before the GELU, like the three that follow."""
    std: float
    ks: float
    ks_upper: float
    evidence: float
    """The larger of both sides; NaN where nothing was judged."""
    nonfinite: int
    """Elements in the window, both sides."""


def layer_rows(report: Report) -> tuple[LayerRow, ...]:
    """Return the layers of a report in the model's order."""
    layers = list(dict.fromkeys(layer for layer, _ in report.sites))
    return tuple(_row(report, layer, name) for layer, name in zip(layers, short_names(layers), strict=True))


def short_names(layers: Sequence[str]) -> list[str]:
    """Return layer names without the dotted ending that they have in common: "blocks.0.act" of several is "blocks.0"."""
    parts = [layer.split(".") for layer in layers]
    shared = 0
    if len(parts) > 1:
        while all(len(part) > shared + 1 for part in parts) and len({part[-1 - shared] for part in parts}) == 1:
            shared += 1
    return [".".join(part[: len(part) - shared]) for part in parts]


def short_name(report: Report, layer: str | None) -> str:
    """Return one layer's short name among those of its report; a dash for none."""
    layers = list(dict.fromkeys(site for site, _ in report.sites))
    return short_names(layers)[layers.index(layer)] if layer in layers else "-"


def number(value: float, digits: int = 2) -> str:
    """Return a reading of a few characters: a dash for NaN, a power of ten for what would be long."""
    if math.isnan(value):
        return "-"
    return f"{value:.{digits}f}" if abs(value) < 1000 else f"{value:.0e}".replace("e+", "e")


def interval(low: float, high: float) -> str:
    """Return a Kolmogorov-Smirnov interval, one number where both ends read alike."""
    ends = [f"{end:.4f}".removeprefix("0") for end in (low, high) if not math.isnan(end)]
    return "-".join(dict.fromkeys(ends)) or "-"


def duration(seconds: float) -> str:
    """Return seconds as a person says them: "7.4 s", "2 min 05 s"."""
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {int(seconds % 60):02d} s"


def _row(report: Report, layer: str, name: str) -> LayerRow:
    before, after = report.sites[layer, "pre"], report.sites[layer, "post"]
    nonfinite = before.nonfinite + after.nonfinite
    return LayerRow(
        name,
        _state(report, before, after, nonfinite),
        before.mean,
        before.std,
        before.ks,
        before.ks_upper,
        max(_known((before.evidence, after.evidence)), default=math.nan),
        nonfinite,
    )


def _state(report: Report, before: PointReport, after: PointReport, nonfinite: int) -> State:
    if before.state == "blind":
        return "blind"
    if before.layer == report.first_nonfinite:
        return "first"
    if nonfinite:
        return "non-finite"
    if before.gross or after.gross:
        return "gross"
    if before.layer in report.drifting:
        return "drift 1st" if before.layer == report.drifting[0] else "drift"
    if before.headroom.alarm or after.headroom.alarm:
        return "overflow"
    if after.parity is not None and after.parity.fault:
        return "kernel"
    return "calm" if _known((before.evidence, after.evidence)) else "watched"


def _known(values: Iterable[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]
