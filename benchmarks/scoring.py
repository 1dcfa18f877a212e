"""What judging a window costs, and what is kept in memory for it, by the width of the layer.

    python benchmarks/scoring.py                        # widths 384 to 16,384, then a soak of 20,000 windows
    python benchmarks/scoring.py --soak 1000000         # a million windows: no growth

A layer-window is one closed window at one layer, both points. Scoring is what decides: vectors, averages at three
horizons, scores, level and contrast, surprise, alarm, onset. The panel is what explains: KS, Wasserstein, shifts, tails,
gates, PSI.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import stamp

from geluwatch import Config
from geluwatch.core import histogram, panel, recorder
from geluwatch.core.judge import Judge
from geluwatch.records import POINTS, Baseline, Histogram, Moments, Panel, PointKey, PointWindow, Site, Window

LAYERS = 6
ROWS = 2048
WINDOWS = 40
RESULTS = Path(__file__).parent / "results"


def sites(layers: int) -> tuple[Site, ...]:
    """Return a census of so many observed sites."""
    return tuple(Site(f"layer.{number}", number, "module", "GELU", "erf") for number in range(layers))


def window(number: int, counted: dict[str, Histogram], layers: int, width: int, rng: np.random.Generator) -> Window:
    """Return a calm window: channel moments of `ROWS` rows, and one histogram for every layer."""
    points: dict[PointKey, PointWindow] = {}
    for layer in range(layers):
        for point in POINTS:
            mean = rng.normal(size=width) / np.sqrt(ROWS)
            m2 = ROWS * (1.0 + rng.normal(size=width) * np.sqrt(2.0 / ROWS))
            points[f"layer.{layer}", point] = PointWindow(counted[point], Moments(ROWS, mean, m2))
    return Window(60.0 * number, 60.0 * number + 60.0, 8, 8, points)


def values(rng: np.random.Generator, rows: int) -> dict[str, Histogram]:
    """Return histograms of normal values and of their GELU."""
    pre = rng.normal(size=(rows, 384)).astype(np.float32)
    post = pre * (0.5 + 0.5 * np.tanh(0.7978845608 * (pre + 0.044715 * pre**3)))
    return {"pre": histogram.from_values(pre), "post": histogram.from_values(post)}


def baseline(layers: int, width: int, rng: np.random.Generator, counted: dict[str, Histogram]) -> Baseline:
    """Return an armed baseline of calm windows."""
    gathered = recorder.Recorder(Config())
    for number in range(WINDOWS):
        gathered.add(window(number, counted, layers, width, rng), ())
    return gathered.baseline(model="m", model_version="1", name="b", created=0.0, sites=sites(layers))


@contextmanager
def timed_panel() -> Iterator[list[float]]:
    """Give the seconds that each panel takes, measured where it is made."""
    spent: list[float] = []
    measure = panel.measure

    def timed(reference: panel.Reference, seen: PointWindow) -> Panel:
        began = time.perf_counter()
        found = measure(reference, seen)
        spent.append(time.perf_counter() - began)
        return found

    with patch.object(panel, "measure", timed):
        yield spent


def cost(width: int) -> dict[str, float]:
    """Return the microseconds a layer-window takes (median of the windows), and the bytes kept a point."""
    rng = np.random.default_rng(0)
    counted = values(rng, ROWS)
    known = baseline(LAYERS, width, rng, counted)
    judge = Judge(known, Config())
    seen = [window(WINDOWS + number, counted, LAYERS, width, rng) for number in range(60)]
    taken, explained = [], []
    for each in seen:
        with timed_panel() as spent:
            began = time.perf_counter()
            judge.judge(each)
            taken.append((time.perf_counter() - began) / LAYERS * 1e6)
        explained.append(sum(spent) / LAYERS * 1e6)
    decided = [whole - panels for whole, panels in zip(taken, explained, strict=True)][20:]
    key: PointKey = ("layer.0", "pre")
    moments, reference = seen[0].points[key].moments, known.references[key]
    counts = known.histograms[key]
    return {
        "width": width,
        "scoring": statistics.median(decided),
        "scoring_quickest": min(decided),
        "panel": statistics.median(explained[20:]),
        "window_bytes": moments.mean.nbytes + moments.m2.nbytes,
        "reference_bytes": reference.mean.nbytes + reference.variance.nbytes,
        "average_bytes": reference.mean.nbytes * len(Config().horizons),
        "histogram_bytes": counts.cells.nbytes + counts.counts.nbytes,
    }


def soak(windows: int) -> list[tuple[int, int]]:
    """Return (windows, resident bytes) as a small model is judged and recorded without end; Linux only."""
    rng = np.random.default_rng(1)
    counted = {point: histogram.from_values(rng.normal(size=64).astype(np.float32)) for point in POINTS}
    judge, gathered = Judge(baseline(1, 4, rng, counted), Config()), recorder.Recorder(Config())
    seen = [window(number, counted, 1, 4, rng) for number in range(64)]
    readings = []
    for number in range(1, windows + 1):
        each = seen[number % len(seen)]
        judge.judge(each)
        gathered.add(each, ())
        if number % max(windows // 40, 1) == 0:
            gc.collect()
            readings.append((number, int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()))
    return readings


def main() -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(description="Cost and memory of judging windows.")
    parser.add_argument("--soak", type=int, default=20_000, help="windows judged one after the other")
    chosen = parser.parse_args()
    costs = [cost(width) for width in (384, 768, 1536, 4096, 16384)]
    lines = [
        "| channels | scoring, us a layer-window | quickest | panel | window, bytes a point | reference | average | histogram |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one['width']:.0f} | {one['scoring']:.0f} | {one['scoring_quickest']:.0f} | {one['panel']:.0f} | {one['window_bytes']:.0f} | "
        f"{one['reference_bytes']:.0f} | {one['average_bytes']:.0f} | {one['histogram_bytes']:.0f} |"
        for one in costs
    ]
    print("\n".join(lines), flush=True)
    readings = soak(chosen.soak)
    grown = f"\nResident memory over {chosen.soak:,} windows: " + ", ".join(
        f"{count:,}: {size / 2**20:.2f} MiB" for count, size in readings[:: max(len(readings) // 8, 1)]
    )
    print(grown)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "scoring.json").write_text(
        json.dumps(
            {"source": stamp.of([*stamp.package("core", "records"), *stamp.scripts("scoring")]), "costs": costs, "soak": readings}, indent=1
        )
        + "\n"
    )
    (RESULTS / "scoring.md").write_text("\n".join(lines) + "\n" + grown + "\n")


if __name__ == "__main__":
    main()
