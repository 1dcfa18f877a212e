"""Is anything non-finite? A cheap look that cannot miss, and an exact count when it hits.

A sum of squares, or a plain sum, is non-finite whenever one of its terms is, so a finite sum proves that all is
well. It may also overflow by itself; that is why a hit is confirmed element by element before it counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from geluwatch.records import Point


@dataclass(frozen=True, slots=True)
class Hit:
    """Confirmed non-finite values at one site in one forward pass."""

    elements: dict[tuple[Point, str], int]
    """Elements at valid rows by (point, kind), on the side where they arose; empty if only padding was hit."""


def suspicious(values: torch.Tensor) -> bool:
    """Return whether a CPU tensor may hold a non-finite value; False is proof that it holds none."""
    if values.requires_grad:
        values = values.detach()
    if values.dtype is torch.float32 and values.is_contiguous():
        flat = values.view(-1)
        total = torch.dot(flat, flat).item()
    else:
        total = values.sum(dtype=torch.float32 if values.dtype is not torch.float64 else torch.float64).item()
    return total - total != 0.0


def plainly_finite(values: torch.Tensor) -> bool:
    """Return whether a CPU tensor without a graph is finite by the look that takes fewest calls; False says nothing.

    Between two GELUs the code of each function called here leaves every cache, so one call less counts for more than the
    values themselves: this sum takes half the time of the quicker one of `suspicious`, with what that has to ask before.
    """
    total = values.sum().item()
    return total - total == 0.0


def suspicious_column(output: torch.Tensor) -> bool:
    """Return whether the first output column of a dense layer is non-finite anywhere.

    One non-finite input element makes every output of its row non-finite (NaN times anything, Inf times zero and
    Inf minus Inf are NaN), so a single column speaks for the whole input.
    """
    column = (output.detach() if output.requires_grad else output).select(-1, 0)
    if plainly_finite(column):
        return False
    total = column.sum(dtype=torch.float32).item()  # in 16 bits many finite values have too large a sum
    return total - total != 0.0


def confirm(pre: torch.Tensor, post: torch.Tensor, mask: Callable[[], torch.Tensor | None]) -> Hit | None:
    """Return the exact counts of a suspected hit, or None where every value is finite.

    An element counts before the GELU if it was non-finite there, and after it only where it had been finite before.

    Args:
        pre: Input of the GELU.
        post: Its output, of the same shape.
        mask: Returns a boolean mask of valid rows, shape (rows,) for `post.flatten(0, -2)`, or None if all are valid.
    """
    # Detached, for a tensor saved for backward here would be missing when a checkpoint recomputes the forward.
    pre, post = pre.detach(), post.detach()
    before = ~torch.isfinite(pre)
    arisen: dict[Point, torch.Tensor] = {"pre": before, "post": ~torch.isfinite(post) & ~before}
    if not any(bool(bad.any()) for bad in arisen.values()):
        return None
    valid = mask()
    if valid is not None:
        arisen = {point: bad & valid.reshape(*bad.shape[:-1], 1) for point, bad in arisen.items()}
    sides: dict[Point, torch.Tensor] = {"pre": pre, "post": post}
    return Hit({key: count for point, bad in arisen.items() for key, count in _kinds(point, sides[point][bad])})


def belong(pre: torch.Tensor, post: torch.Tensor) -> bool:
    """Return whether an output can be of an input, where both are finite, by any GELU: its forms differ by less than .03.

    Without such a place it is not: a GELU of finite values is finite.
    """
    pre, post = pre.detach().float(), post.detach().float()
    finite = torch.isfinite(pre) & torch.isfinite(post)
    expected = torch.nn.functional.gelu(pre[finite])
    return bool(finite.any()) and bool(((post[finite] - expected).abs() <= 0.03 + 0.01 * expected.abs()).all())


def _kinds(point: Point, values: torch.Tensor) -> Iterator[tuple[tuple[Point, str], int]]:
    """Yield ((point, kind), count) of non-finite values, kinds that do not occur left out."""
    nan, posinf = int(values.isnan().sum()), int((values == torch.inf).sum())
    for kind, count in (("nan", nan), ("posinf", posinf), ("neginf", values.numel() - nan - posinf)):
        if count:
            yield (point, kind), count
