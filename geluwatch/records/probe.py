"""A probe: inputs and what the model made of them, to be replayed when somebody asks whether the data changed or the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from geluwatch.records.observed import Rows

Origin = Literal["", "data", "model", "unknown"]
"""What has changed where traffic drifts: the data, by a probe that was replayed since and gave the same; the model, by one that
did not; "unknown" without such a probe; "" without drift."""

Tree = Any
"""Numpy arrays, `Bfloat16`, bool, int, float, str and None, in dictionaries with text as keys, lists and tuples."""


@dataclass(frozen=True, slots=True)
class Bfloat16:
    """A bfloat16 tensor's `bits`, uint16 of any shape; numpy has no such type."""

    bits: npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class ProbeInput:
    """What one forward pass is called with."""

    args: tuple[Tree, ...]
    kwargs: Mapping[str, Tree]


@dataclass(frozen=True, slots=True)
class Probe:
    """Inputs, and some rows of every call of a GELU in their passes, in evaluation mode."""

    created: float
    """When it was made, seconds since the epoch."""
    inputs: tuple[ProbeInput, ...]
    rows: tuple[tuple[Rows, ...], ...]
    """Of each input, the kept rows of each call, in the order of the calls."""
    values: int
    """Most values kept of one call on each side of the GELU. Rows are the last dimension's lines; those kept lie evenly over the valid
    ones, and where a single row holds more values than that, so do the values kept of it."""
    parameters: str
    """dtype of the model's first floating-point parameter; inputs of that dtype follow it, where the model is cast to another."""


@dataclass(frozen=True, slots=True)
class LayerDifference:
    """How far two models, or one model at two times, are apart at one GELU."""

    layer: str
    rows: int
    """Rows compared; 0 where there were none on either side."""
    before: float
    """Relative difference of the GELU's inputs: root mean squared difference over the root mean square of the first ones."""
    after: float
    """The same of its outputs."""
    largest: float
    """Largest absolute difference of its outputs."""
    difference: str
    """What differs besides the values, or an empty string."""
    all_before: float = 0.0
    """By how much of their size all inputs differ alike; 0 where differences go to and fro, or were not looked at so closely."""
    all_after: float = 0.0
    """The same of its outputs."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a replay of a probe showed."""

    time: float
    """When it began, seconds since the epoch."""
    baseline: str
    """Name of the baseline whose probe it is."""
    recorded: float
    """When the probe was made."""
    layers: tuple[LayerDifference, ...]
    """In the order in which the passes come to them."""
    first: LayerDifference | None
    """The first layer that moved; None where none did."""
    within: bool
    """Whether it moved at the GELU itself: what goes in is the same, what comes out is not."""
    sentence: str
    """What was seen, in words."""
    doubtful: bool = False
    """Whether rounding differs by so much that a small change of the weights might hide in it."""

    @property
    def moved(self) -> bool:
        """Whether the model is no longer the one that the probe was recorded on."""
        return self.first is not None

    @property
    def size(self) -> float:
        """Relative difference at the first layer that moved, on the side where it shows; 0 without one, infinite where it has no values."""
        if self.first is None:
            return 0.0
        if not self.first.rows:
            return float("inf")
        return self.first.after if self.within else self.first.before
