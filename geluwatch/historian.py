"""Writes what a watch sees into its history, in a thread of its own: no database, however slow, holds up the watch or the model."""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Sequence

from geluwatch.background import Background
from geluwatch.core import history
from geluwatch.core.window import nbytes
from geluwatch.errors import StoreError
from geluwatch.ports import Clock, HistoryStore
from geluwatch.records import Report, Span, Totals, Window
from geluwatch.retention import DAY, HOUR, Retention

WAITING_BYTES = 32 * 2**20
"""Most memory of windows that wait for the database; beyond it the oldest are lost. A large model's take a quarter of an hour to it."""

_SECONDS = 5.0
"""Between two looks whether there is something to write, and between two tries."""

_PATIENCE = 15.0
"""Most seconds that closing waits for the database: for what the thread is doing, and for what is left to write."""

_UNSET = 1.5e9
"""Seconds since the epoch: a clock that shows an earlier year has not been set yet."""


class Present:
    """What time it is for what is thinned by it: a clock that has run away must not cost a whole fleet its history.

    A present that is too early only thins later, so of all that could be believed the earliest is.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.time(), clock.monotonic()
        self._last: list[float] = []
        """Of the others' windows, and when it came."""
        self._last_at = 0.0

    def now(self, others: Sequence[float]) -> float:
        """Return seconds since the epoch.

        Args:
            others: Ends of the windows that other processes kept last, the last of them first.
        """
        now, monotonic = self._clock.time(), self._clock.monotonic()
        if self._began[0] < _UNSET:
            self._began = now, monotonic
        steady = self._began[0] + monotonic - self._began[1]
        now = steady if now > steady + HOUR else now
        others = [ended for ended in others if ended >= _UNSET]
        if others[:1] != self._last:
            self._last, self._last_at = others[:1], monotonic
        if not others or monotonic - self._last_at >= DAY:
            return now  # who is alone has nobody to be held against
        # Not the newest one: of all the others, some may have run away as well.
        heard = sorted(others)[len(others) // 4]
        return heard if now > heard + DAY else now


class Historian:
    """A `geluwatch.ports.WindowSink` that keeps closed windows in a history, and thins it once an hour, a piece at a time.

    A window that cannot be written waits and is tried again. What fails in the thread is raised when the next window is taken,
    so that the watch counts it.
    """

    part = "history"

    def __init__(self, store: HistoryStore, retention: Retention, clock: Clock) -> None:
        self._store = store
        self._retention = retention
        self._clock = clock
        self._present = Present(clock)
        self._background = Background(self.work, self.work, _SECONDS)
        self._background.on_fork = self._forget_parent
        self._before = Totals()
        self._moments_in: float | None = None
        self._model = ""
        self._closed = False
        self._thin_at = clock.monotonic()
        self._start_anew()

    def _start_anew(self) -> None:
        self._waiting: deque[Span] = deque()
        self._bytes = 0
        self._failed: Exception | None = None
        self._queue_lock = threading.Lock()
        """Guards the three above, and is never held while the database is used."""
        self._working = threading.Lock()

    def start(self, model: object) -> None:
        """Start the thread; it ends with the model."""
        self._background.start()
        self._background.follow(model)

    def take(self, window: Window, report: Report) -> None:
        """Have a closed window written soon.

        Raises:
            Exception: What failed since the last call; this window is taken nevertheless.
        """
        kept = window if self._is_for_moments(window) else history.without_moments(window)
        span = history.observed(kept, report, self._before, _source())
        self._before, self._model = report.totals, report.model
        with self._queue_lock:
            self._waiting.append(span)
            self._bytes += nbytes(span.window)
            lost = self._make_room()
            failed, self._failed = self._failed, None
        if failed is not None:
            raise failed
        if lost:
            raise StoreError(f"{lost} windows waited too long for the database, and are not kept.")

    def close(self) -> None:
        """Write what is left, and end the thread; calling it again does nothing.

        Raises:
            StoreError: Windows were left, and are lost.
            Exception: What failed since the last window was taken.
        """
        if self._closed:
            return
        self._closed = True
        if not self._background.finish(_PATIENCE):
            self.work()
        self._store.close()
        with self._queue_lock:
            left, failed = len(self._waiting), self._failed
            self._waiting.clear()
            self._failed = None
        if left:
            raise StoreError(f"{left} windows could not be written, and are not kept.") from failed
        if failed is not None:
            raise failed

    def work(self) -> None:
        """Write what waits, and do a piece of thinning where it is due; a failure is kept for the next window's turn."""
        if not self._working.acquire(timeout=_SECONDS):
            return
        try:
            self._write()
            self._thin()
        except Exception as error:  # noqa: BLE001  # the thread must outlive any single failure
            with self._queue_lock:
                self._failed = error
        finally:
            self._working.release()

    def _write(self) -> None:
        while self._waiting:
            span = self._waiting[0]
            try:
                self._store.append(span)
            except StoreError:
                raise
            except Exception:
                self._remove(span)  # nothing that a second try could mend
                raise
            self._remove(span)
            if self._store.size(span.model) > self._retention.most_bytes:
                self._thin_at = self._clock.monotonic()

    def _thin(self) -> None:
        if not self._model or self._clock.monotonic() < self._thin_at:
            return
        now = self._present.now(self._store.others(self._model, _source()))
        if not self._store.thin(self._model, self._retention, now):
            self._thin_at = self._clock.monotonic() + HOUR

    def _is_for_moments(self, window: Window) -> bool:
        if not window.points:
            return False
        stretch = window.ended // (self._retention.moments_hours * HOUR)
        first, self._moments_in = stretch != self._moments_in, stretch
        return first

    def _make_room(self) -> int:
        """Let go of the oldest windows while all together are too large, but never of the last; return how many."""
        lost = 0
        while self._bytes > WAITING_BYTES and len(self._waiting) > 1:
            self._bytes -= nbytes(self._waiting.popleft().window)
            lost += 1
        return lost

    def _remove(self, span: Span) -> None:
        with self._queue_lock:
            if self._waiting and self._waiting[0] is span:  # it may have had to make room
                self._waiting.popleft()
                self._bytes -= nbytes(span.window)

    def _forget_parent(self) -> None:
        """Go on in a forked child: what waits is the parent's to write."""
        self._start_anew()
        self._before, self._moments_in = Totals(), None


def _source() -> str:
    """Return what spans call this process."""
    return f"{socket.gethostname()}:{os.getpid()}"
