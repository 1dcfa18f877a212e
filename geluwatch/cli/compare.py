"""`geluwatch compare`: baselines, models or running processes, for people, and as a gate whose exit status, JSON or JUnit file decides."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from geluwatch.analysis.imported import FORM
from geluwatch.cli import results
from geluwatch.errors import ConfigError

_URLS = ("http://", "https://")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `compare`."""
    parser = commands.add_parser(
        "compare",
        help="judge one baseline, model or running process by another; exit 1 where they differ",
        description="Judge the windows of baseline OTHER as if they had come while baseline KNOWN was armed; or send the same inputs "
        "through two models; or hold the reports of two running processes against each other. Exit status 0: the same, or what "
        "KNOWN calls normal. 1: it is not.",
    )
    sources = "an exported baseline or a name in --store, a function or a file of weights (see models), or an agent's address"
    for what, meaning in (("known", "the good one"), ("other", "the one in question")):
        parser.add_argument(what, metavar=what.upper(), help=f"{meaning}: {sources}")
    baselines = parser.add_argument_group("baselines")
    baselines.add_argument("--store", metavar="URL", help="where names are looked up, for example sqlite:///geluwatch.db")
    baselines.add_argument("--model", help="model name given to attach, for names")
    baselines.add_argument("--model-version", default="1", help="its version (default: 1)")
    baselines.add_argument("--other-version", help="version of OTHER, where it is another")
    _add_models(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write it as a JUnit report, a test case for each layer")
    parser.set_defaults(func=_compare)


def _add_models(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("models", f"functions are named as {FORM} and called without arguments")
    kind = group.add_mutually_exclusive_group()
    kind.add_argument("--models", action="store_true", help="KNOWN and OTHER are functions that return a model")
    kind.add_argument("--checkpoints", action="store_true", help="KNOWN and OTHER are files of weights, .safetensors or of torch.save")
    group.add_argument("--factory", metavar="FUNCTION", help="returns the model that checkpoints are loaded into")
    group.add_argument("--inputs", metavar="FUNCTION", help="returns the inputs, one for each forward pass")
    group.add_argument("--call", metavar="FUNCTION", help="makes a pass, of a model and an input, where model(input) does not do")
    group.add_argument(
        "--tolerance", type=float, metavar="SHARE", help="relative difference up to which values are the same (default: 1e-5)"
    )


def _compare(arguments: argparse.Namespace) -> int:
    from geluwatch.cli.gates import baselines, live, models
    from geluwatch.cli.gates.outcome import junit

    remote = [name.startswith(_URLS) for name in (arguments.known, arguments.other)]
    if any(remote) and not all(remote):
        raise ConfigError("One of the two is an address and the other is not; compare two running processes, or two baselines.")
    gate = models if arguments.models or arguments.checkpoints else live if all(remote) else baselines
    found = gate.judge(arguments)
    results.write(arguments.json, json.dumps(found.document, indent=1) + "\n")
    results.write(arguments.junit, junit(found))
    for line in found.lines:
        print(line)
    return 0 if found.passed else 1
