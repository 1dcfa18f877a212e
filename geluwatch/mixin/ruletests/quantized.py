"""Stories of `GeluwatchQuantizedAccuracy`."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.rules.alerting import Alert
from geluwatch.mixin.ruletests.episode import Episode
from geluwatch.mixin.ruletests.grammar import (
    FIRST_HOST,
    INCIDENT,
    OTHER_POD,
    POD,
    Case,
    Check,
    Expected,
    Labels,
    Scale,
    flat,
    name,
    silent,
)


def cases(_: Alert, scale: Scale) -> tuple[Case, ...]:
    """Return the stories of the alert."""
    stories = _Stories(scale, start=scale.steps(scale.settings.rate_window), wait="1s")
    return (stories.tickets(), stories.resolves(), stories.within_what_is_allowed(), stories.better(), stories.never_told())


class _Stories(Episode):
    """A quantised model loses accuracy for a while; all is told at once, at `start`."""

    def delta(self, value: float, pod: Labels = POD, calm: float = -0.005) -> dict[str, str]:
        return {name(catalog.QUANTIZED_DELTA, **pod): self.during(calm, value)}

    def says(self) -> tuple[Expected, ...]:
        text = (
            "Model minilm version 1 is right in 2.5% fewer of all cases than the original that it was quantised from; up to 1% is allowed."
        )
        return (Expected(INCIDENT, text, FIRST_HOST),)

    def tickets(self) -> Case:
        return Case(
            "tickets at once, one ticket for all pods, by the worst of them",
            {**self.agent, **self.delta(-0.025), **self.delta(0.0, OTHER_POD)},
            (Check(self.start - 1), Check(self.start, self.says())),
        )

    def resolves(self) -> Case:
        return Case(
            "keeps firing after a better model was measured, then resolves",
            {**self.agent, **self.delta(-0.025)},
            (Check(self.cleared - 2, self.says()), Check(self.cleared + 2)),
        )

    def within_what_is_allowed(self) -> Case:
        return Case("is silent at what is allowed", {**self.agent, **self.delta(-0.01)}, silent(0, self.start, self.run - 1))

    def better(self) -> Case:
        return Case("is silent for a quantised model that is better", {**self.agent, **self.delta(0.3)}, silent(self.start, self.run - 1))

    def never_told(self) -> Case:
        nothing = {name(catalog.QUANTIZED_DELTA, **POD): " ".join(["NaN"] * self.run)}
        running = {name(catalog.FORWARDS, **POD): flat(100, self.run)}
        return Case("is silent where nothing was told or nothing is known", {**self.agent, **nothing, **running}, silent(0, self.run - 1))
