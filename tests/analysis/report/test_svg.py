"""Steps and ticks."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geluwatch.analysis.report.grid import grid
from geluwatch.analysis.report.svg import numbers, path, steps, times

heights = hnp.arrays(np.float64, st.integers(1, 40), elements=st.one_of(st.integers(0, 100).map(float), st.just(float("nan"))))


def drawn(text: str) -> dict[int, float]:
    """The height of each bin that a step path draws, read back from it."""
    found: dict[int, float] = {}
    for line in text.split("M")[1:]:
        at, height = 0, float("nan")
        for command, one, other in re.findall(r"([MHV])?(-?[\d.]+)(?: (-?[\d.]+))?", line):
            if command == "V":
                height = float(one)
            elif command == "H":
                found.update(dict.fromkeys(range(at, int(one)), height))
                at = int(one)
            else:
                at, height = int(one), float(other)
    return found


@given(heights=heights)
def test_a_step_path_draws_what_it_was_given(heights: npt.NDArray[np.float64]) -> None:
    """Each bin has its height, with a base and without, and bins without a number are not drawn."""
    expected = {at: height for at, height in enumerate(heights.tolist()) if height == height}
    assert expected == drawn(steps(heights))
    assert expected == drawn(steps(heights, 100.0))


@given(low=st.floats(-1e6, 1e6), length=st.floats(1e-4, 1e6))
def test_ticks_are_round_and_within(low: float, length: float) -> None:
    """There are two ticks to seven, within the axis and in order."""
    found = numbers(low, low + length)
    assert 2 <= len(found) <= 7
    assert all(-1e-6 <= tick.at <= 100.0 + 1e-6 for tick in found)
    assert sorted(found, key=lambda tick: tick.at) == list(found)


@given(since=st.integers(0, 4_000_000_000), days=st.floats(0.02, 3000.0))
def test_a_time_axis_has_few_ticks(since: int, days: float) -> None:
    """Any period has one tick to eight, at different times."""
    found = times(grid(float(since), since + days * 86400.0))
    assert 1 <= len(found) <= 9
    assert len({tick.at for tick in found}) == len(found)


def test_a_title_cannot_break_out() -> None:
    """A tooltip is text, whatever a layer is called."""
    assert '<path class="a" d="M0 0"><title>&lt;script&gt;&#34;</title></path>' == path("a", "M0 0", '<script>"')
