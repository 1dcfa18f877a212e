"""Which rows are real: the padding mask of a forward, from the root call or from the user."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from geluwatch.config import PaddingFunction
from geluwatch.tap._compat import capturing
from geluwatch.tap.names import WRAPPERS

ARGUMENT = "attention_mask"


class Mask:
    """The mask (batch, tokens) of one pass, and its copies where the model lies on other devices than it."""

    def __init__(self, given: torch.Tensor) -> None:
        self._given = given
        self._there: dict[torch.device, torch.Tensor | None] = {given.device: given}

    def on(self, device: torch.device) -> torch.Tensor | None:
        """Return the mask on a device, brought there once; None where it hides nothing, or cannot be had without a wait."""
        if device not in self._there:
            self._there[device] = self._brought(device)
        return self._there[device]

    def _brought(self, device: torch.device) -> torch.Tensor | None:
        given = self._given
        if given.is_cpu and bool(given.all()):
            return None
        if device.type == "cpu" or capturing(device):  # what the host gives now it would not give when a graph is replayed
            return None
        # From memory that is not pinned the copy may wait for the device.
        pinned = given.pin_memory() if given.is_cpu and device.type == "cuda" else given
        return pinned.to(device, non_blocking=True)


def argument_position(model: nn.Module) -> int | None:
    """Return where a model's forward takes its attention mask if it is given by position, or None if it cannot be.

    A wrapper that names no argument (DDP, FSDP, DataParallel, `torch.compile`) hands all on to what it wraps, which is asked in its stead.
    """
    for module in _wrapped(model):
        try:
            parameters = inspect.signature(module.forward).parameters
        except (TypeError, ValueError):  # a forward without a readable signature
            return None
        placed = [each.name for each in parameters.values() if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
        if placed or ARGUMENT in parameters:
            return placed.index(ARGUMENT) if ARGUMENT in placed else None
    return None


def _wrapped(model: nn.Module) -> Iterator[nn.Module]:
    """Yield a model, what it wraps, what that wraps, and so on; each once."""
    chain = [model]
    for module in chain:
        yield module
        parts = dict(module.named_children())
        chain.extend([parts[name] for name in WRAPPERS if name in parts and parts[name] not in chain][:1])


def from_call(
    args: tuple[Any, ...], kwargs: dict[str, Any], user: PaddingFunction | None, position: int | None = None
) -> torch.Tensor | None:
    """Return a boolean mask (batch, tokens) of the root call, or None where there is none of that shape.

    Args:
        args: Positional arguments of the root call.
        kwargs: Its keyword arguments.
        user: The user's own function, which decides alone where there is one.
        position: Where among `args` an attention mask may stand.
    """
    mask = user(args, kwargs) if user is not None else mask_argument(args, kwargs, position)
    if not isinstance(mask, torch.Tensor) or mask.dim() != 2:
        return None
    if not mask.is_cpu:
        # Its values cannot be looked at without a wait; only a dtype that leaves no doubt is taken.
        return None if mask.is_floating_point() else mask != 0
    if mask.dtype is not torch.bool:
        # An additive mask (0 for valid, large negative for padding) would read as all padding: not ours to guess.
        mask = mask == 1 if bool(((mask == 0) | (mask == 1)).all()) else None
    return mask if mask is not None and bool(mask.any()) else None


def for_rows(mask: torch.Tensor | None, shape: torch.Size) -> torch.Tensor | None:
    """Return the mask flattened to the rows of a tensor (..., C), or None when it does not fit or hides nothing."""
    if mask is None or len(shape) < 2 or mask.shape != shape[: mask.dim()] or mask.numel() != shape[:-1].numel():
        return None
    flat = mask.reshape(-1)
    return None if flat.is_cpu and bool(flat.all()) else flat


def mask_argument(args: tuple[Any, ...], kwargs: dict[str, Any], position: int | None) -> Any:
    """Return the attention mask that a root call was given, None where it was given none."""
    return args[position] if position is not None and position < len(args) else kwargs.get(ARGUMENT)


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor | None:
    """Return the first tensor that a root call was given."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor):
            return value
    return None


def batch_size(first: torch.Tensor | None) -> int:
    """Return the first dimension of a call's first tensor; 0 where there is none."""
    if first is None:
        return 0
    return int(first.size(0)) if first.dim() else 1
