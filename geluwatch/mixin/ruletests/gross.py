"""Stories of `GeluwatchGrossFault`."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.rules.alerting import Alert, lasting
from geluwatch.mixin.ruletests.episode import Episode
from geluwatch.mixin.ruletests.grammar import (
    FIRST_HOST,
    INCIDENT,
    LAYERS,
    OTHER_POD,
    POD,
    Case,
    Check,
    Expected,
    Labels,
    Scale,
    flat,
    merged,
    name,
    ramp,
    silent,
)

_MEANS = {"dead": "dead, always the same or every gate closed", "impossible": "impossible, values that no GELU gives"}


def cases(_: Alert, scale: Scale) -> tuple[Case, ...]:
    """Return the stories of the alert."""
    stories = _Stories(scale)
    return (
        stories.pages(),
        stories.resolves(),
        stories.one_pod_of_two(),
        stories.many_layers(),
        stories.in_the_baseline(),
        stories.behind_a_nan(),
        stories.sound(),
        stories.drained(),
    )


class _Stories(Episode):
    """The stories of a fault that is there for a while."""

    def __init__(self, scale: Scale) -> None:
        super().__init__(
            scale,
            start=2 * scale.steps(scale.settings.rate_window),
            wait=scale.settings.page_for,
            keep=lasting(scale.settings, 2),
        )

    def fault(self, layer: str, fault: str, pod: Labels = POD, value: float = 1) -> dict[str, str]:
        return {name(catalog.GROSS, **pod, layer=layer, fault=fault): self.during(0, value)}

    def verdict(self, pod: Labels = POD, value: float = 1) -> dict[str, str]:
        return {name(catalog.VERDICT, **pod, verdict="page"): self.during(0, value)}

    def says(self, *found: tuple[str, str]) -> tuple[Expected, ...]:
        lines = [f"{layer}: {_MEANS[fault]}" for layer, fault in found]
        return (Expected(INCIDENT, "\n".join(["Model minilm version 1 is grossly wrong, by the model's order:", *lines]), FIRST_HOST),)

    def pages(self) -> Case:
        faults = {**self.fault(LAYERS[5], "impossible"), **self.fault(LAYERS[2], "dead"), **self.fault(LAYERS[1], "dead", value=0)}
        said = self.says((LAYERS[2], "dead"), (LAYERS[5], "impossible"))
        return Case(
            "pages after the wait, not before, once for all layers, and says what each is",
            {**self.agent, **self.verdict(), **faults},
            (Check(self.start), Check(self.due - 1), Check(self.due, said)),
        )

    def resolves(self) -> Case:
        said = self.says((LAYERS[2], "dead"))
        return Case(
            "keeps firing after the layer has come back, then resolves",
            {**self.agent, **self.verdict(), **self.fault(LAYERS[2], "dead")},
            (Check(self.cleared - 2, said), Check(self.cleared + 2)),
        )

    def one_pod_of_two(self) -> Case:
        other = {**self.verdict(OTHER_POD, 0), **self.fault(LAYERS[2], "dead", OTHER_POD, 0)}
        return Case(
            "pages for one pod of two",
            {**self.agent, **self.verdict(), **self.fault(LAYERS[2], "dead"), **other},
            (Check(self.due, self.says((LAYERS[2], "dead"))),),
        )

    def many_layers(self) -> Case:
        faults = merged(self.fault(layer, "dead") for layer in LAYERS)
        said = self.says(*((layer, "dead") for layer in LAYERS[:5]))
        return Case("lists five layers", {**self.agent, **self.verdict(), **faults}, (Check(self.due, said),))

    def in_the_baseline(self) -> Case:
        return Case(
            "is silent for a layer that was as dead in the baseline, which the verdict knows",
            {**self.agent, **self.verdict(value=0), **self.fault(LAYERS[2], "dead")},
            silent(self.due, self.end - 1),
        )

    def behind_a_nan(self) -> Case:
        passes = f"{flat(1000, self.start)} {ramp(1010, 10, self.run - self.start)}"
        return Case(
            "is silent where there are NaN or Inf, which page by themselves and leave later layers looking dead",
            {**self.agent, **self.verdict(), **self.fault(LAYERS[2], "dead"), name(catalog.NONFINITE_FORWARDS, **POD): passes},
            silent(self.due, self.end - 1),
        )

    def sound(self) -> Case:
        return Case(
            "is silent for sound layers, even while the verdict is a page for another reason",
            {**self.agent, **self.verdict(), **self.fault(LAYERS[2], "dead", value=0), **self.fault(LAYERS[2], "impossible", value=0)},
            silent(0, self.due, self.run - 1),
        )

    def drained(self) -> Case:
        return Case(
            "is silent for a pod that has had no traffic for long, however its last window was",
            {**self.agent, **self.verdict(), **self.fault(LAYERS[2], "dead"), name(catalog.FORWARDS, **POD): flat(1000, self.run)},
            silent(self.due, self.end - 1),
        )
