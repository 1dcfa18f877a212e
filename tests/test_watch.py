"""The watch: windows, baselines, failures and errors, with a source and a clock in the test's own hands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtr

from geluwatch.agent import SystemClock
from geluwatch.config import Config
from geluwatch.errors import (
    BaselineError,
    DetachedError,
    UnknownBaselineError,
)
from geluwatch.ports import BaselineStore, Clock, Sink, Source, WindowSink
from geluwatch.records import Drained, Nonfinite, Report, Rows, Site, Window
from geluwatch.testing import FakeClock, ListSource, MemoryBaselines, MemorySink
from geluwatch.watch import Watch

LAYER = "body.act"
SITES = (Site(LAYER, 0, "module", "GELU", "erf"),)
MINIMUM = 16


def batch(rng: np.random.Generator, rows: int, shift: float = 0.0, **others: Any) -> Drained:
    """Return a drained batch of normal rows before the GELU and after it."""
    pre = (rng.standard_normal((rows, 8)) + shift).astype(np.float32)
    post = (pre * ndtr(pre)).astype(np.float32)
    return Drained(forwards=rows, samples=rows, rows=(Rows(LAYER, "float32", pre, post),) if rows else (), **others)


class Bench:
    """A watch with its parts laid open."""

    def __init__(self, **settings: Any) -> None:
        self.clock, self.source, self.sink, self.store = FakeClock(), ListSource(SITES), MemorySink(), MemoryBaselines()
        self.rng = np.random.default_rng(11)
        config = Config(**{"window_seconds": 60.0, "minimum_rows": MINIMUM, "horizons": (1,), "flush_seconds": 3600.0, **settings})
        self.watch = Watch(
            self.source, self.store, self.clock, config, name="model", version="1", labels={"region": "eu"}, sinks=(self.sink,)
        )

    def serve(self, rows: int = 64, shift: float = 0.0, **others: Any) -> None:
        """Have the source yield one batch at the next drain."""
        self.source.queue.append(batch(self.rng, rows, shift, **others))

    def windows(self, count: int, shift: float = 0.0) -> Report:
        """Close windows by hand."""
        for _ in range(count):
            self.serve(shift=shift)
            self.clock.advance(60.0)
            report = self.watch.close_window()
        return report


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    """Return a maker of benches, taken down at the end."""
    made: list[Bench] = []

    def make(**settings: Any) -> Bench:
        made.append(Bench(**settings))
        return made[-1]

    yield make
    for each in made:
        each.watch.detach()


def test_the_fakes_keep_the_protocols() -> None:
    """The public fakes are what the agent asks for, and the real clock is one too."""
    assert isinstance(ListSource(SITES), Source)
    assert isinstance(FakeClock(), Clock)
    assert isinstance(SystemClock(), Clock)
    assert isinstance(MemorySink(), Sink)
    assert isinstance(MemoryBaselines(), BaselineStore)
    assert SystemClock().monotonic() <= SystemClock().monotonic()


def test_a_window_closes_when_its_time_is_over(bench: Callable[..., Bench]) -> None:
    """Ticks publish at every flush, close the window at its length, and start the next from there."""
    parts = bench()
    closed = []
    for _ in range(12):
        parts.serve(rows=8)
        parts.clock.advance(15.0)
        parts.watch.tick()
        closed.append(parts.watch.report.totals.windows)
    assert [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3] == closed
    report = parts.watch.report
    assert (12, 96, 32) == (len(parts.sink.reports), report.totals.forwards, report.sites[LAYER, "pre"].rows)
    assert (report.window_ended or 0) - (report.window_started or 0) == 60.0


def test_rows_wait_for_others_and_for_nothing_else(bench: Callable[..., Bench]) -> None:
    """Between ticks rows wait to be counted together, at most so many bytes of them; a flush, a closing and an end take all there are."""
    parts = bench(pending_bytes=2 * 2 * 25 * 8 * 4)

    def counted() -> int:
        return parts.watch.report.sites[LAYER, "pre"].totals.elements // 8 if (LAYER, "pre") in parts.watch.report.sites else 0

    for _ in range(3):
        parts.serve(rows=8)
        parts.watch.tick()
    assert (0, 24) == (counted(), parts.watch.report.totals.forwards)
    parts.serve(rows=6)
    parts.watch.flush()
    assert 30 == counted()
    for expected in (30, 30, 60, 60):
        parts.serve(rows=10)
        parts.watch.tick()
        assert expected == counted()
    parts.serve(rows=10)
    parts.clock.advance(60.0)
    parts.watch.tick()
    assert (80, 1, 80) == (counted(), parts.watch.report.totals.windows, parts.watch.report.sites[LAYER, "pre"].rows)
    parts.serve(rows=10)
    parts.watch.tick()
    parts.watch.detach()
    assert 90 == counted()


def test_rows_that_cannot_be_counted_are_let_go_of(bench: Callable[..., Bench]) -> None:
    """One crooked batch costs itself and what waited with it; the watch goes on, and counts nothing twice."""
    parts = bench(breaker_limit=2)
    parts.serve(rows=10)
    parts.watch.tick()
    crooked = Rows(LAYER, "float32", np.ones((2, 8), np.float32), np.ones(5, np.float32))
    parts.source.queue.append(Drained(forwards=1, rows=(crooked,)))
    parts.clock.advance(60.0)
    for _ in range(4):
        parts.watch.tick()
        parts.serve(rows=16)
        parts.clock.advance(20.0)
    report = parts.watch.flush()
    assert (1, "observed") == (report.totals.errors["flush"], parts.watch.sites[0].state)
    assert 64 * 8 == report.sites[LAYER, "post"].totals.elements


def test_rows_wait_no_longer_than_a_scrape(bench: Callable[..., Bench]) -> None:
    """Few rows are counted all the same after fifteen seconds, and where little memory is set aside for them, sooner."""
    for settings, waits in (({"window_seconds": None}, 15), ({"pending_bytes": 2 * 2 * 8 * 4 * 10}, 0)):
        parts = bench(**settings)
        parts.serve(rows=10)
        for second in range(16):
            parts.watch.tick()
            seen = parts.watch.report.sites.get((LAYER, "pre"))
            assert (second >= waits) == (seen is not None and seen.totals.elements == 80), second
            parts.clock.advance(1.0)


def test_a_window_with_too_few_rows_is_carried_over(bench: Callable[..., Bench]) -> None:
    """A timed window below the minimum goes on until it has enough, and nothing of it is lost."""
    parts = bench()
    for rows in (5, 5, 5, 5):
        parts.serve(rows=rows)
        parts.clock.advance(60.0)
        parts.watch.tick()
    report = parts.watch.report
    assert (1, 20, 240.0) == (
        report.totals.windows,
        report.sites[LAYER, "pre"].rows,
        (report.window_ended or 0) - (report.window_started or 0),
    )


def test_a_quiet_hour_closes_no_window(bench: Callable[..., Bench]) -> None:
    """Without traffic no window is closed, however much time goes by."""
    parts = bench()
    for _ in range(60):
        parts.clock.advance(60.0)
        parts.watch.tick()
    assert (0, "warming") == (parts.watch.report.totals.windows, parts.watch.report.verdict)


def test_without_a_length_windows_close_by_hand_alone(bench: Callable[..., Bench]) -> None:
    """With window_seconds=None ticks flush and never close."""
    parts = bench(window_seconds=None)
    for _ in range(5):
        parts.serve()
        parts.clock.advance(1e6)
        parts.watch.tick()
    assert 0 == parts.watch.report.totals.windows
    assert 1 == parts.watch.close_window().totals.windows
    assert 320 == parts.watch.report.sites[LAYER, "pre"].rows


def test_closing_by_hand_starts_the_next_timed_window(bench: Callable[..., Bench]) -> None:
    """A window closed by hand resets the time of the next one."""
    parts = bench()
    parts.clock.advance(59.0)
    parts.serve()
    parts.watch.close_window()
    parts.serve()
    parts.clock.advance(2.0)
    parts.watch.tick()
    assert 1 == parts.watch.report.totals.windows


def test_the_way_from_warming_over_ok_to_ticket(bench: Callable[..., Bench]) -> None:
    """A recorded baseline arms, calm traffic is ok, a lasting shift is a ticket at the layer, and calm heals it."""
    parts = bench()
    assert "warming" == parts.windows(40).verdict
    certificate = parts.watch.record_baseline("calm", arm=True)
    assert (True, 40, 0) == (certificate.armed, certificate.windows, certificate.left_out)
    assert ("warming", "calm") == (parts.watch.report.verdict, parts.watch.report.baseline)
    report = parts.windows(1)
    assert ("ok", ()) == (report.verdict, report.drifting)
    assert certificate == report.certificate
    report = parts.windows(1, shift=1.0)
    assert ("ticket", (LAYER,)) == (report.verdict, report.drifting)
    seen = report.sites[LAYER, "pre"]
    assert ("ticket", "shift", 1, report.window_started) == (seen.alarm, seen.family, seen.horizon, seen.onset)
    assert seen.evidence == pytest.approx(seen.surprise / certificate.ticket_limit)
    assert seen.surprise > certificate.ticket_limit
    assert "ok" == parts.windows(1).verdict
    assert {""} == {site.alarm for site in parts.watch.report.sites.values()}


def test_a_long_baseline_may_page_for_drift(bench: Callable[..., Bench]) -> None:
    """From a hundred independent looks on gross drift is a page; until then the certificate says how many windows it takes."""
    parts = bench()
    parts.windows(60)
    assert "does not page: that takes about" in parts.watch.record_baseline("short").paging_reason
    parts.windows(120)
    certificate = parts.watch.record_baseline("long", arm=True)
    assert (True, "") == (certificate.paging, certificate.paging_reason)
    assert "page" == parts.windows(1, shift=5.0).verdict
    assert "page" == parts.watch.report.sites[LAYER, "pre"].alarm


def test_a_dead_layer_pages_without_a_baseline(bench: Callable[..., Bench]) -> None:
    """Gates closed for all values are a page at the first window, and over with the next sound one."""
    parts = bench()
    report = parts.windows(1, shift=-20.0)
    assert ("page", "dead") == (report.verdict, report.sites[LAYER, "post"].gross)
    assert "warming" == parts.windows(1).verdict


def test_a_hit_pages_until_a_clean_window_has_closed(bench: Callable[..., Bench]) -> None:
    """A non-finite pass is a page at once, names its layer, and is over one clean window after its own."""
    parts = bench()
    parts.serve(nonfinite_forwards=1, nonfinite={LAYER: Nonfinite(1, 1, 0, {("pre", "nan"): 3})}, first_nonfinite=LAYER)
    report = parts.watch.flush()
    assert ("page", LAYER, 1) == (report.verdict, report.first_nonfinite, report.totals.nonfinite_forwards)
    assert "page" == parts.windows(1).verdict
    assert ("warming", None) == (parts.windows(1).verdict, parts.watch.report.first_nonfinite)


def test_a_baseline_stored_unarmed_arms_by_name_and_as_the_latest(bench: Callable[..., Bench]) -> None:
    """What was recorded is in the store under its name, and `arm` finds it by name or as the newest."""
    parts = bench()
    parts.windows(20)
    parts.watch.record_baseline("first")
    parts.clock.advance(1.0)
    parts.watch.record_baseline("second")
    assert (None, ("first", "second")) == (parts.watch.report.baseline, parts.store.names("model", "1"))
    parts.watch.arm("first")
    assert "first" == parts.watch.report.baseline
    parts.watch.arm()
    assert "second" == parts.watch.report.baseline


def test_refusals_about_baselines_are_sentences(bench: Callable[..., Bench]) -> None:
    """Nothing to record, a reserved name, a name that is taken, too few windows, an unknown name: each says what to do."""
    parts = bench()
    with pytest.raises(BaselineError, match=r"No window has been closed yet.*let traffic run"):
        parts.watch.record_baseline("early")
    with pytest.raises(BaselineError, match=r'cannot be called "latest".*choose another name'):
        parts.watch.record_baseline("latest")
    parts.windows(3)
    with pytest.raises(BaselineError, match=r"'few' is neither stored nor armed: .*9 more"):
        parts.watch.record_baseline("few", arm=True)
    assert () == parts.store.names("model", "1")
    parts.watch.record_baseline("few")
    with pytest.raises(BaselineError, match=r"stored already.*give another name"):
        parts.watch.record_baseline("few")
    with pytest.raises(BaselineError, match=r"'few' cannot be armed: .*9 more"):
        parts.watch.arm("few")
    with pytest.raises(UnknownBaselineError, match=r'No baseline "other".*there are "few"'):
        parts.watch.arm("other")


def test_windows_with_hits_are_left_out_and_too_many_refused(bench: Callable[..., Bench]) -> None:
    """A window with non-finite values is left out of a baseline and counted; above a tenth the recording is refused."""
    parts = bench()
    parts.windows(20)
    parts.serve(first_nonfinite=LAYER)
    parts.watch.close_window()
    assert 1 == parts.watch.record_baseline("v1").left_out
    for _ in range(3):
        parts.serve(dropped_rows=1)
        parts.watch.close_window()
    with pytest.raises(BaselineError, match="4 of 24 windows"):
        parts.watch.record_baseline("v2")


def test_a_failing_flush_is_counted_and_tried_again(bench: Callable[..., Bench], caplog: pytest.LogCaptureFixture) -> None:
    """One failed drain is logged and counted in the published report; the next one works, and the count starts anew."""
    parts = bench(breaker_limit=2)
    drain = parts.source.drain
    for turn in range(6):
        parts.source.drain = _broken if turn % 2 == 0 else drain
        parts.serve()
        parts.watch.tick()
        assert {"flush": turn // 2 + 1} == parts.watch.report.totals.errors
    assert not parts.source.closed
    assert 3 == sum("a flush failed" in record.getMessage() for record in caplog.records)


def _broken(*_args: Any) -> Any:
    raise OSError("on purpose")


def test_a_watch_whose_flushes_keep_failing_takes_itself_off_and_says_so(
    bench: Callable[..., Bench], caplog: pytest.LogCaptureFixture
) -> None:
    """At the limit the hooks come off, every site is blind with the reason, the verdict is blind, and later ticks stay quiet."""
    parts = bench(breaker_limit=3)
    parts.source.drain = _broken
    for _ in range(5):
        parts.watch.tick()
    assert parts.source.closed
    report = parts.watch.report
    assert ("blind", {"flush": 5}) == (report.verdict, report.totals.errors)
    assert "took itself off after 3 failed flushes" in parts.watch.sites[0].reason
    assert ["WARNING", "ERROR"] == [record.levelname for record in caplog.records]


def test_a_sink_that_fails_costs_nobody_else(bench: Callable[..., Bench], caplog: pytest.LogCaptureFixture) -> None:
    """A sink's failure is counted and logged; the report is published and the other sinks get it."""
    parts = bench()
    parts.sink.write = _broken
    other = MemorySink()
    parts.watch._sinks = (parts.sink, other)
    parts.serve()
    parts.watch.flush()
    assert [64] == [report.totals.forwards for report in other.reports]
    assert {"sink": 1} == parts.watch.flush().totals.errors
    assert "sink failed" in caplog.text


def test_detaching_publishes_the_remainder_and_refuses_afterwards(bench: Callable[..., Bench]) -> None:
    """The last batch is in the last report; what needs a model then raises DetachedError, and detaching again is nothing."""
    parts = bench()
    parts.serve(rows=7)
    parts.watch.detach()
    assert (7, True) == (parts.watch.report.totals.forwards, parts.source.closed)
    calls: list[Callable[[], Any]] = [
        parts.watch.close_window,
        parts.watch.serve,
        parts.watch.arm,
        lambda: parts.watch.record_baseline("late"),
    ]
    for call in calls:
        with pytest.raises(DetachedError, match="The watch of 'model' has been detached; attach again"):
            call()
    parts.watch.detach()
    assert "detached" in repr(parts.watch)


def test_detaching_succeeds_when_the_last_flush_fails(bench: Callable[..., Bench], caplog: pytest.LogCaptureFixture) -> None:
    """A source that fails at the very end is logged, and the watch comes off all the same."""
    parts = bench()
    parts.source.drain = _broken
    parts.watch.detach()
    assert "the last flush failed" in caplog.text
    with pytest.raises(DetachedError):
        parts.watch.close_window()


class Moody(MemorySink):
    """A sink that fails while it is told to."""

    failing = True

    def write(self, report: Report) -> None:
        if self.failing:
            raise OSError("on purpose")
        super().write(report)


def test_a_sink_that_goes_on_failing_is_logged_once(bench: Callable[..., Bench], caplog: pytest.LogCaptureFixture) -> None:
    """Each failure is counted and the first in a row logged, also where another sink beside it works; after a success, anew."""
    parts, moody = bench(), Moody()
    parts.watch._sinks = (parts.sink, moody)
    for failing, logged in ((True, 1), (True, 1), (False, 1), (True, 2)):
        moody.failing = failing
        parts.watch.flush()
        assert logged == caplog.text.count("a sink failed")
    assert {"sink": 3} == parts.watch.flush().totals.errors


class Closings:
    """A sink of windows that keeps what it is told, or fails at it."""

    part = "history"

    def __init__(self, error: Exception | None = None) -> None:
        self.seen: list[tuple[Window, Report]] = []
        self.closed = 0
        self.error = error

    def take(self, window: Window, report: Report) -> None:
        if self.error is not None:
            raise self.error
        self.seen.append((window, report))

    def close(self) -> None:
        self.closed += 1


def test_sinks_of_windows_get_each_closed_window_whole(bench: Callable[..., Bench]) -> None:
    """Every closed window comes with its histograms and the report of that moment; one that fails is counted under its own name."""
    parts, sink = bench(), Closings()
    assert isinstance(sink, WindowSink)
    parts.watch._window_sinks = (Closings(OSError("disk full")), sink)
    report = parts.windows(3)
    assert 3 == len(sink.seen)
    assert report is sink.seen[-1][1]
    assert [64 * 8] * 3 == [window.points[LAYER, "pre"].histogram.finite for window, _ in sink.seen]
    assert {"history": 3} == parts.watch.flush().totals.errors
    parts.watch.detach()
    parts.watch.detach()
    assert 1 == sink.closed


def test_an_idle_stretch_is_in_no_window_that_is_judged(bench: Callable[..., Bench]) -> None:
    """Its minutes are handed on as windows without a pass, and the next window begins with the minute in which traffic comes back."""
    parts, kept = bench(), Closings()
    parts.watch._window_sinks = (kept,)

    def minute(rows: int) -> None:
        if rows:
            parts.serve(rows=rows)
        parts.clock.advance(60.0)
        parts.watch.tick()

    for rows in (64, 0, 0, 0, 64):
        minute(rows)
    assert [64, 0, 0, 0, 64] == [window.forwards for window, _ in kept.seen]
    assert [60.0] * 5 == [window.ended - window.started for window, _ in kept.seen]
    assert all(before.ended == after.started for (before, _), (after, _) in pairwise(kept.seen))
    assert 2 == parts.watch.report.totals.windows
    minute(MINIMUM // 2)
    minute(MINIMUM // 2)
    assert 120.0 == kept.seen[-1][0].ended - kept.seen[-1][0].started, "thin traffic is no idle stretch"


def test_a_baseline_of_another_width_costs_judgement_and_not_the_guard() -> None:
    """Windows that the armed baseline does not fit are closed, unjudged and counted; the watch stays on, and a NaN is told."""
    bench, kept = Bench(), Closings()
    bench.watch._window_sinks = (kept,)
    bench.windows(30)
    bench.watch.record_baseline("calm", arm=True)
    for _ in range(3 * bench.watch._config.breaker_limit):
        pre = bench.rng.standard_normal((64, 12)).astype(np.float32)
        bench.source.queue.append(Drained(forwards=1, samples=1, rows=(Rows(LAYER, "float32", pre, pre * ndtr(pre)),)))
        bench.clock.advance(61.0)
        bench.watch.tick()
    totals = bench.watch.report.totals
    assert ({"judge": 15}, 45) == (totals.errors, totals.windows)
    assert 45 == len(kept.seen), "unjudged windows are kept as well"
    bench.source.queue.append(
        Drained(forwards=1, nonfinite_forwards=1, nonfinite={LAYER: Nonfinite(1, 1, 0, {("pre", "nan"): 1})}, first_nonfinite=LAYER)
    )
    bench.watch.tick()
    assert ("page", LAYER) == (bench.watch.report.verdict, bench.watch.report.first_nonfinite)
    assert "observed" == bench.watch.sites[0].state
