"""What it takes to judge a window of a thousand layers, beside a two-sample test of the values themselves.

A baseline and a window of the same values (1,024 rows of 64 channels before each GELU and after it, some twenty sets that the
layers take turns with). The agent judges the closed window; with the counting of the raw values it does all that it does with
them. `scipy.stats.ks_2samp` compares the values of the window with those of one window of the baseline, at both points of a
layer, one layer after the other.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
import numpy.typing as npt
from scipy.special import erf
from scipy.stats import ks_2samp
from scoring import sites, timed_panel
from stack import WINDOWS

from geluwatch import Config
from geluwatch.core.judge import Judge
from geluwatch.core.recorder import Recorder
from geluwatch.core.window import observe
from geluwatch.records import Point, PointKey, PointWindow, Window

LAYERS, ROWS, CHANNELS, SETS = 1000, 1024, 64, 20
TIMES_FASTER = 100.0
"""Target."""

Values = dict[Point, npt.NDArray[np.float32]]


def values() -> Values:
    """Return rows before a GELU and after it."""
    pre = np.random.default_rng().normal(size=(ROWS, CHANNELS)).astype(np.float32)
    return {"pre": pre, "post": (pre * (0.5 + 0.5 * erf(pre / np.sqrt(2.0)))).astype(np.float32)}


def seen(each: Values) -> dict[Point, PointWindow]:
    """Return what the agent counts of a set of rows."""
    return {point: observe(rows, "float32") for point, rows in each.items()}


def window(number: int, counted: list[dict[Point, PointWindow]], layers: int) -> Window:
    """Return a window in which layer after layer has the next set of values."""
    points: dict[PointKey, PointWindow] = {
        (f"layer.{layer}", point): each for layer in range(layers) for point, each in counted[(layer + number) % SETS].items()
    }
    return Window(60.0 * number, 60.0 * number + 60.0, 8, 8, points)


def judging(counted: list[dict[Point, PointWindow]], layers: int) -> tuple[float, float]:
    """Return the seconds in which a closed window is judged, and those of them that decide; medians of five windows."""
    recorder = Recorder(Config())
    for number in range(WINDOWS):
        recorder.add(window(number, counted, layers), ())
    known = recorder.baseline(model="m", model_version="1", name="b", created=0.0, sites=sites(layers))
    judge, whole, decided = Judge(known, Config()), [], []
    for number in range(WINDOWS, WINDOWS + 20):  # the horizons fill first, which makes the first windows cheap
        with timed_panel() as explaining:
            began = time.perf_counter()
            judge.judge(window(number, counted, layers))
            whole.append(time.perf_counter() - began)
        decided.append(whole[-1] - sum(explaining))
    return statistics.median(whole[-5:]), statistics.median(decided[-5:])


def measure(tested: int) -> dict[str, float]:
    """Return seconds for all layers; the tests are done for so many layers, and scaled up."""
    sets = [values() for _ in range(SETS)]
    counted = [seen(each) for each in sets]
    whole, decided = judging(counted, LAYERS)
    print("judged", file=sys.stderr)
    began = time.perf_counter()
    for layer in range(LAYERS):
        seen(sets[layer % SETS])
    counting = time.perf_counter() - began
    began = time.perf_counter()
    for layer in range(tested):
        for point, known in sets[layer % SETS].items():
            ks_2samp(known.ravel(), sets[(layer + 1) % SETS][point].ravel())
    testing = (time.perf_counter() - began) * LAYERS / tested
    return {"judging": whole, "deciding": decided, "counting": counting, "testing": testing, "tested": tested}


def text(spent: dict[str, float]) -> str:
    """Return what was measured as Markdown, against the target."""
    work = {
        "deciding (scores, surprise, alarms)": spent["deciding"],
        "judging: deciding, and the panel that explains": spent["judging"],
        "judging, and counting the raw values": spent["judging"] + spent["counting"],
    }
    scaled = f", done for {spent['tested']:.0f} layers and scaled up" if spent["tested"] < LAYERS else ""
    what = (
        f"A window of {LAYERS:,} layers, {ROWS:,} rows of {CHANNELS} channels at both points. A loop of `ks_2samp` over the same values "
        f"takes {spent['testing']:.1f} s{scaled}."
    )
    lines = [
        what,
        "",
        "| the agent | time | times faster | target |  |",
        "|---" * 5 + "|",
    ]
    for name, took in work.items():
        faster = spent["testing"] / took
        aim, verdict = ("", "") if "raw" in name else (f"{TIMES_FASTER:.0f}", "met" if faster >= TIMES_FASTER else "missed")
        lines.append(f"| {name} | {took:.2f} s | {faster:.0f} | {aim} | {verdict} |")
    return "\n".join(lines) + "\n"
