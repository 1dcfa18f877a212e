"""How large the history grows, and what keeping a window costs, by the size of the model.

    python benchmarks/history.py                      # a day of minutes for each model, some minutes in all
    python benchmarks/history.py --windows 120 --no-save

A day of minute windows goes through the real store, SQLite on a disk. Values are those of a GELU: normal before it, each channel with a
mean and a spread of its own, 1,024 rows a window and point. Some windows of each layer are drawn value by value and counted as in a
watch; the day's are then drawn cell by cell, as Poisson counts about those, which gives the noise of real counts at a thousandth of
the time; the page says how their size compares. Channel moments are real ones with noise. Then the clock moves on: past the first day
windows become hours, past two weeks a day. A month under the default retention is added up from the sizes seen.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import stamp
from scipy.special import ndtr

from geluwatch.core import history
from geluwatch.core.window import merge_points, observe
from geluwatch.records import POINTS, Moments, PointKey, PointSummary, PointWindow, Span, Summary, Window
from geluwatch.retention import DAY, HOUR, Retention
from geluwatch.store import SqlHistory, codec

RESULTS = stamp.ROOT / "benchmarks" / "results"
ROWS = 1024
MINUTE = 60.0
DRAWN = 4
"""Windows of each layer drawn value by value."""
BEGAN = 1_700_006_400.0
"""A midnight."""
MODELS = {"24 layers of 3,072": (24, 3072), "6 layers of 1,536": (6, 1536)}
DTYPES = ("float32", "bfloat16", "float16")

Points = dict[PointKey, PointWindow]


def values(layer: int, width: int, rng: np.random.Generator, dtype: str) -> dict[str, np.ndarray]:
    """Return a window's values (ROWS, width) before and after a GELU, rounded as a tensor of the dtype holds them."""
    own = np.random.default_rng(layer)
    mean, spread = own.normal(-0.7, 0.6, width).astype(np.float32), np.exp(own.normal(-0.3, 0.4, width)).astype(np.float32)
    pre = rng.standard_normal((ROWS, width), dtype=np.float32) * spread + mean
    pre = rounded(pre, dtype)
    return {"pre": pre, "post": rounded((pre * ndtr(pre)).astype(np.float32), dtype)}


def rounded(array: np.ndarray, dtype: str) -> np.ndarray:
    """Return float32 values as they are in a tensor of the dtype."""
    if dtype == "float16":
        return array.astype(np.float16).astype(np.float32)
    if dtype == "bfloat16":
        return ((array.view(np.uint32) + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)
    return array


def drawn(layers: int, width: int, rng: np.random.Generator, dtype: str = "float32") -> Points:
    """Return what a watch sees in one window."""
    points: Points = {}
    for layer in range(layers):
        for point, array in values(layer, width, rng, dtype).items():
            points[f"encoder.layer.{layer}.intermediate.intermediate_act_fn", point] = observe(array, dtype)
    return points


def redrawn(pool: Points, rng: np.random.Generator) -> Points:
    """Return a window like those pooled: Poisson counts about theirs, moments with the noise of one window."""
    points: Points = {}
    for key, pooled in pool.items():
        counts = rng.poisson(pooled.histogram.counts / DRAWN)
        seen = counts > 0
        moments = pooled.moments
        mean = moments.mean + rng.standard_normal(moments.mean.size) * np.sqrt(moments.m2 / moments.rows / ROWS)
        m2 = moments.m2 / DRAWN * (1 + rng.standard_normal(mean.size) * np.sqrt(2 / ROWS))
        counted = replace(pooled.histogram, cells=pooled.histogram.cells[seen], counts=counts[seen])
        sums = (part / DRAWN * rng.normal(1, 1e-3) for part in (pooled.abs_sum_pos, pooled.abs_sum_neg, pooled.squares))
        points[key] = PointWindow(counted, Moments(ROWS, mean, m2), *sums)
    return points


def summary(points: Points, rng: np.random.Generator) -> Summary:
    """Return a summary as it is with an armed baseline."""
    said = {key: PointSummary(float(rng.uniform(0, 0.6)), float(rng.uniform(0, 0.02))) for key in points}
    return Summary({"ok": 1}, said, baseline="v1", hook_seconds=0.1, flush_seconds=1.5, forward_seconds=31.7)


@dataclass(frozen=True)
class Kept:
    """A stage of the life of a day."""

    spans: int
    bytes: int
    file: int


def stage(store: SqlHistory, file: Path, resolution: str) -> Kept:
    """Return what is kept now."""
    (info,) = (info for info in store.listing() if info.resolution == resolution)
    return Kept(info.spans, info.size, file.stat().st_size)


def thin(store: SqlHistory, retention: Retention, now: float) -> Iterator[float]:
    """Thin to the end, and yield the seconds of each piece of work."""
    more = True
    while more:
        began = time.process_time()
        more = store.thin("m", retention, now)
        if more:
            yield time.process_time() - began


def minutes(pool: Points, count: int, rng: np.random.Generator) -> Iterator[Span]:
    """Yield spans of so many minutes; one in six hours has its channel moments."""
    for number in range(count):
        points = redrawn(pool, rng)
        window = Window(BEGAN + MINUTE * number, BEGAN + MINUTE * (number + 1), 8, 8, points)
        if number % round(Retention().moments_hours * HOUR / MINUTE):
            window = history.without_moments(window)
        yield Span("m", "1", "raw", "host:1", 1, window, summary(points, rng))


def append(store: SqlHistory, span: Span) -> float:
    """Append a span as a watch does, and return the seconds of the processor that it took."""
    began = time.process_time()
    store.append(span)
    store.size("m")
    return time.process_time() - began


def measure(layers: int, width: int, windows: int) -> dict[str, Any]:
    """Write windows, let them age, and return the sizes and the seconds."""
    rng, retention = np.random.default_rng(1), Retention()
    made = [drawn(layers, width, rng) for _ in range(DRAWN)]
    pool = {key: merge_points([points[key] for points in made]) for key in made[0]}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "store.db"
        store = SqlHistory(f"sqlite:///{file}")
        appended = [append(store, span) for span in minutes(pool, windows, rng)]
        raw = stage(store, file, "raw")
        pieces = list(thin(store, retention, BEGAN + 2 * DAY))
        hour = stage(store, file, "hour")
        pieces += thin(store, retention, BEGAN + 16 * DAY)
        day = stage(store, file, "day")
        store.close()
    one, another = redrawn(pool, rng), made[0]
    return {
        "windows": windows,
        "cells": round(statistics.mean(point.histogram.cells.size for point in another.values())),
        "drawn_bytes": bytes_of(another),
        "redrawn_bytes": bytes_of(one),
        "with_moments_bytes": len(codec.encode_span(Window(0.0, MINUTE, 8, 8, one))),
        "raw": vars(raw),
        "hour": vars(hour),
        "day": vars(day),
        "append_seconds": statistics.median(appended),
        "merge_seconds": statistics.median(pieces),
        "days": {str(days): kept_after(days, raw, hour, day, retention) for days in (1, 7, 30, 400)},
    }


def bytes_of(points: Points) -> int:
    """Return the bytes of a window without its channel moments."""
    return len(codec.encode_span(history.without_moments(Window(0.0, MINUTE, 8, 8, points))))


def kept_after(days: int, raw: Kept, hour: Kept, day: Kept, retention: Retention) -> dict[str, float]:
    """Return the bytes that one process's minutes take after so many days; what is not yet merged is counted as well."""
    minutes = min(days * DAY / MINUTE, (retention.raw_hours + 1) * HOUR / MINUTE)
    hours = max(0.0, min(days, retention.hourly_days + 1) * 24 - minutes * MINUTE / HOUR)
    whole = max(0.0, days - retention.hourly_days - 1)
    parts = {
        "raw": minutes * raw.bytes / raw.spans,
        "hour": hours * hour.bytes / hour.spans,
        "day": min(whole, retention.daily_days) * day.bytes / day.spans,
    }
    return {**parts, "all": sum(parts.values())}


def by_dtype() -> dict[str, dict[str, float]]:
    """Return bytes of one window of the large model without moments, and the share of cells, by the dtype of its tensors."""
    layers, width = MODELS["24 layers of 3,072"]
    found = {}
    for dtype in DTYPES:
        points = drawn(4, width, np.random.default_rng(2), dtype)
        found[dtype] = {
            "bytes": bytes_of(points) * layers / 4,
            **{point: statistics.mean(seen.histogram.cells.size for key, seen in points.items() if key[1] == point) for point in POINTS},
        }
    return found


def facts() -> dict[str, Any]:
    """Return what the figures depend on: a hash of the sources and the machine."""
    source = stamp.of([*stamp.package(), *stamp.scripts("history")])
    return {"source": source, "machine": f"{platform.machine()}, {os.cpu_count()} cores", "retention": repr(Retention())}


def mb(size: float) -> str:
    """Return bytes in megabytes of 10**6."""
    return f"{size / 1e6:,.1f}" if size >= 1e6 else f"{size / 1e6:.3f}"


def text(results: dict[str, Any]) -> str:
    """Return the page."""
    lines = [
        "Megabytes (10^6 bytes) of payload and summary; one process, a window a minute, 1,024 rows a window and point, float32, default",
        "retention. The day was written and thinned; what comes after it is added up from its hours and days.",
        "",
        "| model | a window | with moments | an hour | a day | kept after 1 day | 7 days | 30 days | 400 days |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    models = results["models"]
    for name, one in models.items():
        per = [one[kind]["bytes"] / one[kind]["spans"] for kind in ("hour", "day")]
        sizes = [one["redrawn_bytes"], one["with_moments_bytes"], *per, *(one["days"][days]["all"] for days in ("1", "7", "30", "400"))]
        lines.append(f"| {name} | " + " | ".join(map(mb, sizes)) + " |")
    lines += [
        "",
        "| model | windows written | file after them | after thinning | to keep a window, ms | a piece of merging, ms |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in models.items():
        seconds = [one[kind] for kind in ("append_seconds", "merge_seconds")]
        files = [mb(one["raw"]["file"]), mb(one["day"]["file"])]
        lines.append(f"| {name} | {one['windows']:,} | " + " | ".join([*files, *(f"{1e3 * second:,.1f}" for second in seconds)]) + " |")
    lines += [
        "",
        "One window of 24 layers of 3,072 by the dtype of the tensors, without moments:",
        "",
        "| dtype | cells before | after | megabytes |",
    ]
    lines.append("|---|---|---|---|")
    lines += [f"| {dtype} | {one['pre']:,.0f} | {one['post']:,.0f} | {mb(one['bytes'])} |" for dtype, one in results["dtypes"].items()]
    check = ", ".join(f"{one['redrawn_bytes'] / one['drawn_bytes']:.3f}" for one in models.values())
    lines += [
        "",
        f"Bytes of windows drawn cell by cell over those drawn value by value: {check}. Times are of the processor; a piece merges",
        "32 spans at most, and an hour of minutes takes two. SQLite's file keeps the room that thinning frees, for what comes next.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=1440, help="minute windows written for each model")
    parser.add_argument("--no-save", action="store_true", help="print only")
    chosen = parser.parse_args()
    measured = {name: measure(*size, chosen.windows) for name, size in MODELS.items()}
    results = {**facts(), "models": measured, "dtypes": by_dtype()}
    print(text(results))
    if not chosen.no_save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "history.json").write_text(json.dumps(results, indent=1) + "\n")
        (RESULTS / "history.md").write_text(text(results))


if __name__ == "__main__":
    main()
