"""False alarms and delays, ours and everybody's, on drawn and on real traffic."""

from __future__ import annotations

import time
from dataclasses import asdict, replace

import numpy as np

from . import ours, told, tuning
from .book import Book
from .cells import CALM, LEAD, TUNE, Case, Drawn, Traffic
from .rivals import Rival
from .run import Run, enter
from .streams import NULLS
from .tables import OURS, TOLD

TRAFFIC = ("AR(1), rho 0.9, jitter 0.03", "AR(1), rho 0.9, jitter 0.03, all channels as one")
"""Where delays are measured."""
ALARMS = ("ticket", "page")
"""Verdicts that somebody hears of."""
_EPOCH = 1_000 * 86_400.0


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
            enter(book, name, {"null": traffic.name, "who": rival.name, **asdict(rate), "milliseconds": answer.milliseconds})
    name = f"{traffic.name} | {OURS}"
    if run.wants(book, name):
        began = time.perf_counter()
        seen = ours.watch(traffic.calm_values(), traffic.baseline(0), traffic.layers, _EPOCH)
        took = 1e3 * (time.perf_counter() - began) / len(seen.tickets)
        rate = tuning.rate(np.isin(seen.verdicts, ALARMS))
        enter(book, name, {"null": traffic.name, "who": OURS, **asdict(rate), "milliseconds": took})


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


def _tuned(run: Run, book: Book, traffic: Traffic, rival: Rival) -> list[float]:
    """Return a rival's limits of equal false alarms, by baseline; what the first gives on other calm windows is written down."""
    name = f"tuned | {traffic.name} | {rival.name}"
    if name not in book.cells:
        streams = [traffic.calm(rival, CALM), *(traffic.calm(rival, TUNE, seed) for seed in range(traffic.size.baselines))]
        calm, *tune = run.ask(rival, traffic, "tune", streams, traffic.size.baselines).scores
        limits = [tuning.limit(scores, ladder=rival.ladder) for scores in tune]
        facts = {"null": traffic.name, "who": rival.name, "limit": limits[0], "limits": limits}
        enter(book, name, {**facts, **asdict(tuning.rate(calm >= limits[0]))})
    return [float("inf") if limit is None else float(limit) for limit in book.cells[name]["limits"]]


def _delays(run: Run, book: Book, traffic: Traffic, case: Case, limits: dict[str, list[float]]) -> None:
    start = f"{traffic.name} | {case.shift} | {case.place}"
    facts = {"null": traffic.name, **asdict(case)}
    for rival in run.rivals:
        name = f"{start} | {rival.name}"
        if rival.tuned and run.wants(book, name):
            streams = traffic.planted(rival, case)
            answer = run.ask(rival, traffic, "delays", streams, traffic.size.baselines)
            after = [scores[LEAD:] for scores in answer.scores]
            default = [tuning.delay(each >= answer.limit) for each in after]
            own = [limits[rival.name][stream["baseline"]] for stream in streams]
            tuned = [tuning.delay(each >= limit) for each, limit in zip(after, own, strict=True)]
            enter(book, name, {**facts, "who": rival.name, "default": default, "tuned": tuned, "milliseconds": answer.milliseconds})
    name = f"{start} | {OURS}"
    if run.wants(book, name):
        seen = [ours.watch(windows, traffic.baseline(seed), traffic.layers, _EPOCH) for seed, windows in traffic.trials(case)]
        tickets = [np.array(each.tickets[LEAD:]) for each in seen]
        drift = [tuning.delay(each) for each in tickets]
        verdicts = [tuning.delay(np.isin(each.verdicts[LEAD:], ALARMS)) for each in seen]
        layers = [each.first[LEAD + int(np.argmax(said))] for each, said in zip(seen, tickets, strict=True)]
        enter(book, name, {**facts, "who": OURS, "default": verdicts, "tuned": verdicts, "drift": drift, "first": layers})
    name = f"{start} | {TOLD}"
    if isinstance(traffic, Drawn) and run.wants(book, name):
        enter(book, name, {**facts, "who": TOLD, "default": [], "tuned": told.delays(traffic, case)})


def month(run: Run, book: Book) -> None:
    """Count our false alarms over a month of values, each window counted, scored and judged as in service."""
    for null in NULLS:
        if null.name == TRAFFIC[0] and null.name not in book.cells:
            traffic = Drawn(null, run.size, run.cache)
            seen = ours.watch(traffic.month(), traffic.baseline(0), traffic.layers, _EPOCH)
            rates = {tier: asdict(tuning.rate(np.array(said))) for tier, said in (("ticket", seen.tickets), ("page", seen.pages))}
            enter(book, null.name, {"rates": rates, "most": max(seen.evidence)})
