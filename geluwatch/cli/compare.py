"""`geluwatch compare`: one baseline against another, for people, and as a gate whose exit status, JSON or JUnit file decides."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from geluwatch.cli import origin
from geluwatch.errors import BaselineError, ConfigError

if TYPE_CHECKING:
    from geluwatch.core.compare import Comparison, LayerComparison
    from geluwatch.records import Baseline


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `compare`."""
    parser = commands.add_parser(
        "compare",
        help="judge one baseline by another; exit 1 where they differ",
        description="Judge the windows of baseline OTHER as if they had come while baseline KNOWN was armed. "
        "Exit status 0: what KNOWN calls normal. 1: drift, or another census.",
    )
    for what, meaning in (("known", "the good one"), ("other", "the one in question")):
        parser.add_argument(what, metavar=what.upper(), help=f"{meaning}: an exported file, or a name in --store")
    parser.add_argument("--store", metavar="URL", help="where names are looked up, for example sqlite:///geluwatch.db")
    parser.add_argument("--model", help="model name given to attach, for names")
    parser.add_argument("--model-version", default="1", help="its version (default: 1)")
    parser.add_argument("--other-version", help="version of OTHER, where it is another")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write it as a JUnit report, a test case for each layer")
    parser.set_defaults(func=_compare)


def _compare(arguments: argparse.Namespace) -> int:
    from geluwatch.config import Config
    from geluwatch.core.compare import compare

    known = _load(arguments, arguments.known, arguments.model_version)
    other = _load(arguments, arguments.other, arguments.other_version or arguments.model_version)
    found = compare(known, other, Config())
    _write(arguments.json, json.dumps(_document(known, other, found), indent=1) + "\n")
    _write(arguments.junit, _junit(known, other, found))
    for line in _lines(known, other, found):
        print(line)
    return 0 if found.outcome == "same" else 1


def _load(arguments: argparse.Namespace, name: str, version: str) -> Baseline:
    """Return a baseline from a file or from the store."""
    from geluwatch.cli.stored import opened
    from geluwatch.store import portable

    if Path(name).is_file():
        return portable.read(Path(name))
    if arguments.store is None or arguments.model is None:
        raise ConfigError(f"{name} is no file; for the name of a stored baseline, give --store and --model.")
    with opened(arguments) as store:
        return store.load(arguments.model, version, name)


def _lines(known: Baseline, other: Baseline, found: Comparison) -> list[str]:
    width = max(len(layer.layer) for layer in found.layers)
    lines = [f"{_called(other)} against {_called(known)}: {found.windows} windows judged", ""]
    lines.append(f"{'layer':<{width}}  {'outcome':<8}  {'KS before':<15}  {'KS after':<15}  windows in drift  most evidence")
    for layer in found.layers:
        distances = "  ".join(f"{_distance(layer, point):<15}" for point in ("pre", "post"))
        row = f"{layer.layer:<{width}}  {layer.outcome:<8}  {distances}  {layer.alarms:>16}  {layer.evidence:>13.2f}"
        lines.append(f"{row}  {layer.difference}".rstrip())
    return [*lines, "", _sentence(found), *_origins(known, other)]


def _origins(known: Baseline, other: Baseline) -> Iterator[str]:
    """Yield what is known of the models and surroundings that the two were recorded of, where they differ."""
    apart = origin.compared(known, other)
    if apart["differences"]:
        yield f"They were recorded of different models: {'; '.join(apart['differences'])}."
    if apart["surroundings"]:
        yield f"And elsewhere: {'; '.join(apart['surroundings'])}."


def _distance(layer: LayerComparison, point: Any) -> str:
    interval = layer.distances.get(point)
    return "-" if interval is None else f"{interval.lower:.4f}-{interval.upper:.4f}"


def _sentence(found: Comparison) -> str:
    """Return the outcome in a sentence, or two."""
    differing = [layer for layer in found.layers if layer.difference]
    told = [f"The census differs at {len(differing)} of {len(found.layers)} layers, first at {differing[0].layer}."] if differing else []
    if found.first_layer:
        moved = {
            "traffic": "most layers moved alike, so the traffic is likelier to have changed than the model",
            "model": "it enters there",
        }
        told.append(f"Drift, first at {found.first_layer}{f': {moved[found.scope]}' if found.scope in moved else ''}.")
    if found.cause:
        told.append(f"{found.cause}.".replace("..", "."))
    return " ".join(told) or "Same: what the one holds, the other calls normal."


def _called(baseline: Baseline) -> str:
    return f"{baseline.model} {baseline.model_version} {baseline.name}"


def _document(known: Baseline, other: Baseline, found: Comparison) -> dict[str, Any]:
    return {
        "known": {"model": known.model, "model_version": known.model_version, "name": known.name},
        "other": {"model": other.model, "model_version": other.model_version, "name": other.name},
        "outcome": found.outcome,
        "windows": found.windows,
        "first_layer": found.first_layer,
        "scope": found.scope,
        "cause": found.cause,
        **origin.compared(known, other),
        "layers": [
            {
                "layer": layer.layer,
                "outcome": layer.outcome,
                "windows_in_drift": layer.alarms,
                "evidence": layer.evidence,
                "difference": layer.difference,
                "ks": {point: None if math.isnan(interval.lower) else list(interval) for point, interval in layer.distances.items()},
            }
            for layer in found.layers
        ],
    }


def _junit(known: Baseline, other: Baseline, found: Comparison) -> str:
    failed = [layer for layer in found.layers if layer.outcome != "same"]
    suite = ElementTree.Element(
        "testsuite",
        name=f"geluwatch compare {_called(known)} {_called(other)}",
        tests=str(len(found.layers)),
        failures=str(len(failed)),
        errors="0",
    )
    for layer in found.layers:
        case = ElementTree.SubElement(suite, "testcase", classname=f"geluwatch.{other.model}", name=layer.layer)
        if layer.outcome != "same":
            said = layer.difference or f"in drift in {layer.alarms} of {found.windows} windows, evidence up to {layer.evidence:.2f}"
            ElementTree.SubElement(case, "failure", type=layer.outcome, message=said).text = _sentence(found)
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _write(path: Path | None, content: str) -> None:
    if path is None:
        return
    try:
        path.write_text(content, "utf-8")
    except OSError as failure:
        raise BaselineError(f"{path} cannot be written ({failure.strerror}); give another place.") from None
