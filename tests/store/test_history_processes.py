"""Several processes at one history, and processes killed while they thin: every window is in exactly one span afterwards."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event

from geluwatch.core import histogram
from geluwatch.records import Moments, PointWindow, Span, Summary, Window
from geluwatch.retention import DAY, HOUR, Retention
from geluwatch.store import SqlHistory
from geluwatch.store.history import _to_row

MIDNIGHT = 1_700_006_400.0
NOW = MIDNIGHT + 3 * DAY
WINDOWS = 60
"""Of two hours, from two processes."""


def window(number: int) -> Span:
    """Return a window that saw one value, the number: so that whatever it is merged into tells that it is there, and how often."""
    ended = MIDNIGHT + 2 * HOUR * (number + 1) / WINDOWS
    seen = PointWindow(histogram.from_values([float(number)], "float16"), Moments(0, np.zeros(0), np.zeros(0)))
    points: dict[Any, PointWindow] = {("act", "pre"): seen}
    return Span("m", "1", "raw", f"host:{number % 2}", 1, Window(ended - 60.0, ended, 1, 1, points), Summary({"ok": 1}))


def fill(url: str) -> None:
    """Store the windows, in one transaction."""
    with SqlHistory(url)._session(writing=True) as session:
        session.add_all(_to_row(window(number)) for number in range(WINDOWS))


def thin(url: str, together: Any) -> None:
    """Thin to the end, once all are there."""
    store = SqlHistory(url)
    together.wait()
    while store.thin("m", Retention(), NOW):
        pass


def append(url: str, together: Any) -> None:
    """Append windows that come late, once all are there."""
    store = SqlHistory(url)
    together.wait()
    for number in range(WINDOWS, WINDOWS + 6):
        store.append(window(number))


def die(url: str, statement: str) -> None:
    """Thin, and be killed right after a statement's first word, or before the commit."""

    def killed(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    store = SqlHistory(url)
    if statement == "COMMIT":
        event.listen(store._engine, "commit", killed)
    else:
        event.listen(store._engine, "after_cursor_execute", lambda _connection, _cursor, said, *_: said.startswith(statement) and killed())
    while store.thin("m", Retention(), NOW):
        pass


def start(work: Any, *arguments: Any) -> Any:
    """Start a function in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["geluwatch.store", "sqlalchemy.dialects.sqlite", "psycopg", __name__])
    process = context.Process(target=work, args=arguments)
    process.start()
    return process


def kept(url: str) -> tuple[list[tuple[str, int]], dict[float, int]]:
    """Return (resolution, windows) of each span, and how often each window's number is in them."""
    seen: Counter[float] = Counter()
    spans = list(SqlHistory(url).spans("m", None, 0.0, NOW))
    for span in spans:
        found = span.window.points["act", "pre"].histogram
        seen.update(dict(zip(histogram.lattice.lower_edges(found.cells, found.bits).tolist(), found.counts.tolist(), strict=True)))
        assert {"ok": span.windows} == span.summary.verdicts
    return [(span.resolution, span.windows) for span in spans], dict(seen)


def test_processes_thin_one_history_at_once(url: str) -> None:
    """Two thin while a third appends: each window is in one span, and after a last turn each hour is one."""
    fill(url)
    together = multiprocessing.get_context("forkserver").Barrier(3)
    processes = [start(work, url, together) for work in (thin, thin, append)]
    for process in processes:
        process.join()
    assert [0, 0, 0] == [process.exitcode for process in processes]
    assert {float(number): 1 for number in range(WINDOWS + 6)} == kept(url)[1]
    store = SqlHistory(url)
    while store.thin("m", Retention(), NOW):
        pass
    assert [("hour", WINDOWS // 2), ("hour", WINDOWS // 2), ("hour", 6)] == kept(url)[0]


@pytest.mark.parametrize("statement", ["INSERT", "DELETE", "COMMIT"])
def test_a_process_killed_while_it_thins_changes_nothing(url: str, statement: str) -> None:
    """Wherever it is within its transaction, every window is in exactly one span afterwards, and the next one takes over."""
    fill(url)
    process = start(die, url, statement)
    process.join()
    assert -signal.SIGKILL == process.exitcode
    assert ([("raw", 1)] * WINDOWS, {float(number): 1 for number in range(WINDOWS)}) == kept(url)
    store = SqlHistory(url)
    while store.thin("m", Retention(), NOW):
        pass
    assert ([("hour", WINDOWS // 2)] * 2, {float(number): 1 for number in range(WINDOWS)}) == kept(url)
