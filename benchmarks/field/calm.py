"""False alarms of ours over months: window vectors are drawn, everything from there on is the agent's own code.

A channel of a window is one of many drawn once from real rows: its mean and log deviation before the GELU and behind it. The batch
effect moves the mean before the GELU by what `streams` would, and the others by the slopes that a normal value's GELU has there.
The rest is as in benchmarks/calibration.py.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import simulation
from calibration import MONTH, outcome
from simulation import CHANNELS, MINUTE, Alarm, Judge, Scorer, record

from geluwatch import Config
from geluwatch.core import calibrate

from .book import Book
from .run import Run, enter
from .streams import LAYERS, NULLS, ROWS, Null, Singles, Stream, gelu

_BANK = 1 << 17
_STEP = 0.05
_CHUNK = 10_800


@dataclass(frozen=True)
class Months:
    """How much is run for each kind of traffic."""

    baselines: int
    months: float


def moments(values: Singles) -> Singles:
    """Return mean and log deviation before the GELU and behind it (4, ...) of rows (..., R)."""
    behind = gelu(values)
    parts = (values.mean(axis=-1), np.log(values.std(axis=-1, ddof=1)), behind.mean(axis=-1), np.log(behind.std(axis=-1, ddof=1)))
    return np.stack(parts).astype(np.float32)


class Vectors:
    """Draws the window vectors of one kind of traffic, chunk after chunk."""

    def __init__(self, null: Null, seed: int) -> None:
        rng = np.random.default_rng([41, seed])
        rows = rng.standard_normal((_BANK, ROWS), dtype=np.float32)
        self._bank = moments(rows)
        up, down = (moments(rows[: _BANK // 8] + np.float32(side * _STEP)).mean(axis=1) for side in (1.0, -1.0))
        self._slopes = (up - down) / np.float32(2.0 * _STEP)
        self._rng = rng
        self._offsets = Stream(null, seed, 0, channels=CHANNELS)
        self.minute = 0

    def take(self, count: int) -> Singles:
        """Return the next vectors (n, 2L, 2C)."""
        self.minute += count
        drawn = self._bank[:, self._rng.integers(0, _BANK, size=(count, LAYERS, CHANNELS))]
        drawn += self._slopes[:, None, None, None] * self._offsets.offsets(count)
        found: Singles = drawn.transpose(1, 2, 0, 3).reshape(count, 2 * LAYERS, 2 * CHANNELS)
        return found


def months(null: Null, size: Months) -> list[dict[str, Any]]:
    """Return both tiers' outcomes: each baseline is followed by months of calm windows."""
    config, counts, certificates = Config(), {"ticket": [], "page": []}, []
    for seed in range(size.baselines):
        vectors = Vectors(null, seed)
        references, calm = record(vectors.take(null.baseline), config.horizons)
        certificate = calibrate.certify(calm, 0, config)
        certificates.append(certificate)
        judge, scorer = Judge(calm, certificate), Scorer(references, certificate.horizons)
        alarms = {"ticket": Alarm(certificate.ticket_limit), "page": Alarm(certificate.page_limit)}
        left = round(size.months * MONTH)
        while left > 0:
            count = min(_CHUNK, left)
            ended = MINUTE * (vectors.minute + np.arange(1, count + 1))
            largest = judge.surprises(scorer.score(vectors.take(count)), ended)
            for alarm in alarms.values():
                alarm.see(largest)
            left -= count
        for tier, alarm in alarms.items():
            counts[tier].append(alarm.count)
    cell = simulation.Cell(null.name, null.rho, null.baseline)
    return [asdict(outcome(cell, 1, tier, size.months, counts[tier], certificates)) for tier in counts]


def calm(run: Run, book: Book) -> None:
    """Count our own false alarms over many months, at the level of scores."""
    for null in NULLS:
        if run.only in null.name and null.name not in book.cells:
            began = time.perf_counter()
            found = months(null, Months(run.scale.baselines, run.scale.months))
            enter(book, null.name, {"outcomes": found, "seconds": time.perf_counter() - began})
