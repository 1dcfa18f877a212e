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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import stamp

from . import ours, tables, told, tuning
from .book import RESULTS, Book, source_hash
from .cells import CALM, LEAD, TUNE, Case, Drawn, Size, Traffic
from .rivals import RIVALS, Environments, Rival, ask
from .streams import NULLS
from .tables import OURS, TOLD

QUICK = Size(values=720, summaries=4_320, baselines=2, trials=6, after=48)
FULL = Size(values=1_440, summaries=43_200, baselines=4, trials=20, after=48)
TRAFFIC = ("AR(1), rho 0.9, jitter 0.03", "AR(1), rho 0.9, jitter 0.03, all channels as one")
"""Where delays are measured."""
ALARMS = ("ticket", "page")
"""Verdicts that somebody hears of."""
_EPOCH = 1_000 * 86_400.0


@dataclass(frozen=True)
class Scale:
    """How much of everything else."""

    baselines: int
    """Baselines in the count of our own false alarms, each followed by `months`."""
    months: float
    steps: int
    """In which the GPT learns."""
    trials: int
    """Of each change of real traffic."""
    seeds: int
    """Of each fault in each layer."""
    files: int | None
    """Source files read for texts; None for all."""


SMALL = Scale(baselines=2, months=0.5, steps=60, trials=2, seeds=2, files=3_000)
WHOLE = Scale(baselines=20, months=7.5, steps=1_500, trials=5, seeds=20, files=None)


@dataclass(frozen=True)
class Run:
    """What a part is given."""

    size: Size
    cache: Path
    environments: Environments
    only: str
    rivals: tuple[Rival, ...]
    scale: Scale

    def wants(self, book: Book, name: str) -> bool:
        """Return whether a cell is asked for and not known yet."""
        return self.only in name and name not in book.cells

    def ask(self, rival: Rival, traffic: Traffic, job: str, streams: list[dict[str, Any]], baselines: int) -> Any:
        """Return a rival's answer on streams of one kind of traffic."""
        known = [traffic.known(seed) for seed in range(baselines)]
        return ask(rival, self.cache / "jobs" / job / rival.script, streams, known, self.environments.python(rival.environment))


def nulls(run: Run, book: Book) -> None:
    """Count false alarms of everybody at their defaults, on every kind of drawn calm traffic."""
    for null in NULLS:
        _calm(run, book, Drawn(null, run.size, run.cache))


def _calm(run: Run, book: Book, traffic: Traffic) -> None:
    for rival in run.rivals:
        name = f"{traffic.name} | {rival.name}"
        if run.wants(book, name):
            answer = run.ask(rival, traffic, "calm", [traffic.calm(rival, CALM)], 1)
            rate = tuning.rate(answer.scores[0] >= answer.limit)
            _enter(book, name, {"null": traffic.name, "who": rival.name, **asdict(rate), "milliseconds": answer.milliseconds})
    name = f"{traffic.name} | {OURS}"
    if run.wants(book, name):
        began = time.perf_counter()
        seen = ours.watch(traffic.calm_values(), traffic.baseline(0), traffic.layers, _EPOCH)
        took = 1e3 * (time.perf_counter() - began) / len(seen.tickets)
        rate = tuning.rate(np.isin(seen.verdicts, ALARMS))
        _enter(book, name, {"null": traffic.name, "who": OURS, **asdict(rate), "milliseconds": took})


def delays(run: Run, book: Book) -> None:
    """Measure how soon a shift is seen: by us at our limits, by rivals at theirs and at limits tuned to the same budget."""
    for null in NULLS:
        if null.name in TRAFFIC:
            _all_delays(run, book, Drawn(null, run.size, run.cache))


def real(run: Run, book: Book) -> None:
    """Do the same on two real models."""
    from . import real as models

    for subject, texts in models.subjects(run.cache, run.scale.steps, run.scale.files):
        traffic = models.Real(subject, texts, replace(run.size, baselines=1, trials=run.scale.trials, after=16), run.cache)
        _calm(run, book, traffic)
        _all_delays(run, book, traffic)


def _all_delays(run: Run, book: Book, traffic: Traffic) -> None:
    tuned = [rival for rival in run.rivals if rival.tuned]
    cells = [f"{traffic.name} | {case.shift} | {case.place} | " for case in traffic.cases]
    limits = {rival.name: _tuned(run, book, traffic, rival) for rival in tuned if any(run.wants(book, cell + rival.name) for cell in cells)}
    for case in traffic.cases:
        _delays(run, book, traffic, case, limits)


def _tuned(run: Run, book: Book, traffic: Traffic, rival: Rival) -> float:
    """Return a rival's limit of equal false alarms; what it gives on other calm windows is written down."""
    name = f"tuned | {traffic.name} | {rival.name}"
    if name not in book.cells:
        tune, calm = run.ask(rival, traffic, "tune", [traffic.calm(rival, part) for part in (TUNE, CALM)], 1).scores
        limit = tuning.limit(tune, ladder=rival.ladder)
        _enter(book, name, {"null": traffic.name, "who": rival.name, "limit": limit, **asdict(tuning.rate(calm >= limit))})
    limit = book.cells[name]["limit"]
    return float("inf") if limit is None else float(limit)


def _delays(run: Run, book: Book, traffic: Traffic, case: Case, limits: dict[str, float]) -> None:
    start = f"{traffic.name} | {case.shift} | {case.place}"
    facts = {"null": traffic.name, **asdict(case)}
    for rival in run.rivals:
        name = f"{start} | {rival.name}"
        if rival.tuned and run.wants(book, name):
            answer = run.ask(rival, traffic, "delays", traffic.planted(rival, case), traffic.size.baselines)
            after = [scores[LEAD:] for scores in answer.scores]
            default, tuned = ([tuning.delay(each >= limit) for each in after] for limit in (answer.limit, limits[rival.name]))
            _enter(book, name, {**facts, "who": rival.name, "default": default, "tuned": tuned, "milliseconds": answer.milliseconds})
    name = f"{start} | {OURS}"
    if run.wants(book, name):
        seen = [ours.watch(windows, traffic.baseline(seed), traffic.layers, _EPOCH) for seed, windows in traffic.trials(case)]
        tickets = [np.array(each.tickets[LEAD:]) for each in seen]
        drift = [tuning.delay(each) for each in tickets]
        verdicts = [tuning.delay(np.isin(each.verdicts[LEAD:], ALARMS)) for each in seen]
        layers = [each.first[LEAD + int(np.argmax(said))] for each, said in zip(seen, tickets, strict=True)]
        _enter(book, name, {**facts, "who": OURS, "default": verdicts, "tuned": verdicts, "drift": drift, "first": layers})
    name = f"{start} | {TOLD}"
    if isinstance(traffic, Drawn) and run.wants(book, name):
        _enter(book, name, {**facts, "who": TOLD, "default": [], "tuned": told.delays(traffic, case)})


def faults(run: Run, book: Book) -> None:
    """Plant faults in every layer of two real models, and note which layer is called the first and what the cause."""
    from . import faults as planting
    from . import real as models

    for subject, texts in models.subjects(run.cache, run.scale.steps, run.scale.files):
        traffic = models.Real(subject, texts, run.size, run.cache)
        for kind in (*planting.FAULTS, planting.NONFINITE):
            for layer in range(len(traffic.layers)):
                name = f"{subject.name} | {kind} | {traffic.layers[layer]}"
                if run.wants(book, name):
                    known = traffic.baseline(0)
                    found = [planting.plant(traffic, texts.unseen, kind, layer, seed, known) for seed in range(run.scale.seeds)]
                    _enter(book, name, {"model": subject.name, **planting.cell(found, kind, layer)})


def calm(run: Run, book: Book) -> None:
    """Count our own false alarms over many months, at the level of scores."""
    from . import calm as months

    for null in NULLS:
        if run.only in null.name and null.name not in book.cells:
            began = time.perf_counter()
            found = months.run(null, months.Months(run.scale.baselines, run.scale.months))
            _enter(book, null.name, {"outcomes": found, "seconds": time.perf_counter() - began})


def month(run: Run, book: Book) -> None:
    """Count our false alarms over a month of values, each window counted, scored and judged as in service."""
    for null in NULLS:
        if null.name == TRAFFIC[0] and null.name not in book.cells:
            traffic = Drawn(null, run.size, run.cache)
            seen = ours.watch(traffic.month(), traffic.baseline(0), traffic.layers, _EPOCH)
            rates = {tier: asdict(tuning.rate(np.array(said))) for tier, said in (("ticket", seen.tickets), ("page", seen.pages))}
            _enter(book, null.name, {"rates": rates, "most": max(seen.evidence)})


def _enter(book: Book, name: str, cell: dict[str, Any]) -> None:
    book.write(name, cell)
    print(f"{time.strftime('%H:%M:%S')}  {name}", file=sys.stderr, flush=True)


PARTS = {"calm": calm, "month": month, "nulls": nulls, "delays": delays, "real": real, "faults": faults}


def main() -> int:
    """Run the parts asked for, and show what is known."""
    parser = argparse.ArgumentParser(prog="python -m field", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=tuple(PARTS), help="only this part; may be repeated")
    parser.add_argument("--size", choices=("quick", "full"), default="full")
    parser.add_argument("--only", default="", help="only cells whose name holds this")
    parser.add_argument("--rivals", default="", help="only these scripts, with commas")
    parser.add_argument("--cache", type=Path, default=stamp.ROOT / "build" / "field", help="streams, baselines and environments")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--tables", action="store_true", help="measure nothing; show what is known")
    parser.add_argument("--pictures", action="store_true", help="draw them as well; takes matplotlib")
    options = parser.parse_args()
    size, scale = (QUICK, SMALL) if options.size == "quick" else (FULL, WHOLE)
    rivals = tuple(rival for rival in RIVALS if not options.rivals or rival.script in options.rivals.split(","))
    cache = options.cache / options.size / source_hash()  # other code may draw other streams
    run = Run(size, cache, Environments(options.cache / "environments"), options.only, rivals, scale)
    for part in options.part or PARTS:
        book = Book(options.out / f"{part}.json", {**asdict(size), **asdict(scale)}, fresh=options.fresh)
        if not options.tables:
            PARTS[part](run, book)
    said = tables.all_of(options.out)
    print(said)
    (options.out / "field.md").write_text(said)
    if options.pictures:
        from . import pictures

        pictures.draw(options.out)
    return 0
