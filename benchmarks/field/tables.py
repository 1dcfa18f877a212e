"""Tables of what was measured, in Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from .streams import NULLS

Cell = dict[str, Any]

OURS = "geluwatch"
TOLD = "told the change"
"""No rival: what could be reached."""


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


def in_order(kinds: Iterable[str]) -> list[str]:
    """Return kinds of traffic, each once, in the order in which they are drawn; real ones come last."""
    known = [null.name for null in NULLS]
    return sorted(dict.fromkeys(kinds), key=lambda kind: known.index(kind) if kind in known else len(known))


def nulls(known: dict[str, Cell]) -> str:
    """Return false alarms a month at defaults, by traffic and tool, with the share of windows in alarm."""
    cells = {name: cell for name, cell in known.items() if "shift" not in cell and "limit" not in cell}
    kinds = in_order(cell["null"] for cell in cells.values())
    who = sorted(dict.fromkeys(cell["who"] for cell in cells.values()), key=lambda name: name != OURS)
    found = {(cell["null"], cell["who"]): cell for cell in cells.values()}
    rows = [[name, *(_rate(found.get((kind, name))) for kind in kinds)] for name in who]
    return table(["false alarms a month (95 %), share of windows", *kinds], rows)


def _rate(cell: Cell | None) -> str:
    if cell is None:
        return ""
    return f"{number(cell['monthly'])} ({number(cell['low'])} to {number(cell['high'])}), {cell['share']:.1%}"


def delays(cells: dict[str, Cell], limits: str) -> str:
    """Return median delays by shift and tool, at default or tuned limits."""
    shown = [cell for cell in cells.values() if "shift" in cell and cell[limits]]
    who = sorted(dict.fromkeys(cell["who"] for cell in shown), key=lambda name: {OURS: 0, TOLD: 1}.get(name, 2))
    kinds = sorted(dict.fromkeys((cell["null"], cell["shift"], cell["place"]) for cell in shown), key=_traffic)
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
    rivals = {kind: _best(found) for kind, found in kinds.items()}
    races = {kind: Race(found[OURS], *rivals[kind], found.get(TOLD)) for kind, found in kinds.items() if OURS in found and rivals[kind][1]}
    heads = ("traffic", "shift", "where", OURS, "best rival", "which", "times as fast", TOLD)
    return table(heads, [[*kind, *races[kind].shown()] for kind in sorted(races, key=_traffic)]) + _summary(list(races.values()))


def _traffic(kind: tuple[str, str, str]) -> str:
    """Return what cells are kept together by, for several processes may have measured them in turns."""
    return kind[0]


def _best(found: dict[str, float]) -> tuple[float, str]:
    """Return the least delay of a rival, and whose; no name where none was measured."""
    rivals = {who: delay for who, delay in found.items() if who not in (OURS, TOLD)}
    return min(((delay, who) for who, delay in rivals.items()), default=(math.inf, ""))


class Race(NamedTuple):
    """Who sees a change when; delays are in windows, infinite where it is not seen."""

    mine: float
    theirs: float
    whose: str
    told: float | None

    @property
    def ratio(self) -> float:
        """How many times as fast ours is."""
        return 1.0 if self.mine == self.theirs else self.theirs / self.mine

    @property
    def winnable(self) -> bool:
        """Whether somebody is known to be twice as fast as the rival: who is told, or ours; nobody needs less than a window."""
        least = min(self.mine, math.inf if self.told is None else self.told)
        return math.isfinite(least) and self.theirs >= 2.0 * least

    def shown(self) -> list[str]:
        """Return the cells of a row."""
        whose = self.whose if math.isfinite(self.theirs) else ""
        ratio = f"{self.ratio:.1f}" if math.isfinite(self.ratio) else "inf"
        return [number(self.mine), number(self.theirs), whose, ratio, "" if self.told is None else number(self.told)]


def _summary(races: list[Race]) -> str:
    """Return in how many cells ours is faster, of all that ours or a rival sees, and of those in which somebody is."""
    races = [race for race in races if math.isfinite(min(race.mine, race.theirs))]
    open_to = [race.ratio for race in races if race.winnable]
    ratios = [race.ratio for race in races]
    return (
        f"\n\nAt least twice as fast as the best rival in {sum(r >= 2.0 for r in ratios)} of {len(ratios)} cells, in "
        f"{sum(r >= 2.0 for r in open_to)} of the {len(open_to)} in which ours or a detector that is told the change is; equal or "
        f"faster in {sum(r >= 1.0 for r in ratios)}, more than 1.2 times slower in {sum(1.2 * r < 1.0 for r in ratios)}."
    )


def calm(cells: dict[str, Cell]) -> str:
    """Return our own false alarms over months, against the budget."""
    heads = ("traffic", "baseline", "looks", "armed", "tier", "months", "expected", "observed", "ratio", "95 % bound", "over twice")
    rows = [
        [
            one["cell"], one["baseline_windows"], f"{one['looks']:.0f}", f"{one['armed']} of {one['baselines']}", one["tier"],
            f"{one['months']:.0f}", f"{one['expected']:.0f}", one["observed"], f"{one['ratio']:.2f}", f"{one['upper']:.2f}",
            f"{one['worse']:.0%}",
        ]
        for cell in cells.values()
        for one in cell["outcomes"]
    ]  # fmt: skip
    return table(heads, rows)


def month(cells: dict[str, Cell]) -> str:
    """Return our false alarms in a month of values."""
    rows = [[name, tier, rate["windows"], _rate(rate)] for name, cell in cells.items() for tier, rate in cell["rates"].items()]
    return table(["traffic", "tier", "windows", "false alarms a month (95 %), share of windows"], rows)


def faults(cells: dict[str, Cell]) -> str:
    """Return what was said of planted faults: how many were seen, the layer called first, the cause."""
    parts = []
    for model in dict.fromkeys(cell["model"] for cell in cells.values()):
        own = [cell for cell in cells.values() if cell["model"] == model]
        parts += [f"### {model}", _first(own), _layers(own), _causes(own)]
    return "\n\n".join(parts)


def _first(cells: list[Cell]) -> str:
    seen = [(cell, each) for cell in cells for each in cell["seen"]]
    found = [(cell, each) for cell, each in seen if each["delay"]]
    right = sum(each["first"] == f"layer.{cell['layer']}" for cell, each in found)
    named = [(cell, each) for cell, each in found if each["cause"]]
    correct = sum(each["cause"] == cell["kind"] for cell, each in named)
    delay = median(each["delay"] for _, each in found) if found else math.inf
    return (
        f"{len(found)} of {len(seen)} faults seen, after {number(delay)} windows (median); "
        f"the first layer right in {_share(right, len(found))}; "
        f"a cause named in {_share(len(named), len(found))}, right in {_share(correct, len(named))} of those."
    )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%} ({part} of {whole})" if whole else "none"


def _layers(cells: list[Cell]) -> str:
    """Return how often which layer was called the first, by the layer that the fault was in."""
    layers = sorted({cell["layer"] for cell in cells})
    rows = []
    for layer in layers:
        said = [each["first"] if each["delay"] else "unseen" for cell in cells if cell["layer"] == layer for each in cell["seen"]]
        rows.append([f"layer.{layer}", *(said.count(name) or "" for name in (*(f"layer.{other}" for other in layers), "unseen"))])
    return table(["fault in, first layer:", *(f"layer.{layer}" for layer in layers), "unseen"], rows)


def _causes(cells: list[Cell]) -> str:
    """Return how often which cause was named, by the kind of the fault."""
    kinds = list(dict.fromkeys(cell["kind"] for cell in cells))
    said = {kind: [each for cell in cells if cell["kind"] == kind for each in cell["seen"]] for kind in kinds}
    others = sorted({each["cause"] for found in said.values() for each in found} - {*kinds, ""})
    rows = []
    for kind, found in said.items():
        causes = ["unseen" if not each["delay"] else each["cause"] or "none named" for each in found]
        rows.append([kind, *(causes.count(name) or "" for name in (*kinds, *others, "none named", "unseen"))])
    return table(["fault, cause named:", *kinds, *others, "none named", "unseen"], rows)


def all_of(folder: Path) -> str:
    """Return every table that there are figures for."""
    parts = []
    if cells := load(folder, "calm"):
        parts += ["## Our false alarms over months", calm(cells)]
    if cells := load(folder, "month"):
        parts += ["## Our false alarms in a month of values", month(cells)]
    if cells := load(folder, "nulls"):
        parts += ["## False alarms at defaults", nulls(cells)]
    for part, title in (("delays", "drawn traffic"), ("real", "real models")):
        if cells := load(folder, part):
            parts += [f"## Tuned to equal false alarms, {title}", tuned(cells)]
            parts += ["### Median windows to the alarm, at equal false alarms", delays(cells, "tuned")]
            parts += ["### The same at defaults", delays(cells, "default"), "### Against the best rival", against(cells)]
            if part == "real":
                parts += ["### False alarms at defaults", nulls(cells)]
    if cells := load(folder, "faults"):
        parts += ["## Faults planted in real models", faults(cells)]
    return "\n\n".join(parts) + "\n"
