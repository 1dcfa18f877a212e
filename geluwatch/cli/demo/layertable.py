"""The table of layers on the screen, fitted to the room there is: the narrower, the fewer columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from geluwatch.cli.demo.display import LayerRow, State, interval, number

WINDOWS = 32
"""Most windows that a trail shows."""

_HEIGHTS = "▁▂▃▄▅▆▇█"
_STATES: Mapping[State, str] = {
    "blind": "dim",
    "watched": "cyan",
    "calm": "green",
    "drift": "yellow",
    "drift 1st": "bold yellow",
    "overflow": "yellow",
    "kernel": "yellow",
    "gross": "red",
    "non-finite": "red",
    "first": "bold red",
}

_GAP = 2
_STATE, _READING, _COUNT, _INTERVAL, _MOMENT = 10, 5, 10, 11, 6
_LEAST_BAR, _MOST_BAR, _LEAST_TRAIL = 11, 33, 8


@dataclass(frozen=True, slots=True)
class Columns:
    """What fits: characters of bar and trail, and whether there is room for KS distance, mean and deviation."""

    bar: int
    trail: int
    distance: bool
    moments: bool


def columns(names: Iterable[str], room: int) -> Columns:
    """Return the columns for layers of these names that fit into so many characters."""
    left = room - max(map(len, ("layer", *names))) - _STATE - _READING - _COUNT - _LEAST_BAR - 4 * _GAP
    distance = left >= _INTERVAL + _GAP
    left -= (_INTERVAL + _GAP) * distance
    moments = left >= 2 * (_MOMENT + _GAP) + _LEAST_TRAIL + _GAP
    left -= 2 * (_MOMENT + _GAP) * moments
    trail_width = min(WINDOWS, left - _GAP) if left >= _LEAST_TRAIL + _GAP else 0
    left -= (trail_width + _GAP) * bool(trail_width)
    bar = min(_LEAST_BAR + max(left, 0), _MOST_BAR)
    return Columns(bar - 1 + bar % 2, trail_width, distance, moments)


def table(rows: Sequence[LayerRow], trails: Mapping[str, Sequence[float]], room: int) -> Table:
    """Return the table of layers for so many characters; `trails` holds the evidence of the last windows by name."""
    fit = columns([row.name for row in rows], room)
    drawn = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="dim")
    drawn.add_column("layer", no_wrap=True)
    drawn.add_column("state", no_wrap=True, width=_STATE)
    if fit.moments:
        drawn.add_column("mean", no_wrap=True, justify="right", width=_MOMENT)
        drawn.add_column("std", no_wrap=True, justify="right", width=_MOMENT)
    if fit.distance:
        drawn.add_column("KS", no_wrap=True, width=_INTERVAL)
    if fit.trail:
        drawn.add_column("windows", no_wrap=True, width=fit.trail)
    drawn.add_column("evidence", no_wrap=True, width=fit.bar)
    drawn.add_column("", no_wrap=True, justify="right", width=_READING)
    drawn.add_column("non-finite", no_wrap=True, justify="right", width=_COUNT)
    for row in rows:
        drawn.add_row(*_cells(row, trails.get(row.name, ()), fit))
    return drawn


def evidence_bar(evidence: float, width: int) -> Text:
    """Return evidence as a bar of so many characters, an odd number; the ticket's limit in the middle, twice that at the end.

    Without a judgement there is no limit either.
    """
    if math.isnan(evidence):
        return Text("─" * width, style="dim")
    half = width // 2
    filled = round(min(evidence, 2.0) * half)
    style = "green" if evidence < 1 else "yellow"
    below, above = min(filled, half), max(filled - half, 0)
    return Text.assemble(
        ("━" * below, style), ("─" * (half - below), "dim"), ("┃", "bold"), ("━" * above, style), ("─" * (half - above), "dim")
    )


def trail(evidence: Iterable[float]) -> Text:
    """Return evidence of consecutive windows as one character each: half height is the limit, a dot was not judged."""
    text = Text()
    for value in evidence:
        if math.isnan(value):
            text.append("·", style="dim")
        else:
            text.append(_HEIGHTS[int(min(value, 1.9) * 4)], style="green" if value < 1 else "yellow")
    return text


def _cells(row: LayerRow, evidence: Sequence[float], fit: Columns) -> list[str | Text]:
    cells: list[str | Text] = [row.name, Text(row.state, style=_STATES[row.state])]
    if fit.moments:
        cells += [number(row.mean), number(row.std)]
    if fit.distance:
        cells.append(interval(row.ks, row.ks_upper))
    if fit.trail:
        cells.append(trail(list(evidence)[-fit.trail :]))
    count = Text(f"{row.nonfinite:,}", style="red" if row.nonfinite else "dim")
    return [*cells, evidence_bar(row.evidence, fit.bar), number(row.evidence), count]
