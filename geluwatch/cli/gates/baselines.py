"""One baseline judged by another."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geluwatch.cli import origin
from geluwatch.cli.gates.outcome import Case, Outcome, table
from geluwatch.errors import ConfigError

if TYPE_CHECKING:
    from geluwatch.core.compare import Comparison, LayerComparison
    from geluwatch.records import Baseline


def judge(arguments: argparse.Namespace) -> Outcome:
    """Judge the windows of one baseline as if they had come while the other was armed."""
    from geluwatch.config import Config
    from geluwatch.core.compare import compare

    known = _load(arguments, arguments.known, arguments.model_version)
    other = _load(arguments, arguments.other, arguments.other_version or arguments.model_version)
    # Whoever recorded a baseline left out the windows with too few rows, by a minimum of his own: all that are in it are to be judged.
    found = compare(known, other, replace(Config(), minimum_rows=1))
    return Outcome(
        title=f"{_called(known)} {_called(other)}",
        group=other.model,
        lines=tuple(_lines(known, other, found)),
        document=_document(known, other, found),
        cases=tuple(_case(layer, found) for layer in found.layers),
        passed=found.outcome == "same",
    )


def _case(layer: LayerComparison, found: Comparison) -> Case:
    if layer.outcome == "same":
        return Case(layer.layer)
    said = layer.difference or f"in drift in {layer.alarms} of {found.windows} windows, evidence up to {layer.evidence:.2f}"
    return Case(layer.layer, layer.outcome, said, _sentence(found))


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
    heads = ("layer", "outcome", "KS before", "KS after", "windows in drift", "most evidence", "")
    rows = [
        (layer.layer, layer.outcome, *(_distance(layer, point) for point in ("pre", "post")), f"{layer.alarms:>16}",
         f"{layer.evidence:>13.2f}", layer.difference)
        for layer in found.layers
    ]  # fmt: skip
    title = f"{_called(other)} against {_called(known)}: {found.windows} windows judged"
    return [title, "", *table(heads, rows), "", _sentence(found), *_origins(known, other)]


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
            "unknown": "whether the traffic changed or the model, the layers do not tell",
        }
        told.append(f"Drift, first at {found.first_layer}{f': {moved[found.scope]}' if found.scope else ''}.")
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
