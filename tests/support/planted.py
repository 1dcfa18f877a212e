"""A fault in one row of MiniLM's weights, for the test that follows it from its page to its regression test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from geluwatch.cli.demo import model as demo_model

LAYER = "encoder.layer.3.intermediate.intermediate_act_fn"
"""Where the NaN arises."""

WEIGHT = "encoder.layer.3.intermediate.dense.weight"


@contextmanager
def planted(model: nn.Module) -> Iterator[None]:
    """Make one channel before a GELU overflow; put the weights back at the end."""
    weight = model.get_parameter(WEIGHT)
    kept = weight.detach().clone()
    _plant(weight)
    try:
        yield
    finally:
        with torch.no_grad():
            weight.copy_(kept)


def broken() -> nn.Module:
    """Return the model as it failed, as a user's factory would."""
    model = demo_model.load().model
    _plant(model.get_parameter(WEIGHT))
    return model


def _plant(weight: torch.Tensor) -> None:
    with torch.no_grad():
        weight[7] = 3e38 * weight[7].sign()


def mended() -> nn.Module:
    """Return the model as it should be."""
    return demo_model.load().model
