"""Stories of `GeluwatchBaselineStale`."""

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
    Labels,
    Scale,
    agent,
    flat,
    name,
    ramp,
    silent,
)
from geluwatch.mixin.settings import seconds


def cases(alert: Alert, scale: Scale) -> tuple[Case, ...]:
    """Return the stories of the alert."""
    stories = _Stories(alert, scale)
    return (
        stories.tickets_after_the_wait(),
        stories.oldest(),
        stories.young(),
        stories.idle(),
        stories.following(),
        stories.no_baseline(),
        stories.restart(),
    )


class _Stories:
    """The stories on one time grid: the baseline becomes too old after `start`, and another one is armed at `end`."""

    def __init__(self, alert: Alert, scale: Scale) -> None:
        self.scale = scale
        self.limit = scale.settings.baseline_age
        self.start = 4
        self.due = self.start + 1 + scale.steps(alert.hold)
        self.end = self.due + 3
        self.run = self.end + 4
        self.born = self.start * scale.step - seconds(self.limit)
        self.agent = agent(flat(1, self.run))
        self.traffic = {name(catalog.FORWARDS, **POD): ramp(1000, 60, self.run)}

    def armed(self, pod: Labels, baseline: str, recorded: str) -> dict[str, str]:
        return {name(catalog.BASELINE_INFO, **pod, baseline=baseline): flat(1, self.run), name(catalog.BASELINE_TIME, **pod): recorded}

    def old(self, by: int = 0) -> str:
        """Return that the baseline was recorded so much before the one that becomes too old at `start`; replaced at the end."""
        return f"{self.born - by}+0x{self.end - 1} {self.end * self.scale.step}+0x{self.run - self.end - 1}"

    def says(self, baseline: str, age: str) -> tuple[Expected, ...]:
        text = (
            f"Model minilm version 1 is measured by baseline {baseline}, recorded {age} ago; "
            f"after {self.limit} what was normal then may no longer be what is normal now."
        )
        return (Expected(INCIDENT, text, FIRST_HOST),)

    def age(self, beyond: int) -> str:
        """Return an age in words, as so many steps beyond the limit."""
        total = seconds(self.limit) + beyond * self.scale.step
        days, hours, minutes = total // 86400, total // 3600 % 24, total // 60 % 60
        return f"{f'{days}d ' if days else ''}{hours}h {minutes}m {total % 60}s"

    def tickets_after_the_wait(self) -> Case:
        said = self.says("launch", self.age(self.due - self.start))
        return Case(
            "opens a ticket once the baseline has been too old for the wait, not before, and resolves with a new one",
            {**self.agent, **self.traffic, **self.armed(POD, "launch", self.old())},
            (Check(self.start), Check(self.due - 1), Check(self.due, said), Check(self.end)),
        )

    def oldest(self) -> Case:
        fresh = self.armed(POD, "relaunch", flat(0, self.run))
        older = self.armed(OTHER_POD, "launch", self.old(3600))
        said = self.says("launch", self.age(self.due - self.start + 3600 // self.scale.step))
        return Case("names the oldest of several", {**self.agent, **self.traffic, **fresh, **older}, (Check(self.due, said),))

    def young(self) -> Case:
        fresh = self.armed(POD, "launch", f"{self.born + 3600}+0x{self.run - 1}")
        return Case("is silent for a baseline that is not that old yet", {**self.agent, **self.traffic, **fresh}, silent(0, self.run - 1))

    def idle(self) -> Case:
        idle = {name(catalog.FORWARDS, **POD): flat(1000, self.run)}
        return Case(
            "is silent for a model without traffic", {**self.agent, **idle, **self.armed(POD, "launch", self.old(3600))}, silent(self.due)
        )

    def following(self) -> Case:
        followed = self.armed(POD, "following", self.old(3600))
        return Case("is silent for a training run that is followed", {**self.agent, **self.traffic, **followed}, silent(self.due))

    def no_baseline(self) -> Case:
        unarmed = {name(catalog.BASELINE_ARMED, **POD): flat(0, self.run)}
        return Case("is silent without a baseline", {**self.agent, **self.traffic, **unarmed}, silent(self.due))

    def restart(self) -> Case:
        fresh = {name(catalog.FORWARDS, **POD): f"{ramp(1000, 60, self.start)} {ramp(0, 60, self.run - self.start)}"}
        said = self.says("launch", self.age(self.due - self.start))
        return Case(
            "goes on for a pod that has restarted and armed the same baseline",
            {**self.agent, **fresh, **self.armed(POD, "launch", self.old())},
            (Check(self.due - 1), Check(self.due, said)),
        )
