"""`geluwatch demo`: the whole of geluwatch on a real model in about three minutes, from census to alert.

Only the parser is defined here; torch, rich and the rest are loaded when the command runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `demo`."""
    parser = commands.add_parser(
        "demo",
        help="watch a real model through drift, a NaN and a failing training run (about three minutes)",
        description="Watch a real model through calm traffic, drift, a flipped bit and a failing training run; the alerts arrive through "
        "Prometheus and Alertmanager where they are installed. Exit status 0 says that everything was detected and calm stayed calm.",
    )
    parser.add_argument("--page", action="store_true", help="one drift page only, on a baseline long enough to page (three to six minutes)")
    parser.add_argument("--stay", action="store_true", help="keep traffic, servers and pages alive after the end, until Ctrl-C")
    parser.add_argument("--data", type=Path, metavar="DIR", help="keep the baselines in this folder (default: a temporary one)")
    parser.add_argument("--no-servers", dest="servers", action="store_false", help="do without Prometheus and Alertmanager")
    parser.set_defaults(func=_run)


def _run(arguments: argparse.Namespace) -> int:
    from geluwatch.cli.demo.command import run

    return run(arguments)
