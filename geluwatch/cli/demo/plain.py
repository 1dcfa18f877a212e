"""The demonstration as plain lines of text: for logs, pipes and terminals that cannot do more."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TextIO

from geluwatch.cli.demo.display import Event, Tone, interval, layer_rows, number
from geluwatch.records import Report

_MARKS: dict[Tone, str] = {"info": "      ", "good": "ok    ", "ticket": "TICKET", "page": "PAGE  ", "bad": "FAILED"}
_INDENT = 18  # where the text of an event begins


class PlainDisplay:
    """Prints one line for each event, and the table of layers at the end of each phase that changed it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._titles: Sequence[str] = ()
        self._report: Report | None = None

    def plan(self, titles: Sequence[str]) -> None:
        """Keep the titles."""
        self._titles = titles

    def begin(self, phase: int) -> None:
        """Print the phase's heading."""
        self._report = None
        self._print(f"\n[{phase + 1}/{len(self._titles)}] {self._titles[phase]}")

    def progress(self, done: int, total: int) -> None:
        """Print nothing: a line for every step would bury the others."""

    def report(self, report: Report) -> None:
        """Keep the report for the end of the phase."""
        self._report = report

    def event(self, event: Event) -> None:
        """Print the event with its time and its tone in a word."""
        text = event.text.replace("\n", "\n" + " " * _INDENT)
        self._print(f"{event.at:6.1f} s  {_MARKS[event.tone]}  {text}")

    def end(self, phase: int, *, good: bool) -> None:
        """Print how the layers stand."""
        del phase, good
        if self._report is not None and self._report.totals.windows:
            self._print("\n".join(table(self._report)))

    def _print(self, text: str) -> None:
        with self._lock:
            self._stream.write(f"{text}\n")
            self._stream.flush()


def table(report: Report) -> list[str]:
    """Return a report's layers as aligned lines; evidence is drift from 1 on."""
    rows = [("layer", "state", "mean", "std", "KS", "evidence", "non-finite")]
    rows += [
        (r.name, r.state, number(r.mean), number(r.std), interval(r.ks, r.ks_upper), number(r.evidence), str(r.nonfinite))
        for r in layer_rows(report)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [" " * _INDENT + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
