"""What a replayed probe says: whether the model is the one that the probe was recorded on, and what follows for drifting traffic.

Inputs are the same, so every value has its pair, and no statistics are needed. What a sum in another order does to the
values is no change; how much that is depends on their dtype.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from geluwatch.core.paired import Paired, systematic, where
from geluwatch.errors import ProbeError
from geluwatch.records import Bfloat16, LayerDifference, Origin, Probe, ProbeResult, Rows, Tree

MOST_BYTES = 16 * 2**20
"""Most memory of the rows that a probe keeps, and as much again of its inputs."""

TOLERANCES = {"float64": 1e-6, "float32": 1e-5, "float16": 5e-3, "bfloat16": 4e-2}
"""Relative difference up to which values of a dtype count as the same. Sums in another order, by another number of threads or
another machine's kernels, stay below it; values of float64 are kept as float32."""

# Relative difference in which a change of the weights may hide that drift would see.
_HIDDEN = 1e-2
_NUMBER_BYTES = 8
_HOW = "watch.probe() tells"


def allowance(calls: int) -> int:
    """Return how many values of each of so many calls may be kept on each side of the GELU."""
    return MOST_BYTES // (2 * 4 * max(calls, 1))


def nbytes(tree: Tree) -> int:
    """Return the memory of the arrays, or of a framework's tensors, of the texts and of the numbers in a tree of inputs."""
    if isinstance(tree, Mapping):
        return sum(map(nbytes, tree.values()))
    if isinstance(tree, (list, tuple)):
        return sum(map(nbytes, tree))
    if isinstance(tree, str):
        return len(tree)
    return tree.bits.nbytes if isinstance(tree, Bfloat16) else int(getattr(tree, "nbytes", _NUMBER_BYTES))


def compare(
    probe: Probe,
    replayed: Sequence[Sequence[Rows]],
    census: Collection[str],
    *,
    blind: Collection[str] = (),
    baseline: str = "",
    time: float = 0.0,
) -> ProbeResult:
    """Return how a replay differs from what a probe has stored.

    Args:
        probe: The probe.
        replayed: Of each of its inputs, the rows of each call, as the probe has them.
        census: The layers that the model has now, seen or not.
        blind: Those of them that are not seen. Another one without rows was not called, as an expert that a router passes by.
        baseline: Name of the baseline whose probe it is.
        time: When it was replayed.

    Raises:
        ProbeError: None of the probe's layers gave rows, though the model has some of them.
    """
    dtypes: dict[str, str] = {}
    for rows in chain.from_iterable(probe.rows):
        dtypes.setdefault(rows.layer, rows.dtype)
    if not any(rows.layer in dtypes for rows in chain.from_iterable(replayed)) and set(dtypes) & set(census):
        raise ProbeError("No GELU of the probe gave rows; the census says why (`print(watch.census())`).")
    pairs: dict[str, Paired] = {}
    seen = set(census) - set(blind)
    for known, now in zip(probe.rows, replayed, strict=True):
        for layer in dtypes:
            first, second = ([rows for rows in side if rows.layer == layer] for side in (known, now))
            if second or (first and layer in seen):
                pairs.setdefault(layer, Paired(one="in the baseline", other="now")).add(first, second)
    layers = tuple(_layers(dtypes, pairs, census))
    limits = {layer: TOLERANCES[dtype] for layer, dtype in dtypes.items()}
    first_moved = next((each for each in layers if _moved(each, limits[each.layer])), None)
    limit = limits[first_moved.layer] if first_moved else max(limits.values(), default=0.0)
    within = first_moved is not None and not first_moved.difference and not _before(first_moved, limit)
    doubtful = first_moved is None and any(max(each.before, each.after) > _doubtful(limits[each.layer]) for each in layers)
    return ProbeResult(time, baseline, probe.created, layers, first_moved, within, _sentence(layers, first_moved, limit), doubtful)


def _layers(known: Collection[str], pairs: dict[str, Paired], census: Collection[str]) -> Iterator[LayerDifference]:
    """Yield the layers of a probe. One that the model still has but that gives no rows, as a blind one does, says nothing."""
    for layer in known:
        pair = pairs.get(layer, Paired())
        told = pair.unlike if layer in census else "the model lacks it now"
        before, after = pair.before, pair.after
        alike = before.systematic, after.systematic
        yield LayerDifference(layer, pair.rows, before.relative, after.relative, after.largest, told, *alike)


def _moved(layer: LayerDifference, limit: float) -> bool:
    return bool(layer.difference) or _before(layer, limit) or layer.after > limit or layer.all_after > systematic(limit)


def _before(layer: LayerDifference, limit: float) -> bool:
    return layer.before > limit or layer.all_before > systematic(limit)


def _doubtful(limit: float) -> float:
    """Return the difference from which on a tolerance may hide a change: weights that are off by a hundredth move drift as well."""
    return min(_HIDDEN, limit)


def _sentence(layers: tuple[LayerDifference, ...], first: LayerDifference | None, limit: float) -> str:
    silent = [each.layer for each in layers if not each.rows and not each.difference]
    rest = f"; {len(silent)} gave no rows, {silent[0]} first, and are not compared" if silent else ""
    if first is None:
        return f"the model gives the same as when the probe was recorded, at {len(layers) - len(silent)} GELUs, within {limit:g}{rest}"
    unlike = f" ({first.difference})" if first.difference else ""
    return f"the model changed, first at layer {first.layer}{unlike}: {where(first, limit)}{rest}"


class Attribution(NamedTuple):
    """What a probe says of the present drift."""

    origin: Origin
    sentence: str
    """In words; empty where there is nothing to tell."""


def attribute(onset: float | None, result: ProbeResult | None, *, has_probe: bool) -> Attribution:
    """Return what has changed, as far as a probe tells.

    Args:
        onset: When the present drift began; None without drift.
        result: What the last replay showed; None where there was none.
        has_probe: Whether the armed baseline has a probe.
    """
    if onset is None:
        return Attribution("", "" if result is None else f"The probe says: {result.sentence}.")
    if not has_probe:
        return Attribution("unknown", "The baseline has no probe that could tell whether the data changed or the model.")
    if result is None or result.time < onset:
        return Attribution("unknown", f"No probe has been replayed since the drift began; {_HOW} whether the data changed or the model.")
    if result.moved:
        return Attribution("model", f"The probe says: {result.sentence}.")
    if result.doubtful:
        return Attribution("unknown", f"The probe cannot tell the data from a small change of the weights: {result.sentence}.")
    return Attribution("data", f"The probe says: the data changed; {result.sentence}.")
