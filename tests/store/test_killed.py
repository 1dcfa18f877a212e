"""A process that is killed while it records: the store opens, what was there is intact, what was under way is whole or absent."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event

from geluwatch.core import histogram
from geluwatch.records import Baseline, Certificate, Moments, PointWindow, Window
from geluwatch.store import SqlBaselines

OUTSIDE, WITHIN, READY = 0, 1, 2
WINDOWS = 40


def recorded(name: str) -> Baseline:
    """Return a baseline that follows from its name, large enough to take a while to write."""
    chance = np.random.default_rng(int.from_bytes(name.encode()))
    points: dict[Any, PointWindow] = {
        (f"layer.{layer}", "pre"): PointWindow(
            histogram.from_values(chance.normal(size=256).astype(np.float32)),
            Moments(64, chance.normal(size=256), chance.exponential(size=256)),
        )
        for layer in range(4)
    }
    windows = tuple(Window(60.0 * number, 60.0 * number + 60.0, 8, 8, points) for number in range(WINDOWS))
    certificate = Certificate(WINDOWS, 0, 2400.0, (1,), 9.0, 1, 2.0, 1.0, 7.0, 9.0)
    return Baseline("minilm", "1", name, 1_700_000_000.0, (), windows, certificate)


def record_without_end(url: str, turn: int, state_file: str) -> None:
    """Save one baseline after the other, and say in a shared byte whether a transaction is open."""
    with Path(state_file).open("r+b") as file:
        state = mmap.mmap(file.fileno(), 1)
    store = SqlBaselines(url)
    engine = store._engine  # nobody else has to hear of its transactions
    event.listen(engine, "begin", lambda _: state.__setitem__(0, WITHIN))
    for ended in ("commit", "rollback"):
        event.listen(engine, ended, lambda _: state.__setitem__(0, WITHIN))
    event.listen(engine.pool, "checkin", lambda *_: state.__setitem__(0, OUTSIDE))
    state[0] = READY
    for number in range(10_000):
        store.save(recorded(f"{turn:03d}-{number:04d}"))


@pytest.fixture
def kill(tmp_path: Path) -> Callable[[str, int, float], int]:
    """Return what lets a recorder run for so many seconds and kills it, and says what it was doing then.

    Every other time it is killed within some two milliseconds of the next BEGIN, for transactions are short.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["geluwatch.store", "geluwatch.core.histogram", __name__])
    state_file = tmp_path / "state"
    state_file.write_bytes(bytes([OUTSIDE]))

    def run(url: str, turn: int, seconds: float) -> int:
        state_file.write_bytes(bytes([OUTSIDE]))
        process = context.Process(target=record_without_end, args=(url, turn, str(state_file)))
        process.start()
        deadline = time.monotonic() + 60.0
        while state_file.read_bytes()[0] == OUTSIDE:
            assert process.is_alive(), process.exitcode
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(seconds)
        while turn % 2 and state_file.read_bytes()[0] != WITHIN:
            assert process.is_alive(), process.exitcode
        time.sleep(0.01 * seconds)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert -signal.SIGKILL == process.exitcode
        return state_file.read_bytes()[0]

    return run


@pytest.mark.parametrize(("kills", "within"), [(20, 3), pytest.param(200, 50, marks=pytest.mark.full)])
def test_killed_while_recording(
    kills: int, within: int, kill: Callable[[str, int, float], int], same: Callable[[Any, Any], bool], tmp_path: Path
) -> None:
    """After each of so many kills at random moments, so many of them within a transaction, everything in the store can be read.

    Old baselines are what they were, and the one that was being written is whole or is not there.
    """
    url = f"sqlite:///{tmp_path}/store.db"
    store, chance = SqlBaselines(url), random.Random(5)
    store.save(recorded("old"))
    known, open_transactions = {"old"}, 0
    for turn in range(kills):
        open_transactions += kill(url, turn, chance.uniform(0.0, 0.25)) == WITHIN
        store.close()
        store = SqlBaselines(url)
        names = set(store.names("minilm", "1"))
        assert known <= names
        for name in (names - known) | {"old"}:
            assert same(recorded(name), store.load("minilm", "1", name)), name
        known = names
    for name in known:
        assert same(recorded(name), store.load("minilm", "1", name)), name
    store.save(recorded("after"))
    store.close()
    print(f"{kills} kills, {open_transactions} of them between BEGIN and COMMIT; {len(known)} baselines whole")
    assert open_transactions >= within
