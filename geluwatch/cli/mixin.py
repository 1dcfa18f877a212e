"""`geluwatch mixin`: renders dashboards, alerts, rule tests and runbooks, or checks that they are up to date."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geluwatch.mixin.settings import MixinSettings

_HERE = Path()
_FIELDS = ("selector", "expected_targets", "runbook_base", "dashboard_base")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser."""
    parser = subparsers.add_parser("mixin", help="render dashboards, alerts, rule tests and runbooks")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    render = commands.add_parser("render", help="write them into dashboards/, alerts/ and runbooks/")
    render.add_argument("--out", type=Path, default=_HERE, metavar="DIR", help="where to write (default: here)")
    _add_settings(render)
    render.set_defaults(func=_render)
    check = commands.add_parser("check", help="exit with 1 if any of them differs from what would be rendered")
    check.add_argument("--dir", type=Path, default=_HERE, metavar="DIR", help="where they are (default: here)")
    _add_settings(check)
    check.set_defaults(func=_check)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--selector", default="", metavar="MATCHERS", help="targets to look at, such as 'cluster=\"eu\"' (default: all)")
    parser.add_argument("--expected-targets", default="", metavar="MATCHERS", help="targets that must carry an agent (default: not known)")
    parser.add_argument("--runbook-base", metavar="URL", help="where runbooks are published (default: the agents serve them)")
    parser.add_argument("--dashboard-base", metavar="URL", help="where Grafana is (default: links hold the path only)")
    parser.add_argument("--quick", action="store_true", help="waits of seconds, for demonstrations")


def _settings(args: argparse.Namespace) -> MixinSettings:
    from geluwatch.mixin.settings import MixinSettings

    chosen = MixinSettings.quick() if args.quick else MixinSettings()
    return replace(chosen, **{name: getattr(args, name) for name in _FIELDS})


def _render(args: argparse.Namespace) -> int:
    from geluwatch.mixin.build import write

    for path in write(args.out, _settings(args)):
        sys.stdout.write(f"{path}\n")
    return 0


def _check(args: argparse.Namespace) -> int:
    from geluwatch.mixin.build import check

    different = check(args.dir, _settings(args))
    if not different:
        sys.stdout.write("Everything is up to date.\n")
        return 0
    for path in different:
        sys.stdout.write(f"{args.dir / path}\n")
    sys.stderr.write(f"{len(different)} files are not what would be rendered; mend them with: {_command(args)}\n")
    return 1


def _command(args: argparse.Namespace) -> str:
    words = ["geluwatch", "mixin", "render"]
    words += ["--out", str(args.dir)] if args.dir != _HERE else []
    for name in _FIELDS:
        value = getattr(args, name)
        words += [f"--{name.replace('_', '-')}", value] if value else []
    words += ["--quick"] if args.quick else []
    return shlex.join(words)
