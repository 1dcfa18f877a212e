"""A watched encoder on a clock of its own: a simulated minute passes in a window, however fast the machine is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from geluwatch.cli.demo.model import Encoder
from geluwatch.config import Config
from geluwatch.ports import BaselineStore
from geluwatch.records import Report
from geluwatch.tap.source import TorchSource
from geluwatch.testing import FakeClock
from geluwatch.watch import Watch

TEXTS = 32
"""Texts in a window."""
BATCH = 8
LONGEST = 128
"""Tokens a text is cut to."""
MINUTE = 60.0

Texts = Sequence[str]


def windows(texts: Texts, count: int, size: int = TEXTS) -> list[Texts]:
    """Return the first texts in windows of one size; no text is in two."""
    if len(texts) < count * size:
        raise SystemExit(f"The corpus has {len(texts)} texts for {count} windows of {size}; install the packages named in corpus.py.")
    return [texts[start : start + size] for start in range(0, count * size, size)]


def batches(texts: Texts, size: int = BATCH) -> list[Texts]:
    """Return the texts of a window in batches, short ones together as servers do it, so that there is little padding."""
    return in_turn(sorted(texts, key=len), size)


def in_turn(texts: Texts, size: int = BATCH) -> list[Texts]:
    """Return the texts in batches as they come."""
    return [texts[start : start + size] for start in range(0, len(texts), size)]


class Stage:
    """The encoder under watch, with the settings that everybody gets; a context manager that comes off at the end."""

    def __init__(self, encoder: Encoder, store: BaselineStore, began: float = 1_700_000_000.0) -> None:
        self.encoder = encoder
        self._clock = FakeClock(began)
        source = TorchSource(encoder.model, Config(), self._clock)
        self.watch = Watch(source, store, self._clock, Config(), name="minilm", version="1", labels={})

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self.watch.detach()

    def minutes(self, traffic: Iterable[Sequence[Texts]], *, pad: bool = False) -> Iterator[Report]:
        """Serve the batches of each minute, spread evenly over it, and yield the report of each window that closes.

        Args:
            traffic: Batches of texts, minute by minute.
            pad: Whether each text is padded to the greatest length rather than to its batch's.
        """
        for served in traffic:
            began = self._clock.monotonic()
            for turn, texts in enumerate(served, 1):
                self._wait(began + MINUTE * turn / (len(served) + 1))
                self._forward(texts, pad=pad)
                yield from self._tick()
            self._wait(began + MINUTE)
            yield from self._tick()

    def _wait(self, moment: float) -> None:
        self._clock.advance(moment - self._clock.monotonic())

    def _tick(self) -> Iterator[Report]:
        """Do what the background thread does every second; yield the report if that closed a window."""
        before = self.watch.report.totals.windows
        self.watch.tick()
        if self.watch.report.totals.windows > before:
            yield self.watch.report

    def _forward(self, texts: Texts, *, pad: bool) -> None:
        batch = self.encoder.tokenizer(
            list(texts), padding="max_length" if pad else True, truncation=True, max_length=LONGEST, return_tensors="pt"
        )
        with torch.inference_mode():
            self.encoder.model(**batch)


@contextmanager
def scaled(encoder: Encoder, layer: int, factor: float) -> Iterator[str]:
    """Scale the weights before one layer's GELU for a while; yield the layer's name in reports."""
    path = f"encoder.layer.{layer}.intermediate"
    weight = encoder.model.get_parameter(f"{path}.dense.weight")
    before = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(factor)
    try:
        yield f"{path}.intermediate_act_fn"
    finally:
        with torch.no_grad():
            weight.copy_(before)


@dataclass(frozen=True)
class Seen:
    """What one case showed."""

    case: str
    windows: int
    alarm: int | None
    """Windows to the first one that is named drift, from 1."""
    pages: int
    episodes: int
    """Runs of consecutive windows with a ticket or a page."""
    first_layer: str
    """First layer in drift at the alarm; without one, the layer with most evidence at last."""
    rows: int
    """Rows at the first site in the median window."""
    evidence: tuple[float, ...]
    """Most evidence at any point, window by window."""


def look(case: str, reports: Iterable[Report], *, until_alarm: bool = False) -> Seen:
    """Return what a case's reports say.

    Args:
        case: Its name.
        reports: One for each closed window.
        until_alarm: Whether to stop at the first alarm.
    """
    alarms, pages, evidence, rows, layer = [], 0, [], [], ""
    for report in reports:
        points = [point for point in report.sites.values() if not math.isnan(point.evidence)]
        top = max(points, key=lambda point: point.evidence, default=None)
        evidence.append(top.evidence if top else math.nan)
        rows.append(next(iter(report.sites.values())).rows)
        named = report.verdict in {"ticket", "page"} and bool(report.drifting)
        pages += report.verdict == "page"
        if True not in alarms:
            layer = report.drifting[0] if named else top.layer if top else ""
        alarms.append(named)
        if named and until_alarm:
            break
    episodes = sum(now and not before for before, now in zip([False, *alarms], alarms, strict=False))
    first = alarms.index(True) + 1 if True in alarms else None
    return Seen(case, len(alarms), first, pages, episodes, layer, sorted(rows)[len(rows) // 2] if rows else 0, tuple(evidence))
