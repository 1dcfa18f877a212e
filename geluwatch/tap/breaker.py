"""The one place where failures of the agent inside the model's threads end.

A failure is counted by part and logged once; a part that fails repeatedly is switched off. Nothing is re-raised:
the model never sees it.
"""

from __future__ import annotations

from geluwatch import log


class Breaker:
    """Counts failures by part and switches parts off at a limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.failures: dict[str, int] = {}
        self.disabled: tuple[str, ...] = ()

    def allows(self, part: str) -> bool:
        """Return whether a part is still on; reads one tuple, so hooks can afford it."""
        return part not in self.disabled

    def trip(self, part: str, error: BaseException) -> None:
        """Count a failure of a part."""
        count = self.failures.get(part, 0) + 1
        self.failures[part] = count
        switch_off = count >= self._limit and part not in self.disabled
        if switch_off:
            self.disabled = (*self.disabled, part)
        if count == 1:
            log.say(log.WARNING, "%s failed and goes on: %r", part, error)
        if switch_off:
            log.say(log.ERROR, "%s failed %d times and is switched off; the model is not affected: %r", part, count, error)
