"""The background thread: it works at intervals, ends when told to or with what it follows, and waits for nobody."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable

import pytest

from geluwatch.background import Background
from tests.test_log import Raising


class Thing:
    """Something to follow."""


def patience(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Wait until a condition holds; return whether it did."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


def alive() -> bool:
    """Return whether a background thread of ours is running."""
    return any(thread.name == "geluwatch" for thread in threading.enumerate())


def test_work_is_done_at_intervals_until_stopped() -> None:
    """The function is called again and again, and not once after `stop` has returned; stopping twice is nothing."""
    calls: list[float] = []
    background = Background(lambda: calls.append(time.monotonic()), lambda: None, 0.01)
    background.start()
    assert patience(lambda: len(calls) >= 3)
    background.stop()
    count = len(calls)
    background.stop()
    time.sleep(0.05)
    assert (count, False) == (len(calls), alive())


def test_stopping_waits_for_no_interval() -> None:
    """A thread that would sleep for an hour ends at once."""
    background = Background(lambda: None, lambda: None, 3600.0)
    background.start()
    began = time.monotonic()
    background.stop()
    assert time.monotonic() - began < 2.0
    assert not alive()


def test_finishing_is_the_last_call_in_its_thread() -> None:
    """A thread that is told to finish makes its last call, once, and ends; where there is none, the caller is told so."""
    calls: list[str] = []
    background = Background(lambda: None, lambda: calls.append(threading.current_thread().name), 3600.0)
    assert not background.finish(5.0)
    background.start()
    assert background.finish(5.0)
    assert not background.finish(5.0)
    assert (["geluwatch"], False) == (calls, alive())


def test_it_comes_at_once_when_asked() -> None:
    """A thread that would sleep for an hour works when it is told to, and not once more because its own work asks for it."""
    calls: list[float] = []
    background = Background(lambda: None, lambda: None, 3600.0)

    def work() -> None:
        calls.append(time.monotonic())
        background.soon()

    background._work = work
    background.start()
    background.soon()
    assert patience(lambda: len(calls) == 1)
    time.sleep(0.05)
    assert 1 == len(calls)
    background.stop()


def test_it_may_be_stopped_from_inside() -> None:
    """The work may stop its own thread, which then ends without waiting for itself."""
    background = Background(lambda: None, lambda: None, 0.01)
    background._work = background.stop
    background.start()
    assert patience(lambda: not alive())


def test_it_ends_with_what_it_follows() -> None:
    """When the object it follows is no more, the last call is made, once, and the thread ends."""
    last: list[int] = []
    thing = Thing()
    background = Background(lambda: None, lambda: last.append(1), 3600.0)
    background.start()
    background.follow(thing)
    assert alive()
    del thing
    gc.collect()
    assert patience(lambda: not alive())
    assert [1] == last


@pytest.mark.parametrize("error", [OSError, SystemExit])
@pytest.mark.parametrize("handler", [None, Raising()], ids=["", "log handler raises"])
def test_nothing_that_the_work_raises_ends_it(
    error: type[BaseException], handler: logging.Handler | None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work that fails is done again at the next interval, and its failure is logged once, where that does not fail as well."""
    calls: list[int] = []

    def work() -> None:
        calls.append(1)
        raise error("on purpose")

    background = Background(work, lambda: None, 0.01)
    monkeypatch.setattr(logging.getLogger("geluwatch"), "handlers", [handler] if handler else [])
    background.start()
    assert patience(lambda: len(calls) >= 3)
    background.stop()
    assert not alive()
    if handler is None:
        assert ["WARNING"] == [record.levelname for record in caplog.records]


def test_after_stopping_it_follows_nothing() -> None:
    """An object that goes after the thread was stopped makes no last call."""
    last: list[int] = []
    thing = Thing()
    background = Background(lambda: None, lambda: last.append(1), 3600.0)
    background.start()
    background.follow(thing)
    background.stop()
    del thing
    gc.collect()
    assert [] == last


def test_following_keeps_nothing_alive() -> None:
    """Neither the thread nor the finalizer keeps what is followed alive, in a cycle or not."""
    thing = Thing()
    thing.me = thing
    background = Background(lambda: None, lambda: None, 3600.0)
    background.start()
    background.follow(thing)
    del thing
    gc.collect()
    assert patience(lambda: not alive())
