"""Headroom and its trend: an overflow ahead is told early, calm and noisy series are not told at all."""

from __future__ import annotations

import math

import numpy as np
import pytest

from geluwatch.core import headroom, histogram
from geluwatch.core.headroom import Headrooms
from geluwatch.core.window import observe
from geluwatch.records import Headroom, PointKey, PointWindow, Rows, Window

KEY: PointKey = ("a", "pre")
LARGEST = {"float16": np.finfo(np.float16).max, "float32": np.finfo(np.float32).max, "float64": np.finfo(np.float64).max}


class Series:
    """The headroom of one layer, window by window of a minute."""

    def __init__(self, dtype: str = "float16", minimum_rows: int = 1, known: float | None = None) -> None:
        self.rooms, self.dtype, self.minimum_rows, self.now = Headrooms(), dtype, minimum_rows, 0.0
        self.calm = {} if known is None else {KEY: histogram.from_values(np.array([known], np.float32), dtype)}

    def close(self, largest: float, rows: int = 8) -> Headroom:
        """Close a window whose largest magnitude is given."""
        values = np.zeros((rows, 4), np.float32)
        values[0, 0] = -largest
        self.rooms.see([Rows("a", self.dtype, values, values)])
        return self.shown(observe(values, self.dtype))

    def shown(self, seen: PointWindow) -> Headroom:
        """Close a window of some values."""
        self.now += 60.0
        self.rooms.add(Window(self.now - 60.0, self.now, 1, 1, {KEY: seen}), self.minimum_rows, self.calm)
        return self.rooms.at(KEY)

    def until_told(self, bits: np.ndarray) -> int | None:
        """Close windows with so many bits of headroom each, and return the first with an alarm."""
        for number, room in enumerate(bits):
            if self.close(headroom.LIMITS[self.dtype] / 2.0 ** float(room)).alarm:
                return number
        return None


@pytest.mark.parametrize(("dtype", "largest"), LARGEST.items())
def test_limits_are_those_of_the_dtypes(dtype: str, largest: float) -> None:
    """The limits are what numpy says of a dtype; bfloat16's has float32's exponent and eight bits."""
    assert float(largest) == headroom.LIMITS[dtype]
    assert headroom.LIMITS["bfloat16"] == (2 - 2.0**-7) * 2.0**127


@pytest.mark.parametrize(("dtype", "largest", "bits"), [("float16", 1023.5, 6.0), ("bfloat16", 8.0, 125.0), ("float32", 8.0, 125.0)])
def test_headroom_is_in_doublings_of_the_largest_magnitude(dtype: str, largest: float, bits: float) -> None:
    """A value of 1,023.5 in float16 can double six times; the sign plays no part."""
    assert Series(dtype).close(largest).bits == pytest.approx(bits, abs=0.02)


def test_before_the_first_window_there_is_none() -> None:
    """Nothing is known of a point without values, with zeros only, or with fewer rows than the minimum."""
    assert math.isnan(Headrooms().at(KEY).bits)
    assert math.isnan(Series().close(0.0).bits)
    assert math.isnan(Series(minimum_rows=9).close(100.0).bits)
    assert {""} == {Headrooms().at(KEY).alarm}


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.1])
@pytest.mark.parametrize(("growth", "every"), [(1.02, 1), (1.02, 5), (1.05, 1), (1.05, 5), (1.2, 1), (1.2, 2)])
def test_growth_is_told_twenty_steps_ahead_in_float16(growth: float, every: int, noise: float) -> None:
    """From a largest value of 10 on, at 2 to 20 % a step, the alarm comes twenty steps before the limit, noise or not."""
    steps = 12.68 / math.log2(growth)
    windows = int(steps / every)
    fall = 12.68 - math.log2(growth) * every * np.arange(1, windows + 1)
    told = Series().until_told(fall + noise * np.random.default_rng(3).normal(size=windows))
    assert told is not None
    assert steps - (told + 1) * every >= 20


def test_the_time_left_is_that_of_the_line() -> None:
    """A fall of half a bit a minute from 16 bits leaves a little more than the line says, for noise is granted, and a page at its end."""
    series = Series()
    found = [series.close(65504.0 / 2.0 ** (16 - 0.5 * number)) for number in range(1, 31)]
    left = found[11]
    assert 20 <= left.windows < 26
    assert left.seconds == pytest.approx(60.0 * left.windows)
    alarms = [each.alarm for each in found]
    assert ["ticket", "page"] == [alarm for alarm in dict.fromkeys(alarms) if alarm]
    assert alarms == sorted(alarms, key=["", "ticket", "page"].index)


def test_little_headroom_is_told_where_it_was_more_before() -> None:
    """Below six bits, and clearly less than at first, three windows in a row are a ticket, and below two a page; it ends."""
    series = Series()
    for _ in range(20):
        assert "" == series.close(600.0).alarm
    assert ["", "", "ticket"] == [series.close(4000.0).alarm for _ in range(3)]
    assert "page" == [series.close(20000.0).alarm for _ in range(3)][-1]
    assert "ticket" == series.close(1200.0).alarm
    assert "" == series.close(400.0).alarm


def test_one_odd_text_is_not_told() -> None:
    """One or two windows far out are no alarm, near the limit as they may be."""
    series = Series()
    for number in range(100):
        assert "" == series.close(30000.0 if number % 10 in (3, 4) and number > 20 else 600.0).alarm


def test_what_always_was_close_to_the_limit_is_no_news() -> None:
    """A model that lives at three bits is silent, as is one whose baseline did; a baseline with more room makes it news."""
    assert Series().until_told(np.full(200, 3.0)) is None
    assert Series(known=8000.0).until_told(np.concatenate([np.full(40, 9.0), np.full(40, 3.0)])) is None
    assert Series(known=100.0).until_told(np.full(40, 3.0)) == 2


@pytest.mark.parametrize("level", [12.0, 6.5, 5.0, 3.0])
@pytest.mark.parametrize("kind", ["normal", "heavy", "memory", "steps", "spikes"])
def test_calm_series_are_silent(kind: str, level: float) -> None:
    """Noisy maxima, heavy tails, a memory, levels that come and go and single spikes announce nothing in two thousand windows."""
    rng, count = np.random.default_rng(7), 2000
    noise = rng.normal(size=count)
    memory = np.zeros(count)
    for number in range(1, count):
        memory[number] = 0.9 * memory[number - 1] + 0.1 * noise[number]
    series = {
        "normal": 0.3 * noise,
        "heavy": -np.log2(1 + 0.15 * rng.gumbel(size=count).clip(-2)),
        "memory": memory,
        "steps": 0.1 * noise - 1.0 * (np.sin(np.arange(count) / 37) > 0),
        "spikes": 0.05 * noise - 2.5 * (rng.random(count) < 0.01),
    }
    assert Series().until_told(level + series[kind]) is None


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_squares_count_where_the_range_is_that_of_float32(dtype: str) -> None:
    """Beyond 2**58 or so the alarm is raised, for the next norm squares its input; 2**40 is far from it."""
    assert Series(dtype).until_told(np.concatenate([np.full(20, 124.0), np.full(20, 69.0)])) == 22
    assert Series(dtype).until_told(np.concatenate([np.full(20, 124.0), np.full(20, 88.0)])) is None


def test_another_dtype_begins_anew() -> None:
    """Going from float32 to float16 is a loss of headroom by design and not a trend; of two at once the narrower counts."""
    series = Series("float32")
    for _ in range(30):
        series.close(10.0)
    series.dtype = "float16"
    found = series.close(10.0)
    assert (12, "") == (int(found.bits), found.alarm)
    both = np.full((8, 4), 10.0, np.float32)
    series.rooms.see([Rows("a", "float32", both, both), Rows("a", "float16", both, both), Rows("a", "bfloat16", both, both)])
    assert 12 == int(series.shown(observe(both, "float16")).bits)


def test_an_alarm_outlives_the_values() -> None:
    """Once nothing finite is left the last alarm stands: it has come true, and does not end by it."""
    series = Series()
    for number in range(1, 31):
        series.close(65504.0 / 2.0 ** (16 - 0.5 * number))
    gone = np.full((8, 4), np.inf, np.float32)
    series.rooms.see([Rows("a", "float16", gone, gone)])
    assert "page" == series.shown(observe(gone, "float16")).alarm


def test_memory_is_bounded() -> None:
    """However many windows there were, some two dozen numbers are kept."""
    series = Series()
    series.until_told(np.full(500, 10.0))
    track = series.rooms._tracks[KEY]
    assert 24 == len(track.last) == len(track.ended)
    assert 16 == len(track.first)
