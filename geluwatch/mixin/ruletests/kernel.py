"""Stories of `GeluwatchKernelMismatch`."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.rules.alerting import Alert
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
    silent,
)

_TANH, _HALF, _RIGHT = "tanh in float32", "erf in bfloat16", "erf in float32"


def cases(_: Alert, scale: Scale) -> tuple[Case, ...]:
    """Return the stories of the alert."""
    stories = _Stories(scale)
    return (stories.tickets(), stories.resolves(), stories.one_pod_of_two(), stories.many_layers(), stories.right())


class _Stories(Episode):
    """The stories of a kernel that is not the declared one for a while."""

    def __init__(self, scale: Scale) -> None:
        super().__init__(scale, start=scale.steps(scale.settings.rate_window), wait=scale.settings.drift_for)

    def measured(self, layer: str, measured: str, pod: Labels = POD, value: float = 1) -> dict[str, str]:
        return {
            name(catalog.KERNEL_MISMATCH, **pod, layer=layer, declared=_RIGHT, measured=measured): self.during(0, value),
            name(catalog.KERNEL_ERROR, **pod, layer=layer): flat(1950 if value else 2, self.run),
        }

    def says(self, *found: tuple[str, str]) -> tuple[Expected, ...]:
        lines = [f"{layer}: declared erf in float32, measured {measured}, off by 1.95e+03 units of last place" for layer, measured in found]
        head = "Model minilm version 1 does not compute the GELUs that it declares, by the model's order:"
        return (Expected(INCIDENT, "\n".join([head, *lines]), FIRST_HOST),)

    def tickets(self) -> Case:
        wrong = {**self.measured(LAYERS[5], _HALF), **self.measured(LAYERS[2], _TANH), **self.measured(LAYERS[1], _RIGHT, value=0)}
        said = self.says((LAYERS[2], _TANH), (LAYERS[5], _HALF))
        return Case(
            "tickets after the wait, not before, once for all layers, and says what was measured",
            {**self.agent, **wrong},
            (Check(self.start), Check(self.due - 1), Check(self.due, said)),
        )

    def resolves(self) -> Case:
        return Case(
            "keeps firing after the right kernel is back, then resolves",
            {**self.agent, **self.measured(LAYERS[2], _TANH)},
            (Check(self.cleared - 2, self.says((LAYERS[2], _TANH))), Check(self.cleared + 2)),
        )

    def one_pod_of_two(self) -> Case:
        other = self.measured(LAYERS[2], _RIGHT, OTHER_POD, 0)
        return Case(
            "tickets for one pod of two, as on one machine of another kind",
            {**self.agent, **self.measured(LAYERS[2], _TANH), **other},
            (Check(self.due, self.says((LAYERS[2], _TANH))),),
        )

    def many_layers(self) -> Case:
        wrong = merged(self.measured(layer, _TANH) for layer in LAYERS)
        said = self.says(*((layer, _TANH) for layer in LAYERS[:5]))
        return Case("lists five layers", {**self.agent, **wrong}, (Check(self.due, said),))

    def right(self) -> Case:
        return Case(
            "is silent for kernels that compute what they declare",
            {**self.agent, **self.measured(LAYERS[2], _RIGHT, value=0)},
            silent(0, self.due, self.run - 1),
        )
