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
