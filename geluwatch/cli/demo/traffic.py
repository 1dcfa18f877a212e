"""Sends texts through the watched model, one window after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle

from geluwatch.cli.demo.model import Encoder
from geluwatch.cli.demo.texts import Texts
from geluwatch.records import Report
from geluwatch.watch import Watch

TEXTS_A_WINDOW = 32
BATCH = 8
"""Texts in one forward pass."""

_PASSES_A_WINDOW = TEXTS_A_WINDOW // BATCH
_MOST_PASSES = 4 * _PASSES_A_WINDOW


class Traffic:
    """Serves one window of texts at each call, `BATCH` in a forward pass, and closes it.

    Args:
        encoder: The watched model.
        watch: Its watch.
        texts: What is served; held-out prose and code start over when they run out.
        on_report: Told of each window's report.
    """

    def __init__(self, encoder: Encoder, watch: Watch, texts: Texts, on_report: Callable[[Report], None]) -> None:
        self._encoder = encoder
        self._watch = watch
        self._on_report = on_report
        self._baseline = _batches(texts.baseline)
        self._prose = _batches(texts.held_out)
        self._code = _batches(texts.code)

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
        wanted = self._watch.report.totals.sampled_forwards + _PASSES_A_WINDOW
        for _ in range(_MOST_PASSES):
            self._encoder.forward(next(batches))
            if self._watch.flush().totals.sampled_forwards >= wanted:
                break
        report = self._watch.close_window()
        self._on_report(report)
        return report


def _batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    return cycle([texts[start : start + BATCH] for start in range(0, len(texts) - BATCH + 1, BATCH)])
