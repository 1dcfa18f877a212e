"""The same rows through two models: by how much do they differ? Paired values need no statistics, and see a millionth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from geluwatch.records import LayerDifference, Rows

SYSTEMATIC = 1 / 8
"""Share of the tolerance from which on values of a half-precision dtype that all differ alike are no longer the same."""

# Tolerances above it are those of half-precision dtypes, whose rounding is large enough for a change to hide in.
_COARSE = 1e-3
# Standard errors from which on a common difference is not chance.
_CERTAIN = 5.0
# Median magnitudes beyond which a value has no say in what all values do.
_LARGE = 16.0
# Values below which nothing is said of all.
_FEWEST = 64


@dataclass(slots=True)
class Side:
    """Sums over paired values at one side of a GELU."""

    squares: float = 0.0
    """Of the first model's values."""
    differences: float = 0.0
    """Of the squared differences."""
    weights: float = 0.0
    """Of the squares of the first model's values, without those so large that a few of them would speak for all."""
    products: float = 0.0
    """Of the differences times those values."""
    squared_products: float = 0.0
    """Of the squares of these."""
    sum: float = 0.0
    """Of the differences."""
    values: int = 0
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
        finite = np.isfinite(one) & np.isfinite(two)
        if finite.any():
            self._add_shared(one[finite], two[finite] - one[finite])

    def _add_shared(self, values: np.ndarray, differences: np.ndarray) -> None:
        """Take finite values (n,) and their differences for what they share."""
        usual = np.where(np.abs(values) <= _LARGE * np.median(np.abs(values)), values, 0.0)
        self.weights += float(np.square(usual).sum())
        self.products += float((differences * usual).sum())
        self.squared_products += float(np.square(differences * usual).sum())
        self.sum += float(differences.sum())
        self.values += values.size

    @property
    def relative(self) -> float:
        """Root of the mean squared difference over that of the values; 0 where nothing differs, infinite where nothing is finite."""
        if not self.differences:
            return 0.0
        return math.sqrt(self.differences / self.squares) if self.squares else math.inf

    @property
    def systematic(self) -> float:
        """By how much all values differ alike: as a share of each value, or of their root mean square where each differs by as much.

        0 where that may be chance, as it is where sums were rounded in another order: then differences go to and fro. The standard
        errors are of the differences themselves (White 1980), for rounding grows with the values.
        """
        if self.values < _FEWEST or not self.weights or not math.isfinite(self.differences):
            return 0.0
        gain = abs(self.products) / self.weights
        offset = abs(self.sum) / math.sqrt(self.squares * self.values)
        certain = abs(self.products) > _CERTAIN * math.sqrt(self.squared_products)
        shared = abs(self.sum) > _CERTAIN * math.sqrt(self.differences)
        return max(gain if certain else 0.0, offset if shared else 0.0)


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


def systematic(tolerance: float) -> float:
    """Return up to which common difference values count as the same, where each of them may differ by a tolerance."""
    return tolerance * (SYSTEMATIC if tolerance > _COARSE else 1.0)


def where(first: LayerDifference, tolerance: float) -> str:
    """Return in words how the values differ at the first layer that does, before its GELU or in it."""
    if first.before > tolerance:
        return f"what goes into that GELU differs by {first.before:.2g} of its size"
    if first.all_before > systematic(tolerance):
        return f"what goes into that GELU differs by {first.all_before:.2g} of its size, all of it alike"
    if first.after > tolerance:
        return f"the same goes in, and what comes out differs by {first.after:.2g} of its size, {first.largest:.2g} at most"
    if first.all_after > systematic(tolerance):
        return f"the same goes in, and what comes out differs by {first.all_after:.2g} of its size, all of it alike"
    return "its values agree" if first.rows else "it gave no values"
