"""A shadow experiment as text, in at most 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence

from geluwatch.analysis.shadow.result import Shadow, Variant
from geluwatch.core.experiment import Accuracy, Span
from geluwatch.records import LayerDifference

WIDTH = 100

_AS_IT_IS = "as it is"

_MOST_LAYERS = 12
"""Layers shown; of more, the first, the last, and some evenly between."""

_LONGEST_LAYER, _LONGEST_NAME = 34, 10

_BLOCK = 7
"""Variants side by side in the table of layers."""


def table(found: Shadow) -> str:
    """Return all of it as text."""
    inputs, outputs = f"{found.inputs:,} inputs", f"{found.rows:,} rows of output"
    head = f"{found.model}: {found.sites} GELUs, {inputs}{'' if found.rows == found.inputs else f', {outputs}'}"
    blocks = [[head], _outputs(found)]
    if found.accuracy is not None:
        blocks.append(_accuracies(found))
    if found.seconds is not None:
        blocks.append(_times(found))
    blocks.extend(_layers(found))
    blocks.append([line for note in _notes(found) for line in textwrap.wrap(note, WIDTH, subsequent_indent="  ")])
    return "\n\n".join("\n".join(line.rstrip() for line in block) for block in blocks)


def _outputs(found: Shadow) -> list[str]:
    def row(each: Variant) -> list[str]:
        same = "-" if each.agreement is None else _share(each.agreement)
        return [_name(each), _size(each.relative), _size(each.largest), f"{each.cosine:.6f}", same]

    return _grid(["variant", "output differs by", "at most", "cosine", "same answer"], [row(each) for each in found.variants])


def _accuracies(found: Shadow) -> list[str]:
    heads = ["variant", "accuracy", "change", "95 % interval", "lost/won", "p", "A/B, each arm", "A/B, paired"]
    rows = [[_name(each), *_accuracy(each.accuracy)] for each in found.variants if each.accuracy is not None]
    return _grid(heads, [[_AS_IT_IS, _share(found.accuracy or 0.0), *[""] * 6], *rows])


def _accuracy(seen: Accuracy) -> list[str]:
    changed = [f"{seen.lost}/{seen.won}", f"{seen.probability:.2g}"]
    return [_share(seen.other), _signed(seen.change), _span(seen.interval, _signed), *changed, _count(seen.per_arm), _count(seen.pairs)]


def _times(found: Shadow) -> list[str]:
    priced = found.cost_per_hour is not None
    rows = [[_AS_IT_IS, _seconds(found.seconds or 0.0), "", "", "", f"{found.cost() or 0:.4g}"]]
    for each in found.variants:
        if (timing := each.timing) is not None:
            saved = f"{1 - timing.ratio:+.1%}".replace("%", " %") if timing.resolved else "not resolved"
            own = _seconds((found.seconds or 0.0) * timing.ratio)
            rows.append([_name(each), own, f"{timing.ratio:.3f}", _span(timing.interval, "{:.3f}".format), saved, _price(found, each)])
    heads = ["variant", "time an input", "ratio", "95 % interval", "saved", "cost a million"]
    return _grid(heads, rows) if priced else _grid(heads[:-1], [row[:-1] for row in rows])


def _price(found: Shadow, each: Variant) -> str:
    return f"{found.cost(each.timing) or 0:.4g}"


def _layers(found: Shadow) -> Iterator[list[str]]:
    """Yield tables of how far each GELU's output is off, a column for each variant."""
    traced = [each for each in found.variants if each.layers]
    for start in range(0, len(traced), _BLOCK):
        block = traced[start : start + _BLOCK]
        pattern, names = _labels([layer.layer for layer in block[0].layers])
        rows = [[_shortened(names[place], _LONGEST_LAYER), *(_at(each.layers[place]) for each in block)] for place in _spread(len(names))]
        rows.append(["output", *(_size(each.relative) for each in block)])
        yield [*pattern, *_grid(["GELU output differs by", *(_name(each) for each in block)], rows)]


def _at(layer: LayerDifference) -> str:
    return _size(layer.after) if layer.rows else "-"


def _labels(layers: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return names without the parts in which they all begin and end, and a line that has those parts, where there are any."""
    parts = [layer.split(".") for layer in layers]
    shortest = min(len(each) for each in parts) - 1
    begin = end = 0
    if len(parts) > 1:
        begin = next((at for at in range(shortest) if len({each[at] for each in parts}) > 1), shortest)
        end = next((at for at in range(shortest - begin) if len({each[-1 - at] for each in parts}) > 1), shortest - begin)
    if not begin and not end:
        return [], list(layers)
    shared = [*parts[0][:begin], "*", *parts[0][len(parts[0]) - end :]]
    return [f"{'.'.join(shared)}:"], [".".join(each[begin : len(each) - end]) for each in parts]


def _spread(count: int) -> Iterable[int]:
    """Return places among many, the first and the last with them."""
    if count <= _MOST_LAYERS:
        return range(count)
    return sorted({round(step * (count - 1) / (_MOST_LAYERS - 1)) for step in range(_MOST_LAYERS)})


def _notes(found: Shadow) -> Iterator[str]:
    """Yield what the figures mean, and what was not done."""
    for each in found.variants:
        yield f"{each.name}: {each.about}."
    for layer in dict.fromkeys(each.enters for each in found.variants if each.enters):
        yield f"The difference enters at {layer}: {', '.join(each.name for each in found.variants if each.enters == layer)}."
    for each in found.variants:
        if not each.complete:
            yield f"{each.name}: only {each.calls} of {each.expected} calls of GELU in a pass are replaced; the others compute as they did."
    for layer, reason in found.kept:
        yield f"Not replaced: {layer}, {reason}."
    for name, reason in found.left_out:
        yield f"Left out: {name}, for {reason}."
    if found.seconds is not None:
        yield _on_times(found)
    if found.accuracy is not None:
        yield (
            f"Accuracy on {found.labelled:,} answers, paired: lost and won are those that only one gets right, p is McNemar's test, mid-p. "
            "A/B: inputs needed to see the change seen here, if it is the true one, at alpha .05 (two-sided) and power .8."
        )


def _on_times(found: Shadow) -> str:
    rounds = next((each.timing.rounds for each in found.variants if each.timing), 0)
    way = " Calls of GELU as a function take a way through Python in all of them, the model as it is included." if found.dispatched else ""
    return f"Times of {rounds} rounds on this machine, paired; not resolved where the interval of the ratio holds 1.{way}"


def _grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table, the first column to the left and the others to the right."""
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    shape = "  ".join(f"{{:{'>' if column else '<'}{width}}}" for column, width in enumerate(widths))
    return [shape.format(*row) for row in (heads, *rows)]


def _shortened(name: str, longest: int) -> str:
    """Return a name with its middle left out where it is long."""
    if len(name) <= longest:
        return name
    half = (longest - 2) // 2
    return f"{name[:half]}..{name[-half:]}"


def _name(each: Variant) -> str:
    return _shortened(each.name, _LONGEST_NAME)


def _size(value: float) -> str:
    return f"{value:.2g}" if value else "0"


def _share(value: float) -> str:
    return f"{100 * value:.2f} %"


def _signed(value: float) -> str:
    return f"{100 * value:+.2f} %"


def _span(span: Span, shown: Callable[[float], str]) -> str:
    return f"{shown(span.low)} to {shown(span.high)}"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _seconds(value: float) -> str:
    """Return a duration with three digits, in the unit that suits it."""
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e6:.3g} us"
