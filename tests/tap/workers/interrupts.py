"""Serves a watched model while interrupts land on any line, the watch's own among them; prints what was run and what was counted.

Usage: interrupts.py SECONDS LARGE, where LARGE is the size from which outputs are left to the layer behind them.
"""

from __future__ import annotations

import json
import math
import random
import signal
import sys
import time
from dataclasses import asdict, dataclass

import torch
from torch import nn

import geluwatch
from geluwatch.tap import look


class InterruptError(BaseException):
    """What the timer raises, as Ctrl-C would."""


@dataclass
class Ran:
    """Passes begun, passes finished, faulty ones among those, and interrupts that came through."""

    begun: int = 0
    finished: int = 0
    faulty: int = 0
    interrupts: int = 0


def interrupt(*_args: object) -> None:
    """Raise in whatever line the main thread is at."""
    raise InterruptError


def storm(model: nn.Module, seconds: float) -> Ran:
    """Run passes, three in ten faulty, and interrupt one in two or so."""
    dice, ran = random.Random(1), Ran()
    good, bad = torch.ones(2, 8), torch.full((2, 8), math.nan)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            signal.setitimer(signal.ITIMER_REAL, dice.uniform(1e-5, 2e-3))
            while True:
                faulty = dice.random() < 0.3
                ran.begun += 1
                model(bad if faulty else good)
                ran.finished += 1
                ran.faulty += faulty
        except InterruptError:
            ran.interrupts += 1
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    return ran


def main() -> None:
    """Run the storm, then a calm of 200 passes, 50 of them faulty, and print the counts of both."""
    look.LARGE = int(sys.argv[2])
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, interrupt)
    model = nn.Sequential(*(part for _ in range(3) for part in (nn.Linear(8, 8), nn.GELU())), nn.Linear(8, 8))
    x = torch.randn(2, 8)
    with torch.no_grad(), geluwatch.attach(model, name="model", config=geluwatch.Config(flush_seconds=3600.0)) as watch:
        expected = model(x)
        watch.flush()
        ran = storm(model, float(sys.argv[1]))
        model(x)  # ends what was cut off last
        before = watch.flush().totals
        for turn in range(200):
            model(torch.full((2, 8), math.nan) if turn % 4 == 0 else x)
        after = watch.flush().totals
        calm = [after.forwards - before.forwards, after.nonfinite_forwards - before.nonfinite_forwards]
        firsts = [seen.first - before.nonfinite[layer].first for layer, seen in after.nonfinite.items()]
        counted = {"forwards": before.forwards - 2, "hits": before.nonfinite_forwards, "calm": calm, "firsts": firsts}
        print(json.dumps({**asdict(ran), **counted, "errors": dict(after.errors), "same": torch.equal(expected, model(x))}))


if __name__ == "__main__":
    main()
