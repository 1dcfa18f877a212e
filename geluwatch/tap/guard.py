"""Is anything non-finite? A cheap look that cannot miss, and an exact count when it hits.

A sum of squares, or a plain sum, is non-finite whenever one of its terms is, so a finite sum proves that all is
well. It may also overflow by itself; that is why a hit is confirmed element by element before it counts.
"""

from __future__ import annotations

from collections.abc import Callable
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
    values = values.detach()
    if values.dtype is torch.float32 and values.is_contiguous():
        flat = values.view(-1)
        total = torch.dot(flat, flat).item()
    else:
        total = values.sum(dtype=torch.float32 if values.dtype is not torch.float64 else torch.float64).item()
    return total - total != 0.0


def suspicious_column(output: torch.Tensor) -> bool:
    """Return whether the first output column of a dense layer is non-finite anywhere.

    One non-finite input element makes every output of its row non-finite (NaN times anything, Inf times zero and
    Inf minus Inf are NaN), so a single column speaks for the whole input.
    """
    total = output.detach().select(-1, 0).sum(dtype=torch.float32).item()
    return total - total != 0.0


def confirm(pre: torch.Tensor, post: torch.Tensor, mask: Callable[[], torch.Tensor | None]) -> Hit | None:
    """Return the exact counts of a suspected hit, or None where every value is finite.

    Args:
        pre: Input of the GELU.
        post: Its output.
        mask: Returns a boolean mask of valid rows, shape (rows,) for `post.flatten(0, -2)`, or None if all are valid.
    """
    point: Point = "pre" if not bool(torch.isfinite(pre).all()) else "post"
    arisen = (pre if point == "pre" else post).detach()
    if point == "post" and bool(torch.isfinite(arisen).all()):
        return None
    valid = mask()
    if valid is not None and arisen.dim() > 1:
        arisen = arisen.reshape(-1, arisen.shape[-1])[valid]
    counts = {
        "nan": int(torch.isnan(arisen).sum()),
        "posinf": int(torch.isposinf(arisen).sum()),
        "neginf": int(torch.isneginf(arisen).sum()),
    }
    return Hit({(point, kind): count for kind, count in counts.items() if count})
