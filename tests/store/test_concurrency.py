"""Several processes at one database, as real processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from geluwatch.records import Baseline
from geluwatch.store import SqlBaselines, audit
from geluwatch.store.promotion import Policy

PREAMBLE = """
import sys
from geluwatch.errors import BaselineError
from geluwatch.records import Baseline, Certificate, Window
from geluwatch.store import SqlBaselines

url, number = sys.argv[1], int(sys.argv[2])
windows = (Window(0.0, 1.0, number, 0, {}),) * 50
baseline = Baseline("minilm", "1", "shared", 1.0, (), windows, Certificate(0, 0, 0.0, (), 0.0, 1, 1.0, 1.0, 9.0, 9.0))

def ready():
    print("ready", flush=True)
    sys.stdin.readline()

"""
OPEN = """
ready()
SqlBaselines(url).close()
"""
SAVE = """
store = SqlBaselines(url)
ready()
try:
    store.save(baseline)
    print("saved")
except BaselineError as refused:
    print(refused)
"""
APPEND = """
from dataclasses import replace
from geluwatch.store import audit

store = SqlBaselines(url, actor=f"actor {number}")
ready()
for turn in range(8):
    store.save(replace(baseline, name=f"{number}-{turn}", windows=()))
    store.note_armed(replace(baseline, name=f"{number}-{turn}"))
print(*audit.flaws(store.log()))
"""
DIE_WITHIN_SAVE = """
import os
from sqlalchemy import event
from sqlalchemy.engine import Engine

@event.listens_for(Engine, "after_cursor_execute")
def die(connection, cursor, statement, *rest):
    if "INSERT INTO geluwatch_baseline_window" in statement:
        os.kill(os.getpid(), 9)

ready()
SqlBaselines(url).save(baseline)
"""


def race(script: str, url: str, count: int) -> list[tuple[int, str, str]]:
    """Run a script in several processes, released at the same moment; return (exit status, output, errors) of each."""
    command = [sys.executable, "-c", PREAMBLE + script, url]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    runners = [subprocess.Popen([*command, str(number)], text=True, **pipes) for number in range(count)]
    for runner in runners:
        assert runner.stdout is not None
        assert "ready\n" == runner.stdout.readline()
    for runner in runners:
        assert runner.stdin is not None
        runner.stdin.write("go\n")
        runner.stdin.flush()
    outputs = [runner.communicate(timeout=60) for runner in runners]
    return [(runner.returncode, *output) for runner, output in zip(runners, outputs, strict=True)]


def set_to(level: str, url: str) -> str:
    """Return the URL of a PostgreSQL database with another isolation of its transactions than the server's own."""
    setting = f"-c default_transaction_isolation={level.replace(' ', chr(92) + ' ')}"
    return f"{url}?options={quote(setting)}"


def test_processes_open_a_new_database_at_once(url: str, baseline: Callable[..., Baseline]) -> None:
    """All of them succeed, and the tables are there once."""
    assert [(0, "", "")] * 4 == race(OPEN, url, 4)
    store = SqlBaselines(url)
    store.save(baseline())
    assert ("v1",) == store.names("minilm", "1")


def test_processes_save_one_name_at_once(url: str) -> None:
    """One of them wins with all its windows; the others are told that the name is taken."""
    SqlBaselines(url).close()
    results = race(SAVE, url, 4)
    assert [(0, "")] * 4 == [(status, errors) for status, _, errors in results]
    answers = [output.strip() for _, output, _ in results]
    assert 1 == answers.count("saved")
    assert 3 == sum('"shared" is stored already' in answer for answer in answers)
    windows = SqlBaselines(url).load("minilm", "1", "shared").windows
    assert [answers.index("saved")] * 50 == [window.forwards for window in windows]


def test_processes_write_the_log_at_once(url: str) -> None:
    """All of their entries are there, each once, in one chain; while others write it is whole at every moment."""
    SqlBaselines(url).close()
    assert [(0, "\n", "")] * 2 == race(APPEND, url, 2)
    entries = SqlBaselines(url).log()
    assert [] == list(audit.flaws(entries))
    recorded = [(entry.actor, entry.name) for entry in entries if entry.action == "recorded"]
    assert sorted((f"actor {number}", f"{number}-{turn}") for number in range(2) for turn in range(8)) == sorted(recorded)
    turns = [int(name.split("-")[1]) for actor, name in recorded if actor == "actor 0"]
    assert list(range(8)) == turns


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_the_log_grows_whatever_isolation_the_server_sets(server: Any, level: str) -> None:
    """Where a role's transactions see one state for good, an entry still goes behind one that another wrote since this began."""
    url = set_to(level, server.new_database())
    slow, quick = SqlBaselines(url, actor="slow"), SqlBaselines(url, actor="quick")
    with slow._transaction(writing=True) as transaction:
        assert Policy() == transaction.policy("m")
        quick.set_policy("m", Policy(1, 0.0))
        transaction.append(audit.Entry(1.0, "slow", "promoted", "m"))
    assert ["quick", "slow"] == [entry.actor for entry in quick.log()]
    assert [] == list(audit.flaws(quick.log()))


def test_processes_open_a_new_database_whatever_isolation_the_server_sets(server: Any) -> None:
    """A process that waited for another to make the tables sees them when its turn comes."""
    assert [(0, "", "")] * 4 == race(OPEN, set_to("repeatable read", server.new_database()), 4)


def test_a_process_killed_within_a_save_leaves_nothing(url: str) -> None:
    """What a killed process had written so far is never seen, and the name is free."""
    SqlBaselines(url).close()
    ((status, _, _),) = race(DIE_WITHIN_SAVE, url, 1)
    assert -9 == status
    store = SqlBaselines(url)
    assert () == store.listing()
    assert ["saved"] == [output.strip() for _, output, _ in race(SAVE, url, 1)]
    assert ("shared",) == store.names("minilm", "1")
