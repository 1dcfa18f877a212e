"""Which rows of a forward pass are captured, evenly over the valid ones, and their copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from geluwatch.tap._compat import batched

DTYPES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float64: "float64"}


Formula = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Captured:
    """Paired rows of one site, still tensors; turned into arrays when they are drained."""

    layer: str
    dtype: str
    pre: torch.Tensor
    post: torch.Tensor
    derived: bool = False
    """Whether `post` was computed anew from `pre`."""

    @property
    def nbytes(self) -> int:
        """Memory held until the next drain."""
        return self.pre.nbytes + self.post.nbytes


@dataclass(frozen=True, slots=True)
class Kept:
    """Rows of an input that is about to be overwritten, and their numbers; `rows` (k, C), `indices` (k,) int64."""

    rows: torch.Tensor
    indices: torch.Tensor


class RowPicker:
    """Draws row numbers evenly from the valid rows, without repeats, ascending."""

    def __init__(self) -> None:
        self._generator = torch.Generator("cpu")
        self._generator.manual_seed(0x6E1)

    def pick(self, rows: int, mask: torch.Tensor | None, count: Callable[[int], int]) -> torch.Tensor:
        """Return indices (k,) int64 of some of `rows` rows.

        Args:
            rows: Rows that there are.
            mask: (rows,), true where a row is valid; None where all are.
            count: Says how many to take of so many valid ones.
        """
        # The device is named, for the default one may be another, and the factories would follow it.
        valid = torch.arange(rows, device="cpu") if mask is None else mask.nonzero().squeeze(1)
        return self.some(valid, count(valid.numel()))

    def some(self, indices: torch.Tensor, most: int) -> torch.Tensor:
        """Return at most so many of some indices (k,)."""
        if indices.numel() <= most:
            return indices
        order = torch.randperm(indices.numel(), generator=self._generator, device="cpu")[:most]
        return indices[order.sort().values]


def capture(layer: str, pre: torch.Tensor, post: torch.Tensor | Formula, indices: torch.Tensor) -> Captured:
    """Return copies of the chosen rows of a GELU's input and output, both of shape (..., C).

    Where `post` is a formula it is applied to the rows, for the output is not to be had.
    """
    taken = rows_of(pre, indices)
    if isinstance(post, torch.Tensor):
        return Captured(layer, DTYPES[pre.dtype], taken, rows_of(post, indices))
    return Captured(layer, DTYPES[pre.dtype], taken, post(taken), derived=True)


def rows_of(values: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Return copies of chosen rows of (..., C)."""
    return values.detach().reshape(-1, values.shape[-1]).index_select(0, indices)


def watchable(pre: torch.Tensor, post: torch.Tensor) -> str:
    """Return why a pair of tensors cannot be watched, or an empty string when it can."""
    for side in (pre, post):
        if side.is_nested or batched(side):
            return "inside torch.func.vmap" if batched(side) else "unsupported nested tensor"
        if type(side) is not torch.Tensor and type(side) is not torch.nn.Parameter:
            return f"unsupported tensor type {type(side).__name__}"
        if side.layout is not torch.strided or side.device.type == "meta":
            return f"unsupported tensor on {side.device.type} with layout {side.layout}"
        if side.dtype not in DTYPES:
            return f"unsupported dtype {side.dtype}"
    if pre.shape != post.shape:
        return f"output shape {tuple(post.shape)} differs from input shape {tuple(pre.shape)}"
    return ""
