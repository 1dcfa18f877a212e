"""Every query of dashboard, rules and runbooks, asked of a real Prometheus that holds a small fleet's day.

The fleet has a model that misbehaves in many ways, one that is calm, one without a baseline, one that has just come,
one whose agent is gone, one with a dead layer, one with wrong arithmetic, one with an agent out of order, and one with a
stray pod and a second version that has just come up, so each query has something to find.
Two more have a past of days, and of an hour a week ago: one serves as ever, one has lately become bad at it.
"""

from __future__ import annotations

import json
import math
import re
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.utils import floatToGoString

from geluwatch import catalog
from geluwatch.catalog import EDGES, Metric
from geluwatch.mixin.rulefile import dump
from geluwatch.mixin.rules import GROUPS, recorded, recordings
from geluwatch.mixin.settings import MixinSettings

END = 1_700_000_000
STEP, STEPS = 60, 40
WEEK = 7 * 86400
LAYERS = ("encoder.layer.0.act", "encoder.layer.1.act")
LIMITS = {"ticket": 6.0, "page": 7.5}
PLACE = {"region": "eu", "shard": "0"}
"""What users label their agents with; most alerts keep the region."""

PLACED = {"cluster": "a", "job": "inference", "region": "eu"}

FIRING = {
    "GeluwatchNonFiniteActivations": {"severity": "critical", "owner": "model", **PLACED},
    "GeluwatchActivationDrift": {"severity": "warning", "owner": "model", **PLACED},
    "GeluwatchRollout": {"severity": "info", "owner": "model", **PLACED},
}
Ask = Callable[[str], list[Any]]
Series = tuple[dict[str, str], Callable[[int], float]]


class Pod:
    """One agent's series over the steps it is there."""

    def __init__(
        self,
        model: str,
        instance: str,
        steps: range,
        *,
        bad: bool = False,
        armed: bool = True,
        dead: bool = False,
        stray: bool = False,
        crude: bool = False,
        heavy: bool = False,
        faulty: bool = False,
        version: str = "1",
        shift: float = 0.0,
        baseline_age: float = 90.0,
        **labels: str,
    ) -> None:
        self.target = {"cluster": "a", "namespace": "serving", "job": "inference", "instance": instance}
        self.model = {"model": model, "model_version": version, **labels}
        self.steps, self.bad, self.armed, self.dead, self.stray = steps, bad, armed, dead, stray
        self.crude = crude
        self.heavy = heavy
        self.faulty = faulty
        self.shift, self.baseline_age = shift, baseline_age

    def series(self, metric: Metric) -> Iterator[Series]:
        """Yield the series of a metric: labels beyond the target's, and the value at a step."""
        for labels in self._labels(metric):
            yield {**self.model, **labels}, self._values(metric, labels)

    def _labels(self, metric: Metric) -> list[dict[str, str]]:
        if metric.name.startswith("geluwatch_baseline") and metric is not catalog.BASELINE_ARMED and not self.armed:
            return []
        if metric in {catalog.FIRST_DRIFT, catalog.ONSET} and not self.bad:
            return []
        found: list[dict[str, str]] = [{}]
        names = [*metric.labels, "le"] if metric.kind == "histogram" else metric.labels
        for name in names:
            found = [{**labels, name: value} for labels in found for value in _choices(name, labels, metric)]
        return found

    def _values(self, metric: Metric, labels: dict[str, str]) -> Callable[[int], float]:
        worst = self.bad and labels.get("layer", LAYERS[1]) == LAYERS[1]
        share = _share(labels)
        surprise = 9.0 if worst or (self.stray and labels.get("layer") == LAYERS[1]) else 2.4
        fixed = {
            catalog.LAYER_INDEX: float(LAYERS.index(labels["layer"])) if "layer" in labels else 0.0,
            catalog.SITE_OBSERVED: 0.0 if worst else 1.0,
            catalog.BASELINE_ARMED: float(self.armed),
            catalog.BASELINE_CDF: share,
            catalog.BASELINE_TIME: END - self.baseline_age,
            catalog.SURPRISE: surprise,
            catalog.EVIDENCE: surprise / LIMITS["ticket"],
            catalog.LIMIT: LIMITS.get(labels.get("tier", ""), 0.0),
            catalog.GROSS: float(self.dead and labels.get("fault") == "dead" and labels.get("layer") == LAYERS[1]),
            catalog.KERNEL_MISMATCH: float(self.crude and labels.get("layer") == LAYERS[1]),
            catalog.PROBE_MOVED: float(self.crude),
            catalog.OVERFLOW: float(self.crude and labels.get("layer") == LAYERS[1]),
            catalog.VERDICT: float(labels.get("verdict") == ("page" if self.bad or self.dead else "ok")),
            catalog.PART_DISABLED: float(self.faulty),
            catalog.MEMORY_LIMIT: 8.0,
            catalog.DEVICE_LIMIT: 8.0,
            catalog.ATTACHED: float(END - STEP * (STEPS - self.steps.start)),
            catalog.WINDOW_END: END - (1800.0 if self.faulty else 30.0),
            catalog.WINDOWS: 10.0 + 30.0 * (not self.faulty),
            catalog.GATE_CLOSED: 0.9 if self.dead else 0.02,
            catalog.GATE_OPEN: 0.02,
            catalog.COST_BUDGET: 0.01,
        }
        slopes = {
            catalog.HOOK_SECONDS: 3.0 if self.heavy else 0.3,
            catalog.ERRORS: float(self.faulty),
            catalog.DROPPED_ROWS: float(self.faulty),
            catalog.FLUSH_SECONDS: float(not self.faulty),
        }
        if metric is catalog.SKIPPED_IN_A_ROW:
            return lambda _: 30.0 * self.heavy
        if metric in {catalog.OUT_OF_MEMORY, catalog.FAILED_FORWARDS}:
            return lambda step: float(self.heavy) * (step - self.steps.start)
        if metric is catalog.VALUES:
            return lambda step: 6000.0 * _share(labels, self.shift) * (step - self.steps.start)
        if metric.name.endswith("_timestamp_seconds"):
            fixed.setdefault(metric, float(END - 90))
        if metric in fixed:
            return lambda _: fixed[metric]
        if metric.kind in {"counter", "histogram"}:
            slope = (3.0 * share if worst else 0.0) if "nonfinite" in metric.name else slopes.get(metric, 600.0 * share)
            return lambda step: slope * (step - self.steps.start)
        return lambda _: 1.0


_LAST_WEEK = range(-7 * 1440 - 25, -7 * 1440 + STEPS)
_LATELY = range(-2 * 1440 - 20, STEPS)
_TURN = STEPS - 30


class Service:
    """One agent's series of service over days, and of a week ago; it may have become bad at it half an hour ago."""

    def __init__(self, model: str, instance: str, *, bad: bool) -> None:
        self.target = {"cluster": "a", "namespace": "serving", "job": "inference", "instance": instance}
        self.model = {"model": model, "model_version": "1"}
        self.steps, self.bad = (*_LAST_WEEK, *_LATELY), bad

    def series(self, metric: Metric) -> Iterator[Series]:
        """Yield the series of a metric, as a pod does."""
        if metric is catalog.FORWARD_SECONDS:
            for edge in _edges(metric, ""):
                yield {**self.model, "le": edge}, self._bucket(float(edge))
        elif metric is catalog.BUILD_INFO:
            yield {**self.model, "version": "1.0.0", "framework": "torch"}, lambda _: 1.0
        elif metric in _SERVED:
            fine, poor = _SERVED[metric]
            for layer in LAYERS if "layer" in metric.labels else ("",):
                labels = {**self.model, "layer": layer} if layer else self.model
                yield labels, self._counter(fine, poor) if metric.kind == "counter" else self._gauge(fine, poor)

    def _bad_for(self, step: int) -> int:
        return max(0, step - _TURN) if self.bad else 0

    def _counter(self, fine: float, poor: float) -> Callable[[int], float]:
        return lambda step: fine * (step - _LAST_WEEK.start) + (poor - fine) * self._bad_for(step)

    def _gauge(self, fine: float, poor: float) -> Callable[[int], float]:
        return lambda step: poor if self._bad_for(step) else fine

    def _bucket(self, edge: float) -> Callable[[int], float]:
        late = 0 if edge < 0.1 else 100 if edge < 0.5 else 0
        return lambda step: 0.0 if edge < 0.1 else self._counter(100, 100 - late)(step)


_SERVED = {
    catalog.FORWARDS: (100, 100),
    catalog.FAILED_FORWARDS: (0, 5),
    catalog.SAMPLES: (600, 600),
    catalog.COST: (2, 16),
    catalog.PREDICTIONS: (600, 600),
    catalog.WRONG_PREDICTIONS: (60, 240),
    catalog.ACCURACY: (0.9, 0.8),
    catalog.GELU_SECONDS: (1, 4),
    catalog.TIMED_SECONDS: (10, 20),
    catalog.QUANTIZED_DELTA: (-0.002, -0.05),
    catalog.MEMORY_USED: (1, 7.9),
    catalog.MEMORY_LIMIT: (8, 8),
}
"""What a service counts each minute, or shows, while all is well and when it has become bad."""


def _edges(metric: Metric, point: str) -> list[str]:
    own = {catalog.FORWARD_SECONDS: catalog.LATENCY_EDGES, catalog.BATCH_SIZE: catalog.BATCH_EDGES}
    return [*(_text(edge) for edge in own.get(metric, EDGES["post" if point == "post" else "pre"])), "+Inf"]


def _choices(name: str, labels: dict[str, str], metric: Metric) -> list[str]:
    return {
        "layer": list(LAYERS),
        "point": list(EDGES),
        "kind": list(catalog.KINDS),
        "sign": list(catalog.SIGNS),
        "part": list(catalog.PARTS),
        "tier": list(catalog.TIERS),
        "fault": list(catalog.FAULTS),
        "declared": ["erf in float32"],
        "measured": ["tanh in float32"],
        "scope": ["model"],
        "verdict": ["blind", "warming", "ok", "ticket", "page"],
        "baseline": ["launch"],
        "version": ["1.0.0"],
        "framework": ["torch"],
        "device": ["cuda:0"],
        "profile": ["standard"],
        "weights": ["3f9a12c07be45d68"],
        "dtype": ["float32"],
        "device_kind": ["cuda"],
        "torch": ["2.13.0"],
        "signer": ["8c1d5e0f22ab7734"],
        "promoted": ["yes"],
        "le": _edges(metric, labels.get("point", "")),
    }[name]


def _text(edge: float) -> str:
    return str(floatToGoString(edge))  # type: ignore[no-untyped-call]  # prometheus_client leaves it untyped


def _share(labels: dict[str, str], shift: float = 0.0) -> float:
    edge = float(labels.get("le", "inf"))
    sign = 0.7 if labels.get("sign") == "pos" else 0.3 if labels.get("sign") == "neg" else 1.0
    return sign * 0.5 * (1 + math.erf((edge - shift) / 2))


FLEET = (
    Pod("bad", "a:9464", range(STEPS), bad=True),
    Pod("calm", "b:9464", range(STEPS)),
    Pod("calm", "k:9464", range(STEPS), track="canary"),
    Pod("bare", "c:9464", range(STEPS), armed=False),
    Pod("new", "d:9464", range(STEPS - 3, STEPS)),
    Pod("gone", "e:9464", range(STEPS - 12)),
    Pod("dead", "f:9464", range(STEPS), dead=True),
    Pod("crude", "j:9464", range(STEPS), crude=True),
    Pod("heavy", "j:9464", range(STEPS), heavy=True),
    Pod("flock", "g:9464", range(STEPS), stray=True),
    Pod("flock", "h:9464", range(STEPS)),
    Pod("flock", "i:9464", range(STEPS)),
    Pod("flock", "k:9464", range(STEPS - 3, STEPS), version="2"),
    Pod("faulty", "z:9464", range(STEPS), faulty=True),
    Pod("trial", "l:9464", range(STEPS)),
    Pod("trial", "m:9464", range(STEPS)),
    Pod("trial", "n:9464", range(STEPS), shift=0.5, track="canary"),
    Pod("mixed", "o:9464", range(STEPS)),
    Pod("mixed", "p:9464", range(STEPS), baseline_age=9000.0),
    Pod("stale", "q:9464", range(STEPS), baseline_age=100 * 86400.0),
)

SERVICES = (Service("served", "k:9464", bad=False), Service("failing", "l:9464", bad=True))


def week_before() -> Iterator[str]:
    """Yield what one model's buckets held a week before, in OpenMetrics text."""
    for metric in (catalog.VALUES, catalog.ATTACHED):
        yield _type_of(metric)
        for labels, value in FLEET[1].series(metric):
            yield from _samples(metric.series, {**FLEET[1].target, **PLACE, **labels}, value, FLEET[1].steps, END - WEEK)
    yield "# EOF"


def exposition() -> Iterator[str]:
    """Yield the fleet's day in OpenMetrics text, family by family."""
    for metric in catalog.METRICS:
        yield _type_of(metric)
        for pod in (*FLEET, *SERVICES):
            for labels, value in pod.series(metric):
                yield from _samples(metric.series, {**pod.target, **PLACE, **labels}, value, pod.steps)
    yield "# TYPE up gauge"
    for target in {pod.target["instance"]: pod.target for pod in (*FLEET, *SERVICES)}.values():
        yield from _samples("up", target, lambda _: 1.0, range(STEPS))
    yield "# TYPE ALERTS gauge"
    for name, labels in FIRING.items():
        yield from _samples("ALERTS", {"alertname": name, "alertstate": "firing", **labels, **FLEET[0].model}, lambda _: 1.0, range(STEPS))
    yield "# TYPE ALERTS_FOR_STATE gauge"
    for name, labels in FIRING.items():
        yield from _samples("ALERTS_FOR_STATE", {"alertname": name, **labels, **FLEET[0].model}, lambda _: END - 600.0, range(STEPS))
    yield "# EOF"


def _type_of(metric: Metric) -> str:
    return f"# TYPE {metric.name} {'unknown' if metric.kind in {'histogram', 'info'} else metric.kind}"


def _samples(series: str, labels: dict[str, str], value: Callable[[int], float], steps: Iterable[int], end: int = END) -> Iterator[str]:
    inside = ",".join(f'{name}="{text}"' for name, text in labels.items())
    for step in steps:
        yield f"{series}{{{inside}}} {value(step)} {end - STEP * (STEPS - 1 - step)}"


@pytest.fixture(scope="module")
def ask(promtool: str, prometheus: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Return the function that asks a Prometheus holding the fleet's day and what the rules recorded of it, at the day's end."""
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "config.yml").write_text("{}\n")
    for name, lines in (("day", exposition()), ("week_before", week_before())):
        (folder / name).write_text("\n".join(lines) + "\n")
        _create_blocks(promtool, folder, "openmetrics", "--quiet", name, "data")
    for level in _levels():
        with _serving(prometheus, folder) as address:
            for end, steps, rules in _spans(level):
                (folder / "rules.yml").write_bytes(dump({"groups": [{"name": "past", "rules": rules}]}))
                span = [f"--start={end - STEP * (steps - 1)}", f"--end={end}", f"--eval-interval={STEP}s"]
                _create_blocks(promtool, folder, "rules", "--output-dir=data", f"--url=http://{address}", *span, "rules.yml")
    with _serving(prometheus, folder) as address:
        yield lambda expr: _answer(address, expr)


def _levels() -> list[list[dict[str, Any]]]:
    """Return the recording rules, those that read others after those."""
    left = list(recordings(MixinSettings()))
    levels = []
    while left:
        ready = [rule for rule in left if not any(other.name in rule.expr for other in left)]
        assert ready, "recording rules read each other in a circle"
        levels.append(
            [{"record": rule.name, "expr": rule.expr, **({"labels": dict(rule.labels)} if rule.labels else {})} for rule in ready]
        )
        left = [rule for rule in left if rule not in ready]
    return levels


def _spans(level: list[dict[str, Any]]) -> Iterator[tuple[int, int, list[dict[str, Any]]]]:
    """Yield for which end, how many steps back from it, and by which rules to record: of services rules read days of records."""
    served = {rule.name for group in ("geluwatch-service", "geluwatch-objectives") for rule in recorded(GROUPS[group], MixinSettings())}
    yield END - WEEK, STEPS - _LAST_WEEK.start - 7 * 1440, level
    for of_services, steps in ((True, len(_LATELY)), (False, STEPS)):
        rules = [rule for rule in level if of_services is (rule["record"] in served)]
        if rules:
            yield END, steps, rules


def _create_blocks(promtool: str, folder: Path, *arguments: str) -> None:
    kind, *rest = arguments
    # One block holds it all: promtool reads its whole input once for each block.
    done = subprocess.run(
        [promtool, "tsdb", "create-blocks-from", kind, "--max-block-duration=500h", *rest],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stderr


@contextmanager
def _serving(prometheus: str, folder: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    arguments = [
        "--storage.tsdb.retention.time=100y",
        f"--config.file={folder}/config.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}",
    ]
    with (folder / "log").open("w") as log, subprocess.Popen([prometheus, *arguments], stderr=log) as server:
        try:
            _wait_until_ready(address)
            yield address
        finally:
            server.terminate()


def _wait_until_ready(address: str) -> None:
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"http://{address}/-/ready"):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail("Prometheus did not become ready")


def _answer(address: str, expr: str) -> list[Any]:
    asked = urllib.parse.urlencode({"query": expr, "time": END})
    try:
        with urllib.request.urlopen(f"http://{address}/api/v1/query?{asked}") as response:
            found: list[Any] = json.load(response)["data"]["result"]
    except urllib.error.HTTPError as error:
        pytest.fail(f"{json.load(error)['error']}: {expr}")
    return found


def test_every_query_finds_something_finite(ask: Ask, queries: list[Any]) -> None:
    """No query is empty, fails, or answers with NaN or Inf, and each label of a legend is there."""
    answers = {
        query: ask(re.sub(r"{[^}]*}", "", query.expr) if query.source.startswith("annotation of ") else query.expr) for query in queries
    }
    assert [] == [query for query, found in answers.items() if not found]
    for query, found in answers.items():
        assert all(math.isfinite(float(sample["value"][1])) for sample in found), query
        for label in re.findall(r"{{(\w+)}}", query.legend):
            assert any(label in sample["metric"] for sample in found), query


def test_the_alerts_find_the_model_that_is_theirs(ask: Ask, rules: list[dict[str, Any]]) -> None:
    """Of the whole fleet, each alert's expression finds the one model that has its trouble."""
    alerts = {(rule["alert"], rule["labels"]["severity"]): ask(rule["expr"]) for rule in rules if "alert" in rule}
    found = {name: {sample["metric"]["model"] for sample in samples} for name, samples in alerts.items()}
    expected = {
        ("GeluwatchNonFiniteActivations", "critical"): {"bad"},
        ("GeluwatchOutOfMemory", "critical"): {"heavy"},
        ("GeluwatchGrossFault", "critical"): {"dead"},
        ("GeluwatchActivationDrift", "critical"): {"bad"},
        ("GeluwatchActivationDrift", "warning"): {"bad"},
        ("GeluwatchPodDrift", "warning"): {"flock"},
        ("GeluwatchOverflowAhead", "critical"): {"crude"},
        ("GeluwatchOverflowAhead", "warning"): {"crude"},
        ("GeluwatchKernelMismatch", "warning"): {"crude"},
        ("GeluwatchModelChanged", "warning"): {"crude"},
        ("GeluwatchTrainingFault", "warning"): {"bad", "heavy"},
        ("GeluwatchAgentMissing", "warning"): {"gone"},
        ("GeluwatchBaselineMissing", "warning"): {"bare"},
        ("GeluwatchSitesBlind", "warning"): {"bad"},
        ("GeluwatchAgentFaulty", "warning"): {"faulty"},
        ("GeluwatchAgentOverBudget", "warning"): {"heavy"},
        ("GeluwatchSaturation", "warning"): {"dead"},
        ("GeluwatchRollout", "info"): {"flock"},
        ("GeluwatchBaselineMixed", "warning"): {"mixed"},
        ("GeluwatchBaselineStale", "warning"): {"stale"},
        ("GeluwatchCanaryDivergence", "warning"): {"trial"},
        ("GeluwatchErrorBudgetBurn", "critical"): {"failing"},
        ("GeluwatchErrorBudgetBurn", "warning"): {"failing"},
        ("GeluwatchLatencySpike", "warning"): {"failing"},
        ("GeluwatchAccuracyDrop", "warning"): {"failing"},
        ("GeluwatchQuantizedAccuracy", "warning"): {"failing"},
        ("GeluwatchCostUp", "warning"): {"failing"},
        ("GeluwatchMemoryPressure", "warning"): {"failing"},
    }
    assert expected == found


def test_buckets_keep_the_order_and_sum_of_a_distribution(ask: Ask, queries: list[Any]) -> None:
    """Live and baseline shares grow with the edge, negative ones included, and both end in 1 at +Inf."""
    for title in ("panel Live", "panel Baseline"):
        expr = next(query.expr for query in queries if query.source == title).replace('point=~".+"', 'point="pre"')
        shares = sorted((float(sample["metric"]["le"]), float(sample["value"][1])) for sample in ask(expr))
        assert [*EDGES["pre"], math.inf] == [edge for edge, _ in shares]
        assert [share for _, share in shares] == sorted(share for _, share in shares)
        assert 1 == pytest.approx(shares[-1][1])


def test_moments_are_those_of_the_counters(ask: Ask, queries: list[Any]) -> None:
    """The mean is positive minus negative sum over elements, and the deviation follows from the squares."""
    for title, expected in (("Mean", 0.4), ("Standard deviation", math.sqrt(1 - 0.4**2))):
        expr = next(query.expr for query in queries if query.source == f"panel {title} by layer")
        assert {round(expected, 9)} == {round(float(sample["value"][1]), 9) for sample in ask(expr)}
