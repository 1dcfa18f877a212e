"""`geluwatch runbook`: shows the runbook of an alert or a playbook, or lists them."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from importlib import util

_WIDEST = 100  # characters in a line that are still easy to read
_LINK = re.compile(r"\[([^\]]+)\]\((?:\.\./|playbooks/)?(\w+)\.md\)")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser."""
    parser = subparsers.add_parser("runbook", help="print what to do about an alert")
    parser.add_argument("name", nargs="?", metavar="NAME", help="name of the alert or playbook, in any case; without it, all are listed")
    parser.set_defaults(func=_print)


def _print(args: argparse.Namespace) -> int:
    from geluwatch.mixin import handbook

    if args.name is None:
        sys.stdout.write(_listed(handbook.contents()))
        return 0
    source = handbook.page(args.name)
    # In a pipe or a file Markdown stays what it is.
    if sys.stdout.isatty() and util.find_spec("rich") is not None:
        _show(source)
    else:
        sys.stdout.write(source)
    return 0


def _listed(groups: Mapping[str, Mapping[str, str]]) -> str:
    width = max(len(name) for names in groups.values() for name in names)
    blocks = ("\n".join([f"{title}:", *(f"  {name:{width}}  {about}" for name, about in names.items())]) for title, names in groups.items())
    return "\n\n".join([*blocks, "To read one: geluwatch runbook NAME\n"])


def _show(source: str) -> None:
    """Lay a text out for a terminal; links become the commands that open what they lead to."""
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console(highlight=False)
    text = _LINK.sub(r"\1 (`geluwatch runbook \2`)", source)
    console.print(Markdown(text, code_theme="ansi_dark", hyperlinks=False), width=min(console.width, _WIDEST))
