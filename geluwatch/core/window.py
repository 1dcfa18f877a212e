"""Windows: what drained batches add up to between two closings. Time is an argument."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from geluwatch.core import histogram, moments
from geluwatch.records import Drained, Nonfinite, PointKey, PointWindow, Rows, Window

COUNTED_CHANNELS = 1024
"""Channels up to which every captured value is counted in the histogram. Of wider layers' rows a part is, the same number of
values in the end: what is counted costs five times what the moments of the channels do, which are of every row, and a
window's shares, quantiles and distances are known from half a million values as well as from more."""

_GOLDEN, _TURN = 0x9E3779B9, 1 << 32


def observe(values: npt.NDArray[np.float32], dtype: str, before: int = 0) -> PointWindow:
    """Return the statistics of captured rows.

    Args:
        values: Shape (n, C).
        dtype: The dtype that their tensor had.
        before: Rows of the same window that came before them.
    """
    by_channel = moments.from_rows(values)
    finite = by_channel.rows == len(values)
    counted = _counted(values, before, finite=finite)
    if finite and counted is values:
        kept = values
        total = float(by_channel.rows * by_channel.mean.sum())
        squares = float(by_channel.m2.sum() + by_channel.rows * np.square(by_channel.mean).sum())
    else:
        kept = counted if finite else counted[np.isfinite(counted)]
        total = float(kept.sum(dtype=np.float64))
        squares = float(np.square(kept, dtype=np.float64).sum())
    return PointWindow(histogram.from_values(counted, dtype, finite=finite), by_channel, *_sides(kept, total), squares)


def _counted(values: npt.NDArray[np.float32], before: int, *, finite: bool) -> npt.NDArray[np.float32]:
    """Return the values that are counted: all rows (n, C) as they are, or of wide ones (m,), with the smallest and the largest of all.

    Every so many rows might be the same token of each pass. Of the multiples of the golden ratio, less their integer parts, a
    share s lies below s, evenly over any stretch of them (Weyl 1916): so a row is counted for its number in the window.
    """
    rows, channels = values.shape
    if not rows or channels <= COUNTED_CHANNELS:
        return values
    places = np.arange(before, before + rows, dtype=np.uint32) * np.uint32(_GOLDEN)
    counted = values[places < np.uint32(_TURN * COUNTED_CHANNELS // channels)].reshape(-1)
    known, inside = (values, counted) if finite else (each[np.isfinite(each)] for each in (values, counted))
    # Headroom, and what no GELU gives, may be in a single value; one that is counted already is not counted twice.
    ends, taken = ((each.min(), each.max()) if each.size else () for each in (known, inside))
    return np.concatenate([counted, np.array([each for each in dict.fromkeys(ends) if each not in taken], np.float32)])


def _sides(values: npt.NDArray[np.float32], total: float) -> tuple[float, float]:
    """Return the sums of the magnitudes above and below zero, of values with a known sum.

    The smaller side is added up and the larger one is what it lacks of the sum, so that nothing cancels.
    """
    smaller = np.minimum if total > 0.0 else np.maximum
    side = abs(float(smaller(values, np.float32(0.0)).sum(dtype=np.float64)))
    other = side + abs(total)
    return (other, side) if total > 0.0 else (side, other)


def merge_points(parts: Iterable[PointWindow]) -> PointWindow:
    """Return the statistics of all parts together."""
    parts = list(parts)
    return PointWindow(
        histogram.merge(part.histogram for part in parts),
        moments.merge(part.moments for part in parts),
        sum(part.abs_sum_pos for part in parts),
        sum(part.abs_sum_neg for part in parts),
        sum(part.squares for part in parts),
    )


def merge_nonfinite(left: Mapping[str, Nonfinite], right: Mapping[str, Nonfinite]) -> dict[str, Nonfinite]:
    """Return the counts of both, layer by layer."""
    merged = dict(left)
    for layer, more in right.items():
        have = merged.get(layer, Nonfinite())
        elements = dict(have.elements)
        for key, count in more.elements.items():
            elements[key] = elements.get(key, 0) + count
        merged[layer] = Nonfinite(
            have.forwards + more.forwards,
            have.first + more.first,
            have.padding_forwards + more.padding_forwards,
            elements,
            have.backwards + more.backwards,
            have.first_backward + more.first_backward,
        )
    return merged


def observe_rows(rows: Iterable[Rows], before: Callable[[PointKey], int] = lambda _: 0) -> dict[PointKey, PointWindow]:
    """Return the statistics of captured rows by (layer, point); rows of one layer and dtype are counted in one go.

    Args:
        rows: The rows.
        before: Returns how many of a (layer, point) their window has already.
    """
    grouped: dict[tuple[str, str, int], list[Rows]] = {}
    for item in rows:
        grouped.setdefault((item.layer, item.dtype, item.pre.shape[1]), []).append(item)
    found: dict[PointKey, PointWindow] = {}
    for (layer, dtype, _), items in grouped.items():
        for key, arrays in (((layer, "pre"), [i.pre for i in items]), ((layer, "post"), [i.post for i in items])):
            seen = observe(np.concatenate(arrays) if len(arrays) > 1 else arrays[0], dtype, before(key))  # type: ignore[arg-type]
            found[key] = merge_points([found[key], seen]) if key in found else seen  # type: ignore[index]  # the key's literal
    return found


def nbytes(window: Window) -> int:
    """Return the memory that a window's arrays take."""
    return sum(
        point.histogram.cells.nbytes + point.histogram.counts.nbytes + point.moments.mean.nbytes + point.moments.m2.nbytes
        for point in window.points.values()
    )


class WindowBuilder:
    """Gathers observations until the window is closed."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.nonfinite: dict[str, Nonfinite] = {}
        self.first_nonfinite: str | None = None
        self._points: dict[PointKey, list[PointWindow]] = {}
        self._widths: dict[str, int] = {}
        self._forwards = 0
        self._sampled = 0
        self._samples = 0
        self._thinned = False

    @property
    def untouched(self) -> bool:
        """Whether nothing has been seen in it."""
        return not (self._forwards or self._points or self.nonfinite)

    def fitting(self, drained: Drained) -> Drained:
        """Return the batch without rows of another width than their layer's first in this window; they count as dropped.

        Channels of different widths have no moments in common, and one such layer must not hold up the others.
        """
        kept = tuple(rows for rows in drained.rows if self._widths.setdefault(rows.layer, rows.pre.shape[1]) == rows.pre.shape[1])
        dropped = sum(len(rows.pre) for rows in drained.rows) - sum(len(rows.pre) for rows in kept)
        return replace(drained, rows=kept, dropped_rows=drained.dropped_rows + dropped) if dropped else drained

    def add(self, drained: Drained) -> None:
        """Take what one drained batch counted."""
        self._forwards += drained.forwards
        self._sampled += drained.sampled_forwards
        self._samples += drained.samples
        self._thinned |= bool(drained.dropped_rows or drained.disabled)
        self.nonfinite = merge_nonfinite(self.nonfinite, drained.nonfinite)
        self.first_nonfinite = self.first_nonfinite or drained.first_nonfinite

    def gather(self, points: Mapping[PointKey, PointWindow]) -> None:
        """Take the statistics of one drained batch's rows."""
        for key, seen in points.items():
            # Folded in pairs, so that a long window holds a handful of parts, not one per flush.
            parts = self._points.setdefault(key, [])
            parts.append(seen)
            while len(parts) > 1 and parts[-2].moments.rows <= 2 * parts[-1].moments.rows:
                parts[-2:] = [merge_points(parts[-2:])]

    def rows(self, key: PointKey) -> int:
        """Return the rows gathered so far at a (layer, point)."""
        return sum(part.moments.rows for part in self._points.get(key, ()))

    def close(self, now: float, observed: Iterable[str]) -> Window:
        """Return the window; `observed` are the layers that the census says deliver rows."""
        points = {key: merge_points(parts) for key, parts in self._points.items()}
        return Window(
            self.started,
            now,
            self._forwards,
            self._sampled,
            points,
            self.nonfinite,
            self.first_nonfinite,
            tuple(layer for layer in observed if self._sampled and (layer, "pre") not in points),
            self._thinned,
            self._samples,
        )
