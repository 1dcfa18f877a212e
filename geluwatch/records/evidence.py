"""What a source keeps of a forward pass in which something was found: whole rows, and what the pass was called with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from geluwatch.records.names import Ints

Values = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class KeptRows:
    """Whole rows of one site from one forward pass; float32, or float64 where the tensor was."""

    layer: str
    dtype: str
    """The tensor's own dtype."""
    places: Ints
    """Number (k,) of each row among all rows of the pass, -1 where it is not known."""
    pre: Values | None
    """Before the GELU (k, C); None where the GELU wrote its output over its input."""
    post: Values
    """After it (k, C)."""
    derived: bool = False
    """Whether `post` was computed anew from `pre`."""


@dataclass(frozen=True, slots=True)
class Called:
    """What a forward pass was called with.

    `tree` holds ``{"args": [...], "kwargs": {name: ...}}`` of JSON values. Each value is a dict that says what it was: a tensor by
    dtype, shape and, under "array", its key in `arrays`; anything else by its type. Values themselves are there only where the user
    asked for them.
    """

    tree: Mapping[str, Any]
    arrays: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    whole: bool = False
    """Whether the call can be made again from this."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The first site of one forward pass that met a NaN or an Inf."""

    time: float
    """When it was seen, seconds since the epoch."""
    shape: tuple[int, ...]
    """Of the site's tensor, channels last."""
    bad_rows: int
    """Rows of it that hold a NaN or an Inf, padding left out; `bad` has the first of them."""
    bad: KeptRows
    good: KeptRows | None = None
    """A few rows beside them that hold none."""
    before: KeptRows | None = None
    """Rows of the last layer before it, where rows were captured in this pass; the bad rows' own where they were drawn."""
    mode: Mapping[str, Any] = field(default_factory=dict)
    """How the pass ran: "grad" and "inference", and "autocast", a dtype or an empty string."""
    called: Called | None = None
    """None where the site ran by itself, outside of any pass of the model."""
