"""A report's file: whole or not at all, and over nothing of others."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import weeks

from geluwatch.analysis.report import Findings, digest, page, write
from geluwatch.errors import ReportError

Gathered = Callable[..., Findings]


def test_reports_and_digests_replace_each_other(gathered: Gathered, tmp_path: Path) -> None:
    """A file of ours is replaced without a word, an empty one too; the size is that of the file, and nothing else is left."""
    found, file = gathered(weeks.CALM), tmp_path / "report.html"
    file.touch()
    for text in (page(found, weeks.END), digest(found), page(found, weeks.END)):
        assert len(text.encode()) == write(file, text) == file.stat().st_size
        assert text == file.read_text("utf-8")
    assert [file] == list(tmp_path.iterdir())


def test_a_file_of_others_stays(tmp_path: Path) -> None:
    """What is no report is refused and left alone, unless it is meant."""
    file = tmp_path / "notes.html"
    file.write_text("my notes on geluwatch report")
    with pytest.raises(ReportError, match=r"notes.html is there and is no report of geluwatch; give another --output, or --force"):
        write(file, "new")
    assert "my notes on geluwatch report" == file.read_text()
    write(file, "new", force=True)
    assert "new" == file.read_text()


@pytest.mark.parametrize("place", ["missing/report.html", "."])
def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, place: str) -> None:
    """A folder that is not there, and a folder itself, are one sentence, and leave nothing behind."""
    with pytest.raises(ReportError, match=r"cannot be written \(.+\); give another --output\."):
        write(tmp_path / place, "new")
    assert [] == list(tmp_path.iterdir())


def test_a_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    """A pipe gets the report, and stays a pipe; behind a link its file is replaced, and the link stays."""
    pipe, link, file = tmp_path / "pipe", tmp_path / "latest.html", tmp_path / "report.html"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(pipe.read_text)
        write(pipe, "a report")
        assert "a report" == read.result(10.0)
    assert pipe.is_fifo()
    link.symlink_to(file)
    write(link, "a report")
    assert (True, "a report") == (link.is_symlink(), file.read_text())
