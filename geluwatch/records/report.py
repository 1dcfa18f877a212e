"""What is known of a watched model at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from geluwatch.profiles import Profile
from geluwatch.records.application import Application
from geluwatch.records.baseline import Certificate
from geluwatch.records.names import Alarm, Gross, Point, PointKey, State, Verdict
from geluwatch.records.numerics import Headroom, Parity
from geluwatch.records.observed import Nonfinite
from geluwatch.records.probe import Origin, ProbeResult
from geluwatch.records.provenance import BaselineOrigin
from geluwatch.records.traffic import Traffic, Usage
from geluwatch.records.training import Training


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
    """Cumulative counts at the catalogue's full edges, then at +Inf (all but NaN)."""
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
    """Negative decimal logarithm of the probability of this in calm traffic, the most over horizons and ways of judging."""
    family: str = ""
    """Which way of judging gave it: "level", against the baseline, "contrast", against the other layers as well, "shift" or
    "scale", channels that moved one way together, or "largest", the one channel that is furthest out."""
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
    parity: Parity | None = None
    """After the GELU: which kernel made the values, as last measured; None before values could tell, and before the GELU."""
    headroom: Headroom = field(default_factory=Headroom)
    """How far the largest magnitude lies below what the dtype can hold."""
    totals: PointTotals = field(default_factory=PointTotals)
    baseline_cdf: tuple[float, ...] = ()
    """The baseline's cumulative shares at the catalogue's full edges, then at +Inf; empty without a baseline."""


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
    timed_seconds: float = 0.0
    """Duration of the passes in which the time of every GELU was taken."""
    op_seconds: Mapping[str, float] = field(default_factory=dict)
    """Time of the GELU itself in those passes, by layer."""
    errors: Mapping[str, int] = field(default_factory=dict)
    nonfinite: Mapping[str, Nonfinite] = field(default_factory=dict)
    traffic: Traffic = field(default_factory=Traffic)
    training: Training | None = None
    """Steps of the training loop; None where none was noted."""
    application: Application = field(default_factory=Application)
    """What the application said of its own work."""


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
    "unknown" when the layers do not tell, for there is only one or all but the first few moved; empty without drift."""
    cause: str = ""
    """What changed at the first drifting layer, in one sentence with the numbers; empty when nothing can be named."""
    probe: ProbeResult | None = None
    """What the last replay of the armed baseline's probe showed; None before there was one."""
    origin: Origin = ""
    """What has changed where there is drift, by the probe: unlike `scope`, which is read from the traffic, it is certain."""
    attribution: str = ""
    """The same in one sentence, with the first layer where the model changed; empty where there is nothing to tell."""
    labels: Mapping[str, str] = field(default_factory=dict)
    window_started: float | None = None
    window_ended: float | None = None
    attached: float = 0.0
    last_forward: float | None = None
    baseline: str | None = None
    """Name of the armed baseline; "following" where windows are judged against earlier ones of the same run."""
    baseline_created: float | None = None
    certificate: Certificate | None = None
    """Of the armed baseline."""
    baseline_origin: BaselineOrigin | None = None
    """Where the armed baseline comes from."""
    totals: Totals = field(default_factory=Totals)
    disabled: tuple[str, ...] = ()
    """Parts of the agent that the breaker has switched off."""
    usage: Usage | None = None
    """What the process used at the last drain."""
    gradients: bool = False
    """Whether gradients are watched."""
    framework: str = ""
    """Name and version of the framework behind the source, for example "torch 2.13.0"."""
    cost_budget: float | None = None
    """Share of wall time that row capture may cost the model's threads; None without a limit."""
    profile: Profile = "standard"
    """How much of this is exported as metrics."""
