"""Frozen data that crosses layers; no behaviour beyond simple readings.

The way through: a `Source` yields `Drained` batches; the core folds them into `Window` records; windows make a
`Baseline`; every flush publishes one `Report`, which all readers share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Point = Literal["pre", "post"]
POINTS: tuple[Point, Point] = ("pre", "post")

State = Literal["observed", "blind"]
Verdict = Literal["blind", "warming", "ok", "ticket", "page"]
VERDICTS: tuple[Verdict, ...] = ("blind", "warming", "ok", "ticket", "page")

Alarm = Literal["", "ticket", "page"]
Gross = Literal["", "dead", "impossible"]

PointKey = tuple[str, Point]
"""(layer, point), for example ("encoder.layer.3.intermediate.intermediate_act_fn", "pre")."""

Ints = npt.NDArray[np.int64]
Cells = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Site:
    """One GELU call site of the model."""

    layer: str
    """Stable id: the qualified module name without wrapper prefixes."""
    position: int
    """Place in the order of the model's modules, from 0."""
    form: str
    """How the GELU is written; "module" for a module of its own."""
    kind: str
    """Class name of the module."""
    variant: str
    """Declared formula: "erf", "tanh", "quick", or "other"."""
    state: State = "observed"
    reason: str = ""
    """Why the site is blind; empty when it is observed."""


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
    """What one window saw at one (site, point)."""

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
    last_forward: float | None = None
    errors: Mapping[str, int] = field(default_factory=dict)
    """Failures by part of the agent, caught by the breaker."""
    disabled: tuple[str, ...] = ()
    """Parts that the breaker has switched off."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What calm windows look like at one (layer, point): `mean` and `variance` (2C,) float32 of their vectors.

    A vector holds the channels' means, then the logarithms of their standard deviations (see `geluwatch.core.score`).
    """

    mean: npt.NDArray[np.float32]
    variance: npt.NDArray[np.float32]
    rows: float
    """Typical rows in a window."""
    windows: int
    """Windows behind it."""
    requests: float = 0.0
    """Typical batch entries that a window's rows come from; 0 where unknown."""


@dataclass(frozen=True, slots=True)
class Calm:
    """Scores of a baseline's own windows, each against a reference that had not seen it."""

    keys: tuple[PointKey, ...]
    horizons: tuple[int, ...]
    ended: Floats
    """(n,) when each window ended, seconds since the epoch."""
    scores: npt.NDArray[np.float32]
    """(n, keys, horizons), NaN where a horizon was not filled yet."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a baseline can promise, found by replaying its own windows against what the others say."""

    windows: int
    """Windows the calibration used."""
    left_out: int
    """Windows left out because they held non-finite values, blind sites or dropped rows."""
    seconds: float
    """Time from the first of them to the last; a rhythm longer than this is not in the baseline."""
    horizons: tuple[int, ...]
    """Horizons with enough independent windows to be judged."""
    looks: float
    """Independent looks behind the horizon that has fewest of them."""
    strata: int
    """Hours told apart: 168 of the week, 24 of the day, or 1 where the baseline is too short for either."""
    tickets_per_month: float
    """Budget of false drift tickets."""
    pages_per_quarter: float
    """Budget of false drift pages."""
    ticket_limit: float
    """Surprise from which drift is a ticket; infinite when not armed."""
    page_limit: float
    """Surprise from which drift is a page; infinite when paging is not armed."""
    replayed: int = 0
    """Windows replayed against a calibration that had not seen them: each half of the baseline by the other's."""
    requested: float = 0.0
    """False alarms asked for in that replay, by a budget generous enough for them to be counted."""
    observed: int = 0
    """False alarms it gave."""
    interval: tuple[float, float] = (0.0, float("inf"))
    """95 % interval of the false alarms to expect where `observed` were seen."""
    armed: bool = False
    """Whether drift tickets can be armed on this baseline."""
    reason: str = ""
    """What is missing when `armed` is false, and how many more windows it takes."""
    paging: bool = False
    """Whether drift may page."""
    paging_reason: str = ""
    """What is missing when `paging` is false, and how many more windows it takes."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """Traffic of one model version that counts as normal, with its calibration."""

    model: str
    model_version: str
    name: str
    created: float
    sites: tuple[Site, ...]
    windows: tuple[Window, ...]
    """The first windows, without their histograms; of a long baseline the rest lives on in what follows."""
    certificate: Certificate
    references: Mapping[PointKey, Reference] = field(default_factory=dict)
    histograms: Mapping[PointKey, Histogram] = field(default_factory=dict)
    """All windows' values together."""
    calm: Calm | None = None


class Interval(NamedTuple):
    """Certified bounds of a distance; NaN where one side has no values."""

    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Panel:
    """How a window differs from its baseline; NaN where there is nothing to compare."""

    ks: Interval
    """Certified bounds of the two-sample Kolmogorov-Smirnov distance."""
    location: float
    """Value at which the two distribution functions differ most, to within its cell."""
    sign: int
    """1 where the window's values lie above the baseline's there, -1 below, 0 without any difference."""
    wasserstein: float
    """Wasserstein-1 distance of the finite values, over the baseline's standard deviation."""
    mean_shift: float
    """Window's mean minus the baseline's, over the baseline's standard deviation."""
    log_spread: float
    """Natural logarithm of the window's standard deviation over the baseline's."""
    tails: float
    """Share of values below the baseline's 0.1 % or above its 99.9 % quantile; .002 in calm, less beside point masses."""
    gate_closed: float
    """Share of values <= -3 before the GELU; NaN after it."""
    gate_open: float
    """Share of values >= 3 before the GELU; NaN after it."""
    zeros: float
    """Share of exact zeros."""
    psi: float
    """Population stability index on the baseline's deciles; for display only, its customary limits have no calibration."""


@dataclass(frozen=True, slots=True)
class PointTotals:
    """Counters since attach for one (site, point); they only grow."""

    elements: int = 0
    """Sampled elements, non-finite ones included."""
    buckets: tuple[int, ...] = ()
    """Cumulative counts at the catalogue's `le` edges, then at +Inf (all but NaN)."""
    abs_sum_pos: float = 0.0
    abs_sum_neg: float = 0.0
    squares: float = 0.0


@dataclass(frozen=True, slots=True)
class PointReport:
    """One (site, point) in a report; window statistics are those of the last closed window, NaN before there is one."""

    layer: str
    point: Point
    position: int
    state: State
    reason: str = ""
    rows: int = 0
    elements: int = 0
    nonfinite: int = 0
    """Sampled and confirmed non-finite elements of the window that arose on this side."""
    mean: float = float("nan")
    std: float = float("nan")
    ks: float = float("nan")
    """Certified lower end of the Kolmogorov-Smirnov distance from the baseline, as in `panel`."""
    ks_upper: float = float("nan")
    """Certified upper end."""
    score: float = float("nan")
    """Typical squared channel z of the windows averaged at `horizon`; about 1 when calm."""
    surprise: float = float("nan")
    """Negative decimal logarithm of the probability of this in calm traffic, the most over horizons and both ways of judging."""
    family: str = ""
    """Which way of judging gave it: "level", against the baseline, or "contrast", against the other layers as well."""
    horizon: int = 0
    """Windows averaged where the surprise is largest."""
    evidence: float = float("nan")
    """Surprise over the surprise that makes a ticket; drift from 1 on."""
    alarm: Alarm = ""
    """"ticket" or "page" from where the surprise passed that limit until it has fallen below half of the ticket's."""
    onset: float | None = None
    """When the drift began, as far as the windows tell; None without an alarm."""
    panel: Panel | None = None
    """How the window's distribution differs from the baseline's; None without an armed baseline."""
    gross: Gross = ""
    """A fault that needs no baseline: "dead", every row the same, or "impossible", values that no GELU gives."""
    totals: PointTotals = field(default_factory=PointTotals)
    baseline_cdf: tuple[float, ...] = ()
    """The baseline's cumulative shares at the catalogue's `le` edges, then at +Inf; empty without a baseline."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Counters since attach for the whole model; they only grow."""

    forwards: int = 0
    sampled_forwards: int = 0
    nonfinite_forwards: int = 0
    samples: int = 0
    windows: int = 0
    dropped_rows: int = 0
    hook_seconds: float = 0.0
    flush_seconds: float = 0.0
    errors: Mapping[str, int] = field(default_factory=dict)
    nonfinite: Mapping[str, Nonfinite] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """What the agent knows at one moment, frozen; every reader renders this and nothing else."""

    model: str
    model_version: str
    time: float
    """When the report was made, seconds since the epoch."""
    verdict: Verdict
    sites: Mapping[PointKey, PointReport]
    first_nonfinite: str | None = None
    """First layer of the earliest non-finite forward pass in the last closed window or since it closed."""
    drifting: tuple[str, ...] = ()
    """Layers in drift, first the one where it began."""
    scope: str = ""
    """Where drift comes from: "traffic" when it moves most layers alike, "model" when it enters at the first drifting layer,
    "unknown" when there is only one layer to look at; empty without drift."""
    cause: str = ""
    """What changed at the first drifting layer, in one sentence with the numbers; empty when nothing can be named."""
    labels: Mapping[str, str] = field(default_factory=dict)
    window_started: float | None = None
    window_ended: float | None = None
    attached: float = 0.0
    last_forward: float | None = None
    baseline: str | None = None
    """Name of the armed baseline."""
    baseline_created: float | None = None
    certificate: Certificate | None = None
    """Of the armed baseline."""
    totals: Totals = field(default_factory=Totals)
    disabled: tuple[str, ...] = ()
    """Parts of the agent that the breaker has switched off."""
    framework: str = ""
    """Name and version of the framework behind the source, for example "torch 2.13.0"."""
