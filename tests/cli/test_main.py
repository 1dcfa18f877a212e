"""What the command line does where its output cannot be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def run(output: int, *arguments: str, errors: int = subprocess.PIPE) -> tuple[int, str | None]:
    """Run the command line with a file descriptor as its output; return its exit status, and what it said of errors."""
    command = [sys.executable, "-m", "geluwatch", *arguments]
    done = subprocess.run(command, stdout=output, stderr=errors, env=ENVIRONMENT, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["runbook"], ["runbook", "ActivationDrift"]])
def test_a_reader_that_has_gone_is_no_failure_to_tell_of(arguments: list[str]) -> None:
    """However little was printed, and though it waits in a buffer: 141 as from a shell, and silence."""
    reader, writer = os.pipe()
    os.close(reader)
    assert (141, "") == run(writer, *arguments)
    os.close(writer)


def test_errors_that_nobody_reads_are_none_either(tmp_path: Path) -> None:
    """Where the error stream goes to the same pipe, the status is the same."""
    reader, writer = os.pipe()
    os.close(reader)
    assert (141, None) == run(writer, "history", "list", "--store", f"sqlite:///{tmp_path}/nosuch.db", errors=writer)
    os.close(writer)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["runbook"]])
def test_a_full_disk_is_one_sentence(arguments: list[str]) -> None:
    """What is printed into a file on it fails with 1, and says why."""
    with Path("/dev/full").open("w") as full:
        status, told = run(full.fileno(), *arguments)
    sentence = "geluwatch: The output cannot be written (No space left on device); free space, or send it elsewhere.\n"
    assert (1, sentence) == (status, told)
