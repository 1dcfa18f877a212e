"""The detector itself on the same values: the recorder, and for each stream the monitor that a service runs."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geluwatch import Config, files
from geluwatch.core.monitor import Identity, Monitor
from geluwatch.core.recorder import Recorder
from geluwatch.core.window import observe_rows
from geluwatch.records import Baseline, Drained, Report, Rows, Site, Window

from .streams import Halves

MINUTE = 60.0
DTYPE = "float16"


def sites(names: Sequence[str]) -> tuple[Site, ...]:
    """Return the census of layers with these names, in the model's order."""
    return tuple(Site(name, place, "module", "GELU", "erf") for place, name in enumerate(names))


def names(layers: int) -> list[str]:
    """Return names of layers, in order."""
    return [f"layer.{number}" for number in range(layers)]


def rows(window: Halves, layers: Sequence[str]) -> tuple[Rows, ...]:
    """Return what the tap would have captured of a window (2L, R, C)."""
    singles = window.astype(np.float32)
    return tuple(Rows(name, DTYPE, singles[2 * place], singles[2 * place + 1]) for place, name in enumerate(layers))


def record(chunks: Iterable[Halves], layers: Sequence[str], began: float = 0.0) -> Baseline:
    """Return the baseline of calm windows, which come in chunks (n, 2L, R, C)."""
    recorder, number = Recorder(Config()), 0
    for chunk in chunks:
        for window in chunk:
            start = began + MINUTE * number
            points = observe_rows(rows(window, layers))
            recorder.add(Window(start, start + MINUTE, 1, 1, points), tuple(layers))
            number += 1
    return recorder.baseline(model="field", model_version="1", name="calm", created=began + MINUTE * number, sites=sites(layers))


def kept(path: Path, make: object) -> Baseline:
    """Return the baseline stored at a path, or make and store it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        found = make()  # type: ignore[operator]
        files.replace(path, pickle.dumps(found))
        return found  # type: ignore[no-any-return]
    return pickle.loads(path.read_bytes())  # type: ignore[no-any-return]  # noqa: S301  # written by the line above


@dataclass(frozen=True)
class Seen:
    """What the monitor said of a stream."""

    tickets: list[bool]
    """By window: whether drift was named, as a ticket or a page."""
    pages: list[bool]
    evidence: list[float]
    first: list[str]
    """By window: the first layer in drift; empty without one."""
    causes: list[str]
    verdicts: list[str]


def watch(windows: Iterable[Halves], baseline: Baseline, layers: Sequence[str], began: float, *, until_alarm: bool = False) -> Seen:
    """Return what is said of windows (2L, R, C), one after the other."""
    monitor = Monitor(Identity("field", "1", {}, "torch"), sites(layers), Config(), began)
    monitor.arm(baseline)
    seen = Seen([], [], [], [], [], [])
    for number, window in enumerate(windows, 1):
        monitor.ingest(Drained(forwards=1, sampled_forwards=1, rows=rows(window, layers)))
        monitor.close(began + MINUTE * number)
        _note(seen, monitor.report(began + MINUTE * number))
        if until_alarm and seen.tickets[-1]:
            break
    return seen


def _note(seen: Seen, report: Report) -> None:
    alarms = {point.alarm for point in report.sites.values()}
    seen.tickets.append(bool(alarms & {"ticket", "page"}))
    seen.pages.append("page" in alarms)
    seen.evidence.append(float(np.nanmax([point.evidence for point in report.sites.values()])))
    seen.first.append(report.drifting[0] if report.drifting else "")
    seen.causes.append(report.cause)
    seen.verdicts.append(report.verdict)
