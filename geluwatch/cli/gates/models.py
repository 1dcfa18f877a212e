"""The same inputs through two models, or through one model with the weights of two checkpoints."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from geluwatch.analysis import imported
from geluwatch.cli.gates.outcome import Case, Outcome, table
from geluwatch.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from geluwatch.analysis.compare import ModelComparison
    from geluwatch.records import LayerDifference


def judge(arguments: argparse.Namespace) -> Outcome:
    """Compare two models GELU by GELU, in evaluation mode."""
    from geluwatch.analysis.compare import TOLERANCE, compare_models

    if arguments.inputs is None:
        raise ConfigError(
            f"Models are compared on inputs: give --inputs {imported.FORM}, a function that returns one for each forward pass."
        )
    known, other = _models(arguments)
    inputs = imported.passes(arguments.inputs)
    call = None if arguments.call is None else imported.function(arguments.call)
    tolerance = TOLERANCE if arguments.tolerance is None else arguments.tolerance
    found: ModelComparison = imported.run(
        "A pass of the models", lambda: compare_models(known.eval(), other.eval(), inputs, call=call, tolerance=tolerance)
    )
    names = arguments.known, arguments.other
    return Outcome(
        title=" ".join(names),
        group=type(other).__name__,
        lines=(f"{names[1]} against {names[0]}: {len(inputs)} inputs, tolerance {tolerance:g}", "", *_table(found), "", _sentence(found)),
        document=_document(found, names, len(inputs)),
        cases=(*(_case(layer, found) for layer in found.layers), _output(found)),
        passed=found.same,
    )


def _models(arguments: argparse.Namespace) -> tuple[nn.Module, nn.Module]:
    """Return both models."""
    if arguments.models:
        return imported.model(arguments.known), imported.model(arguments.other)
    from geluwatch.analysis import checkpoints

    if arguments.factory is None:
        raise ConfigError(f"Weights need a model to be loaded into: give --factory {imported.FORM}, a function that returns one.")
    # Each has a model of its own: a factory that gives the same one twice would have the second file compared with itself.
    loaded = [checkpoints.load_into(imported.model(arguments.factory), path) for path in (arguments.known, arguments.other)]
    return loaded[0], loaded[1]


def _table(found: ModelComparison) -> list[str]:
    heads = ("layer", "outcome", "rows", "differs before", "after", "at most", "")
    return table(
        heads,
        [
            (each.layer, _outcome(each, found), str(each.rows), *map(_size, (each.before, each.after, each.largest)), each.difference)
            for each in found.layers
        ]
        + [("output", _told(found), "", "", _size(found.output), "", "" if found.outputs else "no tensor was found in it")],
    )


def _told(found: ModelComparison) -> str:
    return "apart" if found.output > found.tolerance else "same" if found.outputs else "unknown"


def _outcome(layer: LayerDifference, found: ModelComparison) -> str:
    if max(layer.before, layer.after) > found.tolerance:
        return "apart"
    return "differs" if layer.difference else "same" if layer.rows else "no rows"


def _case(layer: LayerDifference, found: ModelComparison) -> Case:
    outcome = _outcome(layer, found)
    if outcome in ("same", "no rows"):
        return Case(layer.layer)
    sizes = f"before the GELU by {layer.before:.2g} of its size, after it by {layer.after:.2g}, {layer.largest:.2g} at most"
    said = "; ".join(part for part in (layer.difference, f"values differ {sizes}" if outcome == "apart" else "") if part)
    return Case(layer.layer, outcome, said, _sentence(found))


def _output(found: ModelComparison) -> Case:
    if found.output <= found.tolerance:
        return Case("output")
    return Case("output", "apart", f"what the models return differs by {found.output:.2g} of its size", _sentence(found))


def _sentence(found: ModelComparison) -> str:
    told = str(found)
    return f"{told[0].upper()}{told[1:]}."


def _size(value: float) -> str:
    return f"{value:.2g}"


def _document(found: ModelComparison, names: tuple[str, str], passes: int) -> dict[str, Any]:
    first = found.first
    return {
        "known": names[0],
        "other": names[1],
        "outcome": "same" if found.same else "differs",
        "passes": passes,
        "tolerance": found.tolerance,
        "first_layer": "" if first is None else first.layer,
        "output": _plain(found.output),
        "cause": "" if found.same else str(found),
        "layers": [
            {
                "layer": each.layer,
                "outcome": _outcome(each, found),
                "rows": each.rows,
                "before": _plain(each.before),
                "after": _plain(each.after),
                "largest": _plain(each.largest),
                "difference": each.difference,
            }
            for each in found.layers
        ],
    }


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
