"""The little SVG that the charts are made of: steps, ticks, and plots whose text stays outside, so that it never stretches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from geluwatch.analysis.report import words
from geluwatch.analysis.report.grid import Grid
from geluwatch.records import Floats

HEIGHT = 100
"""Height of every drawing in units of its own; a page stretches it."""

_HOUR, _DAY = 3600.0, 86400.0
_STEPS = (
    600.0, 1800.0, _HOUR, 2 * _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR,
    _DAY, 2 * _DAY, 7 * _DAY, 14 * _DAY, 28 * _DAY, 91 * _DAY, 364 * _DAY,
)  # fmt: skip
_MOST_TICKS = 8


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis."""

    at: float
    """Where: percent of the axis, from the left or from the top."""
    text: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing and what is written around it."""

    width: int
    """Of the drawing, in units of its own."""
    body: Markup
    label: str
    """What it shows, for people who do not see it."""
    across: tuple[Tick, ...] = ()
    up: tuple[Tick, ...] = ()
    x: str = ""
    """What lies along the horizontal axis, with its unit."""
    y: str = ""


def path(name: str, drawn: str, title: str = "") -> Markup:
    """Return a path of a class, with a tooltip where a title is given; nothing where nothing is drawn."""
    if not drawn:
        return Markup("")
    told = Markup("<title>{}</title>").format(title) if title else Markup("")
    return Markup('<path class="{}" d="{}">{}</path>').format(name, drawn, told)


def box(name: str, left: float, top: float, width: float, height: float, title: str = "") -> Markup:
    """Return a rectangle of a class as a path, which is shorter."""
    return path(name, f"M{_short(left)} {_short(top)}h{_short(width)}v{_short(height)}h{_short(-width)}z", title)


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"


def steps(heights: Floats, base: float | None = None) -> str:
    """Return the path of a step line over bins of width 1.

    Args:
        heights: (bins,) in the drawing's units, counted from the top; NaN where nothing is drawn.
        base: Where given, the area between the line and this height is enclosed.
    """
    drawn = []
    for start, stop in _runs(~np.isnan(heights)):
        line = [f"M{start} {_short(base)}V{_short(heights[start])}" if base is not None else f"M{start} {_short(heights[start])}"]
        level = start
        for at in range(start + 1, stop):
            if _short(heights[at]) != _short(heights[level]):
                line.append(f"H{at}V{_short(heights[at])}")
                level = at
        line.append(f"H{stop}" + (f"V{_short(base)}z" if base is not None else ""))
        drawn.append("".join(line))
    return "".join(drawn)


def _runs(kept: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield where runs of true values begin and end."""
    turns = np.flatnonzero(np.diff(np.concatenate([[False], kept, [False]]).astype(np.int8)))
    yield from zip(turns[::2].tolist(), turns[1::2].tolist(), strict=True)


def lines(across: tuple[Tick, ...], width: int) -> Markup:
    """Return upright lines at the ticks of a horizontal axis."""
    return path("grid", "".join(f"M{_short(tick.at * width / 100)} 0V{HEIGHT}" for tick in across if 0.0 < tick.at < 100.0))


def level(at: float, width: int, name: str) -> Markup:
    """Return a line across at a height in the drawing's units."""
    return path(name, f"M0 {_short(at)}H{width}")


def times(over: Grid) -> tuple[Tick, ...]:
    """Return at most eight ticks at whole days, hours or minutes in UTC."""
    span = over.end - over.start
    step = next((each for each in _STEPS if span / each <= _MOST_TICKS), _STEPS[-1] * math.ceil(span / _STEPS[-1] / _MOST_TICKS))
    first = math.ceil(over.start / step) * step
    return tuple(Tick(100.0 * over.share(at), _told(at, step)) for at in np.arange(first, over.end, step).tolist())


def _told(at: float, step: float) -> str:
    told = words.date(at)
    if step < _DAY and at % _DAY:
        return f"{told:%H:%M}"
    return f"{told:%a} {told.day}" if step <= 2 * _DAY else f"{told.day} {told:%b}"


def numbers(low: float, high: float, most: int = 6) -> tuple[Tick, ...]:
    """Return ticks at round numbers from low to high, from the left."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1.0, 2.0, 5.0, 10.0) if size * power >= rough)
    digits = max(-math.floor(math.log10(step)), 0)
    whole = range(math.ceil(low / step), math.floor(high / step) + 1)
    return tuple(Tick(100.0 * (at * step - low) / (high - low), words.number(at * step + 0.0, digits)) for at in whole)
