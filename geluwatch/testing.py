"""Fakes for tests of code that uses geluwatch: a clock that stands still, a sink and a store in memory, a source by hand."""

from __future__ import annotations

from dataclasses import replace

from geluwatch.records import Drained, Provenance, Report, Site, Totals
from geluwatch.store.memory import MemoryBaselines

__all__ = ["FakeClock", "ListSource", "MemoryBaselines", "MemorySink"]


class FakeClock:
    """A clock that moves only when told to."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now

    def time(self) -> float:
        """Return the present moment."""
        return self._now

    def monotonic(self) -> float:
        """Return the present moment."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds


class MemorySink:
    """Keeps every report it is given, in `reports`."""

    def __init__(self) -> None:
        self.reports: list[Report] = []

    def write(self, report: Report) -> None:
        """Keep a report."""
        self.reports.append(report)


class ListSource:
    """A source that yields what the test puts into `queue`, one batch a drain."""

    framework = "test 0"

    def __init__(self, sites: tuple[Site, ...]) -> None:
        self.sites = sites
        self.queue: list[Drained] = []
        self.origin = Provenance()
        self.closed = False

    def drain(self) -> Drained:
        """Return the next batch, or an empty one."""
        return self.queue.pop(0) if self.queue else Drained()

    def gather(self, totals: Totals) -> list[Totals]:
        """Return the counters: there is but one process."""
        return [totals]

    def provenance(self, *, digest: bool = True) -> Provenance:
        """Return `origin`, which the test may set."""
        return self.origin if digest else replace(self.origin, weights=replace(self.origin.weights, digest="", tensors={}))

    def start_anew(self) -> None:
        """Drop what is queued."""
        self.queue.clear()

    def note_step(self, loss: object, scaler: object) -> None:
        """Do nothing; put a `Training` into the queue instead."""

    def profile(self, passes: int) -> None:
        """Do nothing; put traces into the queue instead."""

    def runtime(self) -> dict[str, object]:
        """Return nothing: there is no framework."""
        return {}

    def close(self) -> None:
        """Note that the source was closed."""
        self.closed = True
