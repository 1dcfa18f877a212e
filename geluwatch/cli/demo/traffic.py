"""Sends texts through the watched model, one window after the other."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from geluwatch.cli.demo.model import Encoder
from geluwatch.cli.demo.texts import Texts
from geluwatch.records import Report
from geluwatch.watch import Watch

TEXTS_A_WINDOW = 32
BATCH = 8
"""Texts in one forward pass."""

_MOST_TRIES = 4


class Traffic:
    """Serves one window of texts at each call and closes it.

    Args:
        encoder: The watched model.
        watch: Its watch.
        texts: What is served; each kind comes in a new order whenever it has run out.
        on_report: Told of each window's report.
        a_window: Texts in a window.
        batch: Texts in one forward pass.
    """

    def __init__(
        self,
        encoder: Encoder,
        watch: Watch,
        texts: Texts,
        on_report: Callable[[Report], None],
        *,
        a_window: int = TEXTS_A_WINDOW,
        batch: int = BATCH,
    ) -> None:
        self._encoder = encoder
        self._watch = watch
        self._on_report = on_report
        self._passes = a_window // batch
        self._baseline = _batches(texts.baseline, batch)
        self._prose = _batches(texts.held_out, batch)
        self._code = _batches(texts.code, batch)

    def baseline(self) -> Report:
        """Serve prose that counts as normal."""
        return self._window(self._baseline)

    def prose(self) -> Report:
        """Serve prose that the baseline has not seen."""
        return self._window(self._prose)

    def code(self) -> Report:
        """Serve program code."""
        return self._window(self._code)

    def _window(self, batches: Iterator[Sequence[str]]) -> Report:
        """Serve until enough passes gave rows: on a busy machine the watch may spare some, to keep its cost down."""
        wanted = self._watch.report.totals.sampled_forwards + self._passes
        for _ in range(_MOST_TRIES * self._passes):
            self._encoder.forward(next(batches))
            if self._watch.flush().totals.sampled_forwards >= wanted:
                break
        report = self._watch.close_window()
        self._on_report(report)
        return report


def _batches(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    order, chance = list(texts), random.Random(size)  # noqa: S311  # no secret is drawn
    while True:
        yield from (order[start : start + size] for start in range(0, len(order) - size + 1, size))
        chance.shuffle(order)  # the same windows again, in the same order, would be a rhythm
