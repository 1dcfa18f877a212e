"""Settings of a watch, checked when they are made."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from geluwatch.errors import ConfigError
from geluwatch.profiles import PROFILES, Profile
from geluwatch.retention import Retention

#: Decides which rows are padding: called with the arguments of the root forward, returns a mask
#: tensor of shape (batch, tokens), true or non-zero where a token is real, or None when it cannot tell.
PaddingFunction = Callable[[tuple[Any, ...], dict[str, Any]], Any]

LEAST_BUNDLE = 64 * 2**10
"""The smallest limit that a bundle of evidence may be given, bytes."""

MOST_PROFILED = 16
"""Most forward passes that may be profiled for a bundle: each holds its events in memory until the next flush."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of one watch; the default is meant to be left alone.

    Raises:
        ConfigError: A value is out of its range; the message names the field, the value and the range.
    """

    window_seconds: float | None = 60.0
    """Length of a window; None closes windows only by `Watch.close_window`."""

    flush_seconds: float = 5.0
    """Seconds between two drains of the tap into the core, in the background; a quarter of a window where that is less."""

    rows_per_window: int = 512
    """Rows (one token, all channels) captured per site and window: all of quiet traffic, an even share of busy traffic."""

    rows_per_forward: int = 256
    """Most rows copied per site from one forward pass: the cap on what capture adds to one request's latency."""

    minimum_rows: int = 64
    """A timed window with fewer rows is carried over into the next, never judged."""

    cost_budget: float | None = 0.01
    """Share of wall time that row capture may cost the model's own threads; above it, capture is thinned. None sets no limit,
    for offline runs in which every forward pass is to give rows."""

    horizons: tuple[int, ...] = (1, 4, 16)
    """Numbers of windows averaged before a score is taken."""

    tolerance: float = 0.05
    """Square of a lasting shift of the traffic, as a share of a window's own variance, that is no drift yet; 0 tolerates none.
    A baseline keeps the one it was recorded with, for its limits rest on it."""

    tickets_per_month: float = 2.0
    """Budget of false drift tickets per model-month; the limits are calibrated to it."""

    pages_per_quarter: float = 1.0
    """Budget of false drift pages per model and three months."""

    padding: PaddingFunction | None = None
    """Finds the padding mask of a forward; None reads the root's `attention_mask` argument."""

    enabled: bool = True
    """Whether to watch at all: without, there is no hook and no thread, and every GELU is blind with this as the reason.
    The environment variable GELUWATCH_OFF switches a process off without a change to its code."""

    compiled: bool = True
    """Whether the hooks go into code that torch.compile makes, each as one call of an operation; where they do not, that code is
    what it would be without the watch, and its sites are blind."""

    gelu_classes: tuple[type, ...] = ()
    """Further module classes to watch as GELUs; each maps one tensor to one of the same shape."""

    gradients: bool = False
    """Whether to count backward passes with non-finite gradients at each GELU, by a hook on every output that is part of a graph.

    Compiled code has no such hooks: a GELU that runs there alone stays at 0, though the census has it as observed. Nor are
    derivatives looked at that torch computes all at once (`vectorize=True`, `is_grads_batched=True`).
    """

    ranges: bool = False
    """Whether to open a named profiler range, "gelu LAYER", around each GELU, for `torch.profiler` and NVTX."""

    profile: Profile = "standard"
    """How much is exported: "lean", only what alerts decide on; "standard"; or "full", with histograms cut twice as fine."""

    capture_inputs: int = 0
    """Forward passes whose inputs are kept, as a sample in which each pass has the same chance to be, for `Watch.record_baseline` to make a
    probe of: copies in memory, 16 MiB at most. They are what users sent; 0 keeps none."""

    probe_seconds: float | None = None
    """Seconds between two replays of the armed baseline's probe in the background, each of which costs a forward pass for each of its
    inputs; None leaves them to `Watch.probe`. Not for models in training, nor while passes are recorded into CUDA graphs."""

    breaker_limit: int = 5
    """Failures of one part of the agent (guard, rows, ...) after which that part is switched off."""

    pending_bytes: int = 64 * 2**20
    """Most memory of captured rows that may wait for the next flush; beyond it rows are dropped and counted.
    Half as much, and no more than 32 MiB, may wait behind the flush to be counted together."""

    history: Retention | None = field(default_factory=Retention)
    """What is kept of closed windows where `attach` is given the URL of a database, and for how long; None keeps nothing."""

    incidents: str | os.PathLike[str] | None = None
    """Folder for bundles of evidence: one is written when the verdict becomes "page", and none for the same trouble until it has
    ended (see `docs/incident-bundle.md`). None writes none by itself."""

    incident_inputs: bool = False
    """Whether a bundle holds the inputs of the failing pass, which may be personal data; without, only their types and shapes."""

    incidents_kept: int = 10
    """Most bundles in the folder; the oldest go."""

    incident_bytes: int = 16 * 2**20
    """Most bytes of a bundle; what does not fit is left out and named in it."""

    def __post_init__(self) -> None:
        for name in ("horizons", "gelu_classes"):
            object.__setattr__(self, name, _tuple(name, getattr(self, name)))
        if not isinstance(self.history, Retention | None):
            raise ConfigError(f"history must be a Retention or None, got {self.history!r}; for example Retention(raw_hours=6).")
        if self.window_seconds is not None:
            _positive("window_seconds", self.window_seconds)
        _positive("flush_seconds", self.flush_seconds)
        _positive("tickets_per_month", self.tickets_per_month)
        _positive("pages_per_quarter", self.pages_per_quarter)
        for name in ("rows_per_window", "rows_per_forward", "minimum_rows", "breaker_limit", "pending_bytes", "incidents_kept"):
            _at_least_one(name, getattr(self, name))
        if isinstance(self.capture_inputs, bool) or not isinstance(self.capture_inputs, int) or self.capture_inputs < 0:
            raise ConfigError(f"capture_inputs must be a whole number of at least 0, got {self.capture_inputs!r}.")
        if self.probe_seconds is not None:
            _positive("probe_seconds", self.probe_seconds)
        if self.tolerance != 0:
            _positive("tolerance", self.tolerance)
        if self.cost_budget is not None:
            _positive("cost_budget", self.cost_budget)
        if self.cost_budget is not None and self.cost_budget > 1:
            raise ConfigError(f"cost_budget must be a share of at most 1, got {self.cost_budget!r}; 0.01 is one percent.")
        if not self.horizons or list(self.horizons) != sorted(set(self.horizons)):
            raise ConfigError(f"horizons must be ascending and distinct, got {self.horizons!r}; for example (1, 4, 16).")
        for horizon in self.horizons:
            _at_least_one("horizons", horizon)
        for name in ("enabled", "compiled", "gradients", "ranges", "incident_inputs"):
            _switch(name, getattr(self, name))
        if self.padding is not None and not callable(self.padding):
            raise ConfigError(f"padding must be a function or None, got {self.padding!r}; None reads the attention mask.")
        if self.incidents is not None and (not isinstance(self.incidents, (str, os.PathLike)) or not os.fspath(self.incidents)):
            raise ConfigError(f"incidents must be the path of a folder or None, got {self.incidents!r}.")
        if not isinstance(self.incident_bytes, int) or self.incident_bytes < LEAST_BUNDLE:
            raise ConfigError(f"incident_bytes must be a whole number of at least {LEAST_BUNDLE}, got {self.incident_bytes!r}.")
        if self.profile not in tuple(PROFILES):
            raise ConfigError(f"profile must be one of {', '.join(PROFILES)}, got {self.profile!r}.")
        for cls in self.gelu_classes:
            if not isinstance(cls, type):
                raise ConfigError(f"gelu_classes must hold module classes, got {cls!r}; pass the class, not an instance.")


def _tuple(name: str, value: object) -> tuple[object, ...]:
    if not isinstance(value, (tuple, list)):
        raise ConfigError(f"{name} must be a tuple, got {value!r}; one entry is written with a comma behind it, as in (x,).")
    return tuple(value)


def _positive(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
        raise ConfigError(f"{name} must be a positive finite number, got {value!r}.")


def _switch(name: str, value: bool) -> None:
    # Text from an environment is true whatever it says, "0" and "false" too.
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be True or False, got {value!r}.")


def _at_least_one(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} must be a whole number of at least 1, got {value!r}.")
