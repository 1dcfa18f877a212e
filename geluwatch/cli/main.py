"""`geluwatch`: the entry point. Subcommands live in modules of their own and load what they need when they run."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from typing import TextIO

from geluwatch import __version__
from geluwatch.cli import baseline, compare, history, incident, mixin, report, runbook, shadow
from geluwatch.cli import demo as demo_command
from geluwatch.errors import GeluwatchError

_UNREAD = 141
"""What shells give for a program whose reader has gone: a gate that was not read to its verdict has not passed."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="geluwatch",
        description="Watch every GELU inside a running PyTorch model: NaN pages, calibrated drift tickets, dashboards, runbooks.",
    )
    top.add_argument("--version", action="version", version=f"geluwatch {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (demo_command, baseline, history, report, incident, compare, shadow, mixin, runbook):
        command.add_parser(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status: 0 done, 1 refused or failed, 2 misused, 130 interrupted, 141 not read to the end."""
    try:
        try:
            return _run(arguments)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # or what is not taken would be found out at exit, when nobody can be told
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of a pipe has gone (`geluwatch runbook | head`)
        _drop(sys.stdout, sys.stderr)
        return _UNREAD
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _drop(sys.stdout)
        sys.stderr.write(f"geluwatch: The output cannot be written ({error.strerror}); free space, or send it elsewhere.\n")
        return 1


def _run(arguments: Sequence[str] | None) -> int:
    chosen = parser().parse_args(arguments)
    try:
        return int(chosen.func(chosen))
    except GeluwatchError as error:
        sys.stderr.write(f"geluwatch: {error}\n")
        return 1


def _drop(*streams: TextIO) -> None:
    """Send what is still to be printed nowhere: the interpreter would try once more at exit, complain, and give another status."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
