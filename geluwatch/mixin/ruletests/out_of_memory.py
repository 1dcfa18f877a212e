"""Stories of `GeluwatchOutOfMemory`."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.rules.alerting import Alert
from geluwatch.mixin.ruletests.episode import Sudden
from geluwatch.mixin.ruletests.grammar import FIRST_HOST, INCIDENT, OTHER_POD, POD, Case, Check, Expected, Labels, Scale, flat, name, silent


def cases(_: Alert, scale: Scale) -> tuple[Case, ...]:
    """Return the stories of the alert."""
    stories = _Stories(scale)
    return (stories.pages_at_once(), stories.born_above_zero(), stories.resolves(), stories.other_errors())


class _Stories(Sudden):
    """Passes run out of memory at `start`."""

    def __init__(self, scale: Scale) -> None:
        super().__init__(scale, keep=scale.settings.burn_windows[1])

    def lost(self, values: str, pod: Labels = POD) -> dict[str, str]:
        return {name(catalog.OUT_OF_MEMORY, **pod): values, name(catalog.ATTACHED, **pod): flat(self.old, self.run)}

    def told(self, passes: str, pods: str) -> tuple[Expected, ...]:
        text = f"Model minilm version 1 ran out of memory in {passes} within {self.window}, on {pods}."
        return (Expected(INCIDENT, text, FIRST_HOST),)

    def pages_at_once(self) -> Case:
        return Case(
            "pages at once, one page for all pods, and counts passes and pods",
            {**self.agent(), **self.lost(self.jump(100, 3)), **self.lost(self.jump(200, 1), OTHER_POD)},
            (Check(self.start - 1), Check(self.start, self.told("4 forward passes", "2 pods"))),
        )

    def born_above_zero(self) -> Case:
        born = {name(catalog.OUT_OF_MEMORY, **OTHER_POD): self.born(1)}
        return Case(
            "pages for a counter that is born above zero on a new pod",
            {**self.agent(), **born},
            (Check(self.start - 1), Check(self.start, self.told("1 forward pass", "1 pod"))),
        )

    def resolves(self) -> Case:
        end = self.start + self.cleared
        return Case(
            "keeps firing after the last failure, then resolves",
            {**self.agent(), **self.lost(self.jump(100, 3))},
            (Check(end - 2, self.told("3 forward passes", "1 pod")), Check(end + 2)),
        )

    def other_errors(self) -> Case:
        failed = {name(catalog.FAILED_FORWARDS, **POD): self.jump(100, 50)}
        return Case(
            "is silent for passes that failed for another reason",
            {**self.agent(), **self.lost(flat(100, self.run)), **failed},
            silent(0, self.start, self.run - 1),
        )
