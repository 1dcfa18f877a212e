"""How costs grow with the sites of a model, with the channels of a site, and with the ranks of a run.

The model is cheap, and its agent works by hand. In a round, a bare, an ordinary and a capturing pass are taken in random order, each
behind an ordinary one that is not timed; what the hooks add is the median of the differences to the bare pass of the same round.
Hooks are switched by changing the dictionaries that hold them. Four rounds make a window; forty windows are the baseline.
Ticks, closings, the rendering and the memory are those of an armed watch.
"""

from __future__ import annotations

import pickle
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from gc import get_referents
from types import FunctionType, ModuleType
from unittest.mock import patch

import numpy as np
import torch
from contenders import put, taken
from stack import BY_HAND, PASSES, WINDOWS, serve, stack
from torch import nn

import geluwatch
from geluwatch.core.totals import merged
from geluwatch.export.prometheus import render
from geluwatch.records import Nonfinite, Totals

SITES = (10, 30, 100, 300, 1000)
CHANNELS = (64, 256, 1024, 4096, 16384)
RANKS = (1, 4, 16, 64)
FEW_SITES, FEW_CHANNELS, RANK_SITES = 4, 64, 100
"""Sites while the channels grow, channels while the sites grow, sites while the ranks grow."""
ATTACH_SITES, ATTACH_SECONDS = 1000, 2.0
"""An attach to so many sites is to take no longer."""
SUPERLINEAR = 1.15
"""Slope on a log-log scale from which growth is called superlinear."""
ARMED_WINDOWS = 10
UPPER = 3
"""Sizes, from the largest down, that the slope is taken over: below them what does not grow outweighs what does."""


@dataclass(frozen=True)
class Cost:
    """How a cost is shown."""

    title: str
    unit: str
    per_unit: float


COSTS = {
    "attach": Cost("attach", "ms", 1e-3),
    "bare": Cost("bare pass", "us", 1e-6),
    "ordinary": Cost("added to an ordinary pass", "us", 1e-6),
    "capturing": Cost("added to a pass that gives 16 rows", "us", 1e-6),
    "idle": Cost("tick with nothing new", "ms", 1e-3),
    "counting": Cost("tick that counts 64 rows a site", "ms", 1e-3),
    "close": Cost("closing a window, armed", "ms", 1e-3),
    "record": Cost("recording a baseline of 40 windows", "ms", 1e-3),
    "render": Cost("rendering /metrics as text", "ms", 1e-3),
    "exposition": Cost("size of /metrics", "KiB", 1024.0),
    "series": Cost("series of /metrics", "", 1.0),
    "memory": Cost("memory of the agent", "MiB", 2.0**20),
    "gather": Cost("adding up the counters of ranks", "ms", 1e-3),
    "sent": Cost("counters sent by all ranks", "KiB", 1024.0),
}
"""By key; seconds, bytes, or series."""

Sizes = list[dict[str, float]]
"""Costs of each size, which is under "size"."""


def seconds(work: Callable[[], object]) -> float:
    """Return how long something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Watched:
    """A model of one size and its watch."""

    def __init__(self, sites: int, channels: int) -> None:
        self.model = stack(sites, channels)
        self.watch = geluwatch.attach(self.model, name="scale", config=BY_HAND)
        for _ in range(2):  # the first pass shows which dense layer follows each GELU; a flush then puts the guard there
            serve(self.model)
            self.watch.flush()
        self.watch.close_window()
        self._hooks = taken(self.model)
        self._pacer = self.watch._source._tap.pacer  # noqa: SLF001  # which passes give rows is chance, and here it must not be

    def round(self) -> dict[str, float]:
        """Return the seconds of a bare pass, and what an ordinary and a capturing one take beyond it."""
        spent = {}
        for kind in random.sample(("bare", "ordinary", "capturing"), 3):
            put([] if kind == "bare" else self._hooks, self._hooks)
            with patch.object(self._pacer, "take", lambda _: False):
                serve(self.model)
            with patch.object(self._pacer, "take", lambda _, capturing=kind == "capturing": capturing):
                spent[kind] = seconds(lambda: serve(self.model))
        return {kind: taken - spent["bare"] * (kind != "bare") for kind, taken in spent.items()}

    def window(self) -> tuple[list[dict[str, float]], dict[str, float]]:
        """Return the rounds of a window, and the seconds of the ticks and the closing behind them."""
        rounds = [self.round() for _ in range(PASSES)]
        work = {"counting": self.watch.flush, "idle": self.watch.tick, "close": self.watch.close_window}
        return rounds, {name: seconds(each) for name, each in work.items()}

    def detach(self) -> None:
        """Put the hooks back, and have the watch take them off."""
        put(self._hooks, self._hooks)
        self.watch.detach()


def attaching(sites: int, channels: int) -> float:
    """Return the seconds of an attach, the median of three."""
    model, spent = stack(sites, channels), []
    for _ in range(3):
        began = time.perf_counter()
        watch = geluwatch.attach(model, name="scale", config=BY_HAND)
        spent.append(time.perf_counter() - began)
        watch.detach()
    return statistics.median(spent)


def costs(sites: int, channels: int) -> dict[str, float]:
    """Return what one size costs; keys as in `COSTS`."""
    attach, watched = attaching(sites, channels), Watched(sites, channels)
    rounds = [each for _ in range(WINDOWS) for each in watched.window()[0]]
    record = seconds(lambda: watched.watch.record_baseline("scale", arm=True))
    windows = []
    for _ in range(ARMED_WINDOWS):
        more, behind = watched.window()
        rounds += more
        windows.append(behind)
    report = watched.watch.report
    assert not report.totals.dropped_rows, "rows were dropped, so windows are not what they should be"
    assert all(seen.score == seen.score for seen in report.sites.values()), "some layer was not judged"
    body, _ = render(report)
    found = {
        "attach": attach,
        **{kind: statistics.median(each[kind] for each in rounds) for kind in rounds[0]},
        **{kind: statistics.median(each[kind] for each in windows) for kind in windows[0]},
        "record": record,
        "render": statistics.median(seconds(lambda: render(report)) for _ in range(5)),
        "exposition": float(len(body)),
        "series": float(sum(not line.startswith(b"#") for line in body.splitlines())),
        "memory": float(held_bytes(watched.watch)),
    }
    watched.detach()
    return found


def held_bytes(root: object) -> int:
    """Return the bytes of everything that an object leads to, save code, modules of Python's and of the model's."""
    seen: set[int] = set()
    total, stack = 0, [root]
    while stack:
        each = stack.pop()
        if id(each) in seen or isinstance(each, type | ModuleType | FunctionType | nn.Module):
            continue
        seen.add(id(each))
        total += each.nbytes if isinstance(each, torch.Tensor) else sys.getsizeof(each)
        stack += get_referents(each)
        if isinstance(each, np.ndarray) and each.base is not None:
            stack.append(each.base)
    return total


def gathering(ranks: int) -> dict[str, float]:
    """Return what it takes to add up what ranks send each other, every layer of each with a NaN and its time."""
    layers = [f"layers.{number}.gelu" for number in range(RANK_SITES)]
    hit = Nonfinite(3, 1, 1, {("pre", "nan"): 3, ("post", "posinf"): 1})
    sent = pickle.dumps(Totals(1000, 10, op_seconds=dict.fromkeys(layers, 0.5), nonfinite=dict.fromkeys(layers, hit)))
    parts = [pickle.loads(sent) for _ in range(ranks)]  # noqa: S301  # of our own making
    return {"gather": statistics.median(seconds(lambda: merged(parts)) for _ in range(20)), "sent": float(len(sent) * ranks)}


def measure(sites: tuple[int, ...] = SITES, channels: tuple[int, ...] = CHANNELS) -> dict[str, Sizes]:
    """Return the costs by what grows: "sites", "channels" and "ranks"."""
    costs(2, 8)  # what is done once in a process
    grown: dict[str, Sizes] = {"sites": [], "channels": [], "ranks": []}
    for size in sites:
        grown["sites"].append({"size": size, **costs(size, FEW_CHANNELS)})
        print(f"{size} sites measured", file=sys.stderr)
    for size in channels:
        grown["channels"].append({"size": size, **costs(FEW_SITES, size)})
        print(f"{size} channels measured", file=sys.stderr)
    grown["ranks"] = [{"size": size, **gathering(size)} for size in RANKS]
    return grown


def slope(sizes: Sizes, key: str) -> float:
    """Return the slope of a cost over the upper sizes on a log-log scale; NaN where it is lost in the noise or cannot be told."""
    upper = sizes[-UPPER:]
    values = [each[key] for each in upper]
    if len(upper) < 2 or min(values) <= 0:
        return float("nan")
    return float(np.polyfit(np.log([each["size"] for each in upper]), np.log(values), 1)[0])


def text(grown: dict[str, Sizes]) -> str:
    """Return the costs as Markdown tables, with their slopes, and the attach against its limit."""
    heads = {
        "sites": f"sites ({FEW_CHANNELS} channels each)",
        "channels": f"channels ({FEW_SITES} sites)",
        "ranks": f"ranks ({RANK_SITES} sites, all with a NaN)",
    }
    lines = []
    for axis, sizes in grown.items():
        names = [f"{each['size']:,.0f}" for each in sizes]
        lines += [f"| {heads[axis]} | {' | '.join(names)} | slope |  |", "|---" * (len(names) + 3) + "|"]
        for key in [key for key in COSTS if key in sizes[0]]:
            cost, steep = COSTS[key], slope(sizes, key)
            shown = " | ".join(f"{each[key] / cost.per_unit:,.{0 if key == 'series' else 2}f}" for each in sizes)
            note = "superlinear" if steep > SUPERLINEAR else ""
            lines.append(f"| {', '.join(filter(None, (cost.title, cost.unit)))} | {shown} | {steep:.2f} | {note} |")
        lines.append("")
    attach = next((each["attach"] for each in grown["sites"] if each["size"] == ATTACH_SITES), None)
    if attach is not None:
        verdict = "met" if attach < ATTACH_SECONDS else "missed"
        lines.append(f"Attach to {ATTACH_SITES:,} sites: {attach:.2f} s, the limit is {ATTACH_SECONDS:.0f} s: {verdict}.")
    lines.append(f"A slope is that of a straight line on a log-log scale through the {UPPER} largest sizes; 1 is linear.")
    return "\n".join(lines) + "\n"
