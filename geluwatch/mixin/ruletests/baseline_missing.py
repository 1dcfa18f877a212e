"""Stories of `GeluwatchBaselineMissing`."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.rules.alerting import Alert
from geluwatch.mixin.ruletests.grammar import (
    FIRST_HOST,
    INCIDENT,
    OTHER_POD,
    POD,
    Case,
    Check,
    Expected,
    Scale,
    agent,
    flat,
    name,
    ramp,
    silent,
)


def cases(alert: Alert, scale: Scale) -> tuple[Case, ...]:
    """Return the stories of the alert."""
    stories = _Stories(alert, scale)
    return (stories.tickets_after_the_wait(), stories.armed(), stories.idle(), stories.restarts())


class _Stories:
    """The stories on one time grid: there is traffic from `start` on, and a baseline from `end` on at the latest."""

    def __init__(self, alert: Alert, scale: Scale) -> None:
        self.waited = alert.hold
        self.start = 2
        self.due = self.start + scale.steps(alert.hold)
        self.end = self.due + 4
        self.run = self.end + 4
        self.agent = agent(flat(1, self.run))
        self.traffic = f"{flat(1000, self.start)} {ramp(1060, 60, self.run - self.start)}"

    def tickets_after_the_wait(self) -> Case:
        armed = f"{flat(0, self.end)} {flat(1, self.run - self.end)}"
        pods = {name(catalog.BASELINE_ARMED, **pod): armed for pod in (POD, OTHER_POD)}
        traffic = {name(catalog.FORWARDS, **pod): self.traffic for pod in (POD, OTHER_POD)}
        text = (
            f"Model minilm version 1 has taken traffic for {self.waited} without an armed baseline on 2 agents: "
            "drift goes unseen there. NaN and Inf still page."
        )
        return Case(
            "opens one ticket for all pods after the wait, not before, and resolves once a baseline is armed",
            {**self.agent, **pods, **traffic},
            (Check(self.due - 1), Check(self.due, (Expected(INCIDENT, text, FIRST_HOST),)), Check(self.end)),
        )

    def armed(self) -> Case:
        return Case(
            "is silent for a model with a baseline",
            {**self.agent, name(catalog.BASELINE_ARMED, **POD): flat(1, self.run), name(catalog.FORWARDS, **POD): self.traffic},
            silent(0, self.due, self.run - 1),
        )

    def idle(self) -> Case:
        return Case(
            "is silent for an idle model without a baseline",
            {**self.agent, name(catalog.BASELINE_ARMED, **POD): flat(0, self.run), name(catalog.FORWARDS, **POD): flat(1000, self.run)},
            silent(0, self.due, self.run - 1),
        )

    def restarts(self) -> Case:
        fresh = f"{flat(1000, self.due - 2)} {ramp(0, 60, self.run - self.due + 2)}"
        armed = f"{flat(1, self.due - 2)} {flat(0, self.run - self.due + 2)}"
        return Case(
            "is silent for a pod that has just restarted and has yet to arm its baseline",
            {**self.agent, name(catalog.BASELINE_ARMED, **POD): armed, name(catalog.FORWARDS, **POD): fresh},
            silent(self.due, self.run - 1),
        )
