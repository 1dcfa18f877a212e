"""Names of the recorded series that dashboards read, as the rules that record them give them."""

from __future__ import annotations

from dataclasses import dataclass

from geluwatch.mixin.rules import cost, latency, memory, objectives, quality, saturation
from geluwatch.mixin.settings import MixinSettings


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the recording rules of some settings are called, where that depends on the settings."""

    settings: MixinSettings

    def latency(self, share: float) -> str:
        """Return a quantile of a model version's latency."""
        return latency.quantile_recording(self.settings, share).name

    @property
    def usual_latency(self) -> str:
        """What the 95 % quantile of a model version's latency usually is."""
        return latency.usual_recording(self.settings).name

    @property
    def samples(self) -> str:
        """Samples a second of a model version."""
        return cost.samples_recording(self.settings).name

    @property
    def cost_per_hour(self) -> str:
        """Cost of an hour of all pods of a model version."""
        return cost.hourly_recording(self.settings).name

    @property
    def cost_per_million(self) -> str:
        """Cost of a million samples of a model version."""
        return cost.cost_recording(self.settings).name

    @property
    def accuracy(self) -> tuple[str, str]:
        """Accuracy of a model version over its pods, and what it usually is."""
        return quality.accuracy_recording(self.settings).name, quality.usual_accuracy_recording(self.settings).name

    @property
    def error_rate(self) -> tuple[str, str]:
        """Share of a model version's predictions that were wrong, and what it usually is."""
        return quality.wrong_recording(self.settings).name, quality.usual_wrong_recording(self.settings).name

    @property
    def memory(self) -> str:
        """Share of memory in use, by pod and device; the host's has no device."""
        return memory.share_recording(self.settings).name

    def failing(self, place: int) -> str:
        """Return the share of forward passes that missed an objective over the burn window at a place, by `slo`."""
        return objectives.ratio_recording(self.settings, place).name

    @property
    def objective(self) -> str:
        """Share of forward passes that should meet an objective, by `slo`."""
        return objectives.objective_recording(self.settings).name

    @property
    def budget(self) -> str:
        """Share of the error budget that is left, by `slo`; negative when overspent."""
        return objectives.remaining_recording(self.settings).name

    @property
    def excess(self) -> dict[str, str]:
        """By how much more of a layer's gates are closed, and open, than in the baseline."""
        return {"closed": saturation.closed_recording(self.settings).name, "open": saturation.open_recording(self.settings).name}
