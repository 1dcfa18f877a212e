"""Where a baseline comes from and who stands for it, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from geluwatch.cli.stored import when

if TYPE_CHECKING:
    from geluwatch.records import Baseline, Provenance, Weights
    from geluwatch.store.promotion import Standing


def lines(baseline: Baseline, standing: Standing) -> Iterator[tuple[str, str]]:
    """Yield (label, line) of a baseline's standing and origin."""
    yield "standing", f"{_standing(standing)}; {_signed(baseline)}"
    if baseline.traffic:
        yield "traffic", baseline.traffic
    if baseline.provenance is not None:
        yield "weights", _weights(baseline.provenance.weights)
        yield "formulas", _formulas(baseline.provenance)
        yield "versions", ", ".join(f"{name} {version}" for name, version in sorted(baseline.provenance.versions.items()))
        yield "machine", ", ".join(baseline.provenance.machine.values())


def compared(known: Baseline, other: Baseline) -> dict[str, tuple[str, ...]]:
    """Return in which things that matter two baselines' models differ, and in which surroundings; nothing of what one does not tell."""
    from geluwatch.core import provenance

    if known.provenance is None or other.provenance is None:
        return {"differences": (), "surroundings": ()}
    return {
        "differences": provenance.differences(known.provenance, other.provenance),
        "surroundings": provenance.surroundings(known.provenance, other.provenance),
    }


def _standing(standing: Standing) -> str:
    approved = f", approved by {', '.join(standing.approvers)}" if standing.approvers else ""
    recorded = f"recorded by {standing.recorder}" if standing.recorder else "recorded before there was a log"
    if standing.state == "recorded" or standing.since is None:
        return f"{recorded}{approved}"
    return f"{standing.state} by {standing.by} {when(standing.since)}, {recorded}{approved}"


def _signed(baseline: Baseline) -> str:
    return f"signed by key {baseline.signature.signer}" if baseline.signature else "not signed"


def _weights(weights: Weights) -> str:
    digest = f"{weights.digest[:16]} over {len(weights.tensors)} tensors" if weights.digest else f"unknown: {weights.reason}"
    return f"{digest}; {weights.parameters:,} parameters in {' and '.join(weights.dtypes)} on {' and '.join(weights.devices)}"


def _formulas(origin: Provenance) -> str:
    """Return the formulas with how many layers have each: "6 declare erf, measured erf in float32"."""
    groups = Counter((each.declared, each.measured, each.precision or each.dtype) for each in origin.activations)
    return "; ".join(
        f"{count} {'declares' if count == 1 else 'declare'} {declared}, "
        + (f"measured {measured}{f' in {precision}' if precision else ''}" if measured else "not measured")
        for (declared, measured, precision), count in groups.items()
    )
