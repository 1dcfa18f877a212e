"""Stories of `GeluwatchModelChanged`."""

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
    absent,
    flat,
    name,
    silent,
)


def cases(_: Alert, scale: Scale) -> tuple[Case, ...]:
    """Return the stories of the alert."""
    stories = _Stories(scale)
    return (
        stories.tickets(),
        stories.resolves(),
        stories.one_pod_of_two(),
        stories.at_the_gelu(),
        stories.two_places(),
        stories.restarted(),
        stories.the_same(),
        stories.no_probe(),
    )


class _Stories(Episode):
    """The stories of a model that has changed for a while: its probe was replayed at the start, and again at the end."""

    def __init__(self, scale: Scale) -> None:
        super().__init__(scale, start=4, wait=scale.settings.page_for)

    def moved(self, pod: Labels = POD, value: float = 1) -> dict[str, str]:
        return {name(catalog.PROBE_MOVED, **pod): self.during(0, value)}

    def first(self, layer: str, size: float, point: str = "pre", pod: Labels = POD) -> dict[str, str]:
        return {name(catalog.PROBE_FIRST, **pod, layer=layer, point=point): flat(size, self.run)}

    def says(self, *places: str, pods: str = "") -> tuple[Expected, ...]:
        changed = f"Model minilm version 1 is not the model that its baseline was recorded on{pods}"
        lines = [f"{place} of their size" for place in places]
        return (Expected(INCIDENT, "\n".join([f"{changed}: the same inputs give other values, first at:", *lines]), FIRST_HOST),)

    def tickets(self) -> Case:
        said = self.says(f"{LAYERS[2]}, in front of its GELU: they differ by 0.25")
        return Case(
            "tickets once the probe has moved, and says first at which layer and by how much",
            {**self.agent, **self.moved(), **self.first(LAYERS[2], 0.25)},
            (Check(self.start), Check(self.due - 1), Check(self.due, said)),
        )

    def resolves(self) -> Case:
        said = self.says(f"{LAYERS[2]}, in front of its GELU: they differ by 0.25")
        return Case(
            "keeps firing after the probe gives the same again, then resolves",
            {**self.agent, **self.moved(), **self.first(LAYERS[2], 0.25)},
            (Check(self.cleared - 2, said), Check(self.cleared + 2)),
        )

    def one_pod_of_two(self) -> Case:
        said = self.says(f"{LAYERS[2]}, in front of its GELU: they differ by 0.25", pods=" on 1 of 2 pods")
        return Case(
            "tickets for one pod of two, and says so",
            {**self.agent, **self.moved(), **self.first(LAYERS[2], 0.25), **self.moved(OTHER_POD, 0)},
            (Check(self.due, said),),
        )

    def at_the_gelu(self) -> Case:
        said = self.says(f"{LAYERS[1]}, at its GELU: they differ by 0.0005")
        return Case(
            "tells a GELU that changed from what goes into it",
            {**self.agent, **self.moved(), **self.first(LAYERS[1], 0.0005, "post")},
            (Check(self.due, said),),
        )

    def two_places(self) -> Case:
        later, earlier = self.first(LAYERS[5], 0.5), self.first(LAYERS[2], float("inf"), pod=OTHER_POD)
        said = self.says(
            f"{LAYERS[2]}, in front of its GELU: they differ by +Inf",
            f"{LAYERS[5]}, in front of its GELU: they differ by 0.5",
            pods=" on 2 of 2 pods",
        )
        return Case(
            "lists the first layers of pods that differ by the model's order",
            {**self.agent, **self.moved(), **later, **self.moved(OTHER_POD), **earlier},
            (Check(self.due, said),),
        )

    def restarted(self) -> Case:
        series = f"{absent(self.due)} {flat(0, self.run - self.due)}"
        return Case(
            "is silent after a restart until the probe is replayed, and then where it is the same",
            {**self.agent, name(catalog.PROBE_MOVED, **POD): series},
            silent(self.start, self.due, self.run - 1),
        )

    def the_same(self) -> Case:
        return Case(
            "is silent for a model whose probe gives the same, with traffic or idle",
            {**self.agent, **self.moved(value=0)},
            silent(0, self.due, self.run - 1),
        )

    def no_probe(self) -> Case:
        return Case(
            "is silent for a baseline without a probe",
            {**self.agent, name(catalog.BASELINE_ARMED, **POD): flat(1, self.run)},
            silent(0, self.due, self.run - 1),
        )
