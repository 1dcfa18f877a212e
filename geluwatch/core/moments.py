"""Per-channel moments over rows, merged by the pairwise update of Chan, Golub and LeVeque (1979)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from geluwatch.errors import LatticeError
from geluwatch.records import Floats, Moments

# Rows at a time: a block of deviations in float64 stays in the cache.
_BLOCK = 32


def empty(channels: int) -> Moments:
    """Return the moments of no rows."""
    return Moments(0, np.zeros(channels), np.zeros(channels))


def from_rows(rows: npt.NDArray[np.floating]) -> Moments:
    """Return the moments of rows of shape (n, C); a row with a non-finite value is left out whole."""
    mean = _means(rows)
    # A sum of float32 values cannot overflow a float64: a finite mean says the same of them all as a look at each, for nothing.
    if not np.isfinite(mean).all():
        rows = rows[np.isfinite(rows).all(axis=1)]
        mean = _means(rows)
    if not len(rows):
        return empty(rows.shape[1])
    m2 = np.zeros(rows.shape[1])
    # Temporaries the size of all rows would cost ten times the arithmetic.
    deviations = np.empty((min(_BLOCK, len(rows)), rows.shape[1]))
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        squares = np.subtract(block, mean, out=deviations[: len(block)])
        m2 += np.square(squares, out=squares).sum(axis=0)
    return Moments(len(rows), mean, m2)


def _means(rows: npt.NDArray[np.floating]) -> Floats:
    with np.errstate(invalid="ignore"):  # infinities of both signs
        sums: Floats = rows.sum(axis=0, dtype=np.float64)
    return sums / max(len(rows), 1)


def merge(parts: Iterable[Moments]) -> Moments:
    """Return the moments of all parts' rows together.

    Raises:
        LatticeError: The parts have different numbers of channels, or there is no part.
    """
    merged: Moments | None = None
    for part in parts:
        merged = part if merged is None else _pair(merged, part)
    if merged is None:
        raise LatticeError("Cannot merge moments: no part was given.")
    return merged


def _pair(left: Moments, right: Moments) -> Moments:
    if left.mean.shape != right.mean.shape:
        raise LatticeError(f"Cannot merge moments of {left.mean.size} and {right.mean.size} channels; the layer has changed its width.")
    if not left.rows or not right.rows:
        return left if left.rows else right
    rows = left.rows + right.rows
    gap = right.mean - left.mean
    mean = left.mean + gap * (right.rows / rows)
    return Moments(rows, mean, left.m2 + right.m2 + np.square(gap) * (left.rows * right.rows / rows))


def variance(moments: Moments) -> Floats:
    """Return the variance of each channel (population form); zeros where there are no rows."""
    return moments.m2 / max(moments.rows, 1)


def pooled(moments: Moments) -> tuple[float, float]:
    """Return mean and standard deviation over all rows and channels; NaN where there are no rows."""
    if not moments.rows:
        return float("nan"), float("nan")
    mean = float(moments.mean.mean())
    return mean, float(np.sqrt(variance(moments).mean() + moments.mean.var()))


def still(moments: Moments) -> bool:
    """Return whether every channel held one value in all of at least two rows."""
    return moments.rows > 1 and not moments.m2.any()
