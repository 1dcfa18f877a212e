"""Stories of `GeluwatchPodDrift`."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.rules.alerting import Alert
from geluwatch.mixin.ruletests.episode import Episode
from geluwatch.mixin.ruletests.grammar import (
    FIRST_HOST,
    INCIDENT,
    LAYERS,
    TICKET_LIMIT,
    Case,
    Check,
    Expected,
    Labels,
    Scale,
    agent,
    flat,
    fleet,
    merged,
    name,
    silent,
)


def cases(_: Alert, scale: Scale) -> tuple[Case, ...]:
    """Return the stories of the alert."""
    stories = _Stories(scale)
    return (
        stories.one_of_four(),
        stories.resolves(),
        stories.one_of_twenty(),
        stories.far_out(),
        stories.price_of_many_pods(),
        stories.two_strays(),
        stories.alone(),
        stories.of_two(),
        stories.all_drift(),
        stories.no_limit(),
        stories.calm(),
    )


class _Stories(Episode):
    """The stories of a pod that strays for a while."""

    def __init__(self, scale: Scale) -> None:
        super().__init__(scale, start=4, wait=scale.settings.drift_for)

    def pod(self, labels: Labels, surprise: float, layer: str = LAYERS[2], limit: float | None = TICKET_LIMIT) -> dict[str, str]:
        judged = {name(catalog.SURPRISE, **labels, layer=layer, point="post"): self.during(2, surprise)}
        if limit is None:
            return judged
        judged |= {name(catalog.EVIDENCE, **labels, layer=layer, point="post"): self.during(2 / limit, surprise / limit)}
        return {**judged, name(catalog.LIMIT, **labels, tier="ticket"): flat(limit, self.run)}

    def pods(self, *surprises: float, limit: float | None = TICKET_LIMIT) -> dict[str, str]:
        judged = (self.pod(labels, surprise, limit=limit) for labels, surprise in zip(fleet(len(surprises)), surprises, strict=True))
        return {**self.agent, **merged(judged)}

    def says(self, place: int, pods: int, surprise: str, mean: str, layer: str = LAYERS[2]) -> Expected:
        host = fleet(pods)[place]["instance"]
        text = (
            f"Model minilm version 1 strays from its baseline on pod {host}, not as a whole ({pods} pods), "
            f"most at layer {layer}: surprise {surprise} there, {mean} as the mean of all pods."
        )
        return Expected({**INCIDENT, "instance": host}, text, FIRST_HOST if place == 0 else None)

    def one_of_four(self) -> Case:
        less = merged(self.pod(pod, 2 if place else 9, LAYERS[5]) for place, pod in enumerate(fleet(4)))
        return Case(
            "opens a ticket that names the pod and its most surprising layer after the wait, not before",
            {**self.pods(10, 2, 2, 2), **less},
            (Check(self.start), Check(self.due - 1), Check(self.due, (self.says(0, 4, "10", "4"),))),
        )

    def resolves(self) -> Case:
        return Case(
            "keeps firing after the pod is calm again, then resolves",
            self.pods(10, 2, 2, 2),
            (Check(self.cleared - 2, (self.says(0, 4, "10", "4"),)), Check(self.cleared + 2)),
        )

    def one_of_twenty(self) -> Case:
        return Case(
            "finds one pod of twenty",
            self.pods(22, *[2] * 19),
            (Check(self.due - 1), Check(self.due, (self.says(0, 20, "22", "2.65"),))),
        )

    def far_out(self) -> Case:
        return Case(
            "names one pod of four however far out it is: it does not carry the mean of all",
            self.pods(300, 2, 2, 2),
            (Check(self.due - 1), Check(self.due, (self.says(0, 4, "300", "5.25"),))),
        )

    def price_of_many_pods(self) -> Case:
        return Case(
            "asks for more the more pods there are: what is too much for one of four may be chance for one of twenty",
            self.pods(8, *[2] * 19),
            silent(self.due, self.end - 1),
        )

    def two_strays(self) -> Case:
        said = tuple(self.says(place, 5, "10", "5.2") for place in (0, 1))
        return Case(
            "opens one ticket for each pod",
            {**self.pods(10, 10, 2, 2, 2), **agent(flat(1, self.run), fleet(5)[1])},
            (Check(self.due, (said[0], Expected(said[1].labels, said[1].description, str(fleet(5)[1]["instance"])))),),
        )

    def alone(self) -> Case:
        return Case("is silent for a model of one pod", self.pods(10), silent(self.due, self.end - 1))

    def of_two(self) -> Case:
        return Case(
            "names one pod of two, whose mean is too calm for the model as a whole",
            self.pods(11, 0.3),
            (Check(self.due - 1), Check(self.due, (self.says(0, 2, "11", "5.65"),))),
        )

    def all_drift(self) -> Case:
        return Case("is silent where the model as a whole drifts", self.pods(20, 8, 8, 8), silent(self.due, self.end - 1))

    def no_limit(self) -> Case:
        return Case("is silent without a baseline's limit", self.pods(20, 2, 2, 2, limit=None), silent(self.due, self.end - 1))

    def calm(self) -> Case:
        return Case("is silent for calm pods", self.pods(7, 5, 5, 5), silent(0, self.due, self.run - 1))
