"""Two hours of a made-up fleet, as OpenMetrics text: what dashboards are looked at with.

A ranking model serves two regions with two shards each and tries a canary after half an hour. One of its pods goes
astray by itself. In the second hour the inputs of one region shift, one pod meets NaNs, latency rises with the shift,
and one pod runs out of memory. A second model is calm, and a third is being trained and diverges. Of what is recorded
there are two days more, and some of a week ago, to compare with.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from statistics import NormalDist

from prometheus_client.utils import floatToGoString

from geluwatch import catalog
from geluwatch.catalog import Metric
from geluwatch.mixin.queries import GROUP, POD
from geluwatch.mixin.rules import cost, fleet, latency, quality
from geluwatch.mixin.settings import MixinSettings

STEP, STEPS = 60, 120
END = int(time.time()) // STEP * STEP
DAY, WEEK = 86400, 7 * 86400
SHIFT, FAULT, CANARY, STRAY = 70, 90, 30, 50
"""The minutes at which inputs shift, NaNs begin, the canary comes, and a pod goes astray."""
LAYERS = tuple(f"encoder.layer.{number}.act" for number in range(4))
BAD_LAYER, STRAY_LAYER = 1, 2

_TRAINING = ("training", "losses", "loss_scale", "skipped", "gradient")
"""Parts of the names of metrics that only a process that trains has."""


@dataclass(frozen=True)
class Pod:
    """One process with an agent, and what befalls it."""

    model: str
    version: str
    instance: str
    region: str = "eu"
    shard: str = "0"
    track: str = "stable"
    since: int = 0
    shifts: bool = False
    nan: bool = False
    full: bool = False
    trains: bool = False
    strays: bool = False

    @property
    def drifts(self) -> tuple[int, str] | None:
        """The minute and the layer where it begins to drift, if it does."""
        return (STRAY, LAYERS[STRAY_LAYER]) if self.strays else (SHIFT, LAYERS[BAD_LAYER]) if self.shifts else None

    @property
    def labels(self) -> dict[str, str]:
        """Labels that all its series bear."""
        target = {"cluster": "prod", "namespace": "serving", "job": "inference", "instance": self.instance}
        marks = {"track": self.track} if self.track == "canary" else {}
        return {**target, **marks, "model": self.model, "model_version": self.version, "region": self.region, "shard": self.shard}


FLEET = (
    Pod("ranker", "4", "ranker-eu-0:9464"),
    Pod("ranker", "4", "ranker-eu-1:9464", shard="1", nan=True),
    Pod("ranker", "4", "ranker-eu-2:9464"),
    Pod("ranker", "4", "ranker-eu-3:9464", shard="1", strays=True),
    Pod("ranker", "4", "ranker-us-0:9464", region="us", shifts=True),
    Pod("ranker", "4", "ranker-us-1:9464", region="us", shard="1", shifts=True, full=True),
    Pod("ranker", "5", "ranker-canary:9464", track="canary", since=CANARY, shifts=True),
    Pod("embedder", "1", "embedder-0:9464"),
    Pod("tuner", "1", "tuner-0:9464", trains=True, nan=True),
)


FIRED = (
    ("GeluwatchNonFiniteActivations", "critical", "model", FLEET[1], FAULT + 2),
    ("GeluwatchActivationDrift", "critical", "model", FLEET[4], SHIFT + 25),
    ("GeluwatchActivationDrift", "warning", "model", FLEET[4], SHIFT + 18),
    ("GeluwatchLatencySpike", "warning", "infrastructure", FLEET[4], SHIFT + 12),
    ("GeluwatchCanaryDivergence", "warning", "model", FLEET[6], SHIFT + 20),
    ("GeluwatchPodDrift", "warning", "model", FLEET[3], STRAY + 20),
)
"""Alerts that fire until the end: name, severity, owner, one of their pods, and since when."""


def wobble(*seed: object, minute: int) -> float:
    """Return a number between -1 and 1 that moves smoothly, differently for each seed."""
    phase = zlib.crc32(repr(seed).encode()) % 628 / 100
    return 0.7 * math.sin(minute / 17 + phase) + 0.3 * math.sin(minute / 3.1 + 2 * phase)


def drifting(pod: Pod, labels: dict[str, str], minute: int) -> float:
    """Return how far a layer's inputs have shifted, from 0 to 1; layers before the bad one never do."""
    began, first = pod.drifts or (STEPS, LAYERS[-1])
    return min(1.0, max(0, minute - began) / 15) if labels.get("layer", LAYERS[-1]) >= first else 0.0


def per_second(pod: Pod, metric: Metric, labels: dict[str, str], minute: int) -> float:
    """Return how fast a counter grows."""
    passes = 40 * (1 + 0.2 * math.sin(minute / 40) + 0.05 * wobble(pod, minute=minute))
    faulty = pod.nan and minute >= FAULT and labels.get("layer", LAYERS[-1]) >= LAYERS[BAD_LAYER]
    name = metric.name.removeprefix("geluwatch_")
    first = labels.get("layer") == LAYERS[BAD_LAYER] or "layer" not in labels
    rates = {
        "samples": 8 * passes,
        "tokens": 900 * passes,
        "predictions": 8 * passes,
        "wrong_predictions": 8 * passes * (0.04 + 0.06 * drifting(pod, {}, minute)),
        "forward_passes": passes,
        "sampled_forward_passes": passes / 10,
        "failed_forward_passes": passes * (0.02 if pod.full and minute > FAULT else 0.0004),
        "out_of_memory_forward_passes": 0.05 * (pod.full and minute > FAULT),
        "process_cpu_seconds": 3.2 + 0.4 * wobble(pod, "cpu", minute=minute),
        "gelu_seconds": 0.004 * passes,
        "timed_pass_seconds": 0.06 * passes,
        "hook_seconds": 0.004,
        "flush_seconds": 0.001,
        "windows": 1 / STEP,
        "training_steps": 2.0,
        "elements": 1e6,
        "activation_squares": 1e6 * (1 + drifting(pod, labels, minute)),
        "activation_abs_sum": 5e5 if labels.get("sign") == "pos" else 3e5,
    }
    if name in rates:
        return rates[name]
    if "nonfinite" in name or "skipped" in name:
        return 0.0 if "padding" in name else 0.4 * (faulty and (first or "first" not in name))
    return 0.0


def level(pod: Pod, metric: Metric, labels: dict[str, str], minute: int) -> float:
    """Return a gauge's value."""
    name = metric.name.removeprefix("geluwatch_")
    fixed = {**_judged(pod, labels, minute), **_measured(pod, minute)}
    if name in fixed:
        return fixed[name]
    if name.endswith("_timestamp_seconds"):
        return END - STEP * (STEPS - 1 - minute) - 20.0
    if name in {"site_observed", "baseline_armed", "drift_first_layer"} or metric.kind == "info":
        return 1.0
    if name.startswith(("part_", "skipped")):
        return 0.0
    size = {"s": 0.5, "1": 0.06}.get(metric.unit, 20.0)
    return size * (1 + 0.2 * wobble(pod, name, labels.get("layer"), minute=minute)) * (1 + 4 * drifting(pod, labels, minute))


def _judged(pod: Pod, labels: dict[str, str], minute: int) -> dict[str, float]:
    """Return what an agent makes of what it sees."""
    drift, layer = drifting(pod, labels, minute), labels.get("layer", LAYERS[0])
    surprise = 2.2 + 0.8 * wobble(pod, layer, labels.get("point"), minute=minute) + 8 * drift
    limit = {"ticket": 6.0, "page": 7.5}.get(labels.get("tier", ""), 0.0)
    state = "page" if drift > 0.7 or (pod.nan and minute >= FAULT) else "ticket" if drift > 0.5 else "ok"
    return {
        "drift_surprise": surprise,
        "drift_evidence_ratio": surprise / 6.0,
        "drift_limit": limit,
        "drift_alarm": float(surprise > limit),
        "drift_onset_timestamp_seconds": END - STEP * (STEPS - pod.drifts[0]) if pod.drifts else 0.0,
        "verdict": float(labels.get("verdict") == state),
        "layer_index": float(LAYERS.index(layer)),
        "gross_fault": float(pod.full and labels.get("fault") == catalog.FAULTS[0] and layer == LAYERS[-1]),
        "kernel_mismatch": float(pod.model == "embedder" and layer == LAYERS[0]),
        "overflow_alarm": float(pod.trains and layer == LAYERS[-1]),
        "predicted_overflow_seconds": 90000.0,
    }


def _measured(pod: Pod, minute: int) -> dict[str, float]:
    """Return what a process and its application tell of themselves."""
    return {
        "accuracy_ratio": 0.91 + 0.004 * wobble(pod, minute=minute) - 0.05 * drifting(pod, {}, minute),
        "quantized_accuracy_delta_ratio": -0.006,
        "cost_per_hour": 3.1 if pod.track == "canary" else 2.4,
        "process_resident_memory_bytes": 5.2e9 + (7e7 if pod.full else 1e7) * minute,
        "process_memory_limit_bytes": 1.6e10,
        "process_threads": 48.0,
        "device_memory_bytes": 2.2e10 + 1e9 * wobble(pod, "device", minute=minute),
        "device_memory_peak_bytes": 2.6e10,
        "device_memory_limit_bytes": 8e10,
        "baseline_timestamp_seconds": END - 9 * 86400.0,
        "attached_timestamp_seconds": END - STEP * (STEPS - pod.since) - 30.0,
        "loss_scale": 65536.0 / (1 + 7 * (pod.nan and minute >= FAULT)),
        "exported_series": 900.0 + len(pod.instance),
        "window_rows": 4000 + 300 * wobble(pod, minute=minute),
        "hook_budget_ratio": 0.02,
    }


def share(pod: Pod, metric: Metric, labels: dict[str, str], minute: int) -> float:
    """Return the share of a histogram's observations up to an edge; the baseline is what it was before any shift."""
    edge = float(labels["le"])
    drift = drifting(pod, labels, minute)
    if "activation" in metric.name or "baseline" in metric.name:
        return _below(edge, labels["point"], 0.8 * drift if "activation" in metric.name else 0.0)
    middle, spread = (0.018 * (1 + 3 * drift), 0.5) if metric.unit == "s" else (8.0, 0.7)
    return NormalDist(math.log(middle), spread).cdf(math.log(edge)) if edge > 0 else 0.0


def _below(edge: float, point: str, mean: float) -> float:
    """Return the share of a layer's values up to an edge, where normal numbers with a mean go into its GELU."""
    return NormalDist(mean).cdf(edge) if point == "pre" else _activated(mean, edge)


@cache
def _activated(mean: float, edge: float) -> float:
    """Return how likely the GELU of a normal number with a mean is at most an edge: its graph falls to -0.17 at -0.75, then rises."""
    if edge < -0.17:
        return 0.0
    normal, unit = NormalDist(mean), NormalDist()
    bounds = []
    for low, high in ((-0.75, max(edge, 0.0) + 1), (-0.75, -9.0)):
        inside, outside = (low, high)
        for _ in range(40):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if middle * unit.cdf(middle) <= edge else (inside, middle)
        bounds.append(normal.cdf(inside) if outside > -9.0 else 0.0)
    return bounds[0] - bounds[1]


def exposition() -> Iterator[str]:
    """Yield the day in OpenMetrics text, family by family."""
    for metric in catalog.METRICS:
        yield f"# TYPE {metric.name} {metric.kind if metric.kind in {'counter', 'gauge'} else 'unknown'}"
        for pod in FLEET:
            if not pod.trains and any(part in metric.name for part in _TRAINING):
                continue
            for labels in _labels(metric, pod):
                yield from _samples(metric.series, {**pod.labels, **labels}, _values(pod, metric, labels), pod.since)
    yield from _targets_and_alerts()
    yield from _past()
    yield "# EOF"


def _labels(metric: Metric, pod: Pod) -> Iterator[dict[str, str]]:
    names = [*metric.labels, "le"] if metric.kind == "histogram" else list(metric.labels)
    for values in product(*(_choices(name, metric, pod) for name in names)):
        labels = dict(zip(names, values, strict=True))
        point = labels.get("point")
        if "le" not in labels or point is None or labels["le"] == "+Inf" or float(labels["le"]) in catalog.EDGES[point]:
            yield labels


def _choices(name: str, metric: Metric, pod: Pod) -> list[str]:
    if name == "le":
        edges = (
            sorted({*catalog.EDGES["pre"], *catalog.EDGES["post"]})
            if "point" in metric.labels
            else (catalog.LATENCY_EDGES if metric.unit == "s" else catalog.BATCH_EDGES)
        )
        return [*map(floatToGoString, edges), "+Inf"]
    first = "drift_first" in metric.name or "onset" in metric.name
    return {
        "layer": [layer for layer in LAYERS if not first or (pod.drifts and layer == pod.drifts[1])],
        "point": list(catalog.EDGES),
        "kind": list(catalog.KINDS),
        "sign": list(catalog.SIGNS),
        "part": list(catalog.PARTS),
        "tier": list(catalog.TIERS),
        "fault": list(catalog.FAULTS),
        "verdict": ["blind", "warming", "ok", "ticket", "page"],
        "declared": ["erf in float32"],
        "measured": ["erf in float32"],
        "scope": ["model" if pod.strays else "traffic"],
        "baseline": ["launch" if pod.version != "5" else "canary"],
        "version": ["1.0.0"],
        "framework": ["torch 2.13"],
        "device": ["cuda:0"],
        "profile": ["standard"],
        "weights": ["3f9a12c07be45d68"],
        "dtype": ["float32"],
        "device_kind": ["cuda"],
        "torch": ["2.13.0"],
        "signer": ["8c1d5e0f22ab7734"],
        "promoted": ["yes"],
    }[name]


def _values(pod: Pod, metric: Metric, labels: dict[str, str]) -> Iterator[float]:
    total = 0.0
    for minute in range(pod.since, STEPS):
        if metric.kind == "histogram":
            total += STEP * (1e6 if "point" in labels else 40.0) * share(pod, metric, labels, minute)
            yield round(total)
        elif metric.kind == "counter":
            total += STEP * per_second(pod, metric, labels, minute)
            yield round(total, 3)
        else:
            yield share(pod, metric, labels, minute) if "le" in labels else level(pod, metric, labels, minute)


def _targets_and_alerts() -> Iterator[str]:
    yield "# TYPE up gauge"
    for pod in FLEET:
        target = {name: pod.labels[name] for name in ("cluster", "namespace", "job", "instance")}
        yield from _samples("up", target, iter([1.0] * (STEPS - pod.since)), pod.since)
    for series, at in (("ALERTS", lambda _: 1.0), ("ALERTS_FOR_STATE", lambda since: END - STEP * (STEPS - since - 1.0))):
        yield f"# TYPE {series} gauge"
        for name, severity, owner, pod, since in FIRED:
            labels = {key: pod.labels[key] for key in (POD if "Pod" in name else GROUP)}
            state = {"alertstate": "firing"} if series == "ALERTS" else {}
            labels = {**labels, "alertname": name, "severity": severity, "owner": owner, **state}
            yield from _samples(series, labels, iter([at(since)] * (STEPS - since)), since)


def _past() -> Iterator[str]:
    """Yield what was recorded before the day began: what is usual, and how values lay a week ago."""
    begun, settings = END - STEP * STEPS, MixinSettings()
    earlier = [*range(begun - WEEK - STEP, END - WEEK, 4 * STEP), *range(begun - DAY - STEP, END - DAY, 4 * STEP)]
    usual = sorted({*earlier, *(at // 1800 * 1800 for at in range(END - 2 * DAY - 2 * 3600, begun, 1800))})
    stable = {tuple(pod.labels[name] for name in GROUP): pod for pod in FLEET if pod.track == "stable"}
    levels = {
        latency.quantile_recording(settings, 0.95).name: 0.05,
        quality.accuracy_recording(settings).name: 0.91,
        quality.wrong_recording(settings).name: 0.04,
        cost.cost_recording(settings).name: 2.4,
    }
    for (series, value), group in product(levels.items(), stable):
        yield from _constant(series, dict(zip(GROUP, group, strict=True)), value, usual)
    for group, pod in stable.items():
        for labels in _labels(catalog.VALUES, pod):
            named = {**dict(zip(GROUP, group, strict=True)), **labels}
            yield from _constant(fleet.CDF, named, _below(float(labels["le"]), labels["point"], 0.05), earlier)


def _constant(series: str, labels: dict[str, str], value: float, times: list[int]) -> Iterator[str]:
    inside = ",".join(f'{name}="{text}"' for name, text in labels.items())
    yield from (f"{series}{{{inside}}} {value} {at}" for at in times)


def _samples(series: str, labels: dict[str, str], values: Iterator[float], since: int) -> Iterator[str]:
    inside = ",".join(f'{name}="{text}"' for name, text in labels.items())
    for minute, value in enumerate(values, start=since):
        yield f"{series}{{{inside}}} {value} {END - STEP * (STEPS - 1 - minute)}"
