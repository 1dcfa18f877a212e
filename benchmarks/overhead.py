"""What the agent costs beside no agent, and beside what people use in its place, on one model in one run.

    python benchmarks/overhead.py                                   # all rows, about an hour
    python benchmarks/overhead.py --seconds 60 --row minilm-1x16    # one row, quickly

A row is a model at work. Everybody puts hooks on the same model, which are then taken off and put back by changing the
dictionaries that hold them: memory lies where it lay, and nothing is learnt anew. In a round each contender (rivals in
one of five) does a block of steps, in random order, and once more in the reverse order; its figure is the ratio of its
time per step to that of the bare model in the same round. The median over rounds is given with a bootstrap interval of 95 %.

The agent has a quarter of the time for its own. It captures the rows of a default window in a minute of that, so that a
pass costs what it costs in service. Its background thread works on whoever's time it is: so what it takes is measured
apart, on the same model in service with the default settings, for a minute behind the rounds: its processor time by the
thread's own clock, and that of a scrape every fifteen seconds, are added in full, as if the model always waited for them.
Back-off is disabled (`cost_budget=None`). A row is unresolved where its interval holds the target.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import charts
import numpy as np
import stamp
import torch
from contenders import RIVALS, Compiled, Contenders, Switched
from torch import nn
from work import COMPILED, COUNTED, WORK, Step, gelus

import geluwatch

RESULTS = stamp.ROOT / "benchmarks" / "results"
BLOCK_SECONDS = 0.08
"""Least duration of a block of steps."""
SCRAPE_SECONDS = 15.0
SETTLING_SECONDS, SERVICE_SECONDS = 15.0, 60.0
DEAR = 0.2
"""Share of a step from which a rival is dear."""
RIVALS_EVERY = 5
"""Rounds from one in which rivals take part to the next: what costs twenty percent is seen in few, and the time goes to what costs one."""


class Background:
    """The processor time of an agent's background thread, and what a scrape of it takes."""

    def __init__(self, watch: geluwatch.Watch) -> None:
        self._url = f"{watch.serve()}/metrics"
        self._clock = time.pthread_getcpuclockid(watch._background._thread.ident)  # noqa: SLF001  # nobody else has to know the thread
        self._began, self._from = time.perf_counter(), time.clock_gettime(self._clock)
        self._next, self.scrapes, self._scraping = self._began + SCRAPE_SECONDS, 0, 0.0

    def scrape_if_due(self) -> None:
        """Read the metrics every so often."""
        if time.perf_counter() >= self._next:
            self._next += SCRAPE_SECONDS
            began = time.process_time()
            with urllib.request.urlopen(self._url) as answer:
                answer.read()
            self._scraping += time.process_time() - began
            self.scrapes += 1

    @property
    def share(self) -> float:
        """Processor time a second."""
        return (time.clock_gettime(self._clock) - self._from + self._scraping) / (time.perf_counter() - self._began)


@dataclass(frozen=True)
class Service:
    """What the agent is in service, with the default settings."""

    background: float
    """Share of the time that its thread and the scrapes take."""
    values_per_minute: float
    windows: int
    scrapes: int


def in_service(model: nn.Module, step: Step) -> Service:
    """Return what the background takes while a model, on which there is nothing else, works for a minute in which a window closes."""
    with geluwatch.attach(model, name="service", config=geluwatch.Config(cost_budget=None)) as watch:
        work_for(step, SETTLING_SECONDS)  # the first rows come quicker than those that follow
        before, background, began = watch.flush(), Background(watch), time.perf_counter()
        work_for(step, SERVICE_SECONDS, background.scrape_if_due)
        share, minutes, flushing = background.share, (time.perf_counter() - began) / 60, time.thread_time()
        after = watch.flush()  # what has waited until now is counted here, and would have been there
        share += (time.thread_time() - flushing) / 60 / minutes
        key = next(key for key in after.sites if key[1] == "pre")
        counted = after.sites[key].totals.elements - before.sites[key].totals.elements
        return Service(share, counted / minutes, after.totals.windows - before.totals.windows, background.scrapes)


def work_for(step: Step, seconds: float, between: Step = lambda: None) -> None:
    """Do steps for some time."""
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        step()
        between()


ROWS = (*WORK, *(name + COMPILED for name in WORK))


@dataclass(frozen=True)
class Figure:
    """One contender in one row; shares of the step's time."""

    overhead: float
    low: float
    high: float
    background: float = 0.0


@dataclass(frozen=True)
class Row:
    """One model at work."""

    name: str
    sites: int
    step_ms: float
    rounds: int
    windows: int
    scrapes: int
    rows_per_site_and_minute: float
    peak_mib_off: float
    peak_mib_on: float
    figures: Mapping[str, Figure]

    @property
    def target(self) -> float:
        """What the agent may cost: one percent, or four microseconds a site where a step is shorter than that allows."""
        return max(0.01, 4e-3 * self.sites / self.step_ms)

    @property
    def times_cheaper(self) -> float | None:
        """How many times the agent's cost the cheapest rival takes of those that take twenty percent and more; None without any."""
        dear = [each.overhead for name, each in self.figures.items() if name in RIVALS and each.overhead >= DEAR]
        return min(dear) / self.figures["agent"].overhead if dear else None

    @property
    def verdict(self) -> str:
        """What the interval allows to be said of the agent."""
        agent = self.figures["agent"]
        return "met" if agent.high <= self.target else "missed" if agent.low > self.target else "unresolved"


def measure(name: str, seconds: float) -> Row:
    """Return one row, whose agent sees so many seconds go by."""
    make, work, texts, tokens = WORK[name.removesuffix(COMPILED)]
    peaks = [peak_mib(name, watched=watched) for watched in (False, True)]
    torch.manual_seed(0)
    model = make()
    rounds: list[dict[str, float]] = []
    with ExitStack() as stack:
        contenders = take_part(stack, name, model)
        bare = contenders.switch("none")
        bare()
        began = time.perf_counter()
        bare()
        steps = max(1, round(BLOCK_SECONDS / (time.perf_counter() - began)))
        scraped = Background(contenders.watch)
        before, began = contenders.watch.flush(), time.perf_counter()
        while time.perf_counter() - began < seconds:
            rounds.append(contenders.round(steps, rivals=len(rounds) % RIVALS_EVERY == 0))
            scraped.scrape_if_due()
            print(f"\r{name}: {time.perf_counter() - began:4.0f} of {seconds:.0f} s, {len(rounds)} rounds ", end="", file=sys.stderr)
        after = contenders.watch.flush()
        contenders.switch("none")
    print(file=sys.stderr)
    # Eager where the row is compiled: the same rows are counted.
    service = in_service(model, work(model, texts, tokens))
    figures = {
        contender: figure(
            [each[contender] / each["none"] - 1 for each in rounds if contender in each], service.background * (contender == "agent")
        )
        for contender in contenders.names
        if contender != "none"
    }
    return Row(
        name, len(gelus(model)), 1e3 * statistics.median(each["none"] for each in rounds), len(rounds),
        after.totals.windows - before.totals.windows + service.windows, scraped.scrapes + service.scrapes,
        service.values_per_minute / COUNTED[make], *peaks, figures,
    )  # fmt: skip


def take_part(stack: ExitStack, name: str, model: nn.Module) -> Contenders:
    """Return the contenders of a row."""
    _, work, texts, tokens = WORK[name.removesuffix(COMPILED)]
    if name.endswith(COMPILED):
        return Compiled(stack, model, lambda each: work(each, texts, tokens))
    step = work(model, texts, tokens)
    for _ in range(3):
        step()
    return Switched(stack, model, step)


def figure(ratios: list[float], background: float = 0.0) -> Figure:
    """Return the median with its percentile interval of 95 % from 10,000 resamples, the background added to all three."""
    draws = np.random.default_rng(0).choice(np.array(ratios), (10_000, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return Figure(statistics.median(ratios) + background, float(low) + background, float(high) + background, background)


def peak_mib(name: str, *, watched: bool) -> float:
    """Return how far a few steps push a fresh process's peak memory above what it had with the model loaded."""
    command = [sys.executable, __file__, "--row", name, "--peak", "on" if watched else "off"]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def peak_here(name: str, *, watched: bool) -> float:
    """Return the growth of this process's peak memory, in MiB."""
    make, work, texts, tokens = WORK[name.removesuffix(COMPILED)]
    model = make()
    step = work(torch.compile(model) if name.endswith(COMPILED) else model, texts, tokens)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    watch = geluwatch.attach(model, name="bench") if watched else None
    for _ in range(4):
        step()
        if watch is not None:
            watch.tick()
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if watch is not None:
        watch.detach()
    return growth / 1024


def source() -> str:
    """Return the stamp of everything that can change the figures; what works apart from a model cannot."""
    apart = [each for part in ("cli", "mixin", "store") for each in stamp.package(part)]
    return stamp.of({*stamp.package(), *stamp.scripts("overhead", "contenders", "work")} - set(apart))


def table(rows: list[Row]) -> str:
    """Return the rows as two Markdown tables: the agent, and everybody beside it."""
    heads = (
        "model, texts x tokens",
        "step",
        "agent",
        "95 % interval",
        "of that in the background",
        "target",
        "",
        "cheaper than dear rivals",
        "rows a site and minute",
        "windows, scrapes",
        "peak memory without / with",
    )
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        agent = row.figures["agent"]
        cells = (
            row.name,
            f"{row.step_ms:.1f} ms",
            _percent(agent.overhead),
            f"{_percent(agent.low)} to {_percent(agent.high)}",
            _percent(agent.background),
            _percent(row.target),
            row.verdict,
            f"{row.times_cheaper:.0f} times" if row.times_cheaper else "",
            f"{row.rows_per_site_and_minute:.0f}",
            f"{row.windows}, {row.scrapes}",
            f"+{row.peak_mib_off:.0f} / +{row.peak_mib_on:.0f} MiB",
        )
        lines.append(f"| {' | '.join(cells)} |")
    others = [name for name in rows[0].figures if name != "agent"]
    lines += ["", f"| median and interval | {' | '.join(others)} |", "|---" * (len(others) + 1) + "|"]
    for row in rows:
        shown = (
            f"{_percent(each.overhead)} ({_percent(each.low)} to {_percent(each.high)})" if (each := row.figures.get(name)) else ""
            for name in others
        )
        lines.append(f"| {row.name} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def _percent(share: float) -> str:
    return f"{100 * share:+.2f} %"


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", action="append", choices=ROWS, help="only this row; may be repeated")
    parser.add_argument(
        "--seconds", type=float, default=130.0, help="seconds of a row, two windows; a third closes in the minute in service"
    )
    parser.add_argument("--no-save", action="store_true", help="print only")
    parser.add_argument("--peak", choices=("on", "off"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.row or list(ROWS)
    if options.peak:
        print(peak_here(names[0], watched=options.peak == "on"))
        return
    rows: list[Row] = []
    for name in names:
        rows.append(measure(name, options.seconds))
        if not options.no_save:
            save(rows)
    print(table(rows))


def save(rows: list[Row]) -> None:
    """Write the table, the figures and the picture; after each row, for all of them take an hour."""
    RESULTS.mkdir(exist_ok=True)
    facts: dict[str, Any] = {
        "source": source(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, CPU only",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "rows": [asdict(row) | {"target": row.target, "verdict": row.verdict} for row in rows],
    }
    (RESULTS / "overhead.json").write_text(json.dumps(facts, indent=2) + "\n")
    (RESULTS / "overhead.md").write_text(table(rows))
    charts.overhead(facts["rows"], RESULTS / "overhead.svg")


if __name__ == "__main__":
    main()
