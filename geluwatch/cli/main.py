"""`geluwatch`: the entry point. Subcommands live in modules of their own and load what they need when they run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

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
    chosen = parser().parse_args(arguments)
    try:
        return int(chosen.func(chosen))
    except GeluwatchError as error:
        sys.stderr.write(f"geluwatch: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of a pipe has gone (`geluwatch runbook | head`); the interpreter must not complain about it at exit.
        sys.stderr.close()
        return _UNREAD
