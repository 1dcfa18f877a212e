"""Stories of `GeluwatchActivationDrift`."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.alerts import Alert
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
    agent,
    flat,
    layer_indices,
    name,
)


def cases(alert: Alert, scale: Scale) -> tuple[Case, ...]:
    """Return the stories of the alert."""
    stories = _Stories(alert, scale)
    return (
        stories.tickets_after_the_wait(),
        stories.resolves(),
        stories.one_pod_of_two(),
        stories.reading_missing(),
        stories.many_layers(),
        stories.calm(),
        stories.idle(),
    )


class _Stories:
    """The stories on one time grid: evidence is high from `start` until `end`."""

    def __init__(self, alert: Alert, scale: Scale) -> None:
        hold, kept = scale.steps(alert.hold), scale.steps(scale.settings.keep_firing_for)
        self.start = 4
        self.due = self.start + hold
        self.end = self.due + 4
        self.cleared = self.end + kept
        self.run = self.cleared + 6
        self.agent = {**agent(flat(1, self.run)), **layer_indices(self.run)}

    def evidence(self, value: float, layer: str, pod: Labels = POD) -> dict[str, str]:
        calm, high = (flat(0.5, self.start), flat(0.5, self.run - self.end)), flat(value, self.end - self.start)
        return {name(catalog.EVIDENCE, **pod, layer=layer, point="pre"): f"{calm[0]} {high} {calm[1]}"}

    def distance(self, value: float, layer: str) -> dict[str, str]:
        return {name(catalog.KS, **POD, layer=layer, point="pre"): flat(value, self.run)}

    def says(self, count: int, *lines: str) -> tuple[Expected, ...]:
        head = f"Model minilm version 1 has drifted from its baseline in {count} of its layers, by the model's order:"
        return (Expected(INCIDENT, "\n".join([head, *lines]), FIRST_HOST),)

    def two_layers(self) -> dict[str, str]:
        later = self.evidence(3, LAYERS[5]) | self.distance(0.0625, LAYERS[5])
        earlier = self.evidence(1.25, LAYERS[2]) | self.distance(0.0125, LAYERS[2])
        return {**self.agent, **later, **earlier, **self.evidence(0.75, LAYERS[0])}

    def says_two(self) -> tuple[Expected, ...]:
        return self.says(2, f"{LAYERS[2]}: evidence 1.25, KS 0.0125", f"{LAYERS[5]}: evidence 3.00, KS 0.0625")

    def tickets_after_the_wait(self) -> Case:
        return Case(
            "opens one ticket after the wait, not before, and lists the layers by the model's order",
            self.two_layers(),
            (Check(self.start), Check(self.due - 1), Check(self.due, self.says_two())),
        )

    def resolves(self) -> Case:
        return Case(
            "keeps firing after the evidence has gone, then resolves",
            self.two_layers(),
            (Check(self.cleared - 2, self.says_two()), Check(self.cleared + 2)),
        )

    def one_pod_of_two(self) -> Case:
        return Case(
            "takes the average of the pods: one straying pod of two is no drift of the model",
            {**self.agent, **self.evidence(1.25, LAYERS[0]), **self.evidence(0.5, LAYERS[0], OTHER_POD)},
            (Check(self.due), Check(self.end - 1)),
        )

    def reading_missing(self) -> Case:
        nothing = {name(catalog.EVIDENCE, **OTHER_POD, layer=LAYERS[1], point="pre"): " ".join(["NaN"] * self.run)}
        return Case(
            "is not blinded by a pod that has no reading yet, nor by a distance that is not known",
            {**self.agent, **self.evidence(1.5, LAYERS[1]), **nothing},
            (Check(self.due, self.says(1, f"{LAYERS[1]}: evidence 1.50, KS ?")),),
        )

    def many_layers(self) -> Case:
        evidence = {key: value for layer in LAYERS for key, value in self.evidence(2, layer).items()}
        return Case(
            "lists five layers and counts the rest",
            {**self.agent, **evidence},
            (Check(self.due, self.says(7, *(f"{layer}: evidence 2.00, KS ?" for layer in LAYERS[:5]))),),
        )

    def calm(self) -> Case:
        return Case(
            "is silent for a calm model, however far its distance",
            {**self.agent, **self.evidence(0.875, LAYERS[0]), **self.distance(0.5, LAYERS[0])},
            tuple(Check(step) for step in (0, self.due, self.run - 1)),
        )

    def idle(self) -> Case:
        return Case(
            "is silent for a model that has closed no window",
            {**self.agent, name(catalog.BASELINE_ARMED, **POD): flat(1, self.run)},
            tuple(Check(step) for step in (0, self.due, self.run - 1)),
        )
