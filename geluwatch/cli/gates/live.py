"""Two running processes, by the reports that their agents serve."""

from __future__ import annotations

import argparse
import http.client
import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from geluwatch.cli.gates.outcome import Case, Outcome, table
from geluwatch.errors import ConfigError

if TYPE_CHECKING:
    from geluwatch.analysis.live import LiveComparison, LiveLayer

_PATIENCE = 10.0  # seconds

_REPORT = "/report.json"


def judge(arguments: argparse.Namespace) -> Outcome:
    """Hold the report of one process against that of another."""
    from geluwatch.analysis.live import compare_reports

    known, other = (_fetch(address) for address in (arguments.known, arguments.other))
    found = compare_reports(known, other)
    heads = ("layer", "outcome", "KS before", "KS after", "mean moves", "most evidence", "")
    rows = [
        (each.layer, each.outcome, *(_distance(each, point) for point in ("pre", "post")), _number(each.shift), _number(each.evidence),
         each.difference)
        for each in found.layers
    ]  # fmt: skip
    names = [f"{report['model']} {report['model_version']} at {address}"
             for report, address in ((other, arguments.other), (known, arguments.known))]  # fmt: skip
    return Outcome(
        title=f"{arguments.known} {arguments.other}",
        group=str(other["model"]),
        lines=(" against ".join(names), "", *table(heads, rows), "", *(f"{note}." for note in found.notes), f"{found.sentence}."),
        document=_document(found, arguments),
        cases=tuple(_case(layer, found) for layer in found.layers),
        passed=found.outcome == "same",
    )


def _fetch(address: str) -> dict[str, Any]:
    """Return the report that an agent serves."""
    url = address if address.endswith(".json") else address.rstrip("/") + _REPORT
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE) as response:  # noqa: S310  # the command has seen that it is HTTP
            found = json.load(response)
    except (OSError, ValueError, http.client.HTTPException) as failure:
        reason = " ".join(str(failure.reason if isinstance(failure, urllib.error.URLError) else failure).split())
        raise ConfigError(f"{url} gave no report ({reason}); give the address that Watch.serve() returns.") from failure
    if not isinstance(found, dict) or not {"model", "verdict", "layers"} <= found.keys():
        raise ConfigError(f"{url} gave JSON that is no report of geluwatch; give the address that Watch.serve() returns.")
    return found


def _case(layer: LiveLayer, found: LiveComparison) -> Case:
    if layer.outcome == "same":
        # Where no layer is to blame, a report without a failure would say that all is well.
        blamed = found.outcome != "unjudged" and any(each.outcome != "same" for each in found.layers)
        passed = blamed or found.outcome == "same"
        return Case(layer.layer) if passed else Case(layer.layer, found.outcome, found.sentence, found.sentence)
    return Case(layer.layer, layer.outcome, layer.difference or f"in drift, evidence {_number(layer.evidence)}", found.sentence)


def _distance(layer: LiveLayer, point: str) -> str:
    interval = layer.distances.get(point)
    return "-" if interval is None else f"{interval[0]:.4f}-{interval[1]:.4f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _document(found: LiveComparison, arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "known": arguments.known,
        "other": arguments.other,
        "outcome": found.outcome,
        "cause": found.sentence,
        "notes": list(found.notes),
        "layers": [
            {
                "layer": each.layer,
                "outcome": each.outcome,
                "ks": {point: list(interval) for point, interval in each.distances.items()},
                "shift": each.shift,
                "evidence": each.evidence,
                "difference": each.difference,
            }
            for each in found.layers
        ],
    }
