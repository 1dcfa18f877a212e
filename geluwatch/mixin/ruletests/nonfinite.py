"""Stories of `GeluwatchNonFiniteActivations`."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.rules.alerting import Alert
from geluwatch.mixin.ruletests.episode import Sudden
from geluwatch.mixin.ruletests.grammar import (
    FIRST_HOST,
    INCIDENT,
    LAYERS,
    OTHER_POD,
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
    name,
    ramp,
    silent,
)


def cases(_: Alert, scale: Scale) -> tuple[Case, ...]:
    """Return the stories of the alert."""
    stories = _Stories(scale)
    return (
        stories.pages_at_once(),
        stories.breaks_ties(),
        stories.born_above_zero(),
        stories.same_value_again(),
        stories.dead_pod(),
        stories.no_agent_left(),
        stories.resolves(),
        stories.old_count(),
        stories.missed_scrape(),
        stories.long_gone(),
        stories.while_nobody_looked(),
        stories.nothing_while_nobody_looked(),
        stories.restarted_while_nobody_looked(),
        stories.healthy(),
        stories.idle(),
    )


class _Stories(Sudden):
    """The stories of passes that were not finite."""

    def passes(self, values: str, layer: str, pod: Labels = POD) -> dict[str, str]:
        return {name(catalog.NONFINITE_FORWARDS, **pod): values, name(catalog.SITE_FIRST_NONFINITE, **pod, layer=layer): values}

    def says(self, passes: int, layer: str, agent: str = FIRST_HOST) -> tuple[Expected, ...]:
        counted = "1 forward pass" if passes == 1 else f"{passes} forward passes"
        text = f"Model minilm version 1 had NaN or Inf in {counted} within {self.window}, first at layer {layer}."
        return (Expected(INCIDENT, text, agent),)

    def pages_at_once(self) -> Case:
        other = {name(catalog.ATTACHED, **OTHER_POD): flat(self.old, self.run)}
        mine = self.passes(self.jump(1000, 3), LAYERS[2])
        theirs = self.passes(self.jump(2000, 1), LAYERS[1], OTHER_POD)
        return Case(
            "pages at once, one page for all pods, and names the layer that was first most often",
            {**self.agent(), **other, **mine, **theirs},
            (Check(self.start - 1), Check(self.start, self.says(4, LAYERS[2]))),
        )

    def breaks_ties(self) -> Case:
        counts = {
            name(catalog.NONFINITE_FORWARDS, **POD): self.jump(1000, 4),
            name(catalog.SITE_FIRST_NONFINITE, **POD, layer=LAYERS[3]): self.jump(1000, 2),
            name(catalog.SITE_FIRST_NONFINITE, **POD, layer=LAYERS[1]): self.jump(1000, 2),
        }
        return Case(
            "names the earlier of two layers that were first equally often",
            {**self.agent(), **counts},
            (Check(self.start, self.says(4, LAYERS[1])),),
        )

    def born_above_zero(self) -> Case:
        said = self.says(7, LAYERS[0])
        return Case(
            "pages for a counter that is born above zero on a new pod",
            {**self.agent(), **self.passes(self.born(7), LAYERS[0], OTHER_POD)},
            (Check(self.start - 1), Check(self.start, said), Check(self.start + 2, said)),
        )

    def same_value_again(self) -> Case:
        restarted = {name(catalog.ATTACHED, **POD): self.jump(self.old, -self.old)}
        return Case(
            "pages for a restart that brings the counter back to the very value it had",
            {**self.agent(), **self.passes(flat(1, self.run), LAYERS[0]), **restarted},
            (Check(self.start - 1), Check(self.start, self.says(1, LAYERS[0]))),
        )

    def dead_pod(self) -> Case:
        died = gone(self.run - self.start - 1)
        index = {name(catalog.LAYER_INDEX, **POD, layer=LAYERS[4]): f"{flat(4, self.start + 1)} {died}"}
        other = agent(flat(1, self.run), {**OTHER_POD, "model": "other"})
        return Case(
            "still names the layer when the pod is dead by the time of the evaluation",
            {**self.passes(f"{flat(0, self.start)} 3 {died}", LAYERS[4]), **index, **other},
            (Check(self.start + 2, self.says(3, LAYERS[4], SECOND_HOST)),),
        )

    def no_agent_left(self) -> Case:
        labels = {"job": "inference", "model": "m", "model_version": "2"}
        text = f"Model m version 2 had NaN or Inf in 2 forward passes within {self.window}."
        return Case(
            "links to the file where no agent is left, and does without namespace and layer",
            {name(catalog.NONFINITE_FORWARDS, **labels, instance="a:1"): self.jump(0, 2)},
            (Check(self.start, (Expected(labels, text),)),),
        )

    def resolves(self) -> Case:
        end = self.start + self.cleared
        return Case(
            "keeps firing after the last bad pass, then resolves",
            {**self.agent(), **self.passes(self.jump(1000, 3), LAYERS[2])},
            (Check(end - 2, self.says(3, LAYERS[2])), Check(end + 2)),
        )

    def old_count(self) -> Case:
        attached = {name(catalog.ATTACHED, **OTHER_POD): self.born(self.old)}
        return Case(
            "is silent for the old count of an agent that the server has long been unable to reach",
            {**self.agent(), **self.passes(self.born(1000), LAYERS[0], OTHER_POD), **attached},
            silent(self.start, self.start + 1, self.run - 1),
        )

    def missed_scrape(self) -> Case:
        failed = self.cleared + 2
        young = {name(catalog.ATTACHED, **POD): flat(0, self.run)}
        count = f"{flat(3, failed)} {gone(1)} {flat(3, self.run - failed - 1)}"
        return Case(
            "does not tell once more of what a young agent had, when a scrape has failed",
            {**self.agent(), **young, **self.passes(count, LAYERS[2])},
            (Check(0, self.says(3, LAYERS[2])), *silent(failed - 1, *(failed + self.window_steps + late for late in (-1, 0, 1)))),
        )

    def long_gone(self) -> Case:
        left = self.start - self.window_steps - 2

        def away(before: float, after: float) -> str:
            return f"{flat(before, left)} {gone(self.start - left)} {flat(after, self.run - self.start)}"

        attached, count = {name(catalog.ATTACHED, **POD): away(self.old, self.born_at)}, away(0, 2)
        said = self.says(2, LAYERS[0])
        return Case(
            "pages at once for what a pod met before its first scrape, however long it had been gone",
            {**self.agent(), **attached, **self.passes(count, LAYERS[0])},
            (Check(self.start - 1), Check(self.start, said), Check(self.start + 1, said)),
        )

    def blind(self, before: float, after: float) -> str:
        """Return values that nobody scraped for longer than a window, until the start."""
        seen = self.start - self.window_steps - 2
        return f"{flat(before, seen)} {absent(self.start - seen)} {flat(after, self.run - self.start)}"

    def while_nobody_looked(self) -> Case:
        attached = {name(catalog.ATTACHED, **POD): self.blind(self.old, self.old)}
        text = f"Model minilm version 1 had NaN or Inf in 25 forward passes within {self.window}."
        said = (Expected(INCIDENT, text, FIRST_HOST),)
        return Case(
            "pages for what an old agent met while the server was away, when it is back",
            {**self.agent(), **attached, name(catalog.NONFINITE_FORWARDS, **POD): self.blind(1000, 1025)},
            (Check(self.start - 1), Check(self.start, said)),
        )

    def nothing_while_nobody_looked(self) -> Case:
        seen, away = self.cleared + 2, self.window_steps + 2
        young = {name(catalog.ATTACHED, **POD): f"{flat(0, seen)} {absent(away)} {flat(0, self.run - seen - away)}"}
        count = f"{flat(3, seen)} {absent(away)} {flat(3, self.run - seen - away)}"
        return Case(
            "does not tell once more of what a young agent had before the server was away",
            {**self.agent(), **young, **self.passes(count, LAYERS[2])},
            (Check(0, self.says(3, LAYERS[2])), *silent(seen - 1, *(seen + away + late for late in (0, 1, 4)))),
        )

    def restarted_while_nobody_looked(self) -> Case:
        left = self.start - self.window_steps - 2
        attached = {name(catalog.ATTACHED, **POD): self.blind(self.old, (left + 1) * self.step)}
        said = self.says(2, LAYERS[0])
        return Case(
            "pages for what a pod met that restarted while the server was away",
            {**self.agent(), **attached, **self.passes(self.blind(3, 2), LAYERS[0])},
            (Check(self.start, said),),
        )

    def healthy(self) -> Case:
        padding = {name(catalog.SITE_PADDING_NONFINITE, **POD, layer=LAYERS[0]): ramp(1000, 60, self.run)}
        traffic = {name(catalog.FORWARDS, **POD): ramp(1000, 60, self.run)}
        return Case(
            "is silent for healthy traffic and for values at padding only",
            {**self.agent(), **self.passes(flat(1000, self.run), LAYERS[0]), **padding, **traffic},
            silent(0, 1, self.start, self.run - 1),
        )

    def idle(self) -> Case:
        return Case(
            "is silent for an idle model, from its first scrape on",
            {**agent(self.born(1)), **self.passes(self.born(0), LAYERS[0]), name(catalog.ATTACHED, **POD): self.born(0)},
            silent(self.start, self.start + 1, self.run - 1),
        )
