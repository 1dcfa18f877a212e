"""The round of a watch: drain the source, fold, close windows, publish; who is told, and what becomes of failures."""

from __future__ import annotations

import atexit
import math
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from geluwatch import log
from geluwatch.background import Background
from geluwatch.bundles.recorder import Recorder
from geluwatch.config import Config
from geluwatch.core.batch import Batch
from geluwatch.core.monitor import Identity, Monitor
from geluwatch.errors import BaselineError, DetachedError
from geluwatch.inbox import Inbox
from geluwatch.origins import Origins
from geluwatch.ports import BaselineStore, Clock, Sink, Source, WindowSink
from geluwatch.probing import Probing
from geluwatch.records import ProbeResult, Report, Site, Window

if TYPE_CHECKING:
    from geluwatch.export.listener import Listener


class Cycle:
    """One source and what is made of it, round after round, in a background thread and at the user's word."""

    def __init__(
        self,
        source: Source,
        baselines: BaselineStore,
        clock: Clock,
        config: Config,
        *,
        name: str,
        version: str,
        labels: Mapping[str, str],
        sinks: tuple[Sink, ...] = (),
        window_sinks: tuple[WindowSink, ...] = (),
    ) -> None:
        self._source = source
        self._origins = Origins(source, config)
        self._baselines = baselines
        self._clock = clock
        self._config = config
        self._name, self._version = name, version
        self._sinks, self._window_sinks = sinks, window_sinks
        self._failing: set[Callable[..., None]] = set()
        self._monitor = Monitor(Identity(name, version, labels, source.framework), source.sites, config, clock.time())
        self._window_began = clock.monotonic()
        self._failures = 0
        self._unfit = False
        # Guards the monitor between the background thread and the caller's; the model's threads never take it.
        self._lock = threading.RLock()
        self._inbox = Inbox()
        self._batch = Batch(config.pending_bytes // 2)
        self._background = Background(self.tick, self._let_go, self.report_seconds)
        self._background.on_fork = self._forget_parent
        self._incidents = Recorder(config, clock, lambda: self.sites, source.runtime)
        self._probing = Probing(source, clock, config.probe_seconds, lambda: self._monitor.baseline, self._probed)
        self._gave_up = ""
        self._listener: Listener | None = None
        self._detached = False
        self._gone = False
        self._report = self._monitor.report(clock.time())

    @property
    def sites(self) -> tuple[Site, ...]:
        """The census: every GELU call site, "observed" or "blind" with the reason."""
        sites = self._source.sites
        return tuple(replace(site, state="blind", reason=self._gave_up) for site in sites) if self._gave_up else sites

    @property
    def report(self) -> Report:
        """The last published report; a new one is published at every flush."""
        return self._report

    def live_report(self) -> Report:
        """Return the last published report while the watch is on its model: for readers that may outlive it.

        Raises:
            DetachedError: The watch has been detached, or its model is no more.
        """
        self._refuse_if_detached()
        if self._gone:
            raise DetachedError(f"The model that {self._name!r} was watched in is no more; attach to another.")
        return self._report

    @property
    def report_seconds(self) -> float:
        """Seconds from one report to the next in the background: those of a flush, or a quarter of a window where that is less."""
        return min(self._config.flush_seconds, (self._config.window_seconds or math.inf) / 4.0)

    def start(self, model: object = None) -> None:
        """Start the background thread that flushes and closes timed windows; it ends with the model, where one is given."""
        self._incidents.prepare()
        self._background.start()
        if model is not None:
            self._background.follow(model)
        self._probing.start(model)
        atexit.register(self.detach)

    def detach(self) -> None:
        """Come off the model, totally: hooks, thread, listener and store connection; again does nothing."""
        self._probing.stop()
        self._source.close()
        self._background.stop()
        with self._lock:
            if self._detached:
                return
            self._detached = True
            self._last_flush()
        self._close_outlets()
        self._baselines.close()

    def _let_go(self) -> None:
        """End with the model: parts of it that live on have no hook left, and its port is free. What was seen may still be asked for."""
        self._source.close()
        with self._lock:
            self._gone = True
            self._last_flush()
        self._close_outlets()

    def _close_outlets(self) -> None:
        """Close the listener, and whoever keeps windows, who writes what is left; each once."""
        listener, self._listener = self._listener, None
        sinks, self._window_sinks = self._window_sinks, ()
        if listener is not None:
            listener.close()
        for sink in sinks:
            self._tell(sink.part, sink.close)

    def tick(self) -> None:
        """Flush once, and close the window if its time is over; a failure is counted, repeated ones end the thread's work."""
        with self._lock:
            try:
                length = self._config.window_seconds
                due = length is not None and self._clock.monotonic() - self._window_began >= length
                self._fold(rows_may_wait=not due)
                if due and self._monitor.ready_to_close():
                    self._close_timed()
                else:
                    report = self._publish()
                    idle = self._monitor.skip_idle(self._clock.time()) if due else None
                    if idle is not None:
                        self._window_began = self._clock.monotonic()
                        self._hand_on(idle, report)
            except Exception as error:  # noqa: BLE001  # the background thread must outlive any single failure
                self._flush_failed(error)
            else:
                self._failures = 0
        if self._incidents.ready():
            self._tell("incident", self._incidents.save)

    def _probed(self, result: ProbeResult | None) -> None:
        """Take what a replay showed, None where a scheduled one failed."""
        with self._lock:
            if result is None:
                self._monitor.count("probe", errors=1)
            else:
                self._monitor.note_probe(result)
            self._publish()

    def _flush_failed(self, error: Exception) -> None:
        """Count a failed flush; at the limit take the watch off the model, and say so in the census and the report."""
        self._failures += 1
        self._monitor.count("flush", errors=1)
        if self._failures == 1:
            log.say(log.WARNING, "a flush failed and will be tried again: %r", error)
        if self._failures >= self._config.breaker_limit and not self._gave_up:
            log.say(log.ERROR, "%d flushes failed in a row; the watch takes itself off: %r", self._failures, error)
            self._gave_up = f"the watch took itself off after {self._failures} failed flushes: {error!r}"
            self._source.close()
            self._background.end_soon()
        with suppress(Exception):  # what failed may be the very report
            self._monitor.census(self.sites)
            self._publish()

    def _last_flush(self) -> None:
        """Fold what is left, whatever happens, and let the interpreter forget this watch."""
        atexit.unregister(self.detach)
        with self._lock:
            try:
                self._fold()
                self._publish()
                self._hand_on_what_is_open()
            except Exception as error:  # noqa: BLE001  # coming off must succeed
                self._monitor.count("flush", errors=1)
                log.say(log.WARNING, "the last flush failed; what it held is lost: %r", error)
        self._tell("incident", self._incidents.close)

    def _hand_on_what_is_open(self) -> None:
        """Close the last window for whoever keeps windows: a run that dies of a NaN has it there. The last report stands."""
        if self._window_sinks:
            window = self._monitor.close(self._clock.time())
            if window.forwards or window.first_nonfinite:
                self._hand_on(window, self._monitor.report(self._clock.time()))

    def _forget_parent(self) -> None:
        """Go on in a forked child, into which whoever held the lock has not come along, nor the listener's thread.

        What was seen before belongs to the parent, which reports it.
        """
        self._lock = threading.RLock()
        self._inbox = Inbox()
        self._batch.take()
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.forget_parent()
        self._incidents = self._incidents.restarted()
        self._probing.forget_parent()
        self._source.start_anew()
        self._monitor = self._monitor.restarted(self._clock.time())
        self._window_began = self._clock.monotonic()
        self._report = self._monitor.report(self._clock.time())

    def _fold(self, *, rows_may_wait: bool = False) -> None:
        began = self._clock.monotonic()
        drained = self._source.drain()
        self._batch.add(drained.rows, began)
        rows = () if rows_may_wait and not self._batch.is_due(began) else self._batch.take()
        self._monitor.ingest(replace(drained, rows=rows))
        self._tell("incident", self._incidents.see, drained)
        self._monitor.census(self.sites)
        self._monitor.count("flush", flush_seconds=self._clock.monotonic() - began)

    def _close_timed(self) -> None:
        """Close the window that is due; one that the armed baseline does not fit goes unjudged, and the guard goes on."""
        try:
            self._close()
        except BaselineError as error:
            self._monitor.count("judge", errors=1)
            if not self._unfit:
                log.say(log.WARNING, "windows are closed and not judged: %s", error)
            self._unfit = True
            self._publish()
        else:
            self._unfit = False

    def _close(self) -> Report:
        self._window_began = self._clock.monotonic()
        window = self._monitor.close(self._clock.time())
        self._tell("incident", self._incidents.take, window)
        report = self._publish()
        self._hand_on(window, report)
        if self._monitor.misfit is not None:
            raise self._monitor.misfit
        return report

    def _hand_on(self, window: Window, report: Report) -> None:
        """Give a window, and the report of its moment, to whoever keeps windows."""
        for sink in self._window_sinks:
            self._tell(sink.part, sink.take, window, report)

    def _publish(self) -> Report:
        self._monitor.note(*self._inbox.take())
        self._report = report = self._monitor.report(self._clock.time())
        for sink in self._sinks:
            self._tell("sink", sink.write, report)
        self._tell("incident", self._incidents.write, report)
        if self._incidents.ready():
            self._background.soon()
        return report

    def _tell(self, part: str, listener: Callable[..., None], *what: object) -> None:
        """Hand something on to whoever is told of it; a failure goes no further, is counted, and logged if it is the first in a row."""
        try:
            listener(*what)
            self._failing.discard(listener)
        except Exception as error:  # noqa: BLE001  # sinks talk to disks and databases, and may be the user's
            with self._lock:
                self._monitor.count(part, errors=1)
            if listener not in self._failing:
                log.say(log.WARNING, "%s failed: %r", "a sink" if part == "sink" else f"the {part}", error)
            self._failing.add(listener)

    def _refuse_if_detached(self) -> None:
        if self._detached:
            raise DetachedError(f"The watch of {self._name!r} has been detached; attach again.")
