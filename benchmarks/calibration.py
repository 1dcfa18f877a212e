"""How often the drift alarms fire on calm traffic, against the budget: a simulation at the level of scores.

Window vectors are drawn, everything from there on is the agent's own code: references, scores, calibration, limits,
hysteresis. Calm traffic is what makes calibration hard: topics that move all layers together, remembered from window to
window, a daily cycle. For each kind of traffic a number of baselines is recorded, each followed by months of windows; every
alarm is false. Then pods: the fleet's alarm is the mean of their evidence, and one bad pod must be named.

    python benchmarks/calibration.py                 # all cells, about three quarters of an hour
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
import stamp
from scipy import special
from simulation import CHANNELS, KEYS, LAYERS, MINUTE, SIZE, Alarm, Cell, Judge, Scorer, Traffic, noise, record

from geluwatch import Config
from geluwatch.core import calibrate
from geluwatch.records import Certificate, Floats, Reference

MONTH = 43_200
"""Windows of a minute in thirty days."""
CHUNK = 21_600
"""Windows drawn at a time."""
FLEETS = ((4, 1.0), (64, 0.04))
"""Pods, and the share of the months that they are run for: every pod costs as much as a model."""
RESULTS = Path(__file__).parent / "results"

CELLS = (
    Cell("independent windows", 0.0, 2_880),
    Cell("AR(1), rho .5", 0.5, 4_320),
    Cell("AR(1), rho .9", 0.9, 5_760),
    Cell("daily cycle and AR(1), rho .5", 0.5, 17_280, daily=True),
)


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
                alarm.see(largest.mean(axis=0))
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
        for pods, share in FLEETS:
            outcomes += run(fleet, months * share, chosen.baselines, pods)
            print(table(outcomes[-2:]), "\n", flush=True)
    named = bad_pod(fleet, 20) if chosen.cells in "pods" else {}
    print(table(outcomes), "\n\none bad pod in 20:", named)
    if not chosen.cells:
        RESULTS.mkdir(exist_ok=True)
        source = stamp.of([*stamp.package("core", "records"), *stamp.scripts("calibration", "simulation")], repr(Config()))
        written = {"source": source, "outcomes": [asdict(one) for one in outcomes], "bad_pod": named}
        (RESULTS / "calibration.json").write_text(json.dumps(written, indent=1) + "\n")
        (RESULTS / "calibration.md").write_text(table(outcomes) + f"\n\nOne bad pod in 20: {named}\n")


if __name__ == "__main__":
    main()
