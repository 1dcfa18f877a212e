"""Numbers, times and names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geluwatch.analysis.report import words

MARCH = 1_741_608_000.0


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.6, "1 min"), (5940, "1 h 39 min"), (86400, "1 d"), (90000, "1 d 1 h"), (86460, "1 d")]
)
def test_durations_have_their_two_largest_units(seconds: float, text: str) -> None:
    """What comes behind the second unit is left out, and so is a second unit of nothing."""
    assert text == words.lasting(seconds)


@pytest.mark.parametrize(
    ("since", "until", "text"),
    [
        (MARCH - 7 * 86400, MARCH, "3 to 10 March 2025"),
        (MARCH - 14 * 86400, MARCH, "24 February to 10 March 2025"),
        (MARCH - 100 * 86400, MARCH, "30 November 2024 to 10 March 2025"),
        (MARCH - 86400, MARCH, "9 March 2025 12:00 to 10 March 2025 12:00"),
        (MARCH - 3600, MARCH, "10 March 2025 11:00 to 12:00"),
    ],
)
def test_periods_say_no_month_or_year_twice(since: float, until: float, text: str) -> None:
    """A period has as much of its two dates as tells them apart, and hours where it is short."""
    assert text == words.period(since, until)


@pytest.mark.parametrize(
    ("layers", "short"),
    [
        (["encoder.layer.0.act", "encoder.layer.1.act"], ["layer.0", "layer.1"]),
        (["a.x.act", "a.y.act"], ["x", "y"]),
        (["0", "1"], ["0", "1"]),
        (["only.one"], ["only.one"]),
        (["a", "a.b"], ["a", "a.b"]),
    ],
)
def test_layers_are_short_where_they_can_be(layers: list[str], short: list[str]) -> None:
    """What all names share is left out at both ends; a number keeps the word before it; nothing becomes empty or ambiguous."""
    assert short == [words.shortened(layers)[layer] for layer in layers]


@given(layers=st.lists(st.text("ab.0", min_size=1, max_size=8), min_size=1, max_size=8, unique=True))
def test_short_names_stay_apart(layers: list[str]) -> None:
    """Different layers have different short names, none of them empty."""
    short = words.shortened(layers)
    assert len(layers) == len(set(short.values()))
    assert all(short.values())


def test_numbers_are_readable() -> None:
    """Shares that round to nothing are said to be small; minus is a minus; what is not there is a dash."""
    assert ["under 0.01 %", "0.00 %", "–"] == [words.share(1e-6, 1.0), words.share(0.0, 1.0), words.share(1.0, 0.0)]
    assert ["−1.50", "1.2e+74", "–", "∞"] == [words.number(each) for each in (-1.5, 1.2e74, float("nan"), float("inf"))]
    assert ["999,999", "1.2 million", "1 pass", "2 passes"] == [
        words.count(999_999),
        words.count(1.2e6),
        words.plural(1, "pass"),
        words.plural(2, "pass"),
    ]
    assert ["a", "a and b", "a, b and 2 more"] == [words.listed(each, 2) for each in (["a"], ["a", "b"], ["a", "b", "c", "d"])]
