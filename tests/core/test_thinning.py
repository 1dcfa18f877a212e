"""The rules of thinning: what becomes of spans as they age, and how small a history stays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geluwatch.core.thinning import MOST_DROPPED, MOST_MERGED, Kept, Step, next_step
from geluwatch.records import Resolution
from geluwatch.retention import DAY, HOUR, Retention

MIDNIGHT = 1_700_006_400.0
MINUTE = 60.0
NEVER = 1 << 60


@dataclass
class Shelf:
    """Spans that the rules are applied to, with the windows that each holds."""

    kept: dict[int, Kept] = field(default_factory=dict)
    windows: dict[int, tuple[int, ...]] = field(default_factory=dict)
    dropped: list[int] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    ids: Iterable[int] = field(default_factory=count)

    def add(
        self, ended: float, size: int = 100, resolution: Resolution = "raw", version: str = "1", *windows: int, readable: bool = True
    ) -> int:
        number = next(iter(self.ids))
        self.kept[number] = Kept(number, version, resolution, ended, size, readable)
        self.windows[number] = windows or (number,)
        return number

    def thin(self, retention: Retention, now: float) -> None:
        """Do steps until there is none; merging takes the size of the largest."""
        for _ in range(10_000):
            step = next_step(self.kept.values(), retention, now)
            if step is None:
                return
            self.steps.append(step)
            taken = [self.kept.pop(number) for number in step.ids]
            windows = [window for number in step.ids for window in self.windows.pop(number)]
            if step.into is None:
                self.dropped += windows
                continue
            ended = max(span.ended for span in taken)
            self.add(ended, max(span.size for span in taken), step.into, taken[0].model_version, *windows)
        pytest.fail("thinning does not come to an end")

    def by_resolution(self) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for span in sorted(self.kept.values(), key=lambda span: span.ended):
            found.setdefault(span.resolution, []).append(span.ended - MIDNIGHT)
        return found


def minutes(shelf: Shelf, hours: int, began: float = MIDNIGHT) -> None:
    """Add the minutes of so many hours."""
    for number in range(60 * hours):
        shelf.add(began + MINUTE * (number + 1))


def test_windows_become_hours_and_hours_days() -> None:
    """A window goes into the hour it ended in once that hour is a day old, an hour into its day after two weeks; the rest stays."""
    shelf = Shelf()
    minutes(shelf, 30)
    shelf.thin(Retention(), MIDNIGHT + 30 * HOUR)
    assert {"hour", "raw"} == set(shelf.by_resolution())
    assert [HOUR * (hour + 1) for hour in range(6)] == shelf.by_resolution()["hour"]
    assert [6 * HOUR + MINUTE * (number + 1) for number in range(24 * 60)] == shelf.by_resolution()["raw"]
    shelf.thin(Retention(), MIDNIGHT + 15 * DAY)
    assert {"day": [DAY], "hour": [HOUR * hour for hour in range(25, 31)]} == shelf.by_resolution()
    shelf.thin(Retention(), MIDNIGHT + 401 * DAY)
    assert {"day": [30 * HOUR]} == shelf.by_resolution()
    shelf.thin(Retention(), MIDNIGHT + 403 * DAY)
    assert {} == shelf.by_resolution()
    assert list(range(30 * 60)) == sorted(shelf.dropped)


def test_an_hour_that_is_not_over_stays() -> None:
    """Not the window's age counts, but its hour's: an hour is merged whole, one second after it is old enough or never in two."""
    shelf = Shelf()
    minutes(shelf, 1)
    shelf.thin(Retention(raw_hours=1), MIDNIGHT + 2 * HOUR - 1)
    assert ["raw"] == list(shelf.by_resolution())
    shelf.thin(Retention(raw_hours=1), MIDNIGHT + 2 * HOUR)
    assert {"hour": [HOUR]} == shelf.by_resolution()


def test_what_comes_late_joins_its_hour() -> None:
    """A window that had to wait is merged into the hour, and the day, that is there already."""
    shelf = Shelf()
    minutes(shelf, 24)
    shelf.thin(Retention(), MIDNIGHT + 3 * DAY)
    assert 24 == len(shelf.by_resolution()["hour"])
    shelf.add(MIDNIGHT + 90 * MINUTE + 0.5)
    shelf.thin(Retention(), MIDNIGHT + 3 * DAY)
    assert [HOUR * (hour + 1) for hour in range(24)] == shelf.by_resolution()["hour"]
    shelf.thin(Retention(), MIDNIGHT + 16 * DAY)
    shelf.add(MIDNIGHT + 95 * MINUTE)
    shelf.thin(Retention(), MIDNIGHT + 16 * DAY)
    assert {"day": [DAY]} == shelf.by_resolution()
    assert 24 * 60 + 2 == len(next(iter(shelf.windows.values())))


def test_processes_share_an_hour_and_versions_do_not() -> None:
    """Windows of several processes are of one hour; those of another version are of an hour of their own."""
    shelf = Shelf()
    for version in ("1", "1", "2"):
        for number in range(60):
            shelf.add(MIDNIGHT + MINUTE * (number + 0.5), version=version)
    shelf.thin(Retention(), MIDNIGHT + 2 * DAY)
    assert [60, 120] == sorted(map(len, shelf.windows.values()))
    assert {"1", "2"} == {span.model_version for span in shelf.kept.values()}


def test_a_step_is_bounded() -> None:
    """However many processes there are, a step merges few spans and drops not too many."""
    shelf = Shelf()
    for number in range(2000):
        shelf.add(MIDNIGHT + 1 + number)
    shelf.thin(Retention(), MIDNIGHT + 2 * DAY)
    assert 1 == len(shelf.kept)
    assert {MOST_MERGED} == {len(step.ids) for step in shelf.steps[:-1]}
    for number in range(2000):
        shelf.add(MIDNIGHT + number, resolution="day")
    shelf.thin(Retention(), MIDNIGHT + 500 * DAY)
    assert MOST_DROPPED == max(len(step.ids) for step in shelf.steps)
    assert {} == shelf.kept


def test_too_large_a_history_merges_early_then_drops_days() -> None:
    """Above the limit the oldest windows are merged before their time, then the oldest hours, and only then days dropped."""
    shelf = Shelf()
    minutes(shelf, 48)
    now = MIDNIGHT + 48 * HOUR
    roomy = Retention(raw_hours=1000, hourly_days=1000, daily_days=1000, most_bytes=60 * 46 * 100 + 200)
    shelf.thin(roomy, now)
    assert [HOUR, 2 * HOUR] == shelf.by_resolution()["hour"]
    assert 46 * 60 == len(shelf.by_resolution()["raw"])
    tighter = Retention(raw_hours=1000, hourly_days=1000, daily_days=1000, most_bytes=25 * 100)
    shelf.thin(tighter, now)
    assert {"day": [DAY], "hour": [DAY + HOUR * (hour + 1) for hour in range(24)]} == shelf.by_resolution()
    assert [] == shelf.dropped
    tightest = Retention(raw_hours=1000, hourly_days=1000, daily_days=1000, most_bytes=100)
    shelf.thin(tightest, now)
    assert {"day": [2 * DAY]} == shelf.by_resolution()
    assert 24 * 60 == len(shelf.dropped)


def test_one_hour_too_large_drops_its_oldest() -> None:
    """Where nothing can be merged, for the hour is not over, the oldest windows go: never does a history grow without end."""
    shelf = Shelf()
    minutes(shelf, 1)
    shelf.thin(Retention(most_bytes=10 * 100), MIDNIGHT + HOUR - 1)
    assert {"raw": [MINUTE * (number + 1) for number in range(50, 60)]} == shelf.by_resolution()


def test_a_damaged_span_is_let_be() -> None:
    """One that cannot be read takes no part in a merge, holds up no other, and goes when its time has come."""
    shelf = Shelf()
    minutes(shelf, 1)
    bad = shelf.add(MIDNIGHT + 30.0, readable=False)
    shelf.thin(Retention(), MIDNIGHT + 20 * DAY)
    assert {"raw": [30.0], "day": [HOUR]} == shelf.by_resolution()
    shelf.thin(Retention(), MIDNIGHT + 401 * DAY)
    assert bad in shelf.dropped


SPANS = st.tuples(
    st.floats(0.0, 40 * DAY),
    st.integers(0, 1000),
    st.sampled_from(["raw", "raw", "raw", "hour", "day"]),
    st.sampled_from(["1", "2"]),
)


@given(st.lists(SPANS, max_size=40), st.lists(st.floats(0.0, 500 * DAY), max_size=4), st.integers(1, 20_000))
def test_every_window_is_kept_once_or_dropped(spans: list[tuple[float, int, Resolution, str]], moments: list[float], most: int) -> None:
    """Whenever thinning runs, it ends, no window is lost or in two spans, none merged across hours or versions, and the limit is kept."""
    shelf = Shelf()
    for ended, size, resolution, version in spans:
        shelf.add(MIDNIGHT + ended, size, resolution, version)
    versions = {number: span.model_version for number, span in shelf.kept.items()}
    times = {number: span.ended for number, span in shelf.kept.items()}
    for moment in sorted(moments):
        shelf.thin(Retention(most_bytes=most), MIDNIGHT + moment)
        held = [window for windows in shelf.windows.values() for window in windows]
        assert sorted([*held, *shelf.dropped]) == list(range(len(spans)))
        assert sum(span.size for span in shelf.kept.values()) <= most
        for number, windows in shelf.windows.items():
            assert {shelf.kept[number].model_version} == {versions[window] for window in windows}
            ends = [times[window] for window in windows]
            assert shelf.kept[number].ended == max(ends)
            assert max(ends) - min(ends) <= {"raw": 0.0, "hour": HOUR, "day": DAY}[shelf.kept[number].resolution]
