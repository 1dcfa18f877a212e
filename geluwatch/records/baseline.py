"""What calm windows look like, and what a baseline of them can promise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from geluwatch.records.names import Floats, PointKey
from geluwatch.records.observed import Histogram, Site, Window
from geluwatch.records.probe import Probe
from geluwatch.records.provenance import Provenance, Signature


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
    """(n, statistics, keys, horizons), NaN where a horizon was not filled yet; a baseline of an older release lacks the last statistic."""
    every: int = 1
    """Windows from one of them to the next: of very deep models, not all are kept."""


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
    """Windows replayed against a calibration that had not seen them: each quarter of the baseline by the others'."""
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
    tolerance: float = 0.05
    """Square of the lasting shift that was tolerated when the limits were found, over a window's variance; so it is when they are used."""
    method: int = 1
    """Which release of the calibration found the limits; those of an older one are found anew when the baseline is armed."""


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
    probe: Probe | None = None
    """Inputs with what the model made of them; None where it was recorded without."""
    traffic: str = ""
    """Which slice of the traffic it is of; empty for all of it."""
    provenance: Provenance | None = None
    """What the model was and ran on; None where that was not recorded."""
    signature: Signature | None = None
    """Of everything above; None where nobody signed."""
