"""Which forward passes give rows, and what share of their rows: enough for the target, spread evenly, within the budget.

The aim is the same chance for every row of the traffic. Quiet traffic is taken whole. Of busy traffic the passes are
chosen by counting them, not by the time between them, since the pass after a long gap would come too often; and a
chosen pass gives rows in proportion to those it has, so that long requests weigh what they weigh in the traffic.
Three accounts hold when traffic changes faster than it is learnt: rows
saved up (a bucket that fills at the target's rate), time owed to the cost budget, and memory.

One pacer serves all threads of a model without a lock: a race costs one pass of accuracy.
"""

from __future__ import annotations

import math
import random
from collections import deque
from contextlib import suppress

LEAST_ROWS = 16
"""Rows that a capture should bring where the traffic allows: fewer would not pay for its fixed cost, and more from
fewer requests would know less of the traffic."""

_LEEWAY_SECONDS = 10.0
"""Wall time whose cost budget may be spent at once."""

_SILENCE = 4.0
"""The plan is made anew, whatever the count says, after so many times the planned spell: the traffic may have fallen."""

_REMEMBERED = 512  # plans over which the pace is known at most
_UNTIMED_SECONDS = 60.0  # stretch over which it is known where windows have no length
_LEAST_WEIGHT, _FIRST_WEIGHT = 1.0 / 512.0, 1.0 / 4.0  # of the newest capture in the running means of sizes
_COST_WEIGHT = 1.0 / 8.0


class Pacer:
    """Decides about passes; all moments are seconds of one monotonic clock.

    Args:
        target: Rows wanted in a window.
        window: Seconds of a window; None takes every pass whole, within the budget.
        budget: Share of wall time that captures may cost the model's threads; None sets no limit.
        most: Rows that one pass may give.
    """

    def __init__(self, target: int, window: float | None, budget: float | None, most: int) -> None:
        self._target, self._most = float(target), most
        self._rate = target / window if window else math.inf
        self._budget = budget
        # Half full: quiet traffic has room to be taken whole, and the bucket shows both too much and too little.
        self._saved = self._target / 2.0
        self._level = 0.5
        self._seconds = window or _UNTIMED_SECONDS
        self._planned_at: float | None = None
        self._pace = _Pace(self._seconds)
        self._passed = 0
        self._chance = 1.0
        self._mass = 0.0
        self._point = 0.0
        self._overdue = self._not_before = float("-inf")
        self._planned = math.inf
        self._sizes: dict[int, float] = {}
        self._size = self._largest = self._cost = self._owed = 0.0
        self._weight = _FIRST_WEIGHT
        # Not torch's generator: drawing from that would change the model's dropout.
        self._random = random.Random(0x6E1)  # noqa: S311  # no secret is drawn

    def take(self, now: float) -> bool:
        """Return whether a forward pass that begins now gives rows; called once for each."""
        # One pass is drawn from each run of passes whose chances add up to one: evenly, whatever their rhythm.
        self._passed += 1
        self._mass += self._chance
        if (self._mass < self._point and now < self._overdue) or now < self._not_before:
            return False
        before = self._chance
        self._plan(now)
        if self._mass < self._point:
            self._mass += max(self._chance - before, 0.0)
        if self._mass < self._point:
            return False
        self._mass = (self._mass - 1.0) if self._mass < 2.0 else 0.0
        self._point = self._random.random() if self._chance < 1.0 else 0.0
        return True

    def share(self, site: int, rows: float) -> float:
        """Return the share of a site's rows that the chosen pass should give, at least 1 for all; `rows` is what it has."""
        if rows <= 0:
            return 0.0
        typical = self._sizes.get(site, float(rows))
        # Learnt after it was used: a size must not bear upon its own share.
        self._sizes[site] = typical + (rows - typical) * self._weight
        return self._planned / typical

    def whole(self, rows: float) -> int:
        """Return a number of rows at random between its neighbours, the given one on average; at most what is saved up."""
        return int((rows if math.isinf(self._rate) else min(rows, self._saved)) + self._random.random())

    def spent(self, now: float, seconds: float, had: float = 0.0, taken: float = 0.0, hold: float = 0.0) -> None:
        """Note the end of a chosen pass, and plan the next.

        Args:
            now: The moment.
            seconds: What the capture has cost the model's thread.
            had: Rows that the pass had at its largest site.
            taken: Rows captured there.
            hold: Seconds until there is room for more.
        """
        self._saved = max(self._saved - taken, 0.0)
        self._size += (had - self._size) * (self._weight if self._size else 1.0) if had else 0.0
        self._largest = max(had, self._largest * (1.0 - self._weight / 8.0))
        self._cost += (seconds - self._cost) * (_COST_WEIGHT if self._cost else 1.0)
        self._owed += seconds
        self._not_before = now + max(hold, self._debt(), self._emptiness()) * self._random.uniform(0.5, 1.5)

    def _plan(self, now: float) -> None:
        """Set the rows of the capture that comes now, and the chance of the passes after it."""
        self._settle(now)
        self._pace.note(now, self._passed)
        self._passed = 0
        pace = self._pace.per_second
        self._chance, self._overdue, self._planned = 1.0, now, math.inf
        if not pace:
            return
        # Half the bucket is the balance: a fuller one asks for more, an emptier one for less.
        wanted = self._rate * (0.5 + self._level)
        captures = min(pace, wanted / self._portion())
        if self._budget and self._cost:
            captures = min(captures, self._budget / self._cost)
        # With timed windows, no more than keeps the share of the large ones; but a single giant must not starve all others.
        kept = self._uncut(min(self._largest, 2.0 * self._size))
        self._planned = min(wanted / captures, kept) if math.isfinite(wanted) else math.inf
        # Sizes are those of about the latest window, so that another batch size is learnt within one.
        self._weight = min(max(1.0 / (captures * self._seconds), _LEAST_WEIGHT), _FIRST_WEIGHT)
        if captures < pace:
            self._chance = captures / pace
            self._overdue = now + _SILENCE / captures

    def _portion(self) -> float:
        """Return the rows that captures of busy traffic should bring on average: no more than passes have, few where they differ."""
        return min(max(self._uncut(self._largest) / 2.0, LEAST_ROWS / 4.0), LEAST_ROWS, max(self._size, 1.0))

    def _uncut(self, largest: float) -> float:
        """Return the most rows on average at which the cap on one pass does not cut the share of one so large."""
        return self._most * self._size / largest if largest else math.inf

    def _settle(self, now: float) -> None:
        """Credit the time since the last plan to the accounts."""
        elapsed = 0.0 if self._planned_at is None else max(now - self._planned_at, 0.0)
        self._planned_at = now
        if self._budget:
            self._owed = max(self._owed - self._budget * elapsed, 0.0)
        if math.isfinite(self._rate):
            before, self._saved = self._saved, min(self._target, self._saved + self._rate * elapsed)
            # Over time, for a burst that empties the bucket must not give its first passes more than its last.
            middle = (before + self._saved) / 2.0 / self._target
            self._level += (middle - self._level) * -math.expm1(-elapsed / self._seconds)

    def _debt(self) -> float:
        """Return the seconds until captures have cost no more than the budget."""
        return max(self._owed / self._budget - _LEEWAY_SECONDS, 0.0) if self._budget else 0.0

    def _emptiness(self) -> float:
        """Return the seconds until the bucket holds a capture's worth of rows."""
        return max(min(LEAST_ROWS, self._target / 2.0) - self._saved, 0.0) / self._rate


class _Pace:
    """Passes a second over the latest stretch of time; 0 while it is not known."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._passes = 0
        self._marks: deque[tuple[float, int]] = deque(maxlen=_REMEMBERED)
        self.per_second = 0.0

    def note(self, now: float, passes: int) -> None:
        """Note the passes since the last call."""
        self._passes += passes
        marks = self._marks
        marks.append((now, self._passes))
        with suppress(IndexError):  # another thread was quicker, and the pace is its
            while marks[1][0] <= now - self._seconds:
                marks.popleft()
            (began, before), (ended, after) = marks[0], marks[-1]
            if began < ended:
                self.per_second = (after - before) / (ended - began)
