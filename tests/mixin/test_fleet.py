"""The fleet's distances: the bound that is stated of them, and what a real Prometheus records of pods that serve traffic."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

import geluwatch
from geluwatch.catalog import EDGES, FULL_EDGES
from geluwatch.cli.demo.servers import Prometheus, find
from geluwatch.core import follow, histogram, ks
from geluwatch.errors import MissingPartError
from geluwatch.mixin.rulefile import dump, rule_file
from geluwatch.mixin.rules import baselines, fleet
from geluwatch.mixin.ruletests.buckets import Filling, at_zero
from geluwatch.mixin.ruletests.grammar import LAYERS, POD, Scale
from geluwatch.mixin.settings import MixinSettings
from geluwatch.store.memory import MemoryBaselines

QUICK = MixinSettings.quick()
ROUNDING = 1e-12
"""How far the recorded distance may be from the one computed here: counts are whole numbers and add up without error, so
there is nothing between the two but the rounding of a few divisions."""

Shares = Sequence[float]

values = arrays(np.float64, st.integers(1, 60), elements=st.floats(-9, 9))


def shares_at(sample: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """Return the share of a sample at or below each edge, and at infinity."""
    return np.array([*((sample <= edge).mean() for edge in edges), 1.0])


@given(left=values, right=values, edges=st.sets(st.floats(-9, 9), max_size=12).map(sorted))
def test_the_distance_at_the_edges_is_short_of_the_true_one_by_one_mass_at_most(
    left: np.ndarray, right: np.ndarray, edges: list[float]
) -> None:
    """D at the edges <= D <= D at the edges + the largest of the smaller masses <= D at the edges + the largest mass of one side."""
    live, baseline = shares_at(left, edges), shares_at(right, edges)
    masses = np.diff(live, prepend=0), np.diff(baseline, prepend=0)
    everywhere = np.union1d(left, right)
    at_edges, true = np.abs(live - baseline).max(), np.abs(shares_at(left, everywhere) - shares_at(right, everywhere)).max()
    assert at_edges <= true + ROUNDING
    assert true <= at_edges + np.minimum(*masses).max() + ROUNDING
    assert np.minimum(*masses).max() <= masses[1].max()


def test_a_followed_training_run_is_called_what_the_rules_leave_out() -> None:
    """The name by which the rules know a followed run is the one that the agent exports."""
    assert follow.NAME == baselines.FOLLOWING


class Encoder(nn.Module):
    """Two GELUs behind each other."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


@dataclass
class Pod:
    """A watched model, and every value that its GELUs have had since `forget`."""

    watch: geluwatch.Watch
    model: nn.Module
    seed: int
    seen: dict[tuple[str, str], list[np.ndarray]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = torch.Generator().manual_seed(self.seed)
        for name, module in self.model.named_modules():
            if isinstance(module, nn.GELU):
                module.register_forward_hook(lambda _, inputs, output, name=name: self._see(name, inputs[0], output))

    def _see(self, layer: str, before: torch.Tensor, after: torch.Tensor) -> None:
        for point, value in (("pre", before), ("post", after)):
            self.seen.setdefault((layer, point), []).append(value.detach().numpy().copy())

    def serve(self, batches: int, scale: float = 1.0) -> None:
        with torch.no_grad():
            for _ in range(batches):
                self.model(scale * torch.randn(64, 8, generator=self.random))

    def forget(self) -> None:
        """Forget what was seen, and remember the counters as they stand."""
        self.seen.clear()
        self.before = self.counters()

    def counters(self) -> dict[tuple[str, str], np.ndarray]:
        """Return the cumulative counts at the edges that every profile with buckets exports."""
        return {key: self._at_edges(key[1], seen.totals.buckets) for key, seen in self.watch.flush().sites.items()}

    def _at_edges(self, point: str, counts: tuple[int, ...]) -> np.ndarray:
        places = [*(FULL_EDGES[point].index(edge) for edge in EDGES[point]), -1]
        return np.array([counts[place] if counts else 0 for place in places])

    def grown(self) -> dict[tuple[str, str], np.ndarray]:
        now = self.counters()
        return {key: now[key] - self.before[key] for key in now}


def pods(stack: ExitStack, store: MemoryBaselines) -> Iterator[Pod]:
    """Yield three pods of one version with one baseline, the last with more edges, then a canary whose weights are a little off."""
    config = geluwatch.Config(window_seconds=None, flush_seconds=0.2, cost_budget=None, rows_per_window=10**6)
    torch.manual_seed(0)
    weights = Encoder().state_dict()
    for place in range(4):
        model, canary = Encoder(), place == 3
        model.load_state_dict(weights)
        watch = geluwatch.attach(
            model,
            name="encoder",
            version="2" if canary else "1",
            store=store,
            labels={"track": "canary"} if canary else {},
            config=replace(config, profile="full" if place == 2 else "standard"),
        )
        pod = Pod(stack.enter_context(watch), model, place)
        if canary:
            with torch.no_grad():
                model.body[2].weight *= 1.5
        elif place:
            watch.arm("launch")
        else:
            for _ in range(40):
                pod.serve(4)
                watch.close_window()
            watch.record_baseline("launch", arm=True)
        yield pod


@pytest.fixture(scope="module")
def burst(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A burst of traffic on four pods, shorter than the rules' window, and what Prometheus recorded of all of it."""
    try:
        find("prometheus")
    except MissingPartError as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))
    folder, store = tmp_path_factory.mktemp("fleet"), MemoryBaselines()
    with ExitStack() as stack:
        prometheus = stack.enter_context(Prometheus(folder, rule_file(QUICK), "http://127.0.0.1:9"))
        fleet_of = list(pods(stack, store))
        instances = scrape(prometheus, fleet_of)
        for pod in fleet_of:
            pod.forget()
        for pod, batches, scale in zip(fleet_of, (8, 16, 32, 12), (1.0, 1.15, 1.3, 1.2), strict=True):
            pod.serve(batches, scale)
        grown = [pod.grown() for pod in fleet_of]
        recorded = read(prometheus, sum(int(counts[-1]) for of_pod in grown for counts in of_pod.values()))
        yield SimpleNamespace(
            recorded=recorded,
            grown=grown,
            baseline=store.load("encoder", "1", "launch").histograms,
            seen=[{key: histogram.from_values(np.concatenate(parts)) for key, parts in pod.seen.items()} for pod in fleet_of],
            instances=instances,
        )


def scrape(prometheus: Prometheus, fleet_of: list[Pod]) -> list[str]:
    """Have all pods scraped as one job until the rules know them from a window ago; return their addresses."""
    instances = [urlsplit(pod.watch.serve()).netloc for pod in fleet_of]
    draft = prometheus.folder / "targets.draft"
    draft.write_text(json.dumps([{"targets": instances, "labels": {"job": "serving"}}]))
    draft.replace(prometheus.folder / "targets.json")
    eventually(lambda: prometheus.query(f"count(geluwatch_attached_timestamp_seconds offset {QUICK.rate_window}) == 4"))
    return instances


def eventually(holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < 60
        time.sleep(0.2)


Recorded = dict[tuple[str, ...], float]
"""What was recorded under one name, by model version, layer, point and instance, or those of them that there are."""


def read(prometheus: Prometheus, everything: int) -> dict[str, Recorded]:
    """Return what was recorded, by name, at a moment whose window holds all that was counted."""
    rate = fleet.rate_name(QUICK)
    names = (fleet.FLEET_KS, fleet.BOUND, fleet.POD_KS, fleet.CANARY_KS, fleet.FARTHEST)
    found: dict[str, Recorded] = {}

    def holds_everything() -> bool:
        sums = Counter[str]()
        for series in prometheus.query(f'{rate}{{le="+Inf"}}[6s]'):
            sums.update({at: 10 * float(value) for at, value in series["values"]})
        for moment in (at for at, value in sums.items() if abs(value - everything) < 0.5):
            found.update({name: recorded_at(prometheus, name, moment) for name in names})
            # The rules of a group are evaluated one after the other: those behind the rate may not have come to this moment yet.
            if all(found.values()):
                return True
        return False

    eventually(holds_everything)
    return found


def recorded_at(prometheus: Prometheus, name: str, moment: str) -> Recorded:
    """Return what was recorded under a name at a moment."""
    values: Recorded = {}
    for series in prometheus.query(f"{name}[8s]"):
        labels = series["metric"]
        place = tuple(labels[label] for label in ("model_version", "layer", "point", "instance") if label in labels)
        then = dict(map(tuple, series["values"])).get(moment)
        if then is not None:
            values[place] = float(then)
    return values


def binned(left: np.ndarray, right: np.ndarray) -> float:
    """Return the distance of two rows of cumulative counts."""
    return float(np.abs(left / left[-1] - right / right[-1]).max())


def baseline_counts(burst: SimpleNamespace, key: tuple[str, str]) -> np.ndarray:
    """Return the baseline's cumulative counts at the edges."""
    return np.array(histogram.bucket_counts(burst.baseline[key], EDGES[key[1]]))


@pytest.mark.e2e
def test_the_pods_saw_what_their_counters_say(burst: SimpleNamespace) -> None:
    """The values that the hooks of this test saw fill the buckets exactly as the exported counters do, so they can be compared."""
    for seen, grown in zip(burst.seen, burst.grown, strict=True):
        assert 4 == len(seen)
        assert {key: tuple(grown[key]) for key in seen} == {key: histogram.bucket_counts(held, EDGES[key[1]]) for key, held in seen.items()}


@pytest.mark.e2e
def test_the_fleets_distance_is_that_of_the_merged_histograms(burst: SimpleNamespace) -> None:
    """PromQL's KS of three unequal pods from their baseline is that of the pods' counts added up, at every layer and point."""
    expected = {("1", *key): binned(sum(grown[key] for grown in burst.grown[:3]), baseline_counts(burst, key)) for key in burst.seen[0]}
    assert 4 == len(expected)
    assert pytest.approx(expected, abs=ROUNDING) == burst.recorded[fleet.FLEET_KS]
    assert all(distance > 0.01 for distance in expected.values())


@pytest.mark.e2e
def test_the_fleets_distance_is_within_its_bound_of_the_true_one(burst: SimpleNamespace) -> None:
    """The KS of the very values, certified on the lattice, lies between the recorded distance and that plus the recorded bound."""
    for key in burst.seen[0]:
        true = ks.distance(histogram.merge(seen[key] for seen in burst.seen[:3]), burst.baseline[key])
        counts = baseline_counts(burst, key)
        recorded, bound = burst.recorded[fleet.FLEET_KS][("1", *key)], burst.recorded[fleet.BOUND][("1", *key)]
        assert pytest.approx(np.diff(counts, prepend=0).max() / counts[-1], abs=ROUNDING) == bound
        assert recorded - ROUNDING <= true.lower
        assert true.upper <= recorded + bound + ROUNDING


@pytest.mark.e2e
def test_a_pods_distance_is_that_from_all_pods_of_its_version(burst: SimpleNamespace) -> None:
    """Each pod's recorded distance is that of its counts from those of its version's pods together; the farthest is recorded too."""
    for key in burst.seen[0]:
        merged = sum(grown[key] for grown in burst.grown[:3])
        expected = [binned(grown[key], merged) for grown in burst.grown[:3]]
        recorded = [burst.recorded[fleet.POD_KS][("1", *key, instance)] for instance in burst.instances[:3]]
        assert pytest.approx(expected, abs=ROUNDING) == recorded
        assert pytest.approx(max(expected), abs=ROUNDING) == burst.recorded[fleet.FARTHEST][key]


@pytest.mark.e2e
def test_a_canarys_distance_is_that_from_the_stable_pods(burst: SimpleNamespace) -> None:
    """The canary's recorded distance is that of its counts from the stable pods', and is largest behind the weights that differ."""
    expected = {("2", *key): binned(burst.grown[3][key], sum(grown[key] for grown in burst.grown[:3])) for key in burst.seen[0]}
    assert pytest.approx(expected, abs=ROUNDING) == burst.recorded[fleet.CANARY_KS]
    assert ("2", "body.3", "pre") == max(expected, key=lambda place: expected[place])


def test_a_week_is_compared_with_the_week_before(promtool: str, tmp_path: Path) -> None:
    """The distance from the same hour of the week before is recorded where both have the same edges, and nowhere else."""
    settings = replace(QUICK, compare_offset="30s")
    run, turn = 60, 30
    fill = Filling(Scale(settings), run)
    changed = fill.restarted(POD, turn, at_zero(0.5), at_zero(0.62))
    widened = fill.restarted({**POD, "model": "wide"}, turn, at_zero(0.5), {**at_zero(0.5), "0.5": 0.7})
    place = f'job="inference",layer="{LAYERS[0]}",model="minilm",model_version="1",namespace="serving",point="pre"'
    asked = {"expr": f"round({fleet.WEEK_KS}, 0.0001)", "eval_time": "45s", "exp_samples": [{"labels": f"{{{place}}}", "value": 0.12}]}
    series = [{"series": name, "values": filled} for name, filled in {**changed, **widened}.items()]
    test = {"interval": "1s", "input_series": series, "promql_expr_test": [asked]}
    (tmp_path / "rules.yaml").write_bytes(rule_file(settings))
    (tmp_path / "test.yaml").write_bytes(dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1s", "tests": [test]}))
    done = subprocess.run([promtool, "test", "rules", str(tmp_path / "test.yaml")], capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
