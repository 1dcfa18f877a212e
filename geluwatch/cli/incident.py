"""`geluwatch incident`: shows bundles of evidence, and replays one until what it holds is mended."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from geluwatch.errors import IncidentError

if TYPE_CHECKING:
    from geluwatch.analysis.incident.replay import Outcome


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `incident` and what it can do."""
    parser = commands.add_parser("incident", help="show or replay the evidence that a page has left")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list the bundles of a folder")
    listing.add_argument("folder", type=Path, metavar="FOLDER", help="the one given as Config(incidents=...)")
    listing.set_defaults(func=_list)
    show = actions.add_parser("show", help="what happened, where first, and what to do next")
    show.add_argument("bundle", type=Path, metavar="BUNDLE")
    show.set_defaults(func=_show)
    _add_replay(actions)


def _add_replay(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = actions.add_parser(
        "replay",
        help="run it again; exit 1 where it does not happen again",
        description="With a model and inputs, one watched pass is run with the seed and the flags of the bundle. Without, the GELU is run "
        "on the rows of the bundle. Exit status 0: reproduced. 1: not.",
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--model", metavar="PACKAGE.MODULE:FUNCTION", help="a function of yours that returns the model")
    parser.add_argument(
        "--inputs", metavar="INPUTS", help="what to call it with: an .npz file or PACKAGE.MODULE:FUNCTION (default: those of the bundle)"
    )
    parser.add_argument("--write-test", type=Path, metavar="FILE", help="write a pytest file that fails until the fault is mended")
    parser.set_defaults(func=_replay)


def _list(arguments: argparse.Namespace) -> int:
    from geluwatch.analysis.incident.show import listing, plain

    shown = list(map(plain, listing(arguments.folder)))
    print(*shown or [f"No bundle is in {arguments.folder} yet."], sep="\n")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from geluwatch.analysis.incident.show import lines, plain
    from geluwatch.bundles.bundle import read

    for line in lines(read(arguments.bundle)):
        print(plain(line))
    return 0


def _replay(arguments: argparse.Namespace) -> int:
    from geluwatch.analysis import imported
    from geluwatch.analysis.incident import inputs, regression
    from geluwatch.analysis.incident.replay import replayed
    from geluwatch.bundles.bundle import read

    bundle = read(arguments.bundle)
    model = None if arguments.model is None else imported.model(arguments.model)
    outcome = replayed(bundle, model, None if arguments.inputs is None else inputs.from_text(arguments.inputs))
    _print(outcome)
    if arguments.write_test is not None:
        if not outcome.reproduced:
            raise IncidentError("No test was written: it would pass although nothing was mended; reproduce the fault first.")
        content = regression.source(
            bundle, arguments.write_test, outcome.expected.first, model=arguments.model, inputs=arguments.inputs, whole=outcome.whole
        )
        regression.write(arguments.write_test, content)
        print(f"wrote     {arguments.write_test}: it fails until the fault is mended")
    return 0 if outcome.reproduced else 1


def _print(outcome: Outcome) -> None:
    print("Reproduced." if outcome.reproduced else "Not reproduced.")
    print(f"ran       {outcome.how}")
    print(f"incident  {outcome.expected}; in the rows that were kept")
    print(f"replay    {outcome.seen}")
