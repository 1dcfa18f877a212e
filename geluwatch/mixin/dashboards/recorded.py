"""Names of the recorded series that dashboards read, spelled from the catalogue and the settings' windows."""

from __future__ import annotations

from dataclasses import dataclass

from geluwatch import catalog
from geluwatch.catalog import Metric
from geluwatch.mixin.settings import MixinSettings

_DISTANCE = catalog.KS.name


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the recording rules of some settings are called."""

    settings: MixinSettings

    def latency(self, quantile: str) -> str:
        """Return the latency of a model version: its p50, p95 or p99, or what its p95 usually is."""
        return f"model:{catalog.FORWARD_SECONDS.name}:{quantile}"

    @property
    def samples(self) -> str:
        """Samples a second of a model version."""
        return f"model:{catalog.SAMPLES.name}:rate{self.settings.rate_window}"

    @property
    def cost_per_hour(self) -> str:
        """Cost of an hour of all pods of a model version."""
        return f"model:{catalog.COST.name}:sum"

    @property
    def cost_per_million(self) -> str:
        """Cost of a million samples of a model version."""
        return "model:geluwatch_cost_per_million:ratio"

    def accuracy(self, which: str) -> str:
        """Return the accuracy of a model version: over its pods (avg), or what it usually is."""
        return f"model:{catalog.ACCURACY.name}:{which}"

    def error_rate(self, which: str) -> str:
        """Return the share of a model version's predictions that were wrong: now (ratio), or what it usually is."""
        return f"model:{catalog.WRONG_PREDICTIONS.name}:{which}"

    @property
    def memory(self) -> str:
        """Share of memory in use, by pod and device; the host's has no device."""
        return "instance_model:geluwatch_memory_used:ratio"

    def failing(self, window: str) -> str:
        """Return the share of forward passes within a window that missed an objective, by `slo`."""
        return f"model_slo:{catalog.ERRORS.name}:ratio{window}"

    @property
    def objective(self) -> str:
        """Share of forward passes that should meet an objective, by `slo`."""
        return "model_slo:geluwatch_objective:ratio"

    @property
    def budget(self) -> str:
        """Share of the error budget that is left, by `slo`; negative when overspent."""
        return "model_slo:geluwatch_error_budget:remaining"

    @property
    def fleet_distance(self) -> str:
        """KS distance of all pods together from the baseline, by layer and point."""
        return f"model_layer_point:{_DISTANCE}:fleet"

    @property
    def canary_distance(self) -> str:
        """KS distance of the canary from the stable pods, by layer and point."""
        return f"model_layer_point:{_DISTANCE}:canary"

    @property
    def stable_distance(self) -> str:
        """KS distance of the stable pod that is farthest from its fleet, by layer and point."""
        return f"model_layer_point:{_DISTANCE}:stable"

    @property
    def pod_distance(self) -> str:
        """KS distance of a pod from its fleet, by layer and point."""
        return f"instance_model_layer_point:{_DISTANCE}:pod"

    @property
    def week_distance(self) -> str:
        """KS distance of the fleet from itself an ordinary week before, by layer and point."""
        return f"model_layer_point:{_DISTANCE}:week"

    @property
    def distance_bound(self) -> str:
        """How far a KS distance from buckets can lie below the true one, by layer and point."""
        return "model_layer_point:geluwatch_ks_bound_ratio:max"

    @property
    def edges(self) -> str:
        """Number of bucket edges of the fleet's values, by layer and point."""
        return "model_layer_point:geluwatch_cdf_edges:count"

    @property
    def edges_matched(self) -> str:
        """How many of them the baseline has as well."""
        return "model_layer_point:geluwatch_cdf_edges:matched"

    def excess(self, gate: Metric) -> str:
        """Return by how much more of a layer's gates are closed, or open, than in the baseline."""
        return f"model_layer:{gate.name}:excess"

    @property
    def fleet_cdf(self) -> str:
        """Cumulative share of the fleet's values at each edge, by layer and point."""
        return f"model_layer_point_le:{catalog.VALUES.name}:cdf"

    @property
    def baseline_cdf(self) -> str:
        """Cumulative share of the baseline at each edge, by layer and point."""
        return f"model_layer_point_le:{catalog.BASELINE_CDF.name}:max"
