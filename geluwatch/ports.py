"""The doors of the core: what it needs from the world, as protocols."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from geluwatch.records import Baseline, Drained, ProbeInput, Provenance, Report, Rows, Site, Span, Totals, Window
from geluwatch.retention import Retention


@runtime_checkable
class Source(Protocol):
    """A framework's tap: yields what it saw, never blocks the model.

    Invariants: `drain` may be called from any one thread at a time while the model runs in others, returns every
    observation exactly once, and does not wait for the model or its device. After `close` the model is as it was
    before the tap came, and one last `drain` returns the remainder.
    """

    @property
    def sites(self) -> tuple[Site, ...]:
        """The census: every GELU call site, observed or blind with the reason."""
        ...

    @property
    def framework(self) -> str:
        """Name and version of the framework, for example "torch 2.13.0"."""
        ...

    def drain(self) -> Drained:
        """Return what was seen since the last call."""
        ...

    def gather(self, totals: Totals) -> Sequence[Totals]:
        """Return the counters that every process of a distributed run has given, in which all of them call this; alone, just these."""
        ...

    def provenance(self, *, digest: bool = True) -> Provenance:
        """Return what the model is and runs on, read in the caller's thread; the weights themselves only where their digest is wanted."""
        ...

    def start_anew(self) -> None:
        """Forget what was seen and not yet drained: in a forked child it is the parent's."""
        ...

    def note_step(self, loss: object, scaler: object) -> None:
        """Note that a step of the training loop is over, with its loss and loss scaler, each None where there is none."""
        ...

    def profile(self, passes: int) -> None:
        """Have the next so many forward passes profiled, in the threads that run them; their traces come with a later drain."""
        ...

    def runtime(self) -> Mapping[str, object]:
        """Return under what the model runs, as JSON values: versions, seed, flags, threads, dtypes and devices of its parameters."""
        ...

    @property
    def parameters(self) -> str:
        """The dtype of the model's first floating-point parameter, "" where it has none."""
        ...

    def keep(self, item: object) -> ProbeInput:
        """Return what a pass is sent as a record: a mapping is its keyword arguments, a tuple its positional ones.

        Raises:
            ProbeError: It holds what a probe cannot keep.
        """
        ...

    def captured_inputs(self) -> Sequence[ProbeInput]:
        """Return the sample of the passes' inputs; empty where none is taken."""
        ...

    def replay(self, given: Sequence[ProbeInput], values: int, parameters: str = "", *, gently: bool = False) -> Sequence[tuple[Rows, ...]]:
        """Return what the model makes of inputs, in evaluation mode, in the thread that calls; the passes are no traffic.

        They count nowhere, whatever other threads do meanwhile, and leave the model, its flags and the framework's random
        generators as they were, whether they succeed or not.

        Args:
            given: The inputs, one pass each; they are moved to the model's device.
            values: Most values taken of each call of a GELU on each side (see `records.Probe.values`); 0 takes rows of no length.
            parameters: dtype of the model's parameters that the inputs were made for; "" for the present one.
            gently: Whether to refuse where the model's own passes could suffer: from a thread that knows nothing of them.

        Returns:
            For each input the rows of each call, in the order of the calls.

        Raises:
            ProbeBusyError: What the model is doing does not allow it now.
            ProbeError: A pass raised, or the model is not watched.
        """
        ...

    def close(self) -> None:
        """Come off the model; calling it again does nothing."""
        ...


@runtime_checkable
class Clock(Protocol):
    """Time, so that tests own it. Invariant: `monotonic` never goes back; `time` may."""

    def time(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed moment."""
        ...


@runtime_checkable
class Sink(Protocol):
    """Something that is told of every published report."""

    def write(self, report: Report) -> None:
        """Take one report; a failure is counted by the caller and never reaches the model."""
        ...


@runtime_checkable
class WindowSink(Protocol):
    """Something that is told of every closed window, histograms and all, in the thread that closed it."""

    part: str
    """The part of the agent that its failures are counted under (see `geluwatch.catalog.PARTS`)."""

    def take(self, window: Window, report: Report) -> None:
        """Take a window that was just closed and the report of that moment; a failure is counted by the caller."""
        ...

    def close(self) -> None:
        """Finish what is left to do; calling it again does nothing."""
        ...


@runtime_checkable
class BaselineStore(Protocol):
    """Keeps baselines by (model, model version, name).

    Invariants: `save` replaces nothing: a name that is taken is refused with `BaselineError`; what `load` returns
    equals what was saved; `names` lists oldest first; a failed `save` leaves nothing behind.
    """

    def save(self, baseline: Baseline) -> None:
        """Store a baseline.

        Raises:
            BaselineError: The name is taken for this model and version.
            StoreError: The database cannot be used.
        """
        ...

    def load(self, model: str, model_version: str, name: str) -> Baseline:
        """Return a stored baseline; the name "latest" means the newest promoted one, or where none is, the newest not retired.

        Raises:
            UnknownBaselineError: There is none; the message lists the names there are.
            SignatureError: The store trusts some keys, and none of them signed what it holds.
            StoreError: The database cannot be used.
        """
        ...

    def promoted(self, baseline: Baseline) -> bool:
        """Return whether a stored baseline stands promoted, for whoever is about to arm it.

        Raises:
            PromotionError: It was retired.
            StoreError: The database cannot be used.
        """
        ...

    def note_armed(self, baseline: Baseline) -> None:
        """Note that a watch judges by a stored baseline from now on.

        Raises:
            StoreError: The database cannot be used.
        """
        ...

    def names(self, model: str, model_version: str) -> tuple[str, ...]:
        """Names stored for a model version, oldest first."""
        ...

    def close(self) -> None:
        """Release connections; calling it again does nothing."""
        ...


@runtime_checkable
class History(Protocol):
    """Keeps the windows of ordinary days, thinned by age.

    Invariants: spans come in the order of their time; no window is in two spans; what is merged keeps exact histograms.
    """

    def spans(self, model: str, model_version: str | None, since: float, until: float) -> Iterator[Span]:
        """Yield what is kept of a model's windows that ended after `since` and by `until`, one span at a time.

        Args:
            model: The model.
            model_version: Its version; None for all of them.
            since: Seconds since the epoch.
            until: Seconds since the epoch.

        Raises:
            DamagedError: Spans cannot be read; raised behind the last of the others.
            StoreError: The database cannot be used.
        """
        ...

    def widened(self, model: str, model_version: str | None, since: float, until: float) -> tuple[float, float]:
        """Return a period widened to whole hours and days where it touches such as are kept merged: no part of these can be told.

        Args and errors are those of `spans`; both ends must be finite.
        """
        ...


@runtime_checkable
class HistoryStore(History, Protocol):
    """A history that is written to, by any number of processes at once.

    Invariants: a span that was appended is in exactly one span from then on, whoever thins and whatever fails, until it is dropped
    by age or size, or forgotten; a failed call changes nothing.
    """

    def append(self, span: Span) -> None:
        """Keep a span; one that is there already, of the same source and moment, is not kept twice.

        Raises:
            StoreError: The database cannot be used.
        """
        ...

    def thin(self, model: str, retention: Retention, now: float) -> bool:
        """Do the next piece of what age and size demand (see `geluwatch.core.thinning`); return whether there may be more.

        Raises:
            StoreError: The database cannot be used, or a span is damaged; that one is left as it is from then on.
        """
        ...

    def others(self, model: str, source: str) -> Sequence[float]:
        """Return the ends, in seconds since the epoch, of the single windows that processes other than `source` kept last, some dozens.

        The last of them comes first.

        Raises:
            StoreError: The database cannot be used.
        """
        ...

    def size(self, model: str) -> int:
        """Return the bytes that all versions of a model take.

        Raises:
            StoreError: The database cannot be used.
        """
        ...

    def close(self) -> None:
        """Release connections; calling it again does nothing."""
        ...
