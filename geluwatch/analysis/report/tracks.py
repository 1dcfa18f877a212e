"""What is remembered of one layer while a history is read, one span at a time: a few numbers a bin, and two distributions."""

from __future__ import annotations

import math

import numpy as np

from geluwatch.analysis.report.findings import LayerFinding, Seen
from geluwatch.analysis.report.grid import Grid
from geluwatch.records import POINTS, Alarm, Point, Site, Span

_LEAST_BINS = 8
"""Bins with evidence that each quarter of a period needs before a trend is told."""


class Track:
    """One layer's past."""

    def __init__(self, layer: str, grid: Grid) -> None:
        self.layer = layer
        self.worst: dict[Point, Seen] = {}
        self.last: dict[Point, Seen] = {}
        self.most = -math.inf
        self._grid = grid
        self._evidence = np.full(grid.bins, np.nan)
        self._coarse = np.zeros(grid.bins, np.bool_)
        self._seen = np.zeros(grid.bins, np.bool_)
        self._nonfinite = np.zeros(grid.bins, np.int64)
        self._mute = np.zeros(grid.bins, np.bool_)
        self._when = math.nan
        self._ks: dict[Point, float] = {}
        self._alarm: Alarm = ""

    def mute(self, span: Span) -> None:
        """Note that the layer gave no rows although the model ran."""
        self._mute[self._grid.place(span.window.started, span.window.ended)] = True

    def take(self, span: Span) -> None:
        """Take what a span says of the layer."""
        window = span.window
        place = self._grid.place(window.started, window.ended)
        said = {point: span.summary.points[self.layer, point] for point in POINTS if (self.layer, point) in span.summary.points}
        self._nonfinite[place.start] += sum(each.nonfinite for each in said.values())
        shown = {
            point: Seen(window.points[self.layer, point].histogram, window.started, window.ended)
            for point in POINTS
            if (self.layer, point) in window.points
        }
        if not shown:
            return  # what the summary says is of an earlier window then
        self.last = shown
        self._seen[place] = True
        for point, each in said.items():
            self._ks[point] = max(each.ks, self._ks.get(point, 0.0))
            self._alarm = max(self._alarm, each.alarm, key=("", "ticket", "page").index)
        self._judge(max((each.evidence for each in said.values()), default=0.0), place, span, shown)

    def _judge(self, evidence: float, place: slice, span: Span, shown: dict[Point, Seen]) -> None:
        """Take a span's evidence, of which 0 stands for none."""
        judged = evidence > 0.0
        if judged:
            self._evidence[place] = np.fmax(self._evidence[place], evidence)
            self._coarse[place] |= span.windows > 1 and place.stop - place.start > 1
        if (evidence if judged else -math.inf) > self.most or not self.worst:
            self.worst = shown
        if judged and evidence > self.most:
            self.most, self._when = evidence, 0.5 * (span.window.started + span.window.ended)

    def finding(self, position: int, site: Site | None) -> LayerFinding:
        """Return what is known of the layer, at its place in the model."""
        blind = (site.reason or "not observed") if site is not None and site.state == "blind" else ""
        most = self.most if self.most > 0.0 else math.nan
        return LayerFinding(
            self.layer, position, blind, self._evidence, self._seen, self._nonfinite, self._mute,
            most, self._when, self._ks, self._alarm, self._trend(),
        )  # fmt: skip

    def _trend(self) -> float:
        """Return how far evidence rose; the worst of a day is more than the worst of its hours, so only bins told apart count."""
        told = np.where(self._coarse, np.nan, self._evidence)
        quarter = max(told.size // 4, 1)
        first, last = (part[~np.isnan(part)] for part in (told[:quarter], told[-quarter:]))
        if min(first.size, last.size) < _LEAST_BINS:
            return math.nan
        return float(np.median(last) - np.median(first))
