"""One driver for all: parts made of cells, each written down when it is done, so that a run may be broken off.

    cd benchmarks
    python -m field                       # every part, in full; hours
    python -m field --part delays         # one part; what it has done before is not done again
    python -m field --size quick --out /tmp/field    # a small run, to see that it works

The rivals' environments are made under build/field, or --cache, from the pins in field/rivals/environments.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import ours, tables, tuning
from .book import RESULTS, ROOT, Book
from .cells import LAYER_NAMES, LEAD, Size, Traffic
from .rivals import RIVALS, Environments, Rival, ask
from .shifts import PLACES, SHIFTS, Shift
from .streams import NULLS, Null

QUICK = Size(values=720, summaries=4_320, baselines=2, trials=6, after=48)
FULL = Size(values=2_880, summaries=43_200, baselines=4, trials=20, after=48)
TRAFFIC = ("AR(1), rho 0.9, jitter 0.03", "AR(1), rho 0.9, jitter 0.03, all channels as one")
"""Where delays are measured."""
OURS = "geluwatch"
_EPOCH = 1_000 * 86_400.0


@dataclass(frozen=True)
class Run:
    """What a part is given."""

    size: Size
    cache: Path
    environments: Environments
    only: str
    rivals: tuple[Rival, ...]

    def ask(self, rival: Rival, traffic: Traffic, job: str, streams: list[dict[str, Any]], baselines: int) -> Any:
        """Return a rival's answer on streams of one kind of traffic."""
        known = [traffic.known(seed) for seed in range(baselines)]
        return ask(rival, self.cache / "jobs" / job / rival.script, streams, known, self.environments.python(rival.environment))


def nulls(run: Run, book: Book) -> None:
    """Count false alarms of everybody at their defaults, on every kind of calm traffic."""
    for null in NULLS:
        traffic = Traffic(null, run.size, run.cache)
        for rival in run.rivals:
            name = f"{null.name} | {rival.name}"
            if run.only in name and name not in book.cells:
                answer = run.ask(rival, traffic, "calm", [traffic.calm(rival, tune=False)], 1)
                rate = tuning.rate(answer.scores[0] >= answer.limit)
                _enter(book, name, {"null": null.name, "who": rival.name, **asdict(rate), "milliseconds": answer.milliseconds})
        name = f"{null.name} | {OURS}"
        if run.only in name and name not in book.cells:
            began = time.perf_counter()
            seen = ours.watch(traffic.calm_values(), traffic.baseline(0), LAYER_NAMES, _EPOCH)
            took = 1e3 * (time.perf_counter() - began) / len(seen.tickets)
            rate = tuning.rate(np.array(seen.tickets))
            _enter(book, name, {"null": null.name, "who": OURS, **asdict(rate), "milliseconds": took})


def delays(run: Run, book: Book) -> None:
    """Measure how soon a shift is seen: by us at our limits, by rivals at theirs and at limits tuned to the same budget."""
    for null in NULLS:
        if null.name in TRAFFIC:
            traffic = Traffic(null, run.size, run.cache)
            limits = {
                rival.name: _tuned(run, book, null, traffic, rival) for rival in run.rivals if run.only in f"{null.name} | {rival.name}"
            }
            for shift in SHIFTS:
                for place in PLACES:
                    _delays(run, book, traffic, shift, place, limits)


def _tuned(run: Run, book: Book, null: Null, traffic: Traffic, rival: Rival) -> float:
    """Return a rival's limit of equal false alarms; what it gives on other calm windows is written down."""
    name = f"tuned | {null.name} | {rival.name}"
    if name not in book.cells:
        streams = [traffic.calm(rival, tune=tune) for tune in (True, False)]
        tune, calm = run.ask(rival, traffic, "tune", streams, 1).scores
        limit = tuning.limit(tune, ladder=rival.ladder)
        _enter(book, name, {"null": null.name, "who": rival.name, "limit": limit, **asdict(tuning.rate(calm >= limit))})
    limit = book.cells[name]["limit"]
    return float("inf") if limit is None else float(limit)


def _delays(run: Run, book: Book, traffic: Traffic, shift: Shift, place: str, limits: dict[str, float]) -> None:
    start = f"{traffic.null.name} | {shift.name} | {place}"
    facts = {"null": traffic.null.name, "shift": shift.name, "place": place, "most": shift.most}
    for rival in run.rivals:
        name = f"{start} | {rival.name}"
        if rival.tuned and run.only in name and name not in book.cells:
            answer = run.ask(rival, traffic, "delays", traffic.planted(rival, shift, place), run.size.baselines)
            after = [scores[LEAD:] for scores in answer.scores]
            default, tuned = ([tuning.delay(each >= limit) for each in after] for limit in (answer.limit, limits[rival.name]))
            _enter(book, name, {**facts, "who": rival.name, "default": default, "tuned": tuned, "milliseconds": answer.milliseconds})
    name = f"{start} | {OURS}"
    if run.only in name and name not in book.cells:
        seen = [ours.watch(windows, traffic.baseline(seed), LAYER_NAMES, _EPOCH) for seed, windows in traffic.trials(shift, place)]
        found = [tuning.delay(np.array(each.tickets[LEAD:])) for each in seen]
        layers = [_at_alarm(each, each.first) for each in seen]
        _enter(book, name, {**facts, "who": OURS, "default": found, "tuned": found, "first": layers})


def _at_alarm(seen: ours.Seen, said: list[str]) -> str:
    """Return what was said in the window of the alarm."""
    at = int(np.argmax(seen.tickets[LEAD:]))
    return said[LEAD + at]


def _enter(book: Book, name: str, cell: dict[str, Any]) -> None:
    book.write(name, cell)
    print(f"{time.strftime('%H:%M:%S')}  {name}", file=sys.stderr, flush=True)


PARTS = {"nulls": nulls, "delays": delays}


def main() -> int:
    """Run the parts asked for, and show what is known."""
    parser = argparse.ArgumentParser(prog="python -m field", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=tuple(PARTS), help="only this part; may be repeated")
    parser.add_argument("--size", choices=("quick", "full"), default="full")
    parser.add_argument("--only", default="", help="only cells whose name holds this")
    parser.add_argument("--rivals", default="", help="only these scripts, with commas")
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "field", help="streams, baselines and environments")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--tables", action="store_true", help="measure nothing; show what is known")
    options = parser.parse_args()
    size = QUICK if options.size == "quick" else FULL
    rivals = tuple(rival for rival in RIVALS if not options.rivals or rival.script in options.rivals.split(","))
    cache = options.cache / options.size
    run = Run(size, cache, Environments(options.cache / "environments"), options.only, rivals)
    for part in options.part or PARTS:
        book = Book(options.out / f"{part}.json", asdict(size), fresh=options.fresh)
        if not options.tables:
            PARTS[part](run, book)
    print(tables.all_of(options.out))
    return 0
