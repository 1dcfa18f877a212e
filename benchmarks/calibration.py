"""How often the drift alarms fire on calm traffic, against the budget: a simulation at the level of scores.

Window vectors are drawn, everything from there on is the agent's own code: references, scores, calibration, limits,
hysteresis. Calm traffic is what makes calibration hard: topics that move all layers together, remembered from window to
window, a daily cycle. For each kind of traffic a number of baselines is recorded, each followed by months of windows; every
alarm is false. Then pods: the fleet's alarm is the mean of their evidence, and one bad pod must be named.

    python benchmarks/calibration.py                 # all cells, about half an hour
    python benchmarks/calibration.py --quick         # a tenth of the months
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import special
from scipy.signal import lfilter

from geluwatch import Config
from geluwatch.core import average, calibrate, score, surprise
from geluwatch.records import STATISTICS, Calm, Certificate, Floats, PointKey, Reference

MINUTE = 60.0
MONTH = 43_200
"""Windows of a minute in thirty days."""
LAYERS, CHANNELS = 3, 32
KEYS: tuple[PointKey, ...] = tuple((f"layer.{layer}", point) for layer in range(LAYERS) for point in ("pre", "post"))  # type: ignore[misc]  # literals
SIZE = 2 * CHANNELS
CHUNK = 21_600
"""Windows drawn at a time."""
KEPT = 144
ROWS = 2048.0
# Standard deviations below which no surprise is near any limit.
_WORTH_A_LOOK = 2.0
RESULTS = Path(__file__).parent / "results"

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


CELLS = (
    Cell("independent windows", 0.0, 2_880),
    Cell("AR(1), rho .5", 0.5, 4_320),
    Cell("AR(1), rho .9", 0.9, 5_760),
    Cell("daily cycle and AR(1), rho .5", 0.5, 17_280, daily=True),
)


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

    def surprises(self, scores: Singles, ended: Floats) -> Floats:
        """Return the largest surprise (n, K) of each key; those far below any limit are left at zero, to save time."""
        at = surprise.stratum(ended, len(self._yardstick.level))
        deviations = self._yardstick.deviations(scores.astype(np.float64), at, self._tolerated)
        outward = np.where(surprise.SIDES > 1.0, np.abs(deviations), deviations)
        found = np.zeros_like(outward)
        high = np.nonzero(np.nan_to_num(outward, nan=-1.0) > _WORTH_A_LOOK)
        freedom, sides = (np.broadcast_to(part, outward.shape)[high] for part in (self._yardstick.freedom, surprise.SIDES))
        found[high] = -np.log10(np.maximum(sides * special.stdtr(freedom, -outward[high]), 10.0**-surprise.MOST))
        largest: Floats = found.max(axis=(1, 3))
        return largest


class Alarm:
    """Counts alarms over chunks of windows, with the agent's hysteresis."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._raised = False
        self.count = 0

    def see(self, worst: Floats) -> None:
        """Take the largest surprises (n,) of the next windows."""
        high, low = np.flatnonzero(worst >= self._limit), np.flatnonzero(worst < calibrate.CLEARED * self._limit)
        at = 0
        while True:
            wanted = low if self._raised else high
            place = np.searchsorted(wanted, at)
            if place == len(wanted):
                return
            at = int(wanted[place])
            self._raised = not self._raised
            self.count += self._raised


@dataclass(frozen=True)
class Outcome:
    """False alarms in one cell."""

    cell: str
    pods: int
    baseline_windows: int
    looks: float
    baselines: int
    armed: int
    months: float
    tier: str
    expected: float
    observed: int
    ratio: float
    upper: float
    """One-sided 95 % bound of the ratio, from the spread between baselines."""
    worse: float
    """Share of baselines with more than twice their budget."""


def outcome(cell: Cell, pods: int, tier: str, months: float, counts: list[int], certificates: list[Certificate]) -> Outcome:
    """Return the summary of one cell and tier."""
    config = Config()
    budget = config.tickets_per_month if tier == "ticket" else config.pages_per_quarter / 3.0
    per = np.array(counts, float) / (months * budget)
    expected, observed = budget * months * len(counts), int(np.sum(counts))
    # Baselines differ, and within one the count is a Poisson's: the wider of the two bounds.
    poisson = float(special.gammaincinv(observed + 1, 0.95)) / expected
    spread = float(per.mean() + special.stdtrit(len(per) - 1, 0.95) * per.std(ddof=1) / math.sqrt(len(per))) if len(per) > 1 else math.inf
    armed = sum(each.armed if tier == "ticket" else each.paging for each in certificates)
    looks = float(np.median([each.looks for each in certificates]))
    return Outcome(
        cell.name,
        pods,
        cell.baseline,
        looks,
        len(counts),
        armed,
        months * len(counts),
        tier,
        expected,
        observed,
        observed / expected,
        max(poisson, spread),
        float((per > 2.0).mean()),
    )  # fmt: skip


def run(cell: Cell, months: float, baselines: int, pods: int = 1) -> list[Outcome]:
    """Return both tiers' outcomes of one cell: each baseline is followed by `months` of calm windows on every pod."""
    config = Config()
    counts: dict[str, list[int]] = {"ticket": [], "page": []}
    certificates = []
    for number in range(baselines):
        rng = np.random.default_rng([20, number])
        traffic = Traffic(cell, rng)
        references, calm = record(traffic.states(cell.baseline, rng) + noise(cell.baseline, rng), config.horizons)
        certificate = calibrate.certify(calm, 0, config)
        certificates.append(certificate)
        judge = Judge(calm, certificate)
        alarms = {"ticket": Alarm(certificate.ticket_limit), "page": Alarm(certificate.page_limit)}
        for largest in _fleet(traffic, references, judge, months, pods, rng):
            for alarm in alarms.values():
                alarm.see(largest.mean(axis=0).max(axis=-1))
        for tier, alarm in alarms.items():
            counts[tier].append(alarm.count)
    return [outcome(cell, pods, tier, months, counts[tier], certificates) for tier in counts]


def _fleet(
    traffic: Traffic, references: list[Reference], judge: Judge, months: float, pods: int, rng: np.random.Generator
) -> Iterator[Floats]:
    """Yield the largest surprises (pods, n, K) of chunk after chunk: pods share the traffic's state and sample on their own."""
    scorers = [Scorer(references, judge.certificate.horizons) for _ in range(pods)]
    chunk = max(CHUNK // pods, 1440)
    left = round(months * MONTH)
    while left > 0:
        count = min(chunk, left)
        ended = MINUTE * (traffic.minute + np.arange(1, count + 1))
        shared = traffic.states(count, rng)
        yield np.stack([judge.surprises(scorer.score(shared + noise(count, rng)), ended) for scorer in scorers])
        left -= count


def bad_pod(cell: Cell, trials: int, pods: int = 20) -> dict[str, float]:
    """Return how often one pod with one faulty layer is named by the rule of the pod against the fleet, and how soon.

    The fault moves the means of one layer's channels by as much as they vary from window to window. Named right is: this pod
    and no other, within 20 windows.
    """
    config = Config()
    right, wrong, delays = 0, 0, []
    for number in range(trials):
        rng = np.random.default_rng([21, number])
        traffic = Traffic(cell, rng)
        references, calm = record(traffic.states(cell.baseline, rng) + noise(cell.baseline, rng), config.horizons)
        certificate = calibrate.certify(calm, 0, config)
        judge = Judge(calm, certificate)
        faulty, layer = int(rng.integers(pods)), int(rng.integers(LAYERS))
        shift = np.zeros((len(KEYS), SIZE), np.float32)
        shift[2 * layer : 2 * layer + 2, :CHANNELS] = rng.choice([-1.5, 1.5], size=CHANNELS)
        before, after = 60, 20
        shared = traffic.states(before + after, rng)
        ended = MINUTE * (traffic.minute - before - after + np.arange(1, before + after + 1))
        found = []
        for pod in range(pods):
            vectors = shared + noise(before + after, rng)
            if pod == faulty:
                vectors[before:] += shift
            found.append(judge.surprises(Scorer(references, certificate.horizons).score(vectors), ended))
        named = _named(np.stack(found), certificate.ticket_limit)[:, before:]
        first = [int(np.argmax(row)) if row.any() else None for row in named]
        wrong += any(at is not None for pod, at in enumerate(first) if pod != faulty)
        at = first[faulty]
        if at is not None:
            delays.append(at + 1)
            right += all(other is None for pod, other in enumerate(first) if pod != faulty)
    soon = float(np.median(delays)) if delays else math.nan
    return {"trials": trials, "named": len(delays), "only it": right, "others named": wrong, "median windows": soon}


def _named(found: Floats, limit: float) -> npt.NDArray[np.bool_]:
    """Return which pods (pods, n) the rule names: far out by itself while the fleet's mean is calm."""
    alone = found >= limit + 1.0 + math.log10(len(found))
    calm = found.mean(axis=0) < limit
    return (alone & calm).any(axis=-1)


def table(outcomes: list[Outcome]) -> str:
    """Return the outcomes as a Markdown table."""
    lines = [
        "| traffic | pods | baseline (windows) | looks | armed | tier | months | expected | observed | ratio | 95 % bound | over twice |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.cell} | {one.pods} | {one.baseline_windows} | {one.looks:.0f} | {one.armed} of {one.baselines} | {one.tier} | "
        f"{one.months:.0f} | {one.expected:.0f} | {one.observed} | {one.ratio:.2f} | {one.upper:.2f} | {one.worse:.0%} |"
        for one in outcomes
    ]
    return "\n".join(lines)


def main() -> None:
    """Run the cells asked for, print the table and write it down."""
    parser = argparse.ArgumentParser(description="False drift alarms on calm traffic, against the budget.")
    parser.add_argument("--months", type=float, default=7.5, help="months that follow each baseline")
    parser.add_argument("--baselines", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="a tenth of the months")
    parser.add_argument("--cells", default="", help="only the cells whose name holds this")
    chosen = parser.parse_args()
    months = chosen.months / 10 if chosen.quick else chosen.months
    outcomes: list[Outcome] = []
    for cell in CELLS:
        if chosen.cells in cell.name:
            began = time.monotonic()
            outcomes += run(cell, months, chosen.baselines)
            print(table(outcomes[-2:]), f"\n{time.monotonic() - began:.0f} s\n", flush=True)
    fleet = CELLS[1]
    if chosen.cells in "pods":
        for pods in (4, 64):
            outcomes += run(fleet, months / pods, chosen.baselines, pods)
            print(table(outcomes[-2:]), "\n", flush=True)
    named = bad_pod(fleet, 20) if chosen.cells in "pods" else {}
    print(table(outcomes), "\n\none bad pod in 20:", named)
    if not chosen.cells:
        RESULTS.mkdir(exist_ok=True)
        written = {"outcomes": [asdict(one) for one in outcomes], "bad_pod": named}
        (RESULTS / "calibration.json").write_text(json.dumps(written, indent=1) + "\n")
        (RESULTS / "calibration.md").write_text(table(outcomes) + f"\n\nOne bad pod in 20: {named}\n")


if __name__ == "__main__":
    main()
