"""A gate before a release: the same inputs through two models, compared GELU by GELU.

What drifts in traffic takes windows and statistics to see. Here the inputs are the same, so every value has its pair, and
a change of a millionth shows: another formula, a cast, a quantised copy, a training step. The first layer whose values differ is where
the models part; where a GELU's input agrees and its output does not, it is the GELU itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from geluwatch.analysis.outputs import tensors_of
from geluwatch.config import Config
from geluwatch.core.paired import Paired, Side, where
from geluwatch.errors import AttachError, ConfigError
from geluwatch.records import Drained, LayerDifference, Rows, Site

if TYPE_CHECKING:
    import torch
    from torch import nn

TOLERANCE = 1e-5
"""Relative difference up to which two models count as the same: float32 kernels that sum in another order stay below it."""

_WHOLE = 1 << 40
"""More rows, and more bytes, than any pass has: everything is captured."""


@dataclass(frozen=True, slots=True)
class ModelComparison:
    """Two models on the same inputs."""

    layers: tuple[LayerDifference, ...]
    """In the first model's order."""
    tolerance: float
    output: float = 0.0
    """Largest relative difference of the tensors that the models return; infinite where their number or shapes differ."""
    outputs: int = 0
    """Tensors in what a model returns; what it returns besides is not compared."""

    @property
    def first(self) -> LayerDifference | None:
        """The layer where the models part, None where they are the same at every GELU."""
        return next((each for each in self.layers if each.difference or max(each.before, each.after) > self.tolerance), None)

    @property
    def same(self) -> bool:
        """Whether they are the same at every GELU and return the same, within the tolerance."""
        return self.first is None and self.output <= self.tolerance

    def __str__(self) -> str:
        first = self.first
        if first is None:
            silent = sum(not each.rows for each in self.layers)
            rest = f"; {silent} more give no rows in either" if silent else ""
            rest += "" if self.outputs else "; no tensor was found in what they return, which is not compared"
            same = f"the same at {len(self.layers) - silent} GELUs, within {self.tolerance:g}{rest}"
            behind = f"; behind the last of them the models part: what they return differs by {self.output:.2g} of its size"
            return same if self.same else f"{same}{behind}"
        census = f" ({first.difference})" if first.difference else ""
        return f"the models part at {first.layer}{census}: {where(first, self.tolerance)}"


def compare_models(
    known: nn.Module,
    other: nn.Module,
    inputs: Iterable[Any],
    *,
    call: Callable[[nn.Module, Any], object] | None = None,
    tolerance: float = TOLERANCE,
    config: Config | None = None,
) -> ModelComparison:
    """Send the same inputs through two models and compare what goes into each GELU, what comes out, and what the models return.

    Both are left as they were. Put them in evaluation mode: with dropout no two passes are the same.

    Args:
        known: The good one.
        other: The one in question.
        inputs: What to send, one forward pass each: a mapping is given as keyword arguments, a tuple as positional ones, anything
            else as the only one.
        call: Makes the pass of a model and an input instead.
        tolerance: Relative difference up to which values are the same.
        config: For its `gelu_classes` and `padding`; rows of padding are not compared.

    Raises:
        AttachError: One of them cannot be watched, both are the same object, or no GELU gave rows.
        ConfigError: There is no input, or the tolerance is negative.
    """
    from geluwatch.agent import SystemClock
    from geluwatch.tap.source import TorchSource

    if known is other:
        raise AttachError("Both models are the same object, which cannot differ from itself; pass a copy to compare with.")
    if not tolerance >= 0:
        raise ConfigError(f"tolerance must be a number of at least 0, got {tolerance!r}.")
    everything = whole(config or Config())
    run = call or call_of
    pairs: dict[str, Paired] = {}
    outputs: list[Side] = []
    passes = 0
    one = TorchSource(known, everything, SystemClock())
    try:
        two = TorchSource(other, everything, SystemClock())
        try:
            for item in inputs:
                drained, returned = zip(*[_passed(source, model, item, run) for source, model in ((one, known), (two, other))], strict=True)
                _pair(pairs, *drained)
                _pair_outputs(outputs, *map(tensors_of, returned))
                passes += 1
            if not passes:
                raise ConfigError("There is no input to compare the models on; give at least one.")
            if not any(pair.rows for pair in pairs.values()):
                reasons = "; ".join(dict.fromkeys(site.reason for site in one.sites if site.reason))
                raise AttachError(f"No GELU gave rows to compare: {reasons or 'the inputs are empty, or all padding'}.")
            sites = one.sites, two.sites
        finally:
            two.close()
    finally:
        one.close()
    return ModelComparison(tuple(_layers(*sites, pairs)), tolerance, max((each.relative for each in outputs), default=0.0), len(outputs))


def whole(config: Config) -> Config:
    """Return settings of a watch to which every pass gives all its rows, with the classes and the padding of others."""
    return Config(
        window_seconds=None, cost_budget=None, rows_per_forward=_WHOLE, rows_per_window=_WHOLE, pending_bytes=_WHOLE,
        gelu_classes=config.gelu_classes, padding=config.padding,
    )  # fmt: skip


def call_of(model: nn.Module, item: Any) -> Any:
    """Return what a model gives for a copy of an input: a mapping is given as keyword arguments, a tuple as positional ones."""
    from geluwatch.tap.inputs import copied

    item = copied(item)
    if isinstance(item, dict) or hasattr(item, "keys"):
        return model(**item)
    return model(*item) if isinstance(item, tuple) else model(item)


def _passed(source: Any, model: nn.Module, item: Any, run: Callable[[nn.Module, Any], object]) -> tuple[Drained, Any]:
    """Return what one pass left behind, and what it returned."""
    import torch

    with torch.no_grad():
        returned = run(model, item)
    return source.drain(), returned


def _pair_outputs(sides: list[Side], known: list[torch.Tensor], other: list[torch.Tensor]) -> None:
    """Add what both models returned in a pass, tensor by tensor."""
    for place, (one, two) in enumerate(zip_longest(known, other)):
        if place == len(sides):
            sides.append(Side())
        if one is None or two is None or one.shape != two.shape:
            sides[place].differences += math.inf
        else:
            sides[place].add(*map(_numbers, (one, two)))


def _numbers(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor's values (n,), float64."""
    dense = tensor.dequantize() if tensor.is_quantized else tensor.to_dense()
    found: np.ndarray = dense.detach().double().cpu().reshape(-1).numpy()
    return found


def _pair(pairs: dict[str, Paired], known: Drained, other: Drained) -> None:
    """Add the rows of one pass of both models, call by call."""
    first, second = (_by_layer(each.rows) for each in (known, other))
    for layer in first.keys() | second.keys():
        pairs.setdefault(layer, Paired()).add(first.get(layer, ()), second.get(layer, ()))


def _by_layer(rows: Iterable[Rows]) -> dict[str, list[Rows]]:
    found: dict[str, list[Rows]] = {}
    for each in rows:
        found.setdefault(each.layer, []).append(each)
    return found


def _layers(known: tuple[Site, ...], other: tuple[Site, ...], pairs: dict[str, Paired]) -> Iterator[LayerDifference]:
    """Yield the layers of the first model, then those that only the second has."""
    matches = {site.layer: site for site in other}
    for site in known:
        pair = pairs.get(site.layer, Paired())
        told = _difference(site, matches.pop(site.layer, None), pair)
        yield LayerDifference(site.layer, pair.rows, pair.before.relative, pair.after.relative, pair.after.largest, told)
    for layer in matches:
        yield LayerDifference(layer, 0, 0.0, 0.0, 0.0, "the first model lacks it")


def _difference(site: Site, other: Site | None, pair: Paired) -> str:
    """Return what differs at a GELU besides its values, or an empty string."""
    if other is None:
        return "the second model lacks it"
    for what, one, two in (("formula", site.variant, other.variant), ("class", site.kind, other.kind)):
        if one != two:
            return f"its {what} is {one} in one and {two} in the other"
    return pair.unlike
