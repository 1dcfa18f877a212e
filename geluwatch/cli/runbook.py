"""`geluwatch runbook`: prints the runbook of an alert, or lists them."""

from __future__ import annotations

import argparse
import sys


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser."""
    parser = subparsers.add_parser("runbook", help="print what to do about an alert")
    parser.add_argument("name", nargs="?", metavar="NAME", help="name of the alert, in any case; without it, all are listed")
    parser.set_defaults(func=_print)


def _print(args: argparse.Namespace) -> int:
    from geluwatch.mixin import runbooks

    if args.name is not None:
        sys.stdout.write(runbooks.runbook(args.name))
        return 0
    listed = runbooks.summaries()
    width = max(len(name) for name in listed)
    for name, summary in listed.items():
        sys.stdout.write(f"{name:{width}}  {summary}\n")
    return 0
