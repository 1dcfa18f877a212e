"""Stories of `GeluwatchSitesBlind`."""

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
    ramp,
    silent,
)


def cases(_: Alert, scale: Scale) -> tuple[Case, ...]:
    """Return the stories of the alert."""
    stories = _Stories(scale)
    return (
        stories.tickets_after_the_wait(),
        stories.seen_by_the_baseline(),
        stories.accepted_by_the_baseline(),
        stories.armed_on_one_pod(),
        stories.many_layers(),
        stories.passed_by(),
        stories.all_nan(),
        stories.idle(),
        stories.seen(),
        stories.restarts(),
    )


class _Stories(Episode):
    """The stories of GELUs that are blind for a while under traffic."""

    def __init__(self, scale: Scale) -> None:
        super().__init__(scale, start=4, wait=scale.settings.blind_for)

    def site(self, layer: str, pod: Labels = POD) -> dict[str, str]:
        return {name(catalog.SITE_OBSERVED, **pod, layer=layer): self.during(1, 0)}

    def traffic(self, pod: Labels = POD, slope: float = 60) -> dict[str, str]:
        return {name(catalog.FORWARDS, **pod): ramp(1000, slope, self.run)}

    def baseline(self, *layers: str, pod: Labels = POD) -> dict[str, str]:
        points = ((layer, point) for layer in layers for point in catalog.EDGES)
        return {name(catalog.BASELINE_CDF, **pod, layer=layer, point=point, le="+Inf"): flat(1, self.run) for layer, point in points}

    def says(self, count: int, *lines: str) -> tuple[Expected, ...]:
        head = f"Model minilm version 1 takes traffic that is not seen at {count} of its GELUs, by the model's order:"
        return (Expected(INCIDENT, "\n".join([head, *lines]), FIRST_HOST),)

    def tickets_after_the_wait(self) -> Case:
        said = self.says(2, f"{LAYERS[2]}: blind on 2 pods", f"{LAYERS[5]}: blind on 1 pod")
        pods = merged(
            (self.site(LAYERS[2]), self.site(LAYERS[2], OTHER_POD), self.site(LAYERS[5]), self.traffic(), self.traffic(OTHER_POD))
        )
        return Case(
            "opens one ticket for all pods and layers after the wait, not before, and resolves once they are seen",
            {**self.agent, **pods},
            (Check(self.start), Check(self.due - 1), Check(self.due, said), Check(self.end - 1, said), Check(self.end)),
        )

    def seen_by_the_baseline(self) -> Case:
        said = self.says(1, f"{LAYERS[2]}: blind on 1 pod")
        return Case(
            "opens a ticket for a layer that the armed baseline has, and for no other",
            {**self.agent, **self.site(LAYERS[2]), **self.site(LAYERS[5]), **self.traffic(), **self.baseline(LAYERS[1], LAYERS[2])},
            (Check(self.due - 1), Check(self.due, said)),
        )

    def accepted_by_the_baseline(self) -> Case:
        return Case(
            "is silent for a GELU that was blind when the baseline was recorded, as one that no pass calls",
            {**self.agent, **self.site(LAYERS[5]), **self.traffic(), **self.baseline(LAYERS[1])},
            silent(self.due, self.end - 1),
        )

    def armed_on_one_pod(self) -> Case:
        pods = merged((self.site(LAYERS[5]), self.site(LAYERS[5], OTHER_POD), self.traffic(), self.traffic(OTHER_POD)))
        return Case(
            "counts the pods whose baseline has not accepted it",
            {**self.agent, **pods, **self.baseline(LAYERS[1])},
            (Check(self.due, self.says(1, f"{LAYERS[5]}: blind on 1 pod")),),
        )

    def many_layers(self) -> Case:
        sites = merged(self.site(layer) for layer in LAYERS)
        said = self.says(7, *(f"{layer}: blind on 1 pod" for layer in LAYERS[:5]))
        return Case("lists five layers", {**self.agent, **sites, **self.traffic()}, (Check(self.due, said),))

    def passed_by(self) -> Case:
        rows = {name(catalog.WINDOW_ROWS, **POD, layer=layer, point="pre"): flat(2048, self.run) for layer in LAYERS[:2]}
        rows |= {name(catalog.WINDOW_ROWS, **POD, layer=layer, point="pre"): self.during(2048, 0) for layer in LAYERS[2:4]}
        return Case(
            "opens a ticket for a layer of the baseline that gives no rows while others do, and for no layer that it lacks",
            {**self.agent, **self.traffic(), **self.baseline(*LAYERS[:3]), **rows},
            (Check(self.due - 1), Check(self.due, self.says(1, f"{LAYERS[2]}: blind on 1 pod")), Check(self.end)),
        )

    def all_nan(self) -> Case:
        rows = {name(catalog.WINDOW_ROWS, **POD, layer=layer, point="pre"): flat(1024, self.run) for layer in LAYERS[:2]}
        rows |= {name(catalog.WINDOW_ROWS, **POD, layer=LAYERS[2], point="pre"): self.during(1024, 0)}
        faults = {name(catalog.SITE_NONFINITE, **POD, layer=LAYERS[2]): ramp(0, 60, self.run)}
        return Case(
            "is silent for a layer that gives no rows because each of them holds a NaN, which is seen well enough",
            {**self.agent, **self.traffic(), **self.baseline(*LAYERS[:3]), **rows, **faults},
            silent(self.due, self.end - 1),
        )

    def idle(self) -> Case:
        return Case(
            "is silent for a model that nobody asks anything",
            {**self.agent, **self.site(LAYERS[2]), **self.traffic(slope=0)},
            silent(self.due, self.end - 1),
        )

    def seen(self) -> Case:
        sites = {name(catalog.SITE_OBSERVED, **POD, layer=layer): flat(1, self.run) for layer in LAYERS}
        return Case(
            "is silent while every GELU is seen",
            {**self.agent, **sites, **self.traffic(), **self.baseline(*LAYERS)},
            silent(0, self.due, self.run - 1),
        )

    def restarts(self) -> Case:
        before = self.due - self.start - 1
        unseen = f"{flat(1, self.start)} {flat(0, before)} {flat(1, 2)} {flat(0, before)} {flat(1, self.run)}"
        return Case(
            "is silent for a GELU that takes less than the wait to be called, after each of two restarts",
            {**self.agent, name(catalog.SITE_OBSERVED, **POD, layer=LAYERS[2]): unseen, **self.traffic()},
            silent(self.due - 1, self.due, self.start + 2 * before + 1),
        )
