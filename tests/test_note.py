"""What the application notes, on its way into reports and metrics; and scrapes, which wait for nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import torch
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from torch import nn

import geluwatch
from geluwatch.config import Config
from geluwatch.core.totals import merged
from geluwatch.errors import ConfigError
from geluwatch.export.otel import instrument
from geluwatch.export.prometheus import render
from geluwatch.records import Application

QUIET = Config(window_seconds=None, flush_seconds=3600.0)


@pytest.fixture
def attached() -> Iterator[Callable[..., geluwatch.Watch]]:
    """Return a maker of watches on a small model, detached at the end."""
    made: list[tuple[nn.Module, geluwatch.Watch]] = []  # a watch ends with its model

    def attach(model: nn.Module | None = None, config: Config = QUIET) -> geluwatch.Watch:
        watched = model or nn.Sequential(nn.Linear(4, 4), nn.GELU())
        made.append((watched, geluwatch.attach(watched, name="model", config=config)))
        return made[-1][1]

    yield attach
    for _, watch in made:
        watch.detach()


def told(watch: geluwatch.Watch) -> dict[str, float]:
    """What Prometheus gets of the application's own numbers."""
    names = ("geluwatch_predictions", "geluwatch_wrong", "geluwatch_accuracy", "geluwatch_quantized", "geluwatch_cost")
    lines = [line for line in render(watch.flush())[0].decode().splitlines() if line.startswith(names)]
    return {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_what_is_noted_is_in_the_next_report_and_exported(attached: Callable[..., geluwatch.Watch]) -> None:
    """Nothing is told before it is noted; counts add up, the last of the others holds, and both exporters have them."""
    watch = attached()
    assert {} == told(watch)
    watch.note(predictions=100, wrong=4, accuracy=0.96)
    watch.note(predictions=50, cost_per_hour=3.5)
    watch.note(accuracy=0.9, quantized_accuracy_delta=-0.02)
    assert Application() == watch.report.totals.application
    expected = {
        "geluwatch_predictions_total": 150.0,
        "geluwatch_wrong_predictions_total": 4.0,
        "geluwatch_accuracy_ratio": 0.9,
        "geluwatch_quantized_accuracy_delta_ratio": -0.02,
        "geluwatch_cost_per_hour": 3.5,
    }
    assert expected == told(watch)
    assert Application(150, 4, 0.9, -0.02, 3.5) == watch.report.totals.application
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    instrument(lambda: watch.report, provider.get_meter("host"))
    data = reader.get_metrics_data()
    assert data is not None
    points = {metric.name: metric.data.data_points for metric in data.resource_metrics[0].scope_metrics[0].metrics}
    provider.shutdown()
    names = ("predictions", "wrong_predictions", "accuracy", "quantized_accuracy_delta", "cost_per_hour")
    assert list(expected.values()) == [points[f"geluwatch.{name}"][0].value for name in names]


def test_counters_can_be_there_from_zero(attached: Callable[..., geluwatch.Watch]) -> None:
    """An application that notes zero predictions at its start has both counters from then on, so that no increase is lost."""
    watch = attached()
    watch.note(predictions=0)
    assert {"geluwatch_predictions_total": 0.0, "geluwatch_wrong_predictions_total": 0.0} == told(watch)
    watch.note()
    assert 2 == len(told(watch))


def test_of_a_refused_call_nothing_is_taken(attached: Callable[..., geluwatch.Watch]) -> None:
    """One bad value refuses the whole call; what was noted before stays."""
    watch = attached()
    watch.note(predictions=10, wrong=1)
    for bad in ({"accuracy": 97.0}, {"wrong": 6}, {"cost_per_hour": -1.0}, {"quantized_accuracy_delta": torch.tensor(0.1)}):
        with pytest.raises(ConfigError, match=r"^\w+ must be .+\.$"):
            watch.note(**{"predictions": 5, **bad})  # type: ignore[arg-type]  # that is the point
    assert {"geluwatch_predictions_total": 10.0, "geluwatch_wrong_predictions_total": 1.0} == told(watch)


def test_threads_lose_nothing(attached: Callable[..., geluwatch.Watch]) -> None:
    """Eight threads that note while another flushes: every prediction is counted once."""
    watch = attached()

    def work(_: int) -> None:
        for _ in range(500):
            watch.note(predictions=3, wrong=1)

    with ThreadPoolExecutor(9) as pool:
        done = [pool.submit(work, turn) for turn in range(8)]
        while not all(each.done() for each in done):
            watch.flush()
    assert Application(12_000, 4_000) == watch.flush().totals.application


def test_noting_waits_for_no_flush(attached: Callable[..., geluwatch.Watch]) -> None:
    """While another thread holds the watch's lock, a thousand notes take no time to speak of."""
    watch = attached()
    with holding(watch._lock):
        began = time.monotonic()
        for _ in range(1000):
            watch.note(predictions=1, accuracy=0.5)
        assert time.monotonic() - began < 5.0
    assert Application(1000, None, 0.5) == watch.flush().totals.application


def test_noting_goes_on_when_flushes_fail(attached: Callable[..., geluwatch.Watch], monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that can no longer be drained does not keep the application's numbers from the report."""
    watch = attached()

    def broken() -> None:
        raise OSError("on purpose")

    monkeypatch.setattr(watch._source, "drain", broken)
    watch.note(accuracy=0.75)
    watch.tick()
    assert (0.75, {"flush": 1}) == (watch.report.totals.application.accuracy, watch.report.totals.errors)
    monkeypatch.undo()


def test_what_was_noted_last_is_in_the_last_report(attached: Callable[..., geluwatch.Watch]) -> None:
    """Detaching publishes it; after that noting does nothing, whatever it is given, so that the application may stay as it is."""
    watch = attached()
    watch.note(predictions=7)
    watch.detach()
    watch.note(predictions=1)
    watch.note(accuracy="high")  # type: ignore[arg-type]  # that is the point
    assert Application(7) == watch.report.totals.application


def test_ranks_are_counted_together(attached: Callable[..., geluwatch.Watch]) -> None:
    """Counters of several processes add up as `gather` merges them; alone it gives this one's own."""
    watches = [attached(), attached()]
    watches[0].note(predictions=10, wrong=2, cost_per_hour=1.0)
    watches[1].note(predictions=5, wrong=1, accuracy=0.5, cost_per_hour=2.0)
    totals = [watch.gather() for watch in watches]
    assert Application(10, 2, None, None, 1.0) == totals[0].application
    assert Application(15, 3, 0.5, None, 3.0) == merged(totals).application


_FORKED = """
import os, threading, time, geluwatch
from torch import nn
model = nn.Sequential(nn.Linear(4, 4), nn.GELU())
watch = geluwatch.attach(model, name="model", config=geluwatch.Config(flush_seconds=3600.0))
watch.note(predictions=10, accuracy=0.5); watch.flush(); watch.note(predictions=5)
holder = threading.Thread(target=lambda: watch._inbox._lock.acquire() and time.sleep(0.5))
holder.start(); time.sleep(0.1)
child = os.fork()
if child == 0:
    watch.note(predictions=1)
    said = watch.flush().totals.application
    os._exit(0 if (said.predictions, said.accuracy) == (1, None) else 3)
watch._inbox._lock.release()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), watch.flush().totals.application.predictions, flush=True)
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_starts_from_nothing() -> None:
    """What the parent noted, reported or not, is the parent's; a lock that was held at the fork holds nobody up."""
    done = subprocess.run([sys.executable, "-c", _FORKED], capture_output=True, text=True, timeout=60, check=False)
    assert ("0 15\n", "") == (done.stdout, done.stderr)


class Asleep(nn.Module):
    """A layer that takes a while."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.leave = threading.Event(), threading.Event()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.entered.set()
        assert self.leave.wait(20)
        return x


def scraped(url: str) -> tuple[bytes, float]:
    """One scrape, and the seconds it took."""
    began = time.monotonic()
    with urlopen(f"{url}/metrics", timeout=10) as answer:
        return answer.read(), time.monotonic() - began


def test_a_scrape_does_not_wait_for_a_forward_pass(attached: Callable[..., geluwatch.Watch]) -> None:
    """While a pass runs for as long as it likes, the report before it is served at once, and new ones go on being made."""
    asleep = Asleep()
    model = nn.Sequential(nn.Linear(4, 4), nn.GELU(), asleep)
    watch = attached(model, Config(window_seconds=None, flush_seconds=0.05))
    url = watch.serve()
    running = threading.Thread(target=model, args=(torch.randn(2, 4),))
    running.start()
    assert asleep.entered.wait(5)
    first, report = watch.report, b""
    for _ in range(10):
        report, took = scraped(url)
        assert took < 5.0
        time.sleep(0.05)
    assert first is not watch.report
    assert b"geluwatch_forward_passes_total" in report
    asleep.leave.set()
    running.join(5)
    assert 1 == watch.flush().totals.forwards


def test_a_scrape_does_not_wait_for_the_watch(attached: Callable[..., geluwatch.Watch], monkeypatch: pytest.MonkeyPatch) -> None:
    """While the lock on the monitor is held, scrapes give the last report, the same bytes each time; one that fails does so at once."""
    watch = attached()
    url = watch.serve()
    before, _ = scraped(url)
    with holding(watch._lock):
        for _ in range(3):
            again, took = scraped(url)
            assert (before, True) == (again, took < 5.0)
        monkeypatch.setattr(watch, "_report", None)
        began = time.monotonic()
        with pytest.raises(HTTPError, match="500") as caught:
            scraped(url)
        caught.value.close()
        assert time.monotonic() - began < 5.0
    monkeypatch.undo()
    assert {"collect": 1} == watch.flush().totals.errors


class holding:  # noqa: N801 - it is used like a function
    """Has another thread hold a lock for the length of a block."""

    def __init__(self, lock: threading.RLock) -> None:  # type: ignore[valid-type]  # it is a function to type checkers
        self._lock = lock
        self._held, self._release = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold)

    def _hold(self) -> None:
        with self._lock:
            self._held.set()
            assert self._release.wait(20)

    def __enter__(self) -> None:
        self._thread.start()
        assert self._held.wait(5)

    def __exit__(self, *_: object) -> None:
        self._release.set()
        self._thread.join(5)
