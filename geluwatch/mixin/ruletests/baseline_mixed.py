"""Stories of `GeluwatchBaselineMixed`."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.rules.alerting import Alert
from geluwatch.mixin.ruletests.buckets import Filling, at_zero
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
    fleet,
    merged,
    name,
    silent,
)

_LAUNCH, _LATER = 1_700_000_000, 1_700_086_400
_LAUNCHED, _LATER_ON = "2023-11-14 22:13:20 +0000 UTC", "2023-11-15 22:13:20 +0000 UTC"


def cases(alert: Alert, scale: Scale) -> tuple[Case, ...]:
    """Return the stories of the alert."""
    stories = _Stories(alert, scale)
    return (
        stories.tickets_after_the_wait(),
        stories.same_name(),
        stories.lacking_edges(),
        stories.rollout(),
        stories.versions(),
        stories.one_baseline(),
        stories.idle(),
        stories.following(),
        stories.no_baseline(),
        stories.restart(),
    )


class _Stories:
    """The stories on one time grid: pods differ from `start` on, and agree again from `end` on."""

    def __init__(self, alert: Alert, scale: Scale) -> None:
        self.start = scale.steps(scale.settings.rate_window) + 2
        self.due = self.start + scale.steps(alert.hold)
        self.end = self.due + 4
        self.run = self.end + 4
        self.agent = agent(flat(1, self.run))
        self.fill = Filling(scale, self.run)

    def armed(self, pod: Labels, baseline: str, recorded: int) -> dict[str, str]:
        """Return the series of a pod that has a baseline armed all the time."""
        return {
            name(catalog.BASELINE_ARMED, **pod): flat(1, self.run),
            name(catalog.BASELINE_INFO, **pod, baseline=baseline): flat(1, self.run),
            name(catalog.BASELINE_TIME, **pod): f"{recorded}+0x{self.run - 1}",
        }

    def swapped(self, pod: Labels) -> dict[str, str]:
        """Return the series of a pod that has the later baseline armed from `start` until `end`."""
        calm, odd, rest = self.start, self.end - self.start, self.run - self.end
        gap = f"stale _x{odd - 1}"
        return {
            name(catalog.BASELINE_INFO, **pod, baseline="launch"): f"1+0x{calm - 1} {gap} 1+0x{rest - 1}",
            name(catalog.BASELINE_INFO, **pod, baseline="relaunch"): f"_x{calm} 1+0x{odd - 1} stale _x{rest - 1}",
            name(catalog.BASELINE_TIME, **pod): f"{_LAUNCH}+0x{calm - 1} {_LATER}+0x{odd - 1} {_LAUNCH}+0x{rest - 1}",
        }

    def says(self, what: str, *pods: str) -> tuple[Expected, ...]:
        text = f"Model minilm version 1 {what}, so the distance of all pods together from the baseline is not known. Its pods have armed:"
        return (Expected(INCIDENT, "\n".join([text, *pods]), FIRST_HOST),)

    def tickets_after_the_wait(self) -> Case:
        first, second, third = fleet(3)
        series = {**self.agent, **self.armed(first, "launch", _LAUNCH), **self.armed(second, "launch", _LAUNCH), **self.swapped(third)}
        lines = f"launch, recorded {_LAUNCHED}: 2 pods", f"relaunch, recorded {_LATER_ON}: 1 pod"
        said = self.says("is measured by 2 baselines", *lines)
        return Case(
            "opens one ticket after the wait, not before, says which pods have what, and resolves once they agree",
            series,
            (Check(self.start), Check(self.due - 1), Check(self.due, said), Check(self.end - 1, said), Check(self.end)),
        )

    def same_name(self) -> Case:
        first, second, third = fleet(3)
        series = merged((self.armed(first, "launch", _LAUNCH), self.armed(second, "launch", _LAUNCH), self.armed(third, "launch", _LATER)))
        lines = f"launch, recorded {_LAUNCHED}: 2 pods", f"launch, recorded {_LATER_ON}: 1 pod"
        return Case(
            "tells baselines of one name apart that were recorded one by one",
            {**self.agent, **series},
            (Check(self.due, self.says("is measured by 2 baselines", *lines)),),
        )

    def lacking_edges(self) -> Case:
        shares = {"0.0": 0.5, "+Inf": 1.0}
        baseline = {
            name(catalog.BASELINE_CDF, **POD, layer=LAYERS[0], point="pre", le=le): flat(share, self.run) for le, share in shares.items()
        }
        said = self.says("and its baseline differ in their edges at 2 of its points", f"launch, recorded {_LAUNCHED}: 1 pod")
        pod = self.fill.pod(POD, at_zero(0.5), at_zero(0.5))
        return Case(
            "opens a ticket where the baseline lacks an edge, or a whole layer",
            {**self.agent, **self.armed(POD, "launch", _LAUNCH), **baseline, **pod},
            (Check(self.due, said),),
        )

    def rollout(self) -> Case:
        first, second, third = fleet(3)
        late, last = self.due - 2, self.run - self.due + 2
        values = f"{_LAUNCH}+0x{self.start - 1} {_LATER}+0x{self.run - self.start - 1}"
        slow = f"{_LAUNCH}+0x{late - 1} {_LATER}+0x{last - 1}"
        info = {name(catalog.BASELINE_INFO, **pod, baseline="launch"): flat(1, self.run) for pod in (first, second, third)}
        times = {name(catalog.BASELINE_TIME, **pod): pace for pod, pace in ((first, values), (second, values), (third, slow))}
        return Case("is silent while a new baseline is rolled out", {**self.agent, **info, **times}, silent(self.due, self.run - 1))

    def versions(self) -> Case:
        other = {**OTHER_POD, "model_version": "2"}
        series = {**self.armed(POD, "launch", _LAUNCH), **self.armed(other, "relaunch", _LATER)}
        return Case("is silent for two versions with a baseline each", {**self.agent, **series}, silent(self.due))

    def one_baseline(self) -> Case:
        pods = merged(self.armed(pod, "launch", _LAUNCH) | self.fill.pod(pod, at_zero(0.5)) for pod in (POD, OTHER_POD))
        shares = {
            name(catalog.BASELINE_CDF, **pod, layer=LAYERS[0], point="pre", le=le): flat(share, self.run)
            for pod in (POD, OTHER_POD)
            for le, share in at_zero(0.5).items()
        }
        return Case(
            "is silent for pods with one baseline whose edges are theirs", {**self.agent, **pods, **shares}, silent(self.due, self.run - 1)
        )

    def idle(self) -> Case:
        shares = {name(catalog.BASELINE_CDF, **POD, layer=LAYERS[0], point="pre", le=le): flat(1, self.run) for le in ("0.0", "+Inf")}
        pod = self.fill.pod(POD, at_zero(0.5), values=0)
        return Case(
            "is silent about the edges of a model without traffic",
            {**self.agent, **self.armed(POD, "launch", _LAUNCH), **shares, **pod},
            silent(self.due, self.run - 1),
        )

    def following(self) -> Case:
        pods = merged(self.armed(pod, "following", _LAUNCH + 60 * place) for place, pod in enumerate(fleet(3)))
        return Case("is silent for ranks that follow a training run, each at its own pace", {**self.agent, **pods}, silent(self.due))

    def no_baseline(self) -> Case:
        pods = merged(self.fill.pod(pod, at_zero(0.5)) for pod in (POD, OTHER_POD))
        unarmed = {name(catalog.BASELINE_ARMED, **pod): flat(0, self.run) for pod in (POD, OTHER_POD)}
        return Case("is silent without a baseline", {**self.agent, **pods, **unarmed}, silent(self.due, self.run - 1))

    def restart(self) -> Case:
        before, after = self.due - 2, self.run - self.due + 1
        info = f"1+0x{before - 1} stale 1+0x{after - 1}"
        recorded = f"{_LAUNCH}+0x{before - 1} stale {_LAUNCH}+0x{after - 1}"
        pod = {name(catalog.BASELINE_INFO, **OTHER_POD, baseline="launch"): info, name(catalog.BASELINE_TIME, **OTHER_POD): recorded}
        return Case(
            "is silent for a pod that has restarted and armed the same baseline",
            {**self.agent, **self.armed(POD, "launch", _LAUNCH), **pod},
            silent(*range(before, self.run)),
        )
