"""`geluwatch report`: what it takes, writes, prints and exits with."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import weeks
from sqlalchemy import text

from geluwatch.cli import report
from geluwatch.cli.main import main, parser
from geluwatch.errors import ConfigError
from geluwatch.retention import Retention
from geluwatch.store import SqlBaselines, SqlHistory
from geluwatch.store.engine import make_engine

NOW = datetime(2025, 3, 10, 12, tzinfo=UTC).timestamp()
WEEK = weeks.Week(replace(weeks.CALM, values=300, drift=(66.0, 31.0)))

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in an empty folder, at noon of 10 March 2025, over a week's history; returns exit status, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "_stores", lambda _: nullcontext((WEEK, WEEK)))
    monkeypatch.setattr(report.time, "time", lambda: NOW)

    def command(*arguments: str) -> tuple[int, str, str]:
        status = main(["report", *arguments, "--store", "sqlite:///store.db"])
        return status, *capsys.readouterr()

    return command


def test_a_report_is_one_file_and_a_line(run: Run) -> None:
    """Without more than a model the last seven days go into a file in the folder, and a line says where it is and how large."""
    status, printed, errors = run("minilm")
    size = Path("geluwatch-report.html").stat().st_size
    assert (0, f"The report is in geluwatch-report.html, {size:,} bytes.\n", "") == (status, printed, errors)
    assert ">Well again</h1>" in Path("geluwatch-report.html").read_text("utf-8")
    assert 0 == run("minilm", "--since", "2025-03-08", "--until", "2025-03-09T12:00Z", "--model-version", "1")[0]


def test_a_digest_is_printed_or_written(run: Run) -> None:
    """A digest goes to the terminal, or into the file that is named; both are the same text."""
    status, printed, _ = run("minilm", "--digest")
    assert 0 == status
    assert printed.startswith("# Well again: minilm 1, 3 to 10 March 2025\n\nDrift from Fri 7 Mar 17:59")
    assert run("minilm", "--digest", "-o", "week.md")[1].startswith("The digest is in week.md, ")
    assert printed == Path("week.md").read_text("utf-8")
    assert not Path("geluwatch-report.html").exists()


def test_a_file_of_others_stays(run: Run) -> None:
    """A file that is no report is left alone, and said; --force replaces it."""
    Path("index.html").write_text("<p>mine</p>")
    status, printed, errors = run("minilm", "--output", "index.html")
    assert (1, "") == (status, printed)
    assert errors.startswith("geluwatch: index.html is there and is no report of geluwatch;")
    assert 0 == run("minilm", "--output", "index.html", "--force")[0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["other"], "No window of model 'other' is kept in this store for that period;"),
        (["minilm", "--model-version", "9"], "No window of model 'minilm' version '9' is kept"),
        (["minilm", "--since", "soon"], "--since must be so long ago, such as 90m, 24h or 7d, or a date, such as 2025-03-01, got 'soon'."),
        (["minilm", "--until", "7"], "--until must be so long ago"),
        (["minilm", "--since", "1h", "--until", "2h"], "--since 1h is not before --until 2h; give an earlier one."),
    ],
)
def test_what_cannot_be_reported_is_one_sentence(run: Run, arguments: list[str], sentence: str) -> None:
    """A name that is not known, an empty period and a moment that is none exit with 1, and write nothing."""
    status, printed, errors = run(*arguments)
    assert (1, "") == (status, printed)
    assert errors.startswith(f"geluwatch: {sentence}")
    assert 1 == errors.count("\n")
    assert not Path("geluwatch-report.html").exists()


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90m", NOW - 5400.0),
        ("24h", NOW - 86400.0),
        ("7d", NOW - 7 * 86400.0),
        ("2w", NOW - 14 * 86400.0),
        ("0m", NOW),
        ("999999d", 0.0),
        ("1066-10-14", 0.0),
        ("2025-03-10", NOW - 12 * 3600.0),
        ("2025-03-10T11:00", NOW - 3600.0),
        ("2025-03-10T13:00+02:00", NOW - 3600.0),
    ],
)
def test_moments(text: str, moment: float) -> None:
    """Minutes, hours, days and weeks count back from now, at most to 1970; a date without a zone is in UTC."""
    assert moment == report.moment(text, NOW, "--since")


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "1.5h", "7 days", "2025-13-01", "99999999d", "yesterday", "9999-12-31T23:59-05:00"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    """Anything else names the option, what it takes, and what it got."""
    with pytest.raises(ConfigError, match=r"--since must be so long ago, .*got '"):
        report.moment(text, NOW, "--since")


def test_the_page_for_users_tells_commands_that_are_understood() -> None:
    """Every command of docs/report.md is one of the command line's, and it names every option."""
    text = (Path(__file__).parents[2] / "docs" / "report.md").read_text("utf-8")
    commands = re.findall(r"geluwatch (report .*?)(?: \|.*)?$", text, re.MULTILINE)
    assert 3 == len(commands)
    for command in commands:
        assert "minilm" == parser().parse_args(shlex.split(command)).model
    known = {name for name in vars(parser().parse_args(shlex.split(commands[0]))) if name not in {"func", "model"}}
    assert {f"--{name.replace('_', '-')}" for name in known} <= set(re.findall(r"--[a-z-]+", text))


@pytest.mark.parametrize(("since", "until"), [("13:00", "23:00"), ("11:55", "12:05"), ("00:00", "00:01")])
def test_part_of_a_merged_day_is_the_day(tmp_path: Path, capsys: pytest.CaptureFixture[str], since: str, until: str) -> None:
    """A period within a day that is kept as one span is told as that day, and the head says so; what is told is all of it."""
    url = f"sqlite:///{tmp_path}/store.db"
    with closing(SqlHistory(url)) as history:
        for span in WEEK.spans("minilm", "1", weeks.END - 60 * weeks.HOUR, weeks.END - 24 * weeks.HOUR):
            history.append(span)
        while history.thin("minilm", Retention(), weeks.END + 30 * weeks.DAY):
            pass
        assert ["day"] * 2 == [info.resolution for info in history.listing() for _ in range(info.spans)]
    command = ["report", "minilm", "--digest", "--store", url]
    assert 0 == main([*command, "--since", f"2025-03-08T{since}", "--until", f"2025-03-08T{until}"])
    told = capsys.readouterr().out
    assert "minilm 1, 8 March 2025 00:00 to 9 March 2025 00:00\n" in told.splitlines(keepends=True)[0]
    assert "Hours and days that are kept merged are told whole: from 2025-03-08 00:00Z to 2025-03-09 00:00Z." in told
    assert 0 == main([*command, "--since", "2025-03-08", "--until", "2025-03-09"])
    assert "told whole" not in capsys.readouterr().out
    assert 1 == main([*command, "--since", "2025-03-07", "--until", "2025-03-07T12:00"])


def test_what_is_damaged_is_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A span whose bytes or summary cannot be read, and a damaged baseline, cost a report nothing else; if all spans are, it fails."""
    url = f"sqlite:///{tmp_path}/store.db"
    command = ["report", "minilm", "--digest", "--store", url, "--since", "2025-03-10T06:00", "--until", "2025-03-10T12:00"]
    with closing(SqlBaselines(url)) as baselines, closing(SqlHistory(url)) as history:
        baselines.save(WEEK.load("minilm", "1", "week-9"))
        for span in WEEK.spans("minilm", "1", weeks.END - 6 * weeks.HOUR, weeks.END):
            history.append(span)
    with make_engine(url).begin() as connection:
        connection.execute(text("UPDATE geluwatch_history SET payload = :bytes WHERE id = 2"), {"bytes": b"?"})
        connection.execute(text("UPDATE geluwatch_history SET summary = '{' WHERE id = 3"))
        connection.execute(text("UPDATE geluwatch_baseline SET histogram_payload = :bytes"), {"bytes": b"?"})
    assert 0 == main(command)
    told = capsys.readouterr().out
    assert told.startswith("# Well: minilm 1, 10 March 2025 06:00 to 12:00")
    assert '- The raw history of model "minilm" that ended at 1741588180 cannot be read, the bytes are damaged' in told
    assert "forget` is told so. Of 1 more the same is true." in told
    assert "- Nothing can be shown against baseline week-9: " in told
    assert "Watched: 6 GELUs in 22 windows" in told
    with make_engine(url).begin() as connection:
        connection.execute(text("UPDATE geluwatch_history SET summary = '{'"))
    assert 1 == main(command)
    assert "geluwatch: Span 1 of the history cannot be read, its summary is no JSON" in capsys.readouterr().err


def test_a_real_store_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a database keeps comes out as it went in: the same digest, with the baseline that lies beside it."""
    from geluwatch.analysis.report import Subject, digest, gather

    url = f"sqlite:///{tmp_path}/store.db"
    baselines, history = SqlBaselines(url), SqlHistory(url)
    baselines.save(WEEK.load("minilm", "1", "week-9"))
    since = weeks.END - 2 * weeks.DAY
    for span in WEEK.spans("minilm", "1", since, weeks.END):
        history.append(span)
    history.close(), baselines.close()
    assert 0 == main(["report", "minilm", "--digest", "--store", url, "--since", "2025-03-08T12:00", "--until", "2025-03-10T12:00"])
    assert digest(gather(WEEK, WEEK, Subject("minilm", None, since, weeks.END))) == capsys.readouterr().out
