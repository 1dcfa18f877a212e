"""A fault as memory makes it: one bit of one weight flips."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

LAYER = "encoder.layer.3.intermediate.intermediate_act_fn"
"""The GELU behind the weight that is hit, where the first non-finite value arises."""

_WEIGHT = "encoder.layer.3.intermediate.dense.weight"
# The input channel with the largest values in this model, and there the largest weight: about every fifth token overflows.
_ROW, _COLUMN = 1159, 223
_TOP_EXPONENT_BIT = 30


@dataclass(frozen=True, slots=True)
class Flip:
    """What the flip did to the weight."""

    weight: str
    before: float
    after: float


@contextmanager
def flipped_bit(model: nn.Module) -> Iterator[Flip]:
    """Flip the top exponent bit of one weight of the MiniLM, a factor of 2^128; put the weight back at the end."""
    element = model.get_parameter(_WEIGHT).data[_ROW, _COLUMN]
    before = element.clone()
    pattern = element.view(torch.int32)
    pattern.bitwise_xor_(1 << _TOP_EXPONENT_BIT)
    try:
        yield Flip(f"{_WEIGHT}[{_ROW}, {_COLUMN}]", before.item(), element.item())
    finally:
        element.copy_(before)
