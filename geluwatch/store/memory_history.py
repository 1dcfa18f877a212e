"""The history for those who have no database: it lives as long as the process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from threading import Lock

from geluwatch.core.history import merge
from geluwatch.core.thinning import Kept, Step, next_step
from geluwatch.core.window import nbytes
from geluwatch.records import Resolution, Span
from geluwatch.retention import Retention
from geluwatch.store.rules import LENGTHS, OTHERS, HistoryInfo, in_order, reaching, whole


class MemoryHistory:
    """A `geluwatch.ports.HistoryStore` in memory; any thread may use it. A span takes what its arrays take."""

    def __init__(self) -> None:
        self._kept: dict[int, Span] = {}
        self._ids = count()
        self._lock = Lock()

    def append(self, span: Span) -> None:
        """Keep a span; one that is there already, of the same source and moment, is not kept twice."""
        with self._lock:
            if _moment(span) not in map(_moment, self._kept.values()):
                self._kept[next(self._ids)] = span

    def spans(self, model: str, model_version: str | None, since: float, until: float) -> Iterator[Span]:
        """Yield what is kept of a model's windows that ended after `since` and by `until`, as of the first; see `SqlHistory`."""
        within = [span for _, span in self._of(model, model_version) if since < span.window.ended <= until]
        yield from sorted(within, key=lambda span: span.window.ended)

    def widened(self, model: str, model_version: str | None, since: float, until: float) -> tuple[float, float]:
        """Return a period widened to whole hours and days where it touches such as are kept merged."""
        period = since, until
        for resolution, length in LENGTHS:
            first, last = whole(since, until, length)
            ends = [span.window.ended for _, span in self._of(model, model_version) if span.resolution == resolution]
            period = reaching(period, [end for end in ends if first < end <= last], length)
        return period

    def thin(self, model: str, retention: Retention, now: float) -> bool:
        """Do the next piece of what age and size demand; return whether there may be more."""
        with self._lock:
            kept = [
                Kept(number, span.model_version, span.resolution, span.window.ended, nbytes(span.window))
                for number, span in self._kept.items()
                if span.model == model
            ]
            step = next_step(kept, retention, now)
            if step is not None:
                self._do(step)
        return step is not None

    def others(self, model: str, source: str) -> Sequence[float]:
        """Return the ends of the single windows that processes other than `source` kept last, the last first."""
        kept = [span for _, span in self._of(model, None) if span.resolution == "raw" and span.source != source]
        return [span.window.ended for span in kept[: -OTHERS - 1 : -1]]

    def size(self, model: str) -> int:
        """Return the bytes that all versions of a model take."""
        return sum(nbytes(span.window) for _, span in self._of(model, None))

    def listing(self) -> tuple[HistoryInfo, ...]:
        """Return what is kept by model, version and resolution, in this order."""
        groups: dict[tuple[str, str, Resolution], list[Span]] = {}
        for span in self._copy().values():
            groups.setdefault((span.model, span.model_version, span.resolution), []).append(span)
        return in_order(_info(*key, spans) for key, spans in groups.items())

    def forget(self, model: str, before: float, model_version: str | None = None) -> int:
        """Drop the spans of a model that had ended by a moment; return how many they were."""
        gone = [number for number, span in self._of(model, model_version) if span.window.ended <= before]
        with self._lock:
            return sum(self._kept.pop(number, None) is not None for number in gone)

    def close(self) -> None:
        """Do nothing: there is no connection to release."""

    def _do(self, step: Step) -> None:
        taken = [self._kept.pop(number) for number in step.ids]
        if step.into is not None:
            self._kept[next(self._ids)] = merge(taken, step.into)

    def _of(self, model: str, model_version: str | None) -> list[tuple[int, Span]]:
        kept = self._copy().items()
        return [(number, span) for number, span in kept if span.model == model and model_version in {None, span.model_version}]

    def _copy(self) -> dict[int, Span]:
        with self._lock:
            return dict(self._kept)


def _moment(span: Span) -> tuple[str, str, str, str, float]:
    return span.model, span.model_version, span.resolution, span.source, span.window.ended


def _info(model: str, model_version: str, resolution: Resolution, spans: list[Span]) -> HistoryInfo:
    windows, size = sum(span.windows for span in spans), sum(nbytes(span.window) for span in spans)
    began, ended = min(span.window.started for span in spans), max(span.window.ended for span in spans)
    return HistoryInfo(model, model_version, resolution, len(spans), windows, size, began, ended)
