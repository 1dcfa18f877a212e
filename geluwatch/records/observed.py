"""What a source sees, and the windows it is folded into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from geluwatch.records.evidence import Evidence
from geluwatch.records.names import Cells, Floats, Ints, Point, PointKey, State
from geluwatch.records.traffic import Traffic, Usage
from geluwatch.records.training import Training


@dataclass(frozen=True, slots=True)
class Site:
    """One GELU call site of the model."""

    layer: str
    """Stable id: the qualified module name without wrapper prefixes."""
    position: int
    """Place in the order of the model's modules, from 0."""
    form: str
    """How the GELU is written: "module", a module of its own; "gated", a module that multiplies by another half of its input;
    "functional", a call inside a forward; "fused", inside a fused layer; "formula", spelled out in a function."""
    kind: str
    """Class name of the module, or of the one whose forward makes the call."""
    variant: str
    """Declared formula: "erf", "tanh", "quick", or "other"."""
    state: State = "observed"
    reason: str = ""
    """Why the site is blind; empty when it is observed."""
    gate: str = ""
    """"first half" or "second half" where the input is one half of a wider tensor, as in gated layers; known once it has run."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts on the universal float lattice (see `geluwatch.core.lattice`), sparse.

    `cells` (n,) int32 ascending, `counts` (n,) int64 positive. NaN and the infinities are counted apart.
    """

    bits: int
    """Which of the nested lattices counts them (see `geluwatch.core.lattice`): 16 is bfloat16's, 19 float16's."""
    cells: Cells
    counts: Ints
    nan: int = 0
    posinf: int = 0
    neginf: int = 0
    lossless: bool = True
    """Whether every counted value lay exactly on the lattice, so that no two values share a cell."""

    @property
    def finite(self) -> int:
        """Number of finite values."""
        return int(self.counts.sum())

    @property
    def nonfinite(self) -> int:
        """Number of NaN, +Inf and -Inf values."""
        return self.nan + self.posinf + self.neginf


@dataclass(frozen=True, slots=True)
class Moments:
    """Per-channel moments over rows: `mean` (C,) and `m2` (C,), the sum of squared deviations; float64."""

    rows: int
    mean: Floats
    m2: Floats


@dataclass(frozen=True, slots=True)
class PointWindow:
    """What one window saw at one (site, point): the moments are of every row, the rest of those values that were counted."""

    histogram: Histogram
    moments: Moments
    abs_sum_pos: float = 0.0
    """Sum of the positive finite values."""
    abs_sum_neg: float = 0.0
    """Sum of the magnitudes of the negative finite values."""
    squares: float = 0.0
    """Sum of the squares of the finite values."""


@dataclass(frozen=True, slots=True)
class Nonfinite:
    """Non-finite values at one site since attach, or within one window."""

    forwards: int = 0
    """Forward passes in which a valid row of the site held a non-finite value."""
    first: int = 0
    """Of those, passes in which this was the first such site."""
    padding_forwards: int = 0
    """Passes in which only padding rows held one; these never page."""
    elements: Mapping[tuple[Point, str], int] = field(default_factory=dict)
    """Elements by (point, kind), kind being "nan", "posinf" or "neginf"; on the side where they arose."""
    backwards: int = 0
    """Backward passes in which the gradient of the site's output held a non-finite value; 0 where gradients are not watched."""
    first_backward: int = 0
    """Of those, passes in which this was the first such site, the one nearest to the loss."""


@dataclass(frozen=True, slots=True)
class Window:
    """One closed window of traffic; times are seconds since the epoch."""

    started: float
    ended: float
    forwards: int
    sampled_forwards: int
    points: Mapping[PointKey, PointWindow]
    nonfinite: Mapping[str, Nonfinite] = field(default_factory=dict)
    first_nonfinite: str | None = None
    blind: tuple[str, ...] = ()
    """Observed sites that gave no rows although the model ran."""
    thinned: bool = False
    """Whether captured rows were dropped, or a part of the agent was switched off."""
    samples: int = 0
    """Batch entries in its forward passes, where the batch size could be read."""

    @property
    def requests(self) -> float:
        """Batch entries in those passes that gave rows, about; 0 where unknown."""
        return self.samples * self.sampled_forwards / self.forwards if self.forwards else 0.0

    @property
    def clean(self) -> bool:
        """Whether the window may serve as baseline: nothing non-finite, blind or dropped in it."""
        return not (self.first_nonfinite or self.blind or self.thinned)


@dataclass(frozen=True, slots=True)
class Rows:
    """Paired rows of one site from one forward pass; `pre` and `post` (n, C), float32, same order."""

    layer: str
    dtype: str
    """The tensor's own dtype: "float32", "float16", "bfloat16", "float64"."""
    pre: npt.NDArray[np.float32]
    post: npt.NDArray[np.float32]
    derived: bool = False
    """Whether `post` was computed anew from `pre`, and so tells nothing of the kernel that the model ran."""


@dataclass(frozen=True, slots=True)
class Drained:
    """What a source saw since it was last drained. Counters are increments."""

    forwards: int = 0
    sampled_forwards: int = 0
    nonfinite_forwards: int = 0
    """Forward passes with a non-finite valid value at some site."""
    samples: int = 0
    """Batch entries in those forward passes, where the batch size could be read."""
    rows: tuple[Rows, ...] = ()
    nonfinite: Mapping[str, Nonfinite] = field(default_factory=dict)
    first_nonfinite: str | None = None
    """First layer of the earliest non-finite forward pass among these."""
    dropped_rows: int = 0
    hook_seconds: float = 0.0
    """Time spent in hooks of sampled forward passes, in the model's threads."""
    timed_seconds: float = 0.0
    """Duration of the forward passes in which the time of every GELU was taken: sampled ones, where there is no compiler."""
    op_seconds: Mapping[str, float] = field(default_factory=dict)
    """Time of the GELU itself in those passes by layer, in the model's thread; where it could be taken."""
    last_forward: float | None = None
    errors: Mapping[str, int] = field(default_factory=dict)
    """Failures by part of the agent, caught by the breaker."""
    disabled: tuple[str, ...] = ()
    """Parts that the breaker has switched off."""
    traffic: Traffic = field(default_factory=Traffic)
    usage: Usage | None = None
    """What the process uses now; None where the source does not tell."""
    training: Training | None = None
    """What the training loop said; None before its first step."""
    evidence: tuple[Evidence, ...] = ()
    """What was kept of passes with a non-finite value, the earliest first."""
    traces: tuple[bytes, ...] = ()
    """Profiler traces that were asked for, one a forward pass: Chrome's JSON, gzipped."""
