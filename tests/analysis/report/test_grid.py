"""Bins of time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geluwatch.analysis.report.grid import MOST_BINS, grid

HOUR, DAY = 3600.0, 86400.0

moments = st.integers(0, 4_000_000_000).map(float)
lengths = st.integers(1, 5_000 * int(DAY)).map(float)


@given(since=moments, length=lengths)
def test_a_grid_covers_its_period_with_few_whole_bins(since: float, length: float) -> None:
    """It begins less than a bin before the period, ends less than a bin after it, on whole units, in no more bins than can be drawn."""
    over = grid(since, since + length)
    assert over.start <= since < over.start + over.width
    assert over.end - over.width < since + length <= over.end
    assert 0.0 == over.start % over.width
    assert 1 <= over.bins <= MOST_BINS


@given(since=moments, length=lengths, started=st.floats(-0.2, 1.2), lasting=st.floats(0.0, 1.0))
def test_every_span_has_a_place(since: float, length: float, started: float, lasting: float) -> None:
    """A span lies in one bin at least, and in none beyond the grid."""
    over = grid(since, since + length)
    begin = since + started * length
    place = over.place(begin, begin + lasting * length)
    assert 0 <= place.start < place.stop <= over.bins


@given(offset=st.floats(-60.0, 60.0))
def test_hours_that_begin_beside_the_full_hour_have_a_bin_each(offset: float) -> None:
    """Hours one after the other lie in bins one after the other, though windows begin some seconds off."""
    over = grid(1_741_003_200.0, 1_741_003_200.0 + 7 * DAY)
    places = [over.place(over.start + at * HOUR + offset, over.start + (at + 1) * HOUR + offset + 1.0) for at in range(over.bins)]
    assert [slice(at, at + 1) for at in range(over.bins)] == places


@pytest.mark.parametrize(
    ("days", "width"), [(1 / 24, 60.0), (1.0, 900.0), (7.0, HOUR), (30.0, 4 * HOUR), (400.0, 7 * DAY), (4000.0, 28 * DAY)]
)
def test_usual_periods_have_usual_bins(days: float, width: float) -> None:
    """An hour is told by the minute, a week by the hour, a year by the week."""
    assert width == grid(1_741_003_200.0, 1_741_003_200.0 + days * DAY).width
