"""A log handler of the user's that raises, which is no way out of a round of the watch."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from geluwatch.config import Config
from geluwatch.records import Site
from geluwatch.testing import FakeClock, ListSource, MemoryBaselines, MemorySink
from geluwatch.watch import Watch
from tests.test_log import Raising

SITES = (Site("body.act", 0, "module", "GELU", "erf"),)


def broken(*_args: Any) -> Any:
    """Fail, whatever is asked."""
    raise OSError("on purpose")


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """A watch of a source in the test's hands, while every log record of ours raises."""
    monkeypatch.setattr(logging.getLogger("geluwatch"), "handlers", [Raising()])
    config = Config(window_seconds=None, breaker_limit=3)
    made = Watch(
        ListSource(SITES), MemoryBaselines(), FakeClock(), config, name="model", version="1", labels={}, sinks=(MemorySink(), MemorySink())
    )
    yield made
    made.detach()


def test_a_flush_that_fails_is_counted_and_tried_again(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """One failed drain is in the published report, and the next one works."""
    with monkeypatch.context() as patch:
        patch.setattr(watch._source, "drain", broken)
        watch.tick()
    assert {"flush": 1} == watch.report.totals.errors
    watch.tick()
    assert ({"flush": 1}, 0) == (watch.report.totals.errors, watch._failures)


def test_a_watch_whose_flushes_keep_failing_takes_itself_off(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit the hooks come off and the census says so."""
    monkeypatch.setattr(watch._source, "drain", broken)
    for _ in range(3):
        watch.tick()
    assert watch._source.closed  # type: ignore[attr-defined]  # the test's own source
    assert "took itself off after 3 failed flushes" in watch.sites[0].reason


def test_a_sink_that_fails_costs_no_flush(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure is the sink's, round after round; the other sink is told, and the watch stays on."""
    first, second = watch._sinks
    monkeypatch.setattr(first, "write", broken)
    for _ in range(5):
        watch.tick()
    assert {"sink": 4} == watch.report.totals.errors  # the fifth came after the report was made
    assert (5, False) == (len(second.reports), watch._source.closed)  # type: ignore[attr-defined]  # the test's own
