"""The agent: windows, baselines, failures and errors, with a source and a clock in the test's own hands."""

from __future__ import annotations

import atexit
import logging
import math
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import geluwatch
import numpy as np
import pytest
import torch
from geluwatch.agent import SystemClock, Watch
from geluwatch.config import Config
from geluwatch.errors import (
    AlreadyAttachedError,
    AttachError,
    BaselineError,
    ConfigError,
    DetachedError,
    GeluwatchError,
    NoGeluError,
    StoreError,
    UnknownBaselineError,
)
from geluwatch.ports import BaselineStore, Clock, Sink, Source
from geluwatch.records import Drained, Nonfinite, Report, Rows, Site
from geluwatch.testing import FakeClock, ListSource, MemoryBaselines, MemorySink
from torch import nn

LAYER = "body.act"
SITES = (Site(LAYER, 0, "module", "GELU", "erf"),)
MINIMUM = 16


def batch(rng: np.random.Generator, rows: int, shift: float = 0.0, **others: Any) -> Drained:
    """Return a drained batch of normal rows before the GELU, and their positive part after it."""
    pre = (rng.standard_normal((rows, 8)) + shift).astype(np.float32)
    return Drained(forwards=rows, samples=rows, rows=(Rows(LAYER, "float32", pre, np.maximum(pre, 0)),) if rows else (), **others)


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
    report = parts.windows(1, shift=1.0)
    assert ("ticket", (LAYER,)) == (report.verdict, report.drifting)
    assert "ok" == parts.windows(1).verdict


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
    with pytest.raises(BaselineError, match='cannot be called "latest".*choose another name'):
        parts.watch.record_baseline("latest")
    parts.windows(3)
    with pytest.raises(BaselineError, match=r"'few' is neither stored nor armed: .*9 more"):
        parts.watch.record_baseline("few", arm=True)
    assert () == parts.store.names("model", "1")
    parts.watch.record_baseline("few")
    with pytest.raises(BaselineError, match="stored already.*give another name"):
        parts.watch.record_baseline("few")
    with pytest.raises(BaselineError, match=r"'few' cannot be armed: .*9 more"):
        parts.watch.arm("few")
    with pytest.raises(UnknownBaselineError, match='No baseline "other".*there are "few"'):
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
        parts.source.drain = _broken if turn % 2 == 0 else drain  # type: ignore[method-assign]
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
    parts.source.drain = _broken  # type: ignore[method-assign]
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
    parts.sink.write = _broken  # type: ignore[method-assign]
    other = MemorySink()
    parts.watch._sinks = (parts.sink, other)
    parts.serve()
    parts.watch.flush()
    assert (1, 1) == (len(other.reports), other.reports[0].totals.windows + 1)
    assert {"sink": 1} == parts.watch.flush().totals.errors or parts.watch.report.totals.errors["sink"] >= 1
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
    parts.source.drain = _broken  # type: ignore[method-assign]
    parts.watch.detach()
    assert "the last flush failed" in caplog.text
    with pytest.raises(DetachedError):
        parts.watch.close_window()


def gelu_model() -> nn.Module:
    """Return a model with one GELU."""
    return nn.Sequential(nn.Linear(4, 4), nn.GELU())


def test_the_background_thread_flushes_and_closes_windows() -> None:
    """Attached for real, the watch publishes and closes windows by itself while the model runs."""
    model = gelu_model()
    config = Config(window_seconds=0.05, flush_seconds=0.01, minimum_rows=2, cost_budget=1.0)
    reached = threading.Event()
    with geluwatch.attach(model, name="model", config=config) as watch:
        for _ in range(500):
            model(torch.randn(4, 4))
            if watch.report.totals.windows >= 3:
                reached.set()
                break
            reached.wait(0.01)
        assert reached.is_set()
    assert "ok" != watch.report.verdict
    assert not any(thread.name == "geluwatch" for thread in threading.enumerate())


def test_leaving_the_context_by_an_error_detaches_and_lets_it_through() -> None:
    """A watch used as a context comes off when the block raises, and the error is the block's own."""
    model = gelu_model()
    with pytest.raises(ZeroDivisionError), geluwatch.attach(model, name="model"):
        raise ZeroDivisionError
    geluwatch.attach(model, name="model").detach()


def test_serving_gives_one_address_and_ends_with_the_watch() -> None:
    """`serve` returns the same working address each time, and nothing listens there after detach."""
    with geluwatch.attach(gelu_model(), name="model", config=Config(flush_seconds=3600.0)) as watch:
        url = watch.serve()
        assert url == watch.serve()
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
            assert b"geluwatch_forward_passes_total" in answer.read()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url}/metrics", timeout=2)


def test_attaching_and_detaching_leaves_nothing_behind_at_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each watch registers one call at exit and takes it back, also when its model goes first."""
    registered: list[object] = []
    monkeypatch.setattr(atexit, "register", registered.append)
    monkeypatch.setattr(atexit, "unregister", lambda function: registered.remove(function) if function in registered else None)
    watch = geluwatch.attach(gelu_model(), name="gone", config=Config(flush_seconds=3600.0))
    watch._background._thread.join(timeout=5.0)  # type: ignore[union-attr]  # started
    assert [] == registered
    with geluwatch.attach(gelu_model(), name="model"):
        assert 1 == len(registered)
    assert [] == registered
    watch.detach()


_BY_ITSELF = """
import geluwatch, torch
from torch import nn
model = nn.Sequential(nn.Linear(4, 4), nn.GELU())
watch = geluwatch.attach(model, name="model", store={store!r})
model(torch.randn(2, 4))
print("done")
"""


def test_a_process_that_never_detaches_ends_in_peace() -> None:
    """A script that just ends, watch and all, exits at once with status 0 and an empty standard error."""
    done = subprocess.run([sys.executable, "-c", _BY_ITSELF.format(store=None)], capture_output=True, text=True, timeout=60, check=False)
    assert (0, "done\n", "") == (done.returncode, done.stdout, done.stderr)


_FORKED = """
import os, threading, time, geluwatch, torch
from torch import nn
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(4, 4), nn.GELU())
watch = geluwatch.attach(model, name="model", config=geluwatch.Config(window_seconds=None, flush_seconds=0.02))
watch.serve()
holder = threading.Thread(target=lambda: watch._lock.acquire() and time.sleep(0.5))
holder.start(); time.sleep(0.1)
child = os.fork()
if child == 0:
    model(torch.full((2, 4), float("nan")))
    deadline = time.monotonic() + 10
    while watch.report.totals.nonfinite_forwards < 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    watch.close_window(); watch.serve(); watch.detach()
    os._exit(0 if watch.report.totals.nonfinite_forwards == 1 else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), watch.report.totals.nonfinite_forwards)
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_goes_on_by_itself() -> None:
    """A worker forked with a watched model, at a moment when the lock was held, flushes, serves and detaches on its own."""
    done = subprocess.run([sys.executable, "-c", _FORKED], capture_output=True, text=True, timeout=60, check=False)
    assert ("0 0\n", "") == (done.stdout, done.stderr)


def refused(error: type[GeluwatchError], sentence: str, model: Any = None, **arguments: Any) -> None:
    """Check that attaching is refused with one clear sentence, and leaves the model as it was."""
    model = gelu_model() if model is None else model
    with pytest.raises(error) as caught:
        geluwatch.attach(model, **{"name": "model", **arguments})
    assert sentence == str(caught.value)
    if isinstance(model, nn.Module):
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_what_cannot_be_watched_is_refused_in_one_sentence() -> None:
    """No module, a class, no GELU, a second watch: each is refused with what was wrong and what to do."""
    refused(AttachError, "Only a torch.nn.Module can be watched, got function; pass the model itself.", lambda x: x)
    refused(AttachError, "Only a torch.nn.Module can be watched, got type; pass the model itself.", nn.GELU)
    refused(
        NoGeluError,
        "No GELU module was found in this Sequential; if it has one of a class of its own, name the class in Config(gelu_classes=...).",
        nn.Sequential(nn.Linear(2, 2), nn.ReLU()),
    )
    model = gelu_model()
    with geluwatch.attach(model, name="model"), pytest.raises(AlreadyAttachedError) as caught:
        geluwatch.attach(model, name="model")
    assert "This Sequential is being watched already; detach the other watch first." == str(caught.value)


@pytest.mark.parametrize("value", ["", "  ", None, 7])
def test_names_and_versions_must_be_words(value: Any) -> None:
    """An empty or foreign name or version is refused with its value."""
    refused(ConfigError, f"The model's name must be a non-empty string, got {value!r}.", name=value)
    refused(ConfigError, f"The model's version must be a non-empty string, got {value!r}.", version=value)


@pytest.mark.parametrize("key", ["", "9lives", "a-b", "größe", "__name__", 7])
def test_label_names_must_be_prometheuss(key: Any) -> None:
    """A label name that Prometheus would not take is refused."""
    refused(ConfigError, f"Label name {key!r} is not usable in Prometheus; use letters, digits and underscores.", labels={key: "x"})


@pytest.mark.parametrize("key", ["model", "layer", "le", "job", "instance", "pod", "namespace", "rank"])
def test_label_names_that_are_taken_are_refused(key: str) -> None:
    """A label name of our own or of Prometheus is refused, and so is a value that is no string."""
    refused(ConfigError, f"Label name {key!r} is geluwatch's or Prometheus's own; choose another.", labels={key: "x"})
    refused(ConfigError, "Label 'region' must have a string value, got 1.", labels={"region": 1})


def test_a_store_must_be_one() -> None:
    """A store that is neither URL nor store, or cannot be opened, is refused, and the hooks come off again."""
    refused(ConfigError, "store must be a SQLAlchemy URL, a BaselineStore or None, got 7.", store=7)
    with pytest.raises(StoreError):
        geluwatch.attach(model := gelu_model(), name="model", store="no://such/database")
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


FLOATS = ["window_seconds", "flush_seconds", "cost_budget", "tickets_per_month"]
WHOLES = ["rows_per_window", "rows_per_forward", "minimum_rows", "breaker_limit", "pending_bytes"]


@pytest.mark.parametrize("field", FLOATS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, -1.0, "1", True])
def test_settings_must_be_positive_numbers(field: str, value: Any) -> None:
    """Every setting in floating point refuses NaN, infinities, zero, negatives and other types, with field and value."""
    with pytest.raises(ConfigError) as caught:
        Config(**{field: value})
    assert f"{field} must be a positive finite number, got {value!r}." == str(caught.value)


@pytest.mark.parametrize("field", WHOLES)
@pytest.mark.parametrize("value", [0, -1, 1.5, math.nan, "1", True, None])
def test_counts_must_be_whole(field: str, value: Any) -> None:
    """Every setting that counts refuses what is no whole number of at least 1, with field and value."""
    with pytest.raises(ConfigError) as caught:
        Config(**{field: value})
    assert f"{field} must be a whole number of at least 1, got {value!r}." == str(caught.value)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"cost_budget": 1.5}, "cost_budget must be a share of at most 1, got 1.5; 0.01 is one percent."),
        ({"horizons": ()}, "horizons must be ascending and distinct, got (); for example (1, 4, 16)."),
        ({"horizons": (4, 1)}, "horizons must be ascending and distinct, got (4, 1); for example (1, 4, 16)."),
        ({"horizons": (1, 1)}, "horizons must be ascending and distinct, got (1, 1); for example (1, 4, 16)."),
        ({"horizons": (0, 1)}, "horizons must be a whole number of at least 1, got 0."),
        ({"gelu_classes": (7,)}, "gelu_classes must hold module classes, got 7; pass the class, not an instance."),
    ],
)
def test_other_settings_are_checked(settings: dict[str, Any], sentence: str) -> None:
    """Shares, horizons and classes out of range are refused in one sentence."""
    with pytest.raises(ConfigError) as caught:
        Config(**settings)
    assert sentence == str(caught.value)


def test_logging_says_nothing_in_calm(caplog: pytest.LogCaptureFixture) -> None:
    """A watch that does its work logs nothing."""
    caplog.set_level(logging.DEBUG, logger="geluwatch")
    model = gelu_model()
    with geluwatch.attach(model, name="model", config=Config(window_seconds=None)) as watch:
        model(torch.full((2, 4), math.nan))
        watch.close_window()
    assert [] == caplog.records
