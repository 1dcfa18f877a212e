"""The same rows through two models: by how much do they differ? Paired values need no statistics, and see a millionth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from geluwatch.records import LayerDifference, Rows


@dataclass(slots=True)
class Side:
    """Sums over paired values at one side of a GELU."""

    squares: float = 0.0
    """Of the first model's values."""
    differences: float = 0.0
    """Of the squared differences."""
    largest: float = 0.0
    """Largest absolute difference; infinite where one is not finite and the other is not the same."""

    def add(self, known: np.ndarray, other: np.ndarray) -> None:
        """Take paired values (n, C); equal ones that are not finite count as equal."""
        one, two = known.astype(np.float64), other.astype(np.float64)
        same = (one == two) | (np.isnan(one) & np.isnan(two))
        apart = np.abs(np.where(same, 0.0, one) - np.where(same, 0.0, two))
        apart[np.isnan(apart)] = math.inf
        self.squares += float(np.square(one[np.isfinite(one)]).sum())
        self.differences += float(np.square(apart).sum())
        self.largest = max(self.largest, float(apart.max(initial=0.0)))

    @property
    def relative(self) -> float:
        """Root of the mean squared difference over that of the values; 0 where nothing differs, infinite where nothing is finite."""
        if not self.differences:
            return 0.0
        return math.sqrt(self.differences / self.squares) if self.squares else math.inf


@dataclass(slots=True)
class Paired:
    """What two models gave at one GELU for the same inputs."""

    before: Side = field(default_factory=Side)
    after: Side = field(default_factory=Side)
    rows: int = 0
    unlike: str = ""
    """Why some rows have no pair, or what differs in kind; empty where nothing does."""
    one: str = "in one"
    other: str = "in the other"
    """What the two sides are called in that."""

    def add(self, known: Sequence[Rows], other: Sequence[Rows]) -> None:
        """Take the rows of one pass of both, call by call; they are of the same inputs in the same order."""
        if len(known) != len(other):
            self.unlike = f"a pass calls it {len(known)} times {self.one} and {len(other)} times {self.other}"
        for one, two in zip(known, other, strict=False):
            if one.pre.shape != two.pre.shape:
                shapes = (" x ".join(map(str, each.pre.shape)) for each in (one, two))
                self.unlike = f"it has {next(shapes)} values {self.one} and {next(shapes)} {self.other}"
                continue
            if one.dtype != two.dtype:
                self.unlike = f"its values are {one.dtype} {self.one} and {two.dtype} {self.other}"
            self._pair(one, two)

    def _pair(self, known: Rows, other: Rows) -> None:
        self.before.add(known.pre, other.pre)
        self.after.add(known.post, other.post)
        self.rows += len(known.pre)


def where(first: LayerDifference, tolerance: float) -> str:
    """Return in words how the values differ at the first layer that does, before its GELU or in it."""
    if first.before > tolerance:
        return f"what goes into that GELU differs by {first.before:.2g} of its size"
    if first.after > tolerance:
        return f"the same goes in, and what comes out differs by {first.after:.2g} of its size, {first.largest:.2g} at most"
    return "its values agree" if first.rows else "it gave no values"
