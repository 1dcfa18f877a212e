"""The time grids of stories: a stretch of trouble that comes, is told of, goes and is forgotten; or a sudden moment of it."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.ruletests.grammar import POD, Labels, Scale, absent, agent, flat, layer_indices, name

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
        keep: The duration for which the alert goes on; None is that of most.
    """

    def __init__(self, scale: Scale, start: int, wait: str, keep: str | None = None) -> None:
        self.start = start
        self.due = start + scale.steps(wait)
        self.end = self.due + _STEPS_DUE
        self.cleared = self.end + scale.steps(keep or scale.settings.keep_firing_for)
        self.run = self.cleared + _STEPS_AFTER
        self.agent = {**agent(flat(1, self.run)), **layer_indices(self.run)}

    def during(self, calm: float, wrong: float) -> str:
        """Return a value that differs while something is wrong."""
        return f"{flat(calm, self.start)} {flat(wrong, self.end - self.start)} {flat(calm, self.run - self.end)}"


class Sudden:
    """The moments of stories in which whatever happens, happens at `start`; all in steps since the story's start.

    An alert keeps firing for `cleared` steps after that, and `run` is when the series end; `old` is the value of a moment
    longer ago than the grace, `born_at` that of the moment before the start. `window_steps` are those of the rate window.
    """

    def __init__(self, scale: Scale, keep: str | None = None) -> None:
        self.window, self.step = scale.settings.rate_window, scale.step
        self.window_steps = scale.steps(self.window)
        self.cleared = self.window_steps + scale.steps(keep or scale.settings.keep_firing_for)
        self.start = 2 * self.window_steps
        self.run = self.start + self.cleared + 6
        self.born_at = (self.start - 1) * scale.step
        self.old = -2.0 * scale.steps(scale.settings.grace) * scale.step

    def agent(self, pod: Labels = POD) -> dict[str, str]:
        """Return the series of a pod's agent, attached long ago, and of the first pod's layers."""
        attached = {name(catalog.ATTACHED, **pod): flat(self.old, self.run)}
        return {**agent(flat(1, self.run), pod), **attached, **layer_indices(self.run)}

    def jump(self, value: float, by: float) -> str:
        """Return a value that rises at the start."""
        return f"{flat(value, self.start)} {flat(value + by, self.run - self.start)}"

    def born(self, value: float) -> str:
        """Return a value that is there from the start on only."""
        return f"{absent(self.start)} {flat(value, self.run - self.start)}"
