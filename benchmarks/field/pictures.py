"""Pictures of the field: false alarms by traffic, and delays at equal false alarms."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt

from .tables import OURS, TOLD, Cell, in_order, load, middle

plt.rcParams["svg.hashsalt"] = "geluwatch"  # the same file from the same figures

_MARKS = "os^vD<>pPX*dhH8"
_DUMMIES = {"always", "never"}
_NEVER = 64.0


def draw(folder: Path) -> None:
    """Draw what there are figures for, beside the figures."""
    if cells := load(folder, "nulls"):
        _draw(folder / "false-alarms.svg", _rates(cells), "false alarms a month at defaults (none is drawn at .1)", budget=2.0)
    for part in ("delays", "real"):
        if cells := load(folder, part):
            _draw(folder / f"{part}.svg", _delays(cells), f"median windows to the alarm at equal false alarms ({_NEVER:.0f}: none)")


def _rates(cells: dict[str, Cell]) -> dict[str, dict[str, float]]:
    """Return the monthly rates by traffic and tool."""
    found: dict[str, dict[str, float]] = {}
    for cell in cells.values():
        if cell["who"] not in _DUMMIES:
            found.setdefault(cell["null"], {})[cell["who"]] = max(cell["monthly"], 0.1)
    return {kind: found[kind] for kind in in_order(found)}


def _delays(cells: dict[str, Cell]) -> dict[str, dict[str, float]]:
    """Return the median delays by case and tool."""
    found: dict[str, dict[str, float]] = {}
    for cell in sorted(cells.values(), key=lambda cell: str(cell["null"])):
        if "shift" in cell and cell["who"] not in _DUMMIES:
            value = middle(cell["tuned"])
            name = f"{cell['null']}: {cell['shift']}, {cell['place']}"
            found.setdefault(name, {})[cell["who"]] = value if math.isfinite(value) else _NEVER
    return found


def _draw(path: Path, rows: dict[str, dict[str, float]], label: str, budget: float | None = None) -> None:
    who = sorted({name for row in rows.values() for name in row}, key=lambda name: (name != OURS, name))
    figure, axes = plt.subplots(figsize=(10.0, 1.8 + 0.42 * len(rows)), layout="constrained")
    for number, name in enumerate(who):
        mine = name == OURS
        points = [(row[name], place + (number / len(who) - 0.5) * 0.6) for place, row in enumerate(rows.values()) if name in row]
        colour = {OURS: "#1f5fa8", TOLD: "#222222"}.get(name, plt.get_cmap("tab20")(number % 20))
        axes.plot(
            *zip(*points, strict=True),
            "|" if name == TOLD else _MARKS[number % len(_MARKS)],
            color=colour,
            markersize=8 if mine else 12 if name == TOLD else 5,
            label=name,
            zorder=3 if mine else 2,
        )
    if budget:
        axes.axvline(budget, color="#2e7d32", linewidth=2.0, label="the budget", zorder=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel(label)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.grid(axis="both", which="major", color="#e4e4e4", zorder=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
