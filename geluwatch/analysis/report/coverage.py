"""What is kept of a period and what is not: resolutions, traffic by bin, and gaps."""

from __future__ import annotations

import statistics

import numpy as np

from geluwatch.analysis.report.findings import Gap, Kept
from geluwatch.analysis.report.grid import Grid
from geluwatch.records import RESOLUTIONS, Floats, Span, Window

_LEAST_GAP = 900.0
_TOUCH = 0.1
"""Share of a bin, or of a window that is shorter, that they must have in common."""

_MISSED = 3.0
"""Windows that have to be missing before it is called a gap."""


class Coverage:
    """Gathers what a history covers from spans in the order of their time."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._traffic = np.full(grid.bins, np.nan)
        self._kept: dict[str, Kept] = {}
        self._lengths: list[float] = []
        self._busy: list[list[float]] = []
        self._idle: list[list[float]] = []
        self.first = float("inf")
        self.last = float("-inf")

    def take(self, span: Span) -> None:
        """Take one span."""
        window = span.window
        started, ended = window.started, window.ended
        self._share_out(window)
        have = self._kept.get(span.resolution, Kept(span.resolution, started, ended, 0))
        self._kept[span.resolution] = Kept(span.resolution, min(have.started, started), max(have.ended, ended), have.windows + span.windows)
        if span.windows == 1:
            self._lengths.append(ended - started)
        _cover(self._busy if window.forwards else self._idle, started, ended)
        self.first, self.last = min(self.first, started), max(self.last, ended)

    def _share_out(self, window: Window) -> None:
        """Give each bin its share of a window's passes, by the time that both have in common; an edge that just touches a bin has none."""
        edges = self._grid.edges
        common = np.minimum(edges[1:], window.ended) - np.maximum(edges[:-1], window.started)
        common[common < _TOUCH * min(self._grid.width, window.ended - window.started)] = 0.0
        if not common.any():
            common[self._grid.place(window.started, window.ended)] = 1.0
        shared = common > 0.0
        self._traffic[shared] = np.nan_to_num(self._traffic[shared]) + window.forwards * common[shared] / common.sum()

    @property
    def traffic(self) -> Floats:
        """(bins,) forward passes; NaN where nothing is kept."""
        return self._traffic

    @property
    def kept(self) -> tuple[Kept, ...]:
        """What is kept at each resolution, the coarsest and oldest first."""
        return tuple(self._kept[name] for name in reversed(RESOLUTIONS) if name in self._kept)

    @property
    def patience(self) -> float:
        """Seconds without a window that are no gap yet."""
        return max(_LEAST_GAP, _MISSED * statistics.median(self._lengths)) if self._lengths else _LEAST_GAP

    def gaps(self, until: float) -> tuple[Gap, ...]:
        """Return the stretches without traffic between the first window and `until`, in order.

        What lies within a merged span is not known to be one.
        """
        patience, at, found = self.patience, self.first, []
        for started, ended in [*sorted(self._busy), [until, until]]:
            if started - at > patience:
                found += self._told_apart(at, started, patience)
            at = max(at, ended)
        return tuple(found)

    def _told_apart(self, started: float, ended: float, patience: float) -> list[Gap]:
        """Return a stretch without traffic as what was watched idle and what was not watched."""
        gaps: list[Gap] = []
        at = started
        for low, high in sorted(self._idle):
            if low >= ended or high <= at:
                continue
            if low - at > patience:
                gaps.append(Gap(at, low, "silent"))
                at = low
            gaps.append(Gap(at, min(high, ended), "idle"))
            at = min(high, ended)
        if ended > at:
            gaps.append(Gap(at, ended, "silent" if ended - at > patience else "idle"))
        return _merged(gaps)


def _merged(gaps: list[Gap]) -> list[Gap]:
    """Return gaps with neighbours of one kind as one."""
    found: list[Gap] = []
    for gap in gaps:
        if found and found[-1].kind == gap.kind and found[-1].ended == gap.started:
            found[-1] = Gap(found[-1].started, gap.ended, gap.kind)
        else:
            found.append(gap)
    return found


def _cover(stretches: list[list[float]], started: float, ended: float) -> None:
    """Add a stretch of time to those covered; the last of them grows where it can, as spans come in order."""
    if stretches and stretches[-1][0] <= started <= stretches[-1][1]:
        stretches[-1][1] = max(stretches[-1][1], ended)
    else:
        stretches.append([started, ended])
