"""Stories of `GeluwatchCanaryDivergence`."""

from __future__ import annotations

from geluwatch.mixin.rules.alerting import Alert
from geluwatch.mixin.ruletests.buckets import Filling, at_zero
from geluwatch.mixin.ruletests.episode import Episode
from geluwatch.mixin.ruletests.grammar import (
    FIRST_HOST,
    INCIDENT,
    LAYERS,
    MODEL,
    OTHER_POD,
    POD,
    THIRD_HOST,
    Case,
    Check,
    Expected,
    Labels,
    Scale,
    silent,
)

_SERVICE = {label: MODEL[label] for label in ("namespace", "model")}
_CANARY = {**MODEL, "model_version": "2", "track": "canary", "instance": THIRD_HOST}
_CALM, _ODD = at_zero(0.5), at_zero(0.62)


def cases(_: Alert, scale: Scale) -> tuple[Case, ...]:
    """Return the stories of the alert."""
    stories = _Stories(scale)
    return (
        stories.tickets_after_the_wait(),
        stories.resolves(),
        stories.of_the_same_version(),
        stories.of_another_job(),
        stories.two_canaries(),
        stories.scattered_stable_pods(),
        stories.close(),
        stories.in_another_region(),
        stories.alone(),
        stories.no_canary(),
        stories.idle(),
        stories.too_few_stable_values(),
        stories.restart(),
        stories.restart_with_fewer_edges(),
        stories.edges_of_one_pod(),
        stories.edges_of_one_job(),
    )


class _Stories(Episode):
    """The stories of a canary that comes at `start` and is taken back at `end`, beside two stable pods."""

    def __init__(self, scale: Scale) -> None:
        super().__init__(scale, start=scale.steps(scale.settings.rate_window) + 2, wait=scale.settings.service_for)
        self.fill = Filling(scale, self.run)

    def stable(self, *shares: float, values: float = 6000) -> dict[str, str]:
        """Return two stable pods, a hundredth to either side of the shares at the first layers."""
        first = self.fill.pod(POD, *(at_zero(share - 0.01) for share in shares), values=values)
        return {**self.agent, **first, **self.fill.pod(OTHER_POD, *(at_zero(share + 0.01) for share in shares), values=values)}

    def canary(self, *shares: dict[str, float], labels: Labels = _CANARY, values: float = 6000) -> dict[str, str]:
        return self.fill.visitor(labels, self.start, self.end, *shares, values=values)

    def says(self, *found: tuple[str, float, float], version: str = "2") -> tuple[Expected, ...]:
        lines = [f"{layer}: KS {far:.4f} from stable, farthest stable pod {near:.4f} from its fleet" for layer, far, near in found]
        head = (
            f"The canary of model minilm (version {version}) diverges from the stable pods, first at layer {found[0][0]}. "
            f"It diverges in {len(found)} of its layers, by the model's order:"
        )
        return (Expected(_SERVICE, "\n".join([head, *lines]), FIRST_HOST),)

    def says_one(self, near: float = 0.01, version: str = "2") -> tuple[Expected, ...]:
        return self.says((LAYERS[0], 0.12, near), version=version)

    def tickets_after_the_wait(self) -> Case:
        series = {**self.stable(0.5, 0.5, 0.5, 0.5), **self.canary(_CALM, _ODD, _CALM, at_zero(0.75))}
        said = self.says((LAYERS[1], 0.12, 0.01), (LAYERS[3], 0.25, 0.01))
        return Case(
            "opens one ticket after the wait, not before, names the first layer and lists all by the model's order",
            series,
            (Check(self.start), Check(self.due - 1), Check(self.due, said)),
        )

    def resolves(self) -> Case:
        return Case(
            "keeps firing after the canary was taken back, then resolves",
            {**self.stable(0.5), **self.canary(_ODD)},
            (Check(self.cleared - 2, self.says_one()), Check(self.cleared + 2)),
        )

    def of_the_same_version(self) -> Case:
        same = {**INCIDENT, "track": "canary"}
        pods = [self.canary(_ODD, labels={**same, "instance": f"10.0.1.{host}:9464"}) for host in (1, 2, 3)]
        return Case(
            "fires for canaries of the same version, even if they outnumber the stable pods, whose fleet they do not belong to",
            {**self.stable(0.5), **pods[0], **pods[1], **pods[2]},
            (Check(self.due - 1), Check(self.due, self.says_one(version="1"))),
        )

    def of_another_job(self) -> Case:
        return Case(
            "fires for a canary under a job of its own",
            {**self.stable(0.5), **self.canary(_ODD, labels={**_CANARY, "job": "inference-canary"})},
            (Check(self.due, self.says_one()),),
        )

    def two_canaries(self) -> Case:
        better = {**_CANARY, "model_version": "3", "instance": "10.0.0.10:9464"}
        return Case(
            "opens one ticket for two canaries, each compared on its own, and names the one that is farther out",
            {**self.stable(0.5), **self.canary(at_zero(0.38)), **self.canary(at_zero(0.59), labels=better)},
            (Check(self.due, self.says_one()),),
        )

    def scattered_stable_pods(self) -> Case:
        scattered = {**self.fill.pod(POD, at_zero(0.45)), **self.fill.pod(OTHER_POD, at_zero(0.55))}
        return Case(
            "is silent for a canary that is no farther out than three times the farthest stable pod",
            {**self.agent, **scattered, **self.canary(_ODD)},
            silent(self.due, self.end - 1),
        )

    def close(self) -> Case:
        alike = {**self.fill.pod(POD, _CALM), **self.fill.pod(OTHER_POD, _CALM)}
        return Case(
            "is silent for a distance that is too small to look at, however alike the stable pods are",
            {**self.agent, **alike, **self.canary(at_zero(0.515))},
            silent(self.start, self.due, self.end - 1),
        )

    def in_another_region(self) -> Case:
        return Case(
            "is silent for a canary in another region, where the traffic is another",
            {**self.stable(0.5), **self.canary(_ODD, labels={**_CANARY, "region": "eu"})},
            silent(self.due, self.end - 1),
        )

    def alone(self) -> Case:
        return Case("is silent for a canary with no stable pod beside it", {**self.agent, **self.canary(_ODD)}, silent(self.due))

    def no_canary(self) -> Case:
        other = {**MODEL, "model_version": "2", "instance": THIRD_HOST}
        return Case(
            "is silent for another version that is no canary",
            {**self.stable(0.5), **self.canary(_ODD, labels=other)},
            silent(self.due, self.end - 1),
        )

    def idle(self) -> Case:
        return Case(
            "is silent for a canary without traffic, or with too little to tell",
            {**self.stable(0.5), **self.canary(_ODD, values=600)},
            silent(self.due, self.end - 1),
        )

    def too_few_stable_values(self) -> Case:
        return Case(
            "is silent where the stable pods have next to no traffic",
            {**self.stable(0.5, values=300), **self.canary(_ODD)},
            silent(self.due, self.end - 1),
        )

    def restart(self) -> Case:
        pod = self.fill.restarted(POD, self.start + 1, at_zero(0.49), at_zero(0.49))
        return Case(
            "is silent for a calm canary while a stable pod restarts",
            {**self.stable(0.5), **pod, **self.canary(_CALM)},
            silent(*range(self.start, self.end, 2)),
        )

    def restart_with_fewer_edges(self) -> Case:
        pods = [self.fill.restarted(pod, self.start, {**_CALM, "0.5": 0.7}, _CALM) for pod in (POD, OTHER_POD)]
        return Case(
            "is silent while stable pods come back with fewer edges than they had",
            {**self.agent, **pods[0], **pods[1], **self.canary({**_CALM, "0.5": 0.7})},
            silent(*range(self.start, self.end, 2)),
        )

    def edges_of_one_pod(self) -> Case:
        more = self.fill.pod(OTHER_POD, {**_CALM, "0.5": 0.7})
        return Case(
            "is silent where one stable pod has more edges than the other: no share is read off the edges of some",
            {**self.agent, **self.fill.pod(POD, _CALM), **more, **self.canary({**_CALM, "0.5": 0.7})},
            silent(self.due, self.end - 1),
        )

    def edges_of_one_job(self) -> Case:
        more = self.fill.pod({**OTHER_POD, "job": "batch"}, {**_CALM, "0.5": 0.7})
        return Case(
            "is silent where the stable pods of one job have more edges than those of another",
            {**self.agent, **self.fill.pod(POD, _CALM), **more, **self.canary({**_CALM, "0.5": 0.7})},
            silent(self.due, self.end - 1),
        )
