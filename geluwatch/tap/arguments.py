"""What a forward pass was called with: by type and shape, or, where the user wants that, with its values.

The tree is what `geluwatch.records.Called` says. Keys of a nested mapping may be a user's data, and are values too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from geluwatch.tap._compat import batched

MOST_BYTES = 4 * 2**20
"""Most memory of the tensors and the texts that are kept of a call."""

_MOST_LEAVES, _DEEPEST = 64, 4

_PLAIN = (bool, int, float, str)

_KEPT = {
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128,
}  # fmt: skip
"""dtypes that can be looked at and kept as arrays; floating-point ones of eight bits and less have few operations."""


@dataclass(slots=True)
class Kept:
    """A call as it is kept: copies of its tensors still are tensors."""

    wanted: bool
    """Whether values are kept at all."""
    tree: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    whole: bool = True
    leaves: int = 0
    size: int = 0
    """Bytes of the tensors and texts that are kept."""

    def take(self, more: int) -> bool:
        """Take so many bytes more if there is room; return whether there is."""
        room = self.wanted and self.size + more <= MOST_BYTES
        self.size += more if room else 0
        self.whole = self.whole and room
        return room

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the tensors as arrays; float32 where numpy has no such type."""
        return {key: _array(tensor) for key, tensor in self.tensors.items()}


def keep(call: tuple[tuple[Any, ...], dict[str, Any]], *, whole: bool) -> Kept:
    """Return a description of a root call's arguments.

    Args:
        call: Positional and keyword arguments.
        whole: Whether to keep the values too, as far as they are tensors on the CPU, plain values, and containers of these.
    """
    args, kwargs = call
    kept = Kept(whole)
    kept.tree = {
        "args": [_told(kept, value, 0) for value in args],
        "kwargs": {name: _told(kept, value, 0) for name, value in kwargs.items()},
    }
    kept.whole = whole and kept.whole
    return kept


def _told(kept: Kept, value: Any, depth: int) -> dict[str, Any]:
    kept.leaves += 1
    if kept.leaves > _MOST_LEAVES or depth > _DEEPEST:
        kept.whole = False
        return {"type": type(value).__name__, "left_out": "too large a call"}
    if isinstance(value, torch.Tensor):
        return _tensor(kept, value)
    if value is None or type(value) in _PLAIN:
        return _plain(kept, value)
    if type(value) in {list, tuple}:
        return {"type": type(value).__name__, "items": _items(kept, value, depth)}
    if isinstance(value, Mapping):
        items = _items(kept, value.values(), depth)
        keys = list(islice(value, len(items)))
        kept.whole = kept.whole and all(isinstance(key, str) for key in keys)
        names = map(str, keys if kept.wanted else range(len(keys)))
        return {"type": "dict", "items": dict(zip(names, items, strict=True))}
    kept.whole = False
    return {"type": f"{type(value).__module__}.{type(value).__qualname__}"}


def _items(kept: Kept, values: Iterable[Any], depth: int) -> list[dict[str, Any]]:
    """Return what is told of a container's items, up to the first for which there is no room: the pass waits meanwhile."""
    told: list[dict[str, Any]] = []
    for value in values:
        told.append(_told(kept, value, depth + 1))
        if kept.leaves > _MOST_LEAVES:
            break
    return told


def _plain(kept: Kept, value: Any) -> dict[str, Any]:
    said: dict[str, Any] = {"type": type(value).__name__}
    if type(value) is str and not kept.take(len(value)):
        return said
    # JSON has no word for what is not finite; `float` reads this one.
    told = repr(value) if type(value) is float and not math.isfinite(value) else value
    return said | ({"value": told} if kept.wanted or value is None else {})


def _tensor(kept: Kept, value: torch.Tensor) -> dict[str, Any]:
    said: dict[str, Any] = {"type": "tensor", "dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape)}
    said["device"] = str(value.device)
    if type(value) not in {torch.Tensor, torch.nn.Parameter} or value.layout is not torch.strided or not value.is_cpu or batched(value):
        kept.whole = False
        return said
    values = value.detach()
    if values.dtype not in _KEPT:
        kept.whole = False
        return said
    if values.is_floating_point():
        said["nonfinite"] = values.numel() - int(torch.isfinite(values).sum())
    if kept.take(values.nbytes):
        said["array"] = f"tensor{len(kept.tensors)}"
        kept.tensors[said["array"]] = values.clone()
    return said


def _array(tensor: torch.Tensor) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = (
        (tensor.float() if tensor.dtype is torch.bfloat16 else tensor.resolve_conj().resolve_neg()).contiguous().numpy()
    )
    return np.asarray(array)
