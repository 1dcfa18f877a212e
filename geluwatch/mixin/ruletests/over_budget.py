"""Stories of `GeluwatchAgentOverBudget`."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.rules.alerting import Alert
from geluwatch.mixin.ruletests.episode import Episode
from geluwatch.mixin.ruletests.grammar import (
    FIRST_HOST,
    INCIDENT,
    OTHER_POD,
    POD,
    SECOND_HOST,
    Case,
    Check,
    Expected,
    Labels,
    Scale,
    flat,
    name,
    ramp,
    silent,
)


def cases(_: Alert, scale: Scale) -> tuple[Case, ...]:
    """Return the stories of the alert."""
    stories = _Stories(scale)
    return (
        stories.tickets_after_the_wait(),
        stories.worst_of_two(),
        stories.at_once(),
        stories.without_a_budget(),
        stories.idle(),
        stories.restarts(),
    )


class _Stories(Episode):
    """The stories of pods that are given less to spend for a while than they go on spending."""

    def __init__(self, scale: Scale) -> None:
        super().__init__(scale, start=scale.steps(scale.settings.rate_window) + 2, wait=scale.settings.blind_for)
        self.step = scale.step

    def pod(self, share: float, budget: float | None, pod: Labels = POD) -> dict[str, str]:
        spent = {name(catalog.HOOK_SECONDS, **pod): ramp(1000, share * self.step, self.run)}
        return spent if budget is None else {**spent, name(catalog.COST_BUDGET, **pod): self.during(0.5, budget)}

    def says(self, share: str, host: str, budget: str) -> tuple[Expected, ...]:
        text = (
            "Model minilm version 1 pays more for being watched than it is meant to: "
            f"row capture takes {share} of wall time on pod {host}, where the budget is {budget}."
        )
        return (Expected(INCIDENT, text, FIRST_HOST),)

    def tickets_after_the_wait(self) -> Case:
        said = self.says("5%", FIRST_HOST, "1%")
        return Case(
            "opens a ticket that says share and budget after the wait, not before, and resolves once the cost is within it",
            {**self.agent, **self.pod(0.05, 0.01)},
            (Check(self.start), Check(self.due - 1), Check(self.due, said), Check(self.end)),
        )

    def worst_of_two(self) -> Case:
        pods = {**self.pod(0.16, 0.04), **self.pod(0.05, 0.01, OTHER_POD)}
        return Case(
            "names the pod that is farthest beyond its budget, not the one that spends most",
            {**self.agent, **pods},
            (Check(self.due, self.says("5%", SECOND_HOST, "1%")),),
        )

    def at_once(self) -> Case:
        return Case(
            "is silent for a little more than the budget, of which some seconds' worth may be spent at once",
            {**self.agent, **self.pod(0.0125, 0.01)},
            silent(self.due, self.end - 1),
        )

    def without_a_budget(self) -> Case:
        return Case("is silent where no budget is set", {**self.agent, **self.pod(0.5, None)}, silent(self.due, self.end - 1))

    def idle(self) -> Case:
        return Case("is silent without any traffic", {**self.agent, **self.pod(0, 0.01)}, silent(self.due, self.end - 1))

    def restarts(self) -> Case:
        short = f"{flat(0.5, self.start)} {flat(0.01, self.due - self.start - 1)} {flat(0.5, self.run)}"
        return Case(
            "is silent for a pod that is over its budget for less than the wait, as when it has just started",
            {**self.agent, **self.pod(0.05, None), name(catalog.COST_BUDGET, **POD): short},
            silent(self.due - 1, self.due, self.end),
        )
