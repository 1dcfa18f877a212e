"""The historian: what a watch sees gets into its history, whatever the database does, and nobody waits for it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import geluwatch.historian
from geluwatch.config import Config
from geluwatch.core.history import without_moments
from geluwatch.core.window import observe
from geluwatch.errors import StoreError
from geluwatch.historian import Historian
from geluwatch.ports import WindowSink
from geluwatch.records import Drained, Nonfinite, PointReport, Report, Rows, Site, Span, Summary, Totals, Window
from geluwatch.retention import DAY, HOUR, Retention
from geluwatch.store import MemoryHistory, SqlHistory
from geluwatch.testing import FakeClock, ListSource, MemoryBaselines
from geluwatch.watch import Watch

LAYER = "act"
MIDNIGHT = 1_700_006_400.0


class Faulty(MemoryHistory):
    """A history whose database raises what it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None
        self.thinned = 0

    def append(self, span: Span) -> None:
        """Raise it, or keep the span."""
        if self.error:
            raise self.error
        super().append(span)

    def thin(self, model: str, retention: Retention, now: float) -> bool:
        """Count the call."""
        self.thinned += 1
        return super().thin(model, retention, now)


@pytest.fixture
def clock() -> FakeClock:
    """A clock that shows midnight."""
    return FakeClock(MIDNIGHT)


@pytest.fixture
def store() -> Faulty:
    """A history that works until it is told otherwise."""
    return Faulty()


@pytest.fixture
def historian(store: Faulty, clock: FakeClock) -> Historian:
    """A historian without its thread: its work is done by calling `work`."""
    return Historian(store, Retention(), clock)


def closing(number: int) -> tuple[Window, Report]:
    """Return the window of a minute, and the report of its closing."""
    ended = MIDNIGHT + 60.0 * (number + 1)
    window = Window(ended - 60.0, ended, 2, 1, {(LAYER, "pre"): observe(np.full((4, 3), number, np.float32), "float32")})
    sites: Any = {(LAYER, "pre"): PointReport(LAYER, "pre", 0, "observed")}
    return window, Report("m", "1", ended, "ok", sites, totals=Totals(windows=number + 1, dropped_rows=2 * number))


def kept(store: MemoryHistory) -> list[Span]:
    """Return what is kept."""
    return list(store.spans("m", None, 0.0, float("inf")))


def test_windows_are_written_by_its_thread(historian: Historian, store: Faulty) -> None:
    """Taking a window writes nothing; the work does, with what was counted since the window before."""
    assert isinstance(historian, WindowSink)
    for number in range(3):
        historian.take(*closing(number))
    assert [] == kept(store)
    historian.work()
    assert [0, 2, 2] == [span.summary.dropped_rows for span in kept(store)]
    assert [closing(number)[0].points.keys() for number in range(3)] == [span.window.points.keys() for span in kept(store)]
    (source,) = {span.source for span in kept(store)}
    assert source.rpartition(":")[2].isdigit()


def test_one_window_in_six_hours_keeps_its_moments(historian: Historian, store: Faulty) -> None:
    """Channel moments take ten times as much as histograms, so that few keep them."""
    for number in range(0, 24 * 60, 60):
        historian.take(*closing(number))
    historian.work()
    rows = [span.window.points[LAYER, "pre"].moments.rows for span in kept(store)]
    assert ([4] + [0] * 5) * 4 == rows


def test_an_idle_window_is_not_the_one_that_keeps_its_moments(historian: Historian, store: Faulty) -> None:
    """The first window of six hours that has channels does."""
    window, report = closing(0)
    historian.take(replace(window, forwards=0, points={}), report)
    historian.take(*closing(1))
    historian.work()
    assert 4 == kept(store)[1].window.points[LAYER, "pre"].moments.rows


def test_a_nan_before_an_idle_stretch_is_told_once(clock: FakeClock, store: Faulty, historian: Historian) -> None:
    """Minutes without a pass are kept, and what the watch counted before them is not counted in each of them again."""
    source = ListSource((Site(LAYER, 0, "module", "GELU", "erf"),))
    watch = Watch(source, MemoryBaselines(), clock, Config(), name="m", version="1", labels={}, window_sinks=(historian,))
    bad = {LAYER: Nonfinite(1, 1, 0, {("pre", "nan"): 1})}
    source.queue.append(Drained(forwards=5, nonfinite_forwards=1, nonfinite=bad, first_nonfinite=LAYER))
    for _ in range(4):
        clock.advance(61.0)
        watch.tick()
    historian.work()
    spans = kept(store)
    assert [(5, 1), (0, 0), (0, 0), (0, 0)] == [(span.window.forwards, span.summary.nonfinite_forwards) for span in spans]
    watch.detach()


def test_a_database_that_is_down_loses_no_window(historian: Historian, store: Faulty) -> None:
    """Windows wait and are tried again, in their order; each failure is raised when the next is taken, which waits as well."""
    store.error = StoreError("The database is away.")
    historian.take(*closing(0))
    historian.work()
    for number in (1, 2):
        with pytest.raises(StoreError, match="is away"):
            historian.take(*closing(number))
        historian.work()
    store.error = None
    historian.work()
    assert [closing(number)[0].ended for number in range(3)] == [span.window.ended for span in kept(store)]


def test_what_waits_is_bounded(historian: Historian, store: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond some megabytes the oldest windows are lost, and that is told; the newest is never."""
    monkeypatch.setattr(geluwatch.historian, "WAITING_BYTES", 30)  # two windows of 12 bytes, without moments
    historian.take(*closing(0))
    with pytest.raises(StoreError, match=r"^1 windows waited too long for the database, and are not kept\.$"):
        historian.take(*closing(1))
    historian.take(*closing(2))
    with pytest.raises(StoreError, match="1 windows waited too long"):
        historian.take(*closing(3))
    historian.work()
    assert [closing(number)[0].ended for number in (2, 3)] == [span.window.ended for span in kept(store)]


def test_a_window_that_cannot_be_stored_is_let_go(historian: Historian, store: Faulty) -> None:
    """What no second try could mend holds up no other window."""
    store.error = ValueError("no such window")
    historian.take(*closing(0))
    historian.work()
    store.error = None
    with pytest.raises(ValueError, match="no such window"):
        historian.take(*closing(1))
    historian.work()
    assert [closing(1)[0].ended] == [span.window.ended for span in kept(store)]


def test_thinning_is_once_an_hour_and_a_piece_at_a_time(historian: Historian, store: Faulty, clock: FakeClock) -> None:
    """The first turn comes with the first window, then one an hour; while there is more to do, a piece at each look."""
    for number in (0, 60, 120):
        historian.take(*closing(number))
    clock.advance(3 * DAY)
    counted = []
    for _ in range(6):
        historian.work()
        counted.append(store.thinned)
    assert [1, 2, 3, 4, 4, 4] == counted
    assert ["hour"] * 3 == [span.resolution for span in kept(store)]
    clock.advance(HOUR)
    historian.work()
    historian.work()
    assert 5 == store.thinned


def test_too_large_a_history_is_thinned_at_once(store: Faulty, clock: FakeClock) -> None:
    """It does not wait for the hour: a fleet may write much in one."""
    historian = Historian(store, Retention(most_bytes=100), clock)
    for number in range(40):
        historian.take(*closing(number))
        historian.work()
        historian.work()
    assert store.size("m") <= 100
    assert closing(39)[0].ended == kept(store)[-1].window.ended


class Runaway(FakeClock):
    """A clock whose time of day is ahead of what has passed."""

    ahead = 0.0

    def time(self) -> float:
        """Return what it shows."""
        return super().time() + self.ahead


def others(store: MemoryHistory, ends: list[float]) -> None:
    """Keep windows of other processes."""
    for number, ended in enumerate(ends):
        store.append(Span("m", "1", "raw", f"host:{number % 5}", 1, Window(ended - 60.0, ended, 1, 1, {}), Summary()))


def work_on(historian: Historian, clock: FakeClock, hours: int, store: MemoryHistory | None = None) -> None:
    """Let hours pass and thin to the end in each, while others write every hour where a store is given."""
    for _ in range(hours):
        clock.advance(HOUR)
        if store is not None:
            others(store, [FakeClock.time(clock)])
        for _ in range(60):
            historian.work()


@pytest.mark.parametrize("ahead", [2 * DAY, 75 * 365 * DAY])
def test_a_clock_that_jumps_ahead_costs_nobody_his_windows(store: Faulty, ahead: float) -> None:
    """One process's clock jumps by days or decades while it runs: what is young by the time that has passed stays as it is, and ages on."""
    clock = Runaway(MIDNIGHT)
    historian = Historian(store, Retention(), clock)
    others(store, [MIDNIGHT - HOUR * number for number in range(12)])
    historian.take(*closing(0))
    clock.ahead = ahead
    work_on(historian, clock, 10)
    assert {"raw": 13} == Counter(span.resolution for span in kept(store))
    work_on(historian, clock, 14)
    assert {"raw": 1, "hour": 12} == Counter(span.resolution for span in kept(store))


def test_a_clock_far_ahead_of_everybody_elses_windows_thins_nothing(store: Faulty) -> None:
    """A process whose clock was decades ahead when it began is told from what others write, though a few of those are ahead as well."""
    clock = Runaway(MIDNIGHT)
    clock.ahead = 75 * 365 * DAY
    historian = Historian(store, Retention(), clock)
    others(store, [MIDNIGHT - HOUR * number for number in range(12)] + [MIDNIGHT + clock.ahead] * 3)
    historian.take(*closing(0))
    work_on(historian, clock, 10, store)
    assert {"raw": 12 + 3 + 1 + 10} == Counter(span.resolution for span in kept(store))


def test_who_is_alone_is_held_against_nobody(store: Faulty, clock: FakeClock) -> None:
    """Where others have not written for weeks, what they kept waits a day, and then goes by the clock."""
    others(store, [MIDNIGHT - 30 * DAY + HOUR * number for number in range(3)])
    historian = Historian(store, Retention(), clock)
    historian.take(*closing(0))
    work_on(historian, clock, 20)
    assert "raw" in {span.resolution for span in kept(store)[:3]}
    work_on(historian, clock, 10)
    assert ["day", "day", "hour"] == [span.resolution for span in kept(store)]


def test_a_clock_that_is_set_after_the_start_is_believed(store: Faulty) -> None:
    """A process that starts in 1970 and gets the time later thins by it."""
    clock = Runaway(5.0)
    historian = Historian(store, Retention(), clock)
    historian.work()
    clock.ahead = MIDNIGHT
    historian.take(*closing(0))
    work_on(historian, clock, 30)
    assert ["hour"] == [span.resolution for span in kept(store)]


def test_closing_writes_what_is_left(historian: Historian, store: Faulty, clock: FakeClock) -> None:
    """What came last is written too; closing again does nothing, though there be more to thin."""
    for number in range(0, 120, 10):
        historian.take(*closing(number))
    clock.advance(3 * DAY)
    historian.close()
    historian.close()
    assert (1, 12) == (store.thinned, sum(span.windows for span in kept(store)))


def test_closing_tells_what_is_lost(historian: Historian, store: Faulty) -> None:
    """If the database is still away, the windows that waited are lost, and how many is told."""
    store.error = StoreError("The database is away.")
    historian.take(*closing(0))
    with pytest.raises(StoreError, match=r"^1 windows could not be written, and are not kept\.$"):
        historian.close()


def test_closing_waits_for_a_hanging_database_once(historian: Historian, store: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the thread is doing then, and whatever is left: there is one deadline for all, and what was not written by it is told."""
    monkeypatch.setattr(geluwatch.historian, "_PATIENCE", 0.5)
    tried = []

    def hanging(_: Span) -> None:
        tried.append(time.monotonic())
        time.sleep(1.5)
        raise StoreError("The database is away.")

    monkeypatch.setattr(store, "append", hanging)
    historian.take(*closing(0))
    historian.start(store)
    historian._background.soon()
    while not tried:
        time.sleep(0.01)
    historian.take(*closing(1))
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"^2 windows could not be written, and are not kept\.$"):
        historian.close()
    assert time.monotonic() - began < 1.4
    assert historian._background._thread is not None
    historian._background._thread.join(10.0)


def test_a_forked_child_leaves_its_parents_windows_alone(historian: Historian, store: Faulty) -> None:
    """What waits is the parent's to write; the child's counters begin anew."""
    historian.take(*closing(0))
    historian.take(*closing(5))
    historian._forget_parent()
    historian.take(closing(1)[0], closing(0)[1])
    historian.work()
    (span,) = kept(store)
    assert (closing(1)[0].ended, 0) == (span.window.ended, span.summary.dropped_rows)


def watch(historian: Historian, clock: FakeClock) -> tuple[Watch, ListSource]:
    """Return a watch whose windows go to the historian."""
    source = ListSource((Site(LAYER, 0, "module", "GELU", "erf"),))
    made = Watch(source, MemoryBaselines(), clock, Config(), name="m", version="1", labels={}, window_sinks=(historian,))
    return made, source


def close_window(made: Watch, source: ListSource, clock: FakeClock) -> Report:
    """Give rows and let a minute pass."""
    values = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    source.queue.append(Drained(2, 1, rows=(Rows(LAYER, "float32", values, np.maximum(values, 0)),)))
    clock.advance(60.0)
    return made.close_window()


def test_a_watch_counts_its_failures_and_logs_the_first(
    historian: Historian, store: Faulty, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """They are the part "history"; no window of the watch is lost, and none of the history once the database is back."""
    made, source = watch(historian, clock)
    store.error = StoreError("The database is away.")
    with caplog.at_level(logging.WARNING, "geluwatch"):
        for _ in range(4):
            close_window(made, source, clock)
            historian.work()
    assert ({"history": 3}, 4) == (dict(made.flush().totals.errors), made.report.totals.windows)
    assert ["geluwatch: the history failed: StoreError('The database is away.')"] == [record.getMessage() for record in caplog.records]
    store.error = None
    made.detach()
    assert 4 == len(kept(store))


def test_nobody_waits_for_a_slow_database(store: Faulty, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the database hangs, windows close as ever, in any thread; once it answers, all are written."""
    monkeypatch.setattr(geluwatch.historian, "_SECONDS", 0.01)
    answers, asked = threading.Event(), threading.Event()
    append = store.append

    def hanging(span: Span) -> None:
        asked.set()
        answers.wait(10.0)
        append(span)

    monkeypatch.setattr(store, "append", hanging)
    historian = Historian(store, Retention(), clock)
    made, source = watch(historian, clock)
    historian.start(source)
    close_window(made, source, clock)
    assert asked.wait(10.0)
    assert 3 == [close_window(made, source, clock) for _ in range(2)][-1].totals.windows
    assert [] == kept(store)
    answers.set()
    made.detach()
    assert 3 == len(kept(store))


def test_windows_of_a_watch_come_back_from_a_file(tmp_path: Path, clock: FakeClock) -> None:
    """Through a real database, a window that was kept is the window that was closed, histograms and all."""
    url = f"sqlite:///{tmp_path}/store.db"
    made, source = watch(Historian(SqlHistory(url), Retention(), clock), clock)
    seen: list[Window] = []
    monitored = made._monitor.close
    made._monitor.close = lambda now: seen.append(monitored(now)) or seen[-1]  # type: ignore[method-assign, func-returns-value]
    for _ in range(2):
        close_window(made, source, clock)
    made.detach()
    store = SqlHistory(url)
    first, second = store.spans("m", "1", 0.0, float("inf"))
    store.close()
    for window, span in zip((seen[0], without_moments(seen[1])), (first, second), strict=True):
        assert (window.started, window.ended, window.forwards) == (span.window.started, span.window.ended, span.window.forwards)
        for key, point in window.points.items():
            have = span.window.points[key]
            np.testing.assert_array_equal(point.histogram.cells, have.histogram.cells)
            np.testing.assert_array_equal(point.histogram.counts, have.histogram.counts)
            assert point.moments.rows == have.moments.rows


_FORKED = """
import os, sys, threading
from geluwatch.historian import Historian
from geluwatch.records import Report, Totals, Window
from geluwatch.retention import Retention
from geluwatch.store import SqlHistory
from geluwatch.testing import FakeClock

def take(number):
    ended = 60.0 * number
    historian.take(Window(ended - 60.0, ended, 1, 1, {}), Report("m", "1", ended, "ok", {}, totals=Totals(windows=1)))

historian = Historian(SqlHistory(sys.argv[1]), Retention(), FakeClock(200.0))
historian.start(threading)
take(1)
historian._working.acquire()  # as if the thread were writing at this moment
child = os.fork()
take(2 if child else 3)
if child:
    historian._working.release()
historian.close()
if not child:
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
kept = [(span.window.ended, int(span.source.rpartition(":")[2])) for span in SqlHistory(sys.argv[1]).spans("m", None, 0.0, 1e9)]
print(kept == [(60.0, os.getpid()), (120.0, os.getpid()), (180.0, child)])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_parent_and_child_write_each_its_own(tmp_path: Path) -> None:
    """A process forked while windows wait, and one is being written, keeps its own; each window is there once, with who saw it."""
    done = subprocess.run(
        [sys.executable, "-c", _FORKED, f"sqlite:///{tmp_path}/store.db"], capture_output=True, text=True, timeout=60, check=False
    )
    assert ("0\nTrue\n", "") == (done.stdout, done.stderr)


def test_the_last_window_is_kept_when_the_watch_comes_off(clock: FakeClock, store: Faulty, historian: Historian) -> None:
    """A run that stops on its first NaN has it in its history; where nothing came since the last window there is no other."""
    source = ListSource((Site(LAYER, 0, "module", "GELU", "erf"),))
    watch = Watch(source, MemoryBaselines(), clock, Config(), name="m", version="1", labels={}, window_sinks=(historian,))
    bad = {LAYER: Nonfinite(1, 1, 0, {("pre", "nan"): 1})}
    source.queue.append(Drained(forwards=5, nonfinite_forwards=1, nonfinite=bad, first_nonfinite=LAYER))
    watch.detach()
    (last,) = kept(store)
    assert (5, LAYER, {"page": 1}) == (last.window.forwards, last.window.first_nonfinite, last.summary.verdicts)
    assert ("page", LAYER) == (watch.report.verdict, watch.report.first_nonfinite)
    idle = Watch(source, MemoryBaselines(), clock, Config(), name="idle", version="1", labels={}, window_sinks=(historian,))
    idle.detach()
    assert 1 == len(kept(store))
