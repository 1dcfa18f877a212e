"""The demonstration as a full screen: phases on the left, the watched layers on the right, events below."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from geluwatch.cli.demo.display import Event, Tone, duration, layer_rows
from geluwatch.cli.demo.layertable import WINDOWS, table
from geluwatch.records import Report

_TONES: dict[Tone, tuple[str, str]] = {
    "info": ("·", "dim"),
    "good": ("✔", "green"),
    "ticket": ("▲", "yellow"),
    "page": ("●", "bold red"),
    "bad": ("✘", "bold red"),
}
_VERDICTS = {"blind": "dim", "warming": "cyan", "ok": "green", "ticket": "yellow", "page": "bold red"}
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_NOTES = ("evidence: surprise over the ticket's limit ┃, the larger of both sides", "first, drift 1st: the layer where it began")

_PHASES = 34  # columns of the list of phases
_EVENT_INDENT = 11  # columns of an event's time and mark
_LEAST_WIDTH = 96  # below, the layers need the whole width and only the phase under way is named
_BORDER = 4
_KEPT_EVENTS = 200


@dataclass(slots=True)
class _Phase:
    title: str
    mark: str = "·"
    style: str = "dim"
    began: float | None = None
    seconds: float | None = None
    done: int = 0
    total: int = 0

    @property
    def running(self) -> bool:
        return self.began is not None and self.seconds is None

    def progress(self, now: float) -> str:
        if self.began is None:
            return ""
        if self.running and self.total:
            return f"{self.done}/{self.total}"
        return f"{now - self.began if self.seconds is None else self.seconds:.0f} s"


class ScreenDisplay:
    """Draws the whole story several times a second while entered; a context manager and a rich renderable."""

    def __init__(self, console: Console) -> None:
        self._live = Live(self, console=console, screen=True, refresh_per_second=8)
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._phases: list[_Phase] = []
        self._events: deque[Event] = deque(maxlen=_KEPT_EVENTS)
        self._report: Report | None = None
        self._trails: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=WINDOWS))
        self._window = ("", 0)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()

    def plan(self, titles: Sequence[str]) -> None:
        """List the phases."""
        self._phases = [_Phase(title) for title in titles]

    def begin(self, phase: int) -> None:
        """Show the phase as running."""
        self._phases[phase].began = time.monotonic()

    def progress(self, done: int, total: int) -> None:
        """Show how far the running phase has come."""
        for phase in self._phases:
            if phase.running:
                phase.done, phase.total = done, total

    def report(self, report: Report) -> None:
        """Show this report in the table, and follow the evidence from window to window."""
        window = (report.model, report.totals.windows)
        with self._lock:
            if window != self._window and report.totals.windows:
                for row in layer_rows(report):
                    self._trails[row.name].append(row.evidence)
            self._window, self._report = window, report

    def event(self, event: Event) -> None:
        """Add a line below."""
        with self._lock:
            self._events.append(event)

    def end(self, phase: int, *, good: bool) -> None:
        """Show the phase as done, or failed."""
        seen = self._phases[phase]
        seen.mark, seen.style = ("✔", "green") if good else ("✘", "bold red")
        seen.seconds = time.monotonic() - (seen.began or time.monotonic())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, options.height or console.height
        beside = width >= _LEAST_WIDTH
        layers = self._layers(width - (_PHASES if beside else 0) - _BORDER)
        upper = max(len(self._phases) if beside else 0, self._count() + 3) + 2
        layout = Layout()
        layout.split_column(Layout(self._heading(), size=1), Layout(name="upper", size=upper), Layout(name="events"))
        if beside:
            phases = Panel(self._list(), title="phases", title_align="left", border_style="dim")
            layout["upper"].split_row(Layout(phases, size=_PHASES), Layout(layers))
        else:
            layout["upper"].update(layers)
        room = max(height - upper - 3, 1)
        layout["events"].update(Panel(self._newest(console, room, width - _BORDER), title="events", title_align="left", border_style="dim"))
        yield layout

    def _count(self) -> int:
        return len({layer for layer, _ in self._report.sites}) if self._report else 6

    def _heading(self) -> Text:
        now = time.monotonic()
        text = Text.assemble((" geluwatch demo ", "bold reverse"), f"  {duration(now - self._began)}  ", no_wrap=True)
        if self._report is not None:
            text.append(f" {self._report.model}: {self._report.verdict} ", style=f"{_VERDICTS[self._report.verdict]} reverse")
        for place, phase in enumerate(self._phases, 1):
            if phase.running:
                text.append(f"  {place}/{len(self._phases)} {phase.title} {phase.progress(now)}")
        return text

    def _list(self) -> Table:
        listed = Table.grid(padding=(0, 1), expand=True)
        listed.add_column(width=1)
        listed.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        listed.add_column(justify="right", no_wrap=True)
        now = time.monotonic()
        for phase in self._phases:
            mark, style, title = (phase.mark, phase.style, "dim" if phase.began is None else "")
            if phase.running:
                mark, style, title = _SPINNER[int(now * 8) % len(_SPINNER)], "cyan", "bold"
            listed.add_row(Text(mark, style=style), Text(phase.title, style=title), Text(phase.progress(now), style=style))
        return listed

    def _layers(self, room: int) -> Panel:
        report = self._report
        if report is None:
            waiting = Text("They appear as soon as the watch is attached.", style="dim")
            return Panel(waiting, title="layers", title_align="left", border_style="dim")
        rows = layer_rows(report)
        with self._lock:
            trails = {row.name: tuple(self._trails[row.name]) for row in rows}
        body = Group(table(rows, trails, room), *(Text(note, style="dim", no_wrap=True, overflow="ellipsis") for note in _NOTES))
        title = f"{report.model}: window {report.totals.windows}, {report.totals.forwards} forward passes"
        return Panel(body, title=title, title_align="left", border_style=_VERDICTS[report.verdict])

    def _newest(self, console: Console, room: int, width: int) -> Table:
        """Return the newest events that fit, each on as many lines as it takes."""
        with self._lock:
            events = list(self._events)
        shown: list[tuple[Text, Text, Text]] = []
        for event in reversed(events):
            cells = _cells(event)
            room -= len(cells[2].wrap(console, max(width - _EVENT_INDENT, 1)))
            if room < 0 and shown:
                break
            shown.append(cells)
        listed = Table.grid(padding=(0, 1, 0, 0))
        for cells in reversed(shown):
            listed.add_row(*cells)
        return listed


def _cells(event: Event) -> tuple[Text, Text, Text]:
    mark, style = _TONES[event.tone]
    first, *more = event.text.split("\n")
    text = Text.assemble((first, "" if event.tone == "info" else style), "".join(f"\n{line}" for line in more))
    return Text(f"{event.at:6.1f} s", style="dim"), Text(mark, style=style), text
