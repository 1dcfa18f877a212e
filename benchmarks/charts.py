"""Pictures of results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt

plt.rcParams["svg.hashsalt"] = "geluwatch"  # the same file from the same figures

COLOURS = {
    "agent": "#1f5fa8",
    "guard alone": "#6fa8dc",
    "detached": "#b7b7b7",
    "four .item()": "#d9a441",
    "histc + isnan": "#c8642c",
    "HistogramObserver": "#8e4a8b",
    "add_histogram": "#9c2f2f",
}
"""By contender, in the order in which they are drawn; the agent's own are blue."""

_BESIDE = 0.1
_LEAST_SHOWN = 1e-3


def overhead(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw what each contender adds to a step, a line for each row, with its interval and the agent's target.

    Args:
        rows: As in overhead.json.
        path: The SVG file to write.
    """
    figure, axes = plt.subplots(figsize=(9.0, 1.2 + 0.62 * len(rows)), layout="constrained")
    for place, row in enumerate(rows):
        axes.plot([100 * row["target"]] * 2, [place - 0.42, place + 0.42], color="#2e7d32", linewidth=2.0, zorder=1)
        for number, (name, colour) in enumerate(COLOURS.items()):
            if (seen := row["figures"].get(name)) is not None:
                middle, low, high = (100 * max(seen[key], _LEAST_SHOWN) for key in ("overhead", "low", "high"))
                height = place + (number - len(COLOURS) / 2) * _BESIDE
                axes.plot([low, high], [height] * 2, color=colour, linewidth=1.6, solid_capstyle="butt")
                axes.plot(middle, height, "o", color=colour, markersize=4.5)
    for name, colour in COLOURS.items():
        axes.plot([], [], "o-", color=colour, label=name, markersize=4.5)
    axes.plot([], [], color="#2e7d32", linewidth=2.0, label="the agent's target")
    axes.set_xscale("log")
    axes.set_xlabel("added to a step, % (median and 95 % interval; less than .1 % is drawn at .1)")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_yticks(range(len(rows)), [f"{row['name']}  ({row['step_ms']:.1f} ms)" for row in rows])
    axes.invert_yaxis()
    axes.grid(axis="x", which="major", color="#dddddd", zorder=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def growth(grown: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Draw how each cost grows, a panel for each, on a log-log scale beside a line of slope one.

    Args:
        grown: As the figures of growth in scale.json: sizes and their costs by what grows.
        path: The SVG file to write.
    """
    from growth import COSTS, FEW_CHANNELS, FEW_SITES, RANK_SITES, UPPER

    axes_of = {
        "sites": ("o-", "#1f5fa8", f"by sites, of {FEW_CHANNELS} channels"),
        "channels": ("s-", "#c8642c", f"by channels, at {FEW_SITES} sites"),
        "ranks": ("^-", "#8e4a8b", f"by ranks, of {RANK_SITES} sites"),
    }
    shown = [key for key in COSTS if key not in {"bare", "sent"}]
    columns = 3
    rows = -(-len(shown) // columns)
    figure, panels = plt.subplots(rows, columns, figsize=(11.0, 2.5 * rows), layout="constrained")
    for key, axes in zip(shown, panels.flat, strict=False):
        for name, (marker, colour, _) in axes_of.items():
            points = [(each["size"], each[key] / COSTS[key].per_unit) for each in grown[name] if each.get(key, 0.0) > 0.0]
            if points:
                _curve(axes, points, points[-UPPER:], marker, colour)
        axes.set(xscale="log", yscale="log", title=COSTS[key].title, ylabel=COSTS[key].unit or "number")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        axes.grid(which="major", color="#e4e4e4")
        axes.spines[["top", "right"]].set_visible(False)
        axes.minorticks_off()
        axes.title.set_fontsize(10)
    for axes in panels.flat[len(shown) :]:
        axes.set_visible(False)
    for marker, colour, label in axes_of.values():
        panels.flat[0].plot([], [], marker, color=colour, label=label, markersize=4.5)
    panels.flat[0].plot([], [], "--", color="#999999", label="slope one")
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _curve(axes: Any, points: list[tuple[float, float]], upper: list[tuple[float, float]], marker: str, colour: str) -> None:
    """Draw one curve, and beside its upper part the line of slope one that ends where it does."""
    axes.plot(*zip(*points, strict=True), marker, color=colour, markersize=4.5, linewidth=1.4, zorder=3)
    (first, _), (last, most) = upper[0], upper[-1]
    axes.plot([first, last], [most * first / last, most], "--", color="#777777", linewidth=1.0, zorder=4)
