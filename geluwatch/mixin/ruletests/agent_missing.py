"""Stories of `GeluwatchAgentMissing`."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.rules.alerting import Alert
from geluwatch.mixin.ruletests.grammar import (
    FIRST_HOST,
    MODEL,
    OTHER_POD,
    POD,
    SECOND_HOST,
    THIRD_HOST,
    Case,
    Check,
    Expected,
    Scale,
    absent,
    agent,
    flat,
    gone,
    name,
    silent,
)


def cases(alert: Alert, scale: Scale) -> tuple[Case, ...]:
    """Return the stories of the alert."""
    stories = _Stories(alert, scale)
    return (
        stories.target_without_agent(),
        stories.forgotten_in_new_pods(),
        stories.memory_ends(),
        stories.idle(),
        stories.scaled_in(),
        stories.replaced_in_place(),
        stories.renamed_beside_other_metrics(),
        stories.restarts(),
    )


def up(host: str, values: str, job: str = "inference") -> dict[str, str]:
    """Return the series of a target."""
    return {name("up", namespace="serving", job=job, instance=host): values}


class _Stories:
    """The stories on one time grid: the agent is there until `start`, and is missed from `due` on."""

    def __init__(self, alert: Alert, scale: Scale) -> None:
        self.remembered = scale.settings.agent_memory
        self.memory = scale.steps(self.remembered)
        self.hold = scale.steps(alert.hold)
        self.start = max(4, self.memory // 100)
        self.due = self.start + self.hold
        self.end = self.due + 4
        self.run = self.end + 6

    def lost(self) -> str:
        return f"{flat(1, self.start)} {gone(self.run - self.start)}"

    def born(self, value: float) -> str:
        return f"{absent(self.start)} {flat(value, self.run - self.start)}"

    def says(self, agent: str | None = None) -> tuple[Expected, ...]:
        text = (
            f"Model minilm of job inference has lost an agent that it had within {self.remembered}: "
            "there is a target without geluwatch metrics, and NaN, Inf or drift there go unseen."
        )
        return (Expected(MODEL, text, agent),)

    def target_without_agent(self) -> Case:
        back = f"{flat(1, self.start)} {gone(self.end - self.start)} {flat(1, self.run - self.end)}"
        targets = up(FIRST_HOST, flat(1, self.run)) | up(SECOND_HOST, flat(1, self.run))
        return Case(
            "opens a ticket for a target that is up without its agent, not before the wait, and resolves when it is back",
            {**targets, **agent(back), **agent(flat(1, self.run), OTHER_POD)},
            (Check(self.due - 1), Check(self.due, self.says(SECOND_HOST)), Check(self.end)),
        )

    def forgotten_in_new_pods(self) -> Case:
        old = {**up(FIRST_HOST, self.lost()), **up(SECOND_HOST, self.lost())}
        agents = {**agent(self.lost()), **agent(self.lost(), {**OTHER_POD, "model_version": "0"})}
        return Case(
            "opens one ticket for a model whose new pods carry no agent, whatever version it had",
            {**old, **agents, **up(THIRD_HOST, self.born(0))},
            (Check(self.due - 1), Check(self.due, self.says())),
        )

    def memory_ends(self) -> Case:
        run = self.start + self.memory + 4
        return Case(
            "forgets an agent that has been gone for as long as its memory lasts",
            {**up(FIRST_HOST, flat(1, run)), **agent(f"{flat(1, self.start)} {gone(run - self.start)}")},
            (Check(self.memory, self.says()), Check(run - 1)),
        )

    def idle(self) -> Case:
        neighbours = {**up(THIRD_HOST, flat(1, self.run)), **up(THIRD_HOST, flat(1, self.run), job="node")}
        traffic = {name(catalog.FORWARDS, **POD): flat(0, self.run)}
        return Case(
            "is silent for an attached model without any traffic, and for targets that never carried an agent",
            {**up(FIRST_HOST, flat(1, self.run)), **agent(flat(1, self.run)), **neighbours, **traffic},
            silent(0, self.due, self.run - 1),
        )

    def scaled_in(self) -> Case:
        stays = {**up(FIRST_HOST, flat(1, self.run)), **agent(flat(1, self.run))}
        return Case(
            "is silent when a pod is scaled in, and when a whole model goes with all targets of its job",
            {
                **stays,
                **up(SECOND_HOST, self.lost()),
                **agent(self.lost(), OTHER_POD),
                **up(THIRD_HOST, self.lost(), job="batch"),
                **agent(self.lost(), {**POD, "instance": THIRD_HOST, "job": "batch"}),
            },
            silent(self.start, self.due, self.run - 1),
        )

    def replaced_in_place(self) -> Case:
        new = {**POD, "model": "bge", "model_version": "2"}
        return Case(
            "is silent when another version or model takes the place of one",
            {**up(FIRST_HOST, flat(1, self.run)), **agent(self.lost()), **agent(self.born(1), new)},
            silent(self.start, self.due, self.run - 1),
        )

    def renamed_beside_other_metrics(self) -> Case:
        new, other = {**POD, "model": "bge"}, FIRST_HOST.replace("9464", "8080")
        return Case(
            "is silent for a model that was renamed on a pod whose other port, with the application's own metrics, has never had an agent",
            {**up(FIRST_HOST, flat(1, self.run)), **up(other, flat(1, self.run)), **agent(self.lost()), **agent(self.born(1), new)},
            silent(self.start, self.due, self.run - 1),
        )

    def restarts(self) -> Case:
        short = f"{flat(1, self.start)} {gone(self.hold - 1)} {flat(1, self.run - self.due + 1)}"
        return Case(
            "is silent for a pod that is back within the wait",
            {**up(FIRST_HOST, flat(1, self.run)), **agent(short)},
            silent(self.due - 1, self.due, self.run - 1),
        )
