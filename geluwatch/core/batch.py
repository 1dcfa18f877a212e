"""Rows that wait for others before they are counted: to count a few values costs nearly what many do."""

from __future__ import annotations

from geluwatch.records import Rows

WORTH_COUNTING = 1 << 25
"""Bytes of rows that are counted together: thirty-two megabytes, so that they are no burden while they wait."""

LONGEST_WAIT = 15.0
"""Seconds for which rows wait at most: a scrape's interval, for counters that stand still look like traffic that has ended."""


class Batch:
    """Rows that have been drained and not been counted; moments are seconds of one monotonic clock.

    Args:
        most: Bytes that may wait at the most.
    """

    def __init__(self, most: int) -> None:
        self._most = min(most, WORTH_COUNTING)
        self._rows: list[Rows] = []
        self._since = 0.0

    def add(self, rows: tuple[Rows, ...], now: float) -> None:
        """Take drained rows."""
        if not self._rows:
            self._since = now
        self._rows += rows

    def is_due(self, now: float) -> bool:
        """Return whether the rows have become many, or old."""
        waiting = sum(rows.pre.nbytes + rows.post.nbytes for rows in self._rows)
        return waiting >= self._most or now - self._since >= LONGEST_WAIT

    def take(self) -> tuple[Rows, ...]:
        """Return the rows, and let go of them: what cannot be counted must not be tried again for ever."""
        rows, self._rows = tuple(self._rows), []
        return rows
