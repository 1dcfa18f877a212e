"""One stretch of trouble, which comes, is told of, goes and is forgotten: the time grid of most stories."""

from __future__ import annotations

from geluwatch.mixin.ruletests.grammar import Scale, agent, flat, layer_indices

_STEPS_DUE = 4
_STEPS_AFTER = 6


class Episode:
    """The moments of stories in which something is wrong from `start` until `end`; all in steps since the story's start.

    `due` is when the alert begins to fire, `cleared` when it has kept firing for long enough, `run` when the series
    end. `agent` are the series of the first pod's agent and of its layers' order.

    Args:
        scale: The time grid.
        start: The first step at which something is wrong.
        wait: The duration for which it must be wrong before the alert fires.
    """

    def __init__(self, scale: Scale, start: int, wait: str) -> None:
        self.start = start
        self.due = start + scale.steps(wait)
        self.end = self.due + _STEPS_DUE
        self.cleared = self.end + scale.steps(scale.settings.keep_firing_for)
        self.run = self.cleared + _STEPS_AFTER
        self.agent = {**agent(flat(1, self.run)), **layer_indices(self.run)}

    def during(self, calm: float, wrong: float) -> str:
        """Return a value that differs while something is wrong."""
        return f"{flat(calm, self.start)} {flat(wrong, self.end - self.start)} {flat(calm, self.run - self.end)}"
