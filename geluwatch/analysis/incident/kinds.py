"""What kind of values rows hold, and where: counted as the guard counts, on the side where they arose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from geluwatch.records import KeptRows, Point

Found = Mapping[tuple[Point, str], int]
"""Elements by (point, kind)."""

WORDS = {"nan": "NaN", "posinf": "+Inf", "neginf": "-Inf"}


def count(rows: KeptRows) -> dict[tuple[Point, str], int]:
    """Return how many elements are not finite, by point and kind: before the GELU, or after it where they had been finite before.

    Where the input was overwritten, what is in the output was so in the input, for a GELU of finite values is finite.
    """
    return {(point, kind): int(bad.sum()) for point, kind, bad in _masks(rows) if bad.any()}


def channels(rows: KeptRows, point: Point) -> npt.NDArray[np.intp]:
    """Return the channels in which elements arose on a side, ascending."""
    masks = [bad.any(axis=0) for side, _, bad in _masks(rows) if side == point]
    return np.flatnonzero(np.logical_or.reduce(masks))


def arose_after(rows: KeptRows) -> npt.NDArray[np.bool_]:
    """Return which elements (k, C) were finite before the GELU and are not after it; none where the input is not there."""
    if rows.pre is None:
        return np.zeros(rows.post.shape, bool)
    return np.isfinite(rows.pre) & ~np.isfinite(rows.post)


def largest(values: npt.NDArray[Any] | None) -> float:
    """Return the largest magnitude among finite values, NaN where there is none."""
    finite = np.abs(values[np.isfinite(values)]) if values is not None else np.empty(0)
    return float(finite.max()) if finite.size else float("nan")


def told(found: Found, point: Point) -> str:
    """Return the counts at one point in words, for example "3 NaN, 1 +Inf"."""
    return ", ".join(f"{count:,} {WORDS[kind]}" for (side, kind), count in found.items() if side == point) or "none"


def _masks(rows: KeptRows) -> Iterator[tuple[Point, str, npt.NDArray[np.bool_]]]:
    before = rows.post if rows.pre is None else rows.pre
    sides: tuple[tuple[Point, npt.NDArray[Any], npt.NDArray[np.bool_]], ...] = (
        ("pre", before, np.ones(before.shape, bool)),
        ("post", rows.post, arose_after(rows)),
    )
    for point, values, arisen in sides:
        yield point, "nan", np.isnan(values) & arisen
        yield point, "posinf", np.isposinf(values) & arisen
        yield point, "neginf", np.isneginf(values) & arisen
