"""What a model returns, as rows of numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from geluwatch.errors import ConfigError

if TYPE_CHECKING:
    import torch


def rows_of(output: Any, chosen: Callable[[Any], Any] | None) -> tuple[int, np.ndarray]:
    """Return the number of inputs and the rows (n, entries), float64, of what a model gave.

    Raises:
        ConfigError: It holds no tensor.
    """
    tensor = tensor_of(output if chosen is None else chosen(output))
    if tensor is None:
        raise ConfigError(f"The model returns {type(output).__name__}, in which no tensor was found; say which it is with outputs=.")
    inputs = tensor.shape[0] if tensor.dim() else 1
    if tensor.dim() < 2:
        tensor = tensor.reshape(-1, 1)
    return inputs, tensor.detach().double().cpu().reshape(-1, tensor.shape[-1]).numpy()


def tensors_of(output: Any) -> list[torch.Tensor]:
    """Return all tensors in what a model gave, in the order of its mappings, sequences and dataclasses."""
    import torch

    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, Mapping):
        parts: Iterable[Any] = output.values()
    elif isinstance(output, Sequence) and not isinstance(output, (str, bytes)):
        parts = output
    elif is_dataclass(output) and not isinstance(output, type):
        parts = (getattr(output, each.name) for each in fields(output))
    else:
        parts = ()
    return [tensor for part in parts for tensor in tensors_of(part)]


def tensor_of(output: Any) -> torch.Tensor | None:
    """Return the tensor that counts as the output: `logits` where there are some, else the first one, None where there is none."""
    import torch

    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    return logits if isinstance(logits, torch.Tensor) else next(iter(tensors_of(output)), None)
