"""Stories of `GeluwatchRollout`."""

from __future__ import annotations

from geluwatch.mixin.rules.alerting import Alert
from geluwatch.mixin.ruletests.grammar import (
    FIRST_HOST,
    MODEL,
    POD,
    SECOND_HOST,
    Case,
    Check,
    Expected,
    Labels,
    Scale,
    absent,
    agent,
    flat,
    gone,
    silent,
)

_NEXT = {**POD, "model_version": "2"}


def cases(_: Alert, scale: Scale) -> tuple[Case, ...]:
    """Return the stories of the alert."""
    stories = _Stories(scale)
    return (
        stories.instead(),
        stories.beside(),
        stories.taken_back(),
        stories.in_one_region(),
        stories.two_at_once(),
        stories.restarts(),
        stories.scaled_out(),
        stories.new_model(),
        stories.server_looks_anew(),
        stories.idle(),
    )


class _Stories:
    """The stories of versions on one time grid: a new one comes at `start`, and is no longer new at `over`."""

    def __init__(self, scale: Scale) -> None:
        self.window = scale.settings.rollout_window
        self.bridged = scale.steps(scale.settings.rate_window)
        self.start = scale.steps(self.window) + 4
        self.over = self.start + scale.steps(self.window)
        self.run = self.over + self.bridged + 4

    def steady(self, pod: Labels = POD) -> dict[str, str]:
        return agent(flat(1, self.run), pod)

    def comes(self, pod: Labels = _NEXT) -> dict[str, str]:
        return agent(f"{absent(self.start)} {flat(1, self.run - self.start)}", pod)

    def says(self, new: str = "2", old: str = "1", labels: Labels = MODEL) -> tuple[Expected, ...]:
        text = (
            f"Model minilm of job inference has had a new version for less than {self.window}: {new}, after {old}. "
            "Tickets that come with a rollout are kept quiet meanwhile; pages are not."
        )
        return (Expected(labels, text, FIRST_HOST),)

    def instead(self) -> Case:
        leaves = agent(f"{flat(1, self.start)} {gone(self.run - self.start)}")
        return Case(
            "is there as soon as another version runs in place of one, not before, and for no longer than a rollout's time",
            {**leaves, **self.comes()},
            (Check(self.start - 1), Check(self.start, self.says()), Check(self.over - 1, self.says()), Check(self.over)),
        )

    def beside(self) -> Case:
        return Case(
            "is there for a version that runs beside another one, as a canary does",
            {**self.steady(), **self.comes()},
            (Check(self.start - 1), Check(self.start, self.says()), Check(self.over - 1, self.says()), Check(self.over)),
        )

    def taken_back(self) -> Case:
        short = agent(f"{absent(self.start)} {flat(1, 5)} {gone(self.run)}", _NEXT)
        return Case(
            "ends with a new version that is taken back",
            {**self.steady(), **short},
            (Check(self.start + 4, self.says()), Check(self.start + 5), Check(self.over)),
        )

    def in_one_region(self) -> Case:
        here, there = {"region": "eu"}, {"region": "us"}
        return Case(
            "is there for the one region that has a new version",
            {**self.steady({**POD, **here}), **self.comes({**_NEXT, **here}), **self.steady({**POD, **there})},
            (Check(self.start, self.says(labels={**MODEL, **here})),),
        )

    def two_at_once(self) -> Case:
        return Case(
            "is one notice for several versions",
            {**self.steady(), **self.comes({**POD, "model_version": "3"}), **self.comes()},
            (Check(self.start, self.says("2, 3")),),
        )

    def restarts(self) -> Case:
        breaks = f"{flat(1, self.start)} {gone(self.bridged - 2)} {flat(1, self.run)}"
        back = self.start + self.bridged - 2
        after = (step + self.over - self.start for step in (self.start, back - 1, back))
        return Case(
            "is silent for a version that starts over, now and a rollout's time later, though another one runs beside it",
            {**self.steady(), **agent(breaks, _NEXT)},
            silent(self.start, back - 1, back, *after),
        )

    def scaled_out(self) -> Case:
        return Case(
            "is silent for further pods of a version that runs already",
            {**self.steady(), **self.comes({**POD, "instance": SECOND_HOST})},
            silent(self.start, self.over - 1),
        )

    def new_model(self) -> Case:
        return Case(
            "is silent for a model that was not there at all, whatever else the job runs",
            {**self.steady({**POD, "model": "bge"}), **self.comes(POD)},
            silent(self.start, self.over - 1),
        )

    def server_looks_anew(self) -> Case:
        return Case(
            "is silent when all versions are seen for the first time at once",
            {**self.comes(POD), **self.comes()},
            silent(self.start, self.over - 1, self.over),
        )

    def idle(self) -> Case:
        return Case(
            "is silent for versions that have run beside each other all the time",
            {**self.steady(), **self.steady(_NEXT)},
            silent(self.over, self.run - 1),
        )
