"""Stories of the recorded distances: of all pods from the baseline, of a pod from the others, of a canary from the stable pods."""

from __future__ import annotations

from collections.abc import Mapping

from geluwatch import catalog
from geluwatch.mixin.rules import fleet
from geluwatch.mixin.rules.alerting import Alert
from geluwatch.mixin.ruletests.buckets import Filling, at_zero
from geluwatch.mixin.ruletests.grammar import INCIDENT, LAYERS, OTHER_POD, POD, THIRD_HOST, Answer, Case, Labels, Scale, flat, name

_CALM = at_zero(0.5)
_PLACE = {"layer": LAYERS[0], "point": "pre"}
_FLEET_KS = name(fleet.FLEET_KS, **INCIDENT, **_PLACE)
_CANARY = {**INCIDENT, "track": "canary", "instance": THIRD_HOST}


def cases(_: Alert, scale: Scale) -> tuple[Case, ...]:
    """Return the stories of the recorded distances."""
    stories = _Stories(scale)
    return (
        stories.both_pods(),
        stories.young_pod(),
        stories.restarted_pod(),
        stories.mixed_baselines(),
        stories.edge_without_baseline(),
        stories.edges_of_one_pod(),
        stories.nothing_but_everything(),
        stories.too_few_values(),
        stories.pods_apart(),
        stories.canary_without_edges(),
    )


class _Stories:
    """The stories on one time grid; there are two pods, and readings are taken once a window is over."""

    def __init__(self, scale: Scale) -> None:
        self.window = scale.steps(scale.settings.rate_window)
        self.now = self.window + 4
        self.run = self.now + 2
        self.fill = Filling(scale, self.run)

    def baseline(self, shares: Mapping[str, float], *pods: Labels) -> dict[str, str]:
        """Return the shares of an armed baseline, as both pods export them where none is given."""
        of_pods = pods or (POD, OTHER_POD)
        return {
            name(catalog.BASELINE_CDF, **pod, **_PLACE, le=le): flat(share, self.run) for pod in of_pods for le, share in shares.items()
        }

    def reads(self, recorded: str, found: Mapping[str, float] | None = None) -> Answer:
        """Return that a recorded distance is so much, or that there is none."""
        plain = {key.replace(recorded, "", 1): value for key, value in (found or {}).items()}
        return Answer(self.now, f"round({recorded}, 0.0001)", plain)

    def both_pods(self) -> Case:
        pods = {**self.fill.pod(POD, at_zero(0.4)), **self.fill.pod(OTHER_POD, at_zero(0.5), values=18000)}
        edges = {name(fleet.EDGES, **INCIDENT, **_PLACE): 3}
        return Case(
            "stands on a distance from the baseline in which each pod counts by its values",
            {**pods, **self.baseline(at_zero(0.5))},
            (),
            (self.reads(fleet.FLEET_KS, {_FLEET_KS: 0.025}), self.reads(fleet.EDGES, edges)),
        )

    def young_pod(self) -> Case:
        young = self.fill.visitor(OTHER_POD, self.now, self.run - 1, at_zero(0.4))
        return Case(
            "stands on a distance in which a pod counts from its first scrape on, with all that it holds",
            {**self.fill.pod(POD, _CALM), **young, **self.baseline(_CALM)},
            (),
            (self.reads(fleet.FLEET_KS, {_FLEET_KS: 0.05}),),
        )

    def restarted_pod(self) -> Case:
        anew = self.fill.restarted(OTHER_POD, self.now - self.window // 2, at_zero(0.1), at_zero(0.2))
        return Case(
            "stands on a distance in which a pod that came up anew counts for what it has seen since",
            {**self.fill.pod(POD, _CALM, values=3000), **anew, **self.baseline(_CALM)},
            (),
            (self.reads(fleet.FLEET_KS, {_FLEET_KS: 0.15}),),
        )

    def mixed_baselines(self) -> Case:
        mixed = {**self.baseline(_CALM, POD), **self.baseline(at_zero(0.6), OTHER_POD)}
        return Case(
            "stands on no distance from the baseline where the pods have different ones",
            {**self.fill.pod(POD, _CALM), **self.fill.pod(OTHER_POD, _CALM), **mixed},
            (),
            (self.reads(fleet.FLEET_KS),),
        )

    def edge_without_baseline(self) -> Case:
        return Case(
            "stands on no distance from a baseline that lacks an edge",
            {**self.fill.pod(POD, at_zero(0.4)), **self.fill.pod(OTHER_POD, at_zero(0.4)), **self.baseline({"0.0": 0.5, "+Inf": 1.0})},
            (),
            (self.reads(fleet.FLEET_KS), self.reads(fleet.MATCHED, {name(fleet.MATCHED, **INCIDENT, **_PLACE): 2})),
        )

    def edges_of_one_pod(self) -> Case:
        more = {**_CALM, "0.5": 0.7}
        return Case(
            "stands on the edges that all pods have",
            {**self.fill.pod(POD, _CALM), **self.fill.pod(OTHER_POD, more), **self.baseline(more, OTHER_POD), **self.baseline(_CALM, POD)},
            (),
            (self.reads(fleet.FLEET_KS, {_FLEET_KS: 0.0}), self.reads(fleet.EDGES, {name(fleet.EDGES, **INCIDENT, **_PLACE): 3})),
        )

    def nothing_but_everything(self) -> Case:
        pods = {**self.fill.pod(POD, {"0.0": 0.5, "+Inf": 1.0}), **self.fill.pod(OTHER_POD, {"0.5": 0.5, "+Inf": 1.0})}
        return Case(
            "stands on no distance where the pods have no edge in common but the last",
            {**pods, **self.baseline({"0.0": 0.5, "0.5": 0.7, "+Inf": 1.0})},
            (),
            (self.reads(fleet.FLEET_KS), self.reads(fleet.EDGES, {name(fleet.EDGES, **INCIDENT, **_PLACE): 1})),
        )

    def too_few_values(self) -> Case:
        few = 0.98 * fleet.LEAST_VALUES / self.window
        enough = 1.02 * few / 0.98
        lone = {**self.fill.pod(POD, _CALM, values=few), **self.baseline(at_zero(0.6))}
        said = {**self.fill.pod(POD, _CALM, values=enough), **self.baseline(at_zero(0.6))}
        other = {name_.replace(LAYERS[0], LAYERS[1]): values for name_, values in said.items() if "layer" in name_}
        place = {**_PLACE, "layer": LAYERS[1]}
        return Case(
            "stands on no distance of too few values",
            {**lone, **other},
            (),
            (self.reads(fleet.FLEET_KS, {name(fleet.FLEET_KS, **INCIDENT, **place): 0.1}),),
        )

    def pods_apart(self) -> Case:
        pods = {**self.fill.pod(POD, at_zero(0.4)), **self.fill.pod(OTHER_POD, at_zero(0.5), values=18000)}
        found = {POD["instance"]: 0.075, OTHER_POD["instance"]: 0.025}
        each = {name(fleet.POD_KS, **{**INCIDENT, "instance": host}, **_PLACE): distance for host, distance in found.items()}
        return Case("stands on the distance of each pod from all of them", pods, (), (self.reads(fleet.POD_KS, each),))

    def canary_without_edges(self) -> Case:
        canary = self.fill.visitor(_CANARY, 2, self.run - 1, {"0.25": 0.9, "+Inf": 1.0})
        return Case(
            "stands on no distance of a canary that has none of the stable pods' edges",
            {**self.fill.pod({**POD, "model_version": "0"}, _CALM), **canary},
            (),
            (self.reads(fleet.CANARY_KS),),
        )
