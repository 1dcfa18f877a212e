"""`geluwatch history`: what it prints of a real history, and what it leaves of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from geluwatch.cli.main import main
from geluwatch.core import histogram
from geluwatch.records import Moments, PointWindow, Span, Summary, Window
from geluwatch.store import SqlHistory
from geluwatch.store.engine import make_engine
from geluwatch.store.history import _to_row

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

Run = Callable[..., tuple[int, list[str], str]]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of a database that is not there yet."""
    return f"sqlite:///{tmp_path}/store.db"


@pytest.fixture
def run(url: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command on the store; returns its exit status, the lines it printed, and what it said of errors."""

    def answer(*arguments: str) -> tuple[int, list[str], str]:
        status = main(["history", *arguments, "--store", url])
        printed = capsys.readouterr()
        return status, printed.out.splitlines(), printed.err

    return answer


def fill(url: str, model: str, ends: list[float], version: str = "1") -> None:
    """Keep windows of a minute that ended at such times."""
    seen = PointWindow(histogram.from_values(np.arange(64.0)), Moments(0, np.zeros(0), np.zeros(0)))
    with SqlHistory(url)._session(writing=True) as session:
        for ended in ends:
            window = Window(ended - MINUTE, ended, 1, 1, {("act", "pre"): seen})
            session.add(_to_row(Span(model, version, "raw", "host:1", 1, window, Summary({"ok": 1}))))


def test_list(run: Run, url: str) -> None:
    """A line for each model, version and resolution: how many spans of how many windows, their size and their time, in UTC."""
    fill(url, "minilm", [])
    assert (0, ["No window is kept there yet; a watch whose store it is keeps them."], "") == run("list")
    fill(url, "minilm", [1_700_006_400.0 + MINUTE * number for number in range(1, 1501)])
    fill(url, "gpt2", [1_700_006_400.0], version="2026-01")
    status, lines, _ = run("list")
    assert 0 == status
    assert ["model", "version", "kept", "as", "spans", "windows", "size", "from", "to"] == lines[0].split()
    assert ["gpt2", "2026-01", "windows", "1", "1"] == lines[1].split()[:5]
    assert ["minilm", "1", "windows", "1,500", "1,500"] == lines[2].split()[:5]
    assert ["MB", "2023-11-15", "00:00Z", "2023-11-16", "01:00Z"] == lines[2].split()[6:]
    assert 1 == len({len(line) for line in lines[1:]})
    assert 2 == len(run("list", "minilm")[1])


def test_thin(run: Run, url: str) -> None:
    """What is old by now is merged, of one model or of all, and the answer is what that made of it."""
    now = time.time()
    fill(url, "old", [now - 10 * DAY + 5 * MINUTE * number for number in range(3)])
    fill(url, "new", [now - MINUTE])
    status, (line,), _ = run("thin", "new")
    assert (0, "new: 1 span of ") == (status, line[:15])
    status, lines, _ = run("thin", "--raw-hours", "48", "--hourly-days", "3")
    assert 0 == status
    assert ["new: 1 span of", "old: 3 spans of"] == [line.partition(" of ")[0] + " of" for line in lines]
    assert lines[1].split(", ")[1].startswith(("1 span of", "2 spans of"))  # two where midnight lies between them
    assert "days" in run("list", "old")[1][1]


def test_thin_refuses_ages_that_make_no_sense(run: Run, url: str) -> None:
    """One sentence, and nothing is merged."""
    fill(url, "old", [1_700_006_400.0])
    status, lines, error = run("thin", "--raw-hours", "1000")
    assert (1, []) == (status, lines)
    assert error.startswith("geluwatch: A retention must keep days for longer than hours")
    assert "windows" in run("list")[1][1]


def test_forget(run: Run, url: str) -> None:
    """What had ended by a date is dropped, of one version or of all; a model that is not there, and a date that is none, are refused."""
    fill(url, "minilm", [1_700_006_400.0 + HOUR * number for number in range(4)])
    fill(url, "minilm", [1_700_006_400.0], version="2")
    status, (line,), _ = run("forget", "minilm", "--before", "2023-11-15T01:00", "--model-version", "1")
    assert (0, "minilm: 2 spans forgotten, 3 spans of ") == (status, line[:38])
    assert run("forget", "minilm", "--before", "2023-11-15")[1][0].startswith("minilm: 1 span forgotten, 2 spans of ")
    assert ["minilm: 2 spans forgotten, 0 spans of 0 B left"] == run("forget", "minilm", "--before", "2023-11-15T04:00+00:00")[1]
    expected = 'geluwatch: Nothing is kept of model "minilm"; `geluwatch history list` names the models there are.\n'
    assert (1, [], expected) == run("forget", "minilm", "--before", "2023-11-15")
    with pytest.raises(SystemExit, match="2"):
        run("forget", "minilm", "--before", "yesterday")


@pytest.mark.parametrize("command", ["list nosuch", "thin nosuch", "forget nosuch --before 2026-01-31"])
def test_a_mistyped_model_is_refused(command: str, run: Run, url: str) -> None:
    """Every command that is given a model says that nothing is kept of it where that is so, and exits with 1."""
    fill(url, "minilm", [1_700_006_400.0])
    expected = 'geluwatch: Nothing is kept of model "nosuch"; `geluwatch history list` names the models there are.\n'
    assert (1, [], expected) == run(*command.split())


def test_a_damaged_span_is_named_and_passed_over(run: Run, url: str) -> None:
    """What can be thinned is, whatever one span holds; it is named on the error stream, and the status is 1."""
    fill(url, "minilm", [1_700_006_400.0 + MINUTE * number for number in range(1, 61)])
    with make_engine(url).begin() as connection:
        connection.execute(text("UPDATE geluwatch_history SET payload = :bytes WHERE ended = 1700006700"), {"bytes": b"?"})
    status, lines, told = run("thin", "--daily-days", "100000", "--hourly-days", "90000")
    assert lines[0].startswith("minilm: 60 spans")
    assert (1, True) == (status, told.startswith('geluwatch: The raw history of model "minilm" that ended at 1700006700 cannot be read'))
    assert " 2 spans" in lines[0]
