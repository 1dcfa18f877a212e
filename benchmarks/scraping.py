"""What scrapes take from a model at full load, and how long it lets them wait.

A model of a hundred layers with an armed baseline does forward passes without a pause in the main thread, with the default
configuration. A process of its own scrapes it: first four times a second, for the latency; then once a second in one stretch of
each pair, in random order, for what that does to the model's throughput.

A report that was rendered once is sent again until the next one is published, five seconds later. So one scrape in twenty is a
new rendering here; where scrapes come every fifteen seconds, all are. Their latency is given by itself. A stretch is as long as
a report lives: in a shorter one a new rendering would be in some stretches and not in others, and the median would see only these.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np
from stack import BY_HAND, PASSES, WINDOWS, serve, stack

import geluwatch
from geluwatch.testing import MemoryBaselines

LAYERS, CHANNELS = 100, 256
EVERY = 0.25
"""Seconds between two scrapes while latency is measured."""
STRETCH = round(geluwatch.Config().flush_seconds)
"""Seconds of a stretch, with a scrape each or with none."""
MOST_SECONDS, MOST_LOSS = 0.05, 0.01
"""Targets: of the 95th percentile of latency, and of what scrapes take from the throughput."""


class Scraper:
    """A process that scrapes whenever it is asked to."""

    def __init__(self, url: str) -> None:
        command = [sys.executable, str(Path(__file__).with_name("scraper.py")), url]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def __enter__(self) -> Scraper:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.communicate()

    def ask(self) -> None:
        """Have it scrape once; this does not wait."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")

    def answer(self) -> tuple[float, bool]:
        """Wait for the next answer: seconds, and whether it was a new one."""
        assert self._process.stdout is not None
        spent, new = self._process.stdout.readline().split()
        return float(spent), new == "1"


def armed() -> tuple[Callable[[], None], geluwatch.Watch]:
    """Return a pass of the model, and its watch with the default configuration and an armed baseline."""
    model, store = stack(LAYERS, CHANNELS), MemoryBaselines()
    with geluwatch.attach(model, name="scale", store=store, config=BY_HAND) as recording:
        for _ in range(WINDOWS):
            for _ in range(PASSES):
                serve(model)
            recording.close_window()
        recording.record_baseline("scale")
    watch = geluwatch.attach(model, name="scale", store=store)
    watch.arm()
    return lambda: serve(model), watch


def latencies(step: Callable[[], None], scraper: Scraper, scrapes: int) -> list[tuple[float, bool]]:
    """Return the answers to scrapes at intervals while the model works."""
    due = time.perf_counter()
    for _ in range(scrapes):
        scraper.ask()
        due += EVERY
        while time.perf_counter() < due:
            step()
    return [scraper.answer() for _ in range(scrapes)]


def passes(step: Callable[[], None], ask: Callable[[], None]) -> float:
    """Return the passes a second of one stretch, in each second of which something is asked for."""
    began, count = time.perf_counter(), 0
    for second in range(STRETCH):
        ask()
        while (now := time.perf_counter()) < began + second + 1:
            step()
            count += 1
    return count / (now - began)


def pair(step: Callable[[], None], scraper: Scraper) -> tuple[float, float]:
    """Return the passes a second with scrapes and without, in random order."""
    found = {}
    for scraped in random.sample((True, False), 2):
        found[scraped] = passes(step, scraper.ask if scraped else lambda: None)
        for _ in range(STRETCH * scraped):
            scraper.answer()  # what is left of them must not fall into the next stretch
    return found[True], found[False]


def measure(scrapes: int, pairs: int) -> dict[str, float]:
    """Return latencies in seconds, and throughputs in passes a second with their ratios less one."""
    step, watch = armed()
    with watch, Scraper(f"{watch.serve()}/metrics") as scraper:
        scraper.ask()
        scraper.answer()
        answers = latencies(step, scraper, scrapes)
        found = np.array([pair(step, scraper) for _ in range(pairs)])
    spent, new = [each for each, _ in answers], [each for each, fresh in answers if fresh]
    draws = np.random.default_rng(0).integers(pairs, size=(10_000, pairs))
    ratios = found[:, 0] / found[:, 1] - 1.0
    low, high = np.percentile(np.median(ratios[draws], axis=1), [2.5, 97.5])
    total_low, total_high = np.percentile(found[draws, 0].sum(axis=1) / found[draws, 1].sum(axis=1) - 1.0, [2.5, 97.5])
    scraped, alone = np.median(found, axis=0)
    return {
        "scrapes": scrapes,
        "median": statistics.median(spent),
        "p95": float(np.percentile(spent, 95)),
        "most": max(spent),
        "new": len(new),
        "new_median": statistics.median(new) if new else float("nan"),
        "new_p95": float(np.percentile(new, 95)) if new else float("nan"),
        "pairs": pairs,
        "passes_scraped": float(scraped),
        "passes_alone": float(alone),
        "ratio_of_medians": float(scraped / alone - 1.0),
        "ratio": float(np.median(ratios)),
        "low": float(low),
        "high": float(high),
        "total": float(found[:, 0].sum() / found[:, 1].sum() - 1.0),
        "total_low": float(total_low),
        "total_high": float(total_high),
    }


def text(seen: dict[str, float]) -> str:
    """Return what was seen as Markdown, against the targets."""
    latency = (
        f"{LAYERS} layers of {CHANNELS} channels, standard profile, armed; a scrape every {EVERY} s, the slowest "
        f"{1e3 * seen['most']:.0f} ms."
    )
    throughput = (
        f"Throughput: {seen['passes_scraped']:.1f} passes a second with a scrape a second, {seen['passes_alone']:.1f} without (medians "
        f"of {seen['pairs']:.0f} pairs of stretches of {STRETCH} s; {100 * seen['ratio_of_medians']:+.2f} %)."
    )
    lines = [
        latency,
        "",
        "| scrapes | median | 95th percentile | target |  |",
        "|---" * 5 + "|",
        _latency(f"all {seen['scrapes']:.0f}", seen["median"], seen["p95"]),
        _latency(f"the {seen['new']:.0f} that were a new rendering", seen["new_median"], seen["new_p95"]),
        "",
        throughput,
        "",
        "| with scrapes, beside without | change | 95 % interval | target |  |",
        "|---" * 5 + "|",
        _throughput("median of the pairs", seen["ratio"], seen["low"], seen["high"]),
        _throughput("all stretches together", seen["total"], seen["total_low"], seen["total_high"]),
    ]
    return "\n".join(lines) + "\n"


def _latency(name: str, median: float, high: float) -> str:
    verdict = "met" if high < MOST_SECONDS else "missed"
    return f"| {name} | {1e3 * median:.1f} ms | {1e3 * high:.1f} ms | {1e3 * MOST_SECONDS:.0f} ms | {verdict} |"


def _throughput(name: str, ratio: float, low: float, high: float) -> str:
    verdict = "met" if low >= -MOST_LOSS else "missed" if high < -MOST_LOSS else "unresolved"
    shown = f"{100 * low:+.2f} % to {100 * high:+.2f} %"
    return f"| {name} | {100 * ratio:+.2f} % | {shown} | {-100 * MOST_LOSS:+.0f} % | {verdict} |"
