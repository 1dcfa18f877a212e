"""Fakes for tests of code that uses geluwatch: a clock that stands still, a sink and a store in memory, a source by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from geluwatch.errors import ProbeError
from geluwatch.records import Drained, ProbeInput, Provenance, Report, Rows, Site, Totals
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
    """A source that yields what the test puts into `queue`, one batch a drain, and into `replays`, one replay a call."""

    framework = "test 0"
    parameters = "float32"

    def __init__(self, sites: tuple[Site, ...]) -> None:
        self.sites = sites
        self.queue: list[Drained] = []
        self.origin = Provenance()
        self.replays: list[Sequence[tuple[Rows, ...]]] = []
        self.inputs: list[ProbeInput] = []
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

    def keep(self, item: object) -> ProbeInput:
        """Return the input as it is."""
        return ProbeInput((item,), {})

    def captured_inputs(self) -> list[ProbeInput]:
        """Return what the test put into `inputs`."""
        return list(self.inputs)

    def replay(self, given: Sequence[ProbeInput], values: int, parameters: str = "", *, gently: bool = False) -> Sequence[tuple[Rows, ...]]:  # noqa: ARG002  # as the port has it
        """Return the next replay.

        Raises:
            ProbeError: There is none.
        """
        if not self.replays:
            raise ProbeError("The test has put no replay into the source.")
        return self.replays.pop(0)

    def close(self) -> None:
        """Note that the source was closed."""
        self.closed = True
