"""What a model returns, as rows of numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


def tensor_of(output: Any) -> torch.Tensor | None:
    """Return the tensor that counts as the output: `logits` where there are some, else the first one, None where there is none."""
    import torch

    if isinstance(output, torch.Tensor):
        return output
    if isinstance(getattr(output, "logits", None), torch.Tensor):
        found: torch.Tensor = output.logits
        return found
    if isinstance(output, Mapping):
        output = [output["logits"]] if "logits" in output else list(output.values())
    if isinstance(output, Sequence):
        for each in output:
            if isinstance(each, torch.Tensor):
                return each
    return None
