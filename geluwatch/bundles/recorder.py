"""Decides when a bundle is due, and gathers what goes into it: one for each trouble that pages, and whenever somebody asks.

It is told of batches, windows and reports under the watch's lock, and gives up a frozen case. Writing it takes longer, and
happens outside of that lock.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from geluwatch import log
from geluwatch.config import MOST_PROFILED, Config
from geluwatch.errors import ConfigError, IncidentError
from geluwatch.ports import Clock
from geluwatch.records import Drained, Evidence, Report, Site, Window

if TYPE_CHECKING:
    from geluwatch.bundles.contents import Case

WINDOWS = 8
"""Closed windows in a bundle, at most; one where no folder is set, for a bundle that is asked for."""

WINDOW_BYTES = 32 * 2**20
"""Most memory of the windows that are held for a bundle; the newest is held whatever it takes."""

KEPT = 4
"""Passes of one trouble of which rows are held."""

PATIENCE = 60.0
"""Seconds for which a bundle waits for the passes that are to be profiled."""

KINDS = ("nonfinite", "gross", "overflow", "drift")
"""Troubles that page, the one that explains the others first."""


@dataclass(slots=True)
class _Waiting:
    """A bundle that is to be written; `until` is when it is written without the traces that are missing."""

    path: Path
    case: Case
    until: float

    @property
    def complete(self) -> bool:
        return len(self.case.traces) >= self.case.asked_traces


class Recorder:
    """Keeps what the next bundle needs, and the bundles that are to be written."""

    def __init__(self, config: Config, clock: Clock, sites: Callable[[], tuple[Site, ...]], runtime: Callable[[], Mapping[str, object]]):
        """Take the settings, the clock, and what tells the census and what the model runs under, when it is asked."""
        self._config, self._clock, self._sites, self._runtime = config, clock, sites, runtime
        self._folder = None if config.incidents is None else Path(config.incidents)
        self._windows: deque[Window] = deque(maxlen=WINDOWS if self._folder else 1)
        self._evidence: list[Evidence] = []
        self._trouble = ""
        self._waiting: deque[_Waiting] = deque()

    def prepare(self) -> None:
        """Make the folder of the settings, if there is one.

        Raises:
            IncidentError: It cannot be written to.
        """
        if self._folder is not None:
            from geluwatch.bundles.folder import prepare

            prepare(self._folder)

    def see(self, drained: Drained) -> None:
        """Take the rows and traces of a drained batch; rows of a new trouble take the place of those of the last one."""
        if drained.evidence:
            held = self._evidence if self._trouble == "nonfinite" else []
            self._evidence = [*held, *drained.evidence][:KEPT]
        for trace in drained.traces:
            for waiting in tuple(self._waiting):
                if not waiting.complete:
                    waiting.case = replace(waiting.case, traces=(*waiting.case.traces, trace))

    def take(self, window: Window) -> None:
        """Take a closed window, before the report that judges it."""
        from geluwatch.core.window import nbytes

        self._windows.append(window)
        while len(self._windows) > 1 and sum(map(nbytes, self._windows)) > WINDOW_BYTES:
            self._windows.popleft()

    def write(self, report: Report) -> None:
        """Take a report; where it is the first to page for a trouble, a bundle is due."""
        if report.verdict != "page":
            self._trouble = ""
            return
        from geluwatch.export.pages import trouble

        found = trouble(report)
        known = self._trouble in KINDS and KINDS.index(self._trouble) <= KINDS.index(found)
        if not known:
            self._trouble = found
            if self._folder is not None:
                self._due(self._folder, found, _reason(found, report), report, 0)

    def ask(self, reason: str, folder: str | os.PathLike[str] | None, passes: int, report: Report) -> Path:
        """Have a bundle written now, or when so many passes have been profiled; return where it will be.

        Raises:
            ConfigError: The number of passes is out of its range, or there is no folder.
            IncidentError: The folder cannot be written to.
        """
        from geluwatch.bundles.folder import prepare

        if isinstance(passes, bool) or not isinstance(passes, int) or not 0 <= passes <= MOST_PROFILED:
            raise ConfigError(f"profile_steps must be a whole number from 0 to {MOST_PROFILED}, got {passes!r}.")
        place = self._folder if folder is None else Path(folder)
        if place is None:
            raise ConfigError("There is no folder for the bundle; give a directory, or set Config(incidents=...).")
        prepare(place)
        return self._due(place, "asked", str(reason), report, passes)

    def _due(self, folder: Path, kind: str, reason: str, report: Report, passes: int) -> Path:
        from geluwatch.bundles.contents import Case
        from geluwatch.bundles.folder import name_for

        first = [kept for kept in self._evidence if kept.bad.layer == report.first_nonfinite]
        others = [kept for kept in self._evidence if kept.bad.layer != report.first_nonfinite]
        kept = (*first, *others) if report.first_nonfinite is not None or kind == "asked" else ()
        inputs = self._config.incident_inputs
        case = Case(kind, reason, report, self._sites(), tuple(self._windows), kept, self._runtime(), inputs, passes)
        path = folder / name_for(report.model, kind, report.time)
        self._waiting.append(_Waiting(path, case, self._clock.monotonic() + PATIENCE * (passes > 0)))
        return path

    def ready(self, *, last: bool = False) -> bool:
        """Return whether a bundle can be written: all of it is there, or it has waited long enough."""
        return any(self._is_ready(waiting, last=last) for waiting in tuple(self._waiting))

    def _is_ready(self, waiting: _Waiting, *, last: bool) -> bool:
        return last or waiting.complete or self._clock.monotonic() >= waiting.until

    def save(self, *, last: bool = False) -> None:
        """Write the bundles that are ready, or all of them.

        Raises:
            IncidentError: One cannot be written; it is given up, and the others are written.
        """
        failures: list[IncidentError] = []
        for waiting in tuple(self._waiting):
            if not self._is_ready(waiting, last=last):
                continue
            try:
                self._waiting.remove(waiting)
            except ValueError:  # another thread writes it
                continue
            try:
                self._save(waiting)
            except IncidentError as failure:
                failures.append(failure)
        if failures:
            raise failures[0]

    def _save(self, waiting: _Waiting) -> None:
        from geluwatch.bundles import bundle, folder

        content = bundle.dump(waiting.case, self._clock.time(), self._config.incident_bytes)
        folder.write(waiting.path, content)
        log.say(log.WARNING, "evidence of an incident is in %s", waiting.path)
        if waiting.path.parent == self._folder:
            folder.prune(self._folder, self._config.incidents_kept, newest=waiting.path)

    def close(self) -> None:
        """Write what still waits."""
        self.save(last=True)

    def restarted(self) -> Recorder:
        """Return one that has seen nothing, for a forked child."""
        return Recorder(self._config, self._clock, self._sites, self._runtime)


def _reason(kind: str, report: Report) -> str:
    """Return why a report pages, in one sentence."""
    if kind == "nonfinite":
        return f"NaN or Inf, first at {report.first_nonfinite}."
    if kind == "gross":
        faults = [f"{seen.layer} ({seen.point}): {seen.gross}" for seen in report.sites.values() if seen.gross]
        return f"A gross fault: {'; '.join(faults[:3])}."
    if kind == "overflow":
        ahead = [f"{seen.layer} ({seen.point})" for seen in report.sites.values() if seen.headroom.alarm == "page"]
        return f"An overflow lies ahead at {', '.join(ahead[:3])}."
    return f"Drift, first at {report.drifting[0] if report.drifting else 'an unknown layer'}. {report.cause}".strip()
