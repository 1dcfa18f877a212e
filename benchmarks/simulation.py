"""Calm traffic that is drawn instead of computed, and the agent's own judging of it, many windows at a time.

Window vectors are drawn; references, scores, calibration, limits and hysteresis are the agent's code. Tests hold that its
shortcuts give what the agent gives window by window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

from geluwatch import Config
from geluwatch.core import average, calibrate, score, surprise, tail
from geluwatch.records import STATISTICS, Calm, Certificate, Floats, PointKey, Reference

MINUTE = 60.0
LAYERS, CHANNELS = 3, 32
KEYS: tuple[PointKey, ...] = tuple((f"layer.{layer}", point) for layer in range(LAYERS) for point in ("pre", "post"))  # type: ignore[misc]  # literals
SIZE = 2 * CHANNELS
KEPT = 144
ROWS = 2048.0
# Standard deviations below which no surprise, by any tail, is half of any limit: 5.2 is the lowest.
_WORTH_A_LOOK = 2.7

Singles = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Cell:
    """One kind of calm traffic, and how long a baseline it takes."""

    name: str
    memory: float
    """Correlation of the traffic's state from window to window."""
    baseline: int
    """Windows in a baseline."""
    daily: bool = False


class Traffic:
    """Draws window vectors: sampling noise of deviation 1 in each component, and two topics that move all layers."""

    def __init__(self, cell: Cell, rng: np.random.Generator) -> None:
        self._cell = cell
        topics = rng.normal(size=(2, LAYERS, 1, SIZE)) + 0.5 * rng.normal(size=(2, LAYERS, 2, SIZE))
        self._topics = topics.reshape(2, len(KEYS), SIZE).astype(np.float32)
        self._cycle = rng.normal(size=(len(KEYS), SIZE)).astype(np.float32)
        self._state = rng.normal(size=2)
        self.minute = 0

    def states(self, count: int, rng: np.random.Generator) -> Singles:
        """Return the traffic's part of the next `count` vectors (n, K, 2C)."""
        rho = self._cell.memory
        moves = rng.normal(size=(count, 2)) * math.sqrt(1.0 - rho**2)
        states, _ = lfilter([1.0], [1.0, -rho], moves, axis=0, zi=rho * self._state[None])
        self._state = states[-1]
        vectors: Singles = np.tensordot(states.astype(np.float32), self._topics, 1)
        if self._cell.daily:
            phase = 2.0 * np.pi * (self.minute + np.arange(count)) / 1440.0
            vectors += np.sin(phase).astype(np.float32)[:, None, None] * self._cycle
        self.minute += count
        return vectors


def noise(count: int, rng: np.random.Generator) -> Singles:
    """Return sampling noise (n, K, 2C)."""
    return rng.standard_normal((count, len(KEYS), SIZE), dtype=np.float32)


class Scorer:
    """Scores a long series of vectors in chunks, as `Averages` would one by one (a test compares them)."""

    def __init__(self, references: list[Reference], horizons: tuple[int, ...]) -> None:
        self._references = references
        self._horizons = horizons
        self._state: list[Singles | None] = [None] * len(horizons)
        self._seen = 0

    def score(self, vectors: Singles) -> Singles:
        """Return the statistics (n, 3, K, H) of the next vectors (n, K, 2C)."""
        scores = np.full((len(vectors), len(STATISTICS), len(KEYS), len(self._horizons)), np.nan, np.float32)
        at = self._seen + np.arange(1, len(vectors) + 1)
        z = np.stack([score.tamed(score.standardised(each, vectors[:, key]), 1.0) for key, each in enumerate(self._references)], axis=1)
        for place, horizon in enumerate(self._horizons):
            share = float(average.smoothing((horizon,))[0])
            before = self._state[place]
            start = np.zeros((1, *z.shape[1:]), np.float32) if before is None else before
            coefficients = np.array([share], np.float32), np.array([1.0, share - 1.0], np.float32)
            sums, self._state[place] = lfilter(*coefficients, z, axis=0, zi=start)
            weight = 1.0 - (1.0 - share) ** at
            noise = share**2 * (1.0 - (1.0 - share) ** (2 * at)) / (1.0 - (1.0 - share) ** 2)
            ready = at >= average.needed(horizon)
            for key, each in enumerate(self._references):
                found = score.statistics(sums[:, key], noise + weight**2 / each.windows, np.zeros(len(at)), score.bias(each))
                scores[ready, :, key, place] = found[:, ready].T
        self._seen += len(vectors)
        return scores


def learn(vectors: Singles) -> list[Reference]:
    """Return the reference of each key of calm vectors (n, K, 2C)."""
    mean, spread = vectors.mean(axis=0, dtype=np.float64), vectors.var(axis=0, ddof=1, dtype=np.float64)
    return [score.reference(mean[key], spread[key], ROWS, len(vectors)) for key in range(len(KEYS))]


def record(vectors: Singles, horizons: tuple[int, ...]) -> tuple[list[Reference], Calm]:
    """Return what a recorder makes of so many calm vectors that it leaves the windows kept whole out of the calibration."""
    count = len(vectors)
    young = count // 4
    scores = np.full((count, len(STATISTICS), len(KEYS), len(horizons)), np.nan, np.float32)
    at = KEPT
    while at < count:
        upto = min(count, int(1.25 * (at + 1)))
        if upto > young:
            run_up = max(0, at - 8 * max(horizons))
            scores[at:upto] = Scorer(learn(vectors[:at]), horizons).score(vectors[run_up:upto])[at - run_up :]
        at = upto
    return learn(vectors), Calm(KEYS, horizons, MINUTE * np.arange(young + 1, count + 1), scores[young:])


class Judge:
    """Judges chunks of scores against an armed baseline."""

    def __init__(self, calm: Calm, certificate: Certificate) -> None:
        self.certificate = certificate
        self._yardstick = surprise.measure(calibrate.restrict(calm, certificate.horizons))
        self._tolerated = surprise.tolerated(Config().tolerance, certificate.horizons, len(calm.ended))
        self._levels: Floats | None = None

    def surprises(self, scores: Singles, ended: Floats) -> Floats:
        """Return the largest surprise (n, K) of each key; those far below any limit are left at zero, to save time."""
        at = surprise.stratum(ended, len(self._yardstick.level))
        deviations = self._yardstick.deviations(scores.astype(np.float64), at, self._tolerated)
        levels = deviations[:, 0] if self._levels is None else np.concatenate([self._levels, deviations[:, 0]])
        self._levels = levels[-surprise.LASTING + 1 :]
        least = surprise.lasting(levels)[-len(deviations) :]
        worth = (np.nan_to_num(np.abs(deviations)) > _WORTH_A_LOOK).any(axis=(1, 2, 3))
        largest = np.zeros((len(deviations), deviations.shape[2]))
        largest[worth] = np.nan_to_num(self._yardstick.surprise(deviations[worth], least[worth])).max(axis=(1, 3))
        return largest


class Alarm:
    """Counts a model's alarms over chunks of windows, with the agent's hysteresis at each key."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._held: npt.NDArray[np.bool_] | bool = False
        self.count = 0

    def see(self, surprises: Floats) -> None:
        """Take the surprises (n, K) of the next windows."""
        held = tail.in_alarm(surprises, self._limit, self._held)
        self.count += int(np.sum(np.diff(held.any(axis=1).astype(int), prepend=int(np.any(self._held))) > 0))
        self._held = held[-1]
