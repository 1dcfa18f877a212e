"""The calibration benchmark simulates the agent's own code: its shortcuts give what the agent gives window by window."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geluwatch.config import Config
from geluwatch.core import calibrate, recorder, tail
from geluwatch.core.average import Averages
from geluwatch.records import Floats, Moments

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks"
HORIZONS = (1, 4, 16)


@pytest.fixture(scope="module")
def benchmark() -> Iterator[ModuleType]:
    """The benchmark as a module, with the simulation that it imports beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield importlib.import_module("calibration")
        for name in ("calibration", "simulation"):
            sys.modules.pop(name)


@pytest.fixture(scope="module")
def simulation(benchmark: ModuleType) -> ModuleType:
    """What the benchmark simulates with."""
    return sys.modules["simulation"]


def drawn(simulation: ModuleType, count: int, seed: int = 0, daily: bool = True) -> Floats:
    """Vectors (n, K, 2C) of the benchmark's calm traffic."""
    rng = np.random.default_rng(seed)
    traffic = simulation.Traffic(simulation.Cell("a cell", 0.5, count, daily=daily), rng)
    vectors: Floats = traffic.states(count, rng) + simulation.noise(count, rng)
    return vectors


@pytest.mark.parametrize("chunks", [(90,), (1, 2, 30, 57), (20, 20, 20, 30)])
def test_scores_in_chunks_are_those_of_averages_window_by_window(simulation: ModuleType, chunks: tuple[int, ...]) -> None:
    """However a series is cut, its scores are those of `Averages`, and missing where those are."""
    vectors = drawn(simulation, 90)
    references = simulation.learn(drawn(simulation, 200, 1))
    scorer = simulation.Scorer(references, HORIZONS)
    found = np.concatenate([scorer.score(part) for part in np.split(vectors, np.cumsum(chunks)[:-1])])
    expected = np.full(found.shape, np.nan)
    for key, reference in enumerate(references):
        averages = Averages(reference, HORIZONS)
        for at, seen in enumerate(vectors[:, key]):
            averages.add(seen.astype(np.float64), simulation.ROWS, 0.0)
            expected[at, :, key] = averages.statistics()
    assert np.isfinite(expected[16:]).all()
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-3, nan_ok=True)


@given(
    found=hnp.arrays(np.float64, st.tuples(st.integers(0, 150), st.integers(1, 3)), elements=st.floats(0, 12)),
    limit=st.floats(0.5, 13),
    cut=st.integers(1, 40),
)
def test_alarms_in_chunks_are_those_of_the_agent(simulation: ModuleType, found: Floats, limit: float, cut: int) -> None:
    """However a series is cut, its alarms are as many as `tail.alarms` counts."""
    alarm = simulation.Alarm(limit)
    for start in range(0, len(found), cut):
        alarm.see(found[start : start + cut])
    assert tail.alarms(found, limit) == alarm.count


def test_a_baseline_in_bulk_is_that_of_the_recorder(simulation: ModuleType, make_window) -> None:
    """References and calm scores are those that the recorder makes of the same vectors, one window after the other."""
    count, rows, half = 4 * recorder.KEPT_WINDOWS + 120, int(simulation.ROWS), simulation.CHANNELS
    vectors = (0.1 * drawn(simulation, count, daily=False)).astype(np.float32)
    references, calm = simulation.record(vectors, HORIZONS)
    made = recorder.Recorder(Config())
    for number, seen in enumerate(vectors.astype(np.float64)):
        points = {
            key: Moments(rows, seen[place, :half], rows * np.exp(2 * seen[place, half:])) for place, key in enumerate(simulation.KEYS)
        }
        made.add(make_window(points, 60.0 * number), ())
    baseline = made.baseline(model="m", model_version="1", name="v1", created=0.0, sites=())
    assert baseline.calm is not None
    assert (calm.keys, calm.horizons, calm.ended.tolist()) == (baseline.calm.keys, baseline.calm.horizons, baseline.calm.ended.tolist())
    assert calm.scores == pytest.approx(baseline.calm.scores, rel=1e-2, abs=1e-2, nan_ok=True)
    for key, reference in zip(simulation.KEYS, references, strict=True):
        assert reference.mean == pytest.approx(baseline.references[key].mean, rel=1e-3, abs=1e-4)
        assert reference.variance == pytest.approx(baseline.references[key].variance, rel=1e-3)


def test_the_benchmark_s_surprises_are_the_yardstick_s(simulation: ModuleType) -> None:
    """Far out, where alarms are, the largest surprise of each point is the agent's, however windows are cut into chunks."""
    references, calm = simulation.record(drawn(simulation, 400), HORIZONS)
    certificate = calibrate.certify(calm, 0, Config())
    judge = simulation.Judge(calm, certificate)
    scores = 30.0 * simulation.Scorer(references, certificate.horizons).score(drawn(simulation, 60, 2))
    ended = calm.ended[-1] + 60.0 * np.arange(1, 61)
    found = np.concatenate([judge.surprises(scores[part], ended[part]) for part in (slice(0, 9), slice(9, 60))])
    measured = calibrate.surprise.measure(calibrate.restrict(calm, certificate.horizons))
    allowed = calibrate.surprise.tolerated(Config().tolerance, certificate.horizons, len(calm.ended))
    deviations = measured.deviations(scores.astype(np.float64), calibrate.surprise.stratum(ended, 1), allowed)
    everything = measured.surprise(deviations, calibrate.surprise.lasting(deviations[:, 0]))
    expected = np.nan_to_num(everything, nan=0.0).max(axis=(1, 3))
    far = expected >= certificate.ticket_limit
    assert far.any()
    assert found[far] == pytest.approx(expected[far])
    assert (found <= expected + 1e-9).all()


@pytest.mark.parametrize("pods", [1, 3])
def test_a_miniature_run_gives_an_outcome_for_both_tiers(benchmark: ModuleType, simulation: ModuleType, pods: int) -> None:
    """Two short baselines and a fiftieth of a month each give a ticket's and a page's outcome, which print and can be written."""
    cell = simulation.Cell("miniature", 0.5, 400)
    outcomes = benchmark.run(cell, 0.02, 2, pods)
    assert ["ticket", "page"] == [one.tier for one in outcomes]
    ticket, page = outcomes
    for one in outcomes:
        assert ("miniature", pods, 400, 2) == (one.cell, one.pods, one.baseline_windows, one.baselines)
        assert one.months == pytest.approx(0.04)
        assert one.ratio == pytest.approx(one.observed / one.expected)
        assert one.upper >= one.ratio
    assert (2, pytest.approx(0.08)) == (ticket.armed, ticket.expected)
    assert page.observed <= ticket.observed
    printed = benchmark.table(outcomes).splitlines()
    assert 4 == len(printed)
    assert 1 == len({line.count("|") for line in printed})
    assert json.loads(json.dumps([asdict(one) for one in outcomes]))


def test_a_bad_pod_is_looked_for(benchmark: ModuleType, simulation: ModuleType) -> None:
    """Over a few trials the pod with the faulty layer is named, and no figure exceeds the trials."""
    found = benchmark.bad_pod(simulation.Cell("miniature", 0.0, 600), 2, pods=4)
    assert 2 == found["trials"] >= found["named"] >= found["only it"]
    assert found["named"] >= 1
