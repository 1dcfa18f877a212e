"""Serves a tiny watched model for a number of passes and prints how its memory grew; a process of its own, so that nothing else counts.

Usage: soak.py PASSES MODE, where MODE is "traced" (Python's own allocations) or "resident" (the whole process).
"""

from __future__ import annotations

import gc
import math
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import geluwatch

WIDTH = 4
WINDOW = 100
"""Passes to a window."""


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def traced() -> int:
    """Return the bytes that Python's allocations hold."""
    return tracemalloc.get_traced_memory()[0]


def serve(model: nn.Module, watch: geluwatch.Watch, passes: int) -> None:
    """Run passes, a tenth of them faulty, with flushes and windows in between."""
    good, bad = torch.ones(1, WIDTH), torch.full((1, WIDTH), math.nan)
    with torch.no_grad():
        for turn in range(passes):
            model(bad if turn % 10 == 0 else good)
            if turn % WINDOW == 0:
                watch.close_window()


def main() -> None:
    """Warm up on a fifth of the passes, serve the rest, and print the growth between."""
    passes, measure = int(sys.argv[1]), {"traced": traced, "resident": resident}[sys.argv[2]]
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.GELU())
    if measure is traced:
        tracemalloc.start()
    with geluwatch.attach(model, name="model", config=geluwatch.Config(window_seconds=None, flush_seconds=3600.0)) as watch:
        before = grown(lambda: serve(model, watch, passes // 5), measure)
        after = grown(lambda: serve(model, watch, passes - passes // 5), measure)
        totals = watch.flush().totals
    print(after - before, totals.forwards, totals.nonfinite_forwards, dict(totals.errors))


def grown(work: Callable[[], None], measure: Callable[[], int]) -> int:
    """Do something; return what is held after it."""
    work()
    gc.collect()
    return measure()


if __name__ == "__main__":
    main()
