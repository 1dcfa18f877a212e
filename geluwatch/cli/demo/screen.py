"""The demonstration as a full screen: phases on the left, the watched layers on the right, events below."""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.layout import Layout
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from geluwatch.cli.demo.display import Event, LayerRow, Tone, duration, interval, layer_rows, number
from geluwatch.records import Report

_TONES: dict[Tone, tuple[str, str]] = {
    "info": ("·", "dim"),
    "good": ("✔", "green"),
    "ticket": ("▲", "yellow"),
    "page": ("●", "bold red"),
    "bad": ("✘", "bold red"),
}
_VERDICTS = {"blind": "dim", "warming": "cyan", "ok": "green", "ticket": "yellow", "page": "bold red"}
_STATES = {"blind": "dim", "watched": "cyan", "calm": "green", "drift": "yellow", "non-finite": "red", "first": "bold red"}
_HEIGHTS = "▁▂▃▄▅▆▇█"
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_PHASES_WIDTH = 38
_WIDE = 130  # columns from which the layers' table has room for all it can show
_WINDOWS_SHOWN = 32
_KEPT_EVENTS = 200


@dataclass(slots=True)
class _Phase:
    title: str
    mark: str = " "
    style: str = "dim"
    began: float | None = None
    seconds: float | None = None
    done: int = 0
    total: int = 0


class ScreenDisplay:
    """Draws the whole story several times a second while entered; a context manager and a rich renderable."""

    def __init__(self, console: Console) -> None:
        self._live = Live(self, console=console, screen=True, refresh_per_second=8)
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._phases: list[_Phase] = []
        self._events: deque[Event] = deque(maxlen=_KEPT_EVENTS)
        self._report: Report | None = None
        self._trails: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_WINDOWS_SHOWN))
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
            if phase.began is not None and phase.seconds is None:
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
        upper = max(len(self._phases) + 2, 11)
        layout = Layout()
        layout.split_column(Layout(self._heading(), size=1), Layout(name="upper", size=upper), Layout(name="events"))
        layout["upper"].split_row(
            Layout(Panel(self._list(), title="phases", title_align="left", border_style="dim"), size=_PHASES_WIDTH),
            Layout(self._layers(width - _PHASES_WIDTH)),
        )
        room = max(height - upper - 3, 1)
        layout["events"].update(Panel(self._newest(room, width - 4), title="events", title_align="left", border_style="dim"))
        yield layout

    def _heading(self) -> Text:
        text = Text(" geluwatch demo ", style="bold reverse")
        text.append(f"  {duration(time.monotonic() - self._began)}", style="default not bold not reverse")
        if self._report is not None:
            text.append(f"   {self._report.model}: ", style="default not bold not reverse")
            text.append(f" {self._report.verdict} ", style=f"{_VERDICTS[self._report.verdict]} reverse")
        return text

    def _list(self) -> Table:
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(width=1)
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        table.add_column(justify="right", no_wrap=True)
        now = time.monotonic()
        for phase in self._phases:
            if phase.began is None:
                table.add_row("·", Text(phase.title, style="dim"), "")
            elif phase.seconds is None:
                count = f"{phase.done}/{phase.total}" if phase.total else f"{now - phase.began:.0f} s"
                spinner = _SPINNER[int(now * 8) % len(_SPINNER)]
                table.add_row(Text(spinner, style="cyan"), Text(phase.title, style="bold"), Text(count, style="cyan"))
            else:
                table.add_row(Text(phase.mark, style=phase.style), phase.title, Text(f"{phase.seconds:.0f} s", style="dim"))
        return table

    def _layers(self, width: int) -> Panel:
        if self._report is None:
            waiting = Text("The layers appear as soon as the model has been found its GELUs.", style="dim")
            return Panel(waiting, title="layers", title_align="left", border_style="dim")
        rows = layer_rows(self._report)
        wide = width + _PHASES_WIDTH >= _WIDE
        with self._lock:
            trails = {row.name: trail(self._trails[row.name]) for row in rows} if wide else None
        note = Text("evidence: drift score over its calibrated threshold, which is at ┃", style="dim", no_wrap=True, overflow="ellipsis")
        title = f"{self._report.model}: window {self._report.totals.windows}, {self._report.totals.forwards} forward passes"
        body = Group(_table(rows, trails), Text(), note)
        return Panel(body, title=title, title_align="left", border_style=_VERDICTS[self._report.verdict])

    def _newest(self, room: int, width: int) -> Text:
        """Return the newest events that fit, each on as many lines as it takes."""
        with self._lock:
            events = list(self._events)
        text: list[Text] = []
        used = 0
        for event in reversed(events):
            line = _line(event)
            used += sum(max(-(-part.cell_len // max(width, 1)), 1) for part in line.split(allow_blank=True))
            if used > room and text:
                break
            text.append(line)
        return Text("\n").join(reversed(text))


def evidence_bar(evidence: float, width: int) -> Text:
    """Return evidence as a bar of so many characters with the threshold in the middle; twice the threshold fills it."""
    half = width // 2
    filled = 0 if not evidence > 0 else min(round(evidence * half), 2 * half)
    style = "green" if evidence < 1 else "yellow"
    below, above = min(filled, half), max(filled - half, 0)
    return Text.assemble(
        ("━" * below, style), ("─" * (half - below), "dim"), ("┃", "bold"), ("━" * above, style), ("─" * (half - above), "dim")
    )


def trail(evidence: Iterable[float]) -> Text:
    """Return evidence of consecutive windows as one character each: half height is the threshold, a dot was not judged."""
    text = Text()
    for value in evidence:
        if math.isnan(value):
            text.append("·", style="dim")
        else:
            text.append(_HEIGHTS[min(int(value * 4), 7)], style="green" if value < 1 else "yellow")
    return text


def _table(rows: Sequence[LayerRow], trails: Mapping[str, Text] | None) -> Table:
    """Return the layers as a table; without trails a narrow one."""
    table = Table(box=None, padding=(0, 1), pad_edge=False, expand=False, header_style="dim")
    readings = ("KS",) if trails is None else ("mean", "std", "KS to baseline", "last windows")
    for name in ("layer", "state", *readings, "evidence", "", "non-finite"):
        table.add_column(name, justify="right" if name in ("mean", "std", "", "non-finite") else "left", no_wrap=True)
    for row in rows:
        distance = interval(row.ks, row.ks_upper)
        table.add_row(
            row.name,
            Text("first NaN/Inf" if row.state == "first" else row.state, style=_STATES[row.state]),
            *((distance,) if trails is None else (number(row.mean), number(row.std), distance, trails[row.name])),
            evidence_bar(row.evidence, 10 if trails is None else 32),
            number(row.evidence),
            Text(f"{row.nonfinite:,}", style="red" if row.nonfinite else "dim"),
        )
    return table


def _line(event: Event) -> Text:
    mark, style = _TONES[event.tone]
    first, *more = event.text.split("\n")
    rest = "".join(f"\n{'':11}{line}" for line in more)
    return Text.assemble((f"{event.at:6.1f} s ", "dim"), (f"{mark} ", style), (first, "" if event.tone == "info" else style), rest)
