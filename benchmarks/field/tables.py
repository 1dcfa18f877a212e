"""Tables of what was measured, in Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

Cell = dict[str, Any]

OURS = "geluwatch"


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return rows as a Markdown table."""
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    return "\n".join(lines + [f"| {' | '.join(map(str, row))} |" for row in rows])


def load(folder: Path, part: str) -> dict[str, Cell]:
    """Return a part's cells by name; none where it was not run."""
    path = folder / f"{part}.json"
    cells: dict[str, Cell] = json.loads(path.read_text())["cells"] if path.exists() else {}
    return cells


def number(value: float) -> str:
    """Return a rate or a delay as it is read."""
    return "none" if not math.isfinite(value) else f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def middle(values: list[float | None]) -> float:
    """Return the median delay; infinite where half of the trials saw nothing."""
    return float(median(math.inf if value is None else value for value in values))


def nulls(cells: dict[str, Cell]) -> str:
    """Return false alarms a month at defaults, by traffic and tool, with the share of windows in alarm."""
    kinds = list(dict.fromkeys(cell["null"] for cell in cells.values()))
    who = sorted({cell["who"] for cell in cells.values()}, key=lambda name: name != OURS)
    found = {(cell["null"], cell["who"]): cell for cell in cells.values()}
    rows = [[name, *(_rate(found.get((kind, name))) for kind in kinds)] for name in who]
    return table(["false alarms a month (95 %), share of windows", *kinds], rows)


def _rate(cell: Cell | None) -> str:
    if cell is None:
        return ""
    return f"{number(cell['monthly'])} ({number(cell['low'])} to {number(cell['high'])}), {cell['share']:.1%}"


def delays(cells: dict[str, Cell], limits: str) -> str:
    """Return median delays by shift and tool, at default or tuned limits."""
    shown = [cell for cell in cells.values() if "shift" in cell]
    who = sorted(dict.fromkeys(cell["who"] for cell in shown), key=lambda name: name != OURS)
    kinds = list(dict.fromkeys((cell["null"], cell["shift"], cell["place"]) for cell in shown))
    found = {(cell["null"], cell["shift"], cell["place"], cell["who"]): cell for cell in shown}
    rows = []
    for kind in kinds:
        values = [found.get((*kind, name)) for name in who]
        promised = next((each["most"] for each in values if each), 0)
        rows.append([*kind, promised or "", *(number(middle(each[limits])) if each else "" for each in values)])
    return table(["traffic", "shift", "where", "promised", *who], rows)


def tuned(cells: dict[str, Cell]) -> str:
    """Return the limits of equal false alarms, and what they gave on other calm windows."""
    rows = [
        [cell["null"], cell["who"], "none" if cell["limit"] is None else f"{cell['limit']:.3g}", _rate(cell)]
        for cell in cells.values()
        if "limit" in cell
    ]
    return table(["traffic", "who", "limit", "false alarms a month on other calm windows, share"], rows)


def against(cells: dict[str, Cell]) -> str:
    """Return in how many cells ours is how much faster than the best rival at equal false alarms."""
    kinds: dict[tuple[str, str, str], dict[str, float]] = {}
    for cell in cells.values():
        if "shift" in cell and cell["who"] != "always":
            kinds.setdefault((cell["null"], cell["shift"], cell["place"]), {})[cell["who"]] = middle(cell["tuned"])
    rows = []
    for kind, found in kinds.items():
        mine = found.pop(OURS, math.inf)
        best = min(found, key=lambda name: found[name], default="")
        theirs = found.get(best, math.inf)
        ratio = 1.0 if mine == theirs else theirs / mine
        rows.append(
            [*kind, number(mine), number(theirs), best if math.isfinite(theirs) else "", f"{ratio:.1f}" if math.isfinite(ratio) else "inf"]
        )
    ratios = [float(row[-1]) for row in rows]
    said = (
        f"\n\nAt least twice as fast as the best rival in {sum(r >= 2 for r in ratios)} of {len(ratios)} cells, "
        f"equal or faster in {sum(r >= 1 for r in ratios)}, more than 1.2 times slower in {sum(r < 1 / 1.2 for r in ratios)}."
    )
    return table(["traffic", "shift", "where", OURS, "best rival", "which", "times as fast"], rows) + said


def all_of(folder: Path) -> str:
    """Return every table that there are figures for."""
    parts = []
    if cells := load(folder, "nulls"):
        parts += ["## False alarms at defaults", nulls(cells)]
    if cells := load(folder, "delays"):
        parts += ["## Tuned to equal false alarms", tuned(cells)]
        parts += ["## Median windows to the alarm, at equal false alarms", delays(cells, "tuned")]
        parts += ["## The same at defaults", delays(cells, "default"), "## Against the best rival", against(cells)]
    return "\n\n".join(parts)
