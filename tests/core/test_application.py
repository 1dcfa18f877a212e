"""What an application says of its own work, checked and added up."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geluwatch.core.application import added, said, together
from geluwatch.errors import ConfigError
from geluwatch.records import Application

counts = st.integers(0, 1000)
pairs = st.tuples(counts, counts).map(lambda pair: (max(pair), min(pair)))
told = st.builds(
    lambda pair, accuracy, cost: said(*pair, accuracy=accuracy, cost_per_hour=cost),
    pairs,
    st.none() | st.floats(0, 1),
    st.none() | st.floats(0, 100),
)


def test_numbers_of_any_kind_become_plain_ones() -> None:
    """NumPy's numbers, fractions and decimals are taken, and kept as Python's own."""
    found = said(np.int64(5), np.uint8(2), np.float32(0.5), Fraction(-1, 4), Decimal("3.75"))
    assert Application(5, 2, 0.5, -0.25, 3.75) == found
    assert [int, int, float, float, float] == [type(getattr(found, name)) for name in Application.__slots__]


def test_the_ends_of_each_range_are_in_it() -> None:
    """Nothing, all and exactly nothing at all are values like others."""
    assert Application(0, 0, 0.0, -1.0, 0.0) == said(0, 0, 0, -1, 0)
    assert Application(7, 7, 1.0, 1.0, 1e300) == said(7, 7, 1, 1, 1e300)
    assert Application() == said()


@pytest.mark.parametrize("name", ["predictions", "wrong"])
@pytest.mark.parametrize("value", [-1, 1.0, math.nan, True, "3", 2**53 + 1, np.float64(2.0), np.True_])
def test_counts_are_whole_numbers(name: str, value: object) -> None:
    """Fractions, booleans, text, negatives and what no float can hold are refused by name and value."""
    with pytest.raises(ConfigError, match=rf"^{name} must be a whole number from 0 to 2\*\*53, got .+\.$"):
        said(**{name: value})


@pytest.mark.parametrize(
    ("name", "span", "outside"),
    [
        ("accuracy", "from 0 to 1", [-0.01, 1.01]),
        ("quantized_accuracy_delta", "from -1 to 1", [-1.5, 97.0]),
        ("cost_per_hour", "of at least 0", [-1e-9, 10**400]),
    ],
)
def test_the_others_are_finite_numbers_within_their_range(name: str, span: str, outside: list[object]) -> None:
    """What lies outside, is not finite, or is no number is refused by name and value."""
    for value in (*outside, math.nan, math.inf, -math.inf, True, "0.5", Decimal("NaN"), 1j):
        with pytest.raises(ConfigError, match=rf"^{name} must be a finite number {span}, got .+\.$"):
            said(**{name: value})


def test_a_tensor_is_neither_read_nor_printed() -> None:
    """A tensor, which may wait on a device to be read, is refused by its type; one without data could not be read at all."""
    for name in Application.__slots__:
        with pytest.raises(ConfigError, match=r"got a Tensor\.$"):
            said(**{name: torch.empty((), device="meta")})


@pytest.mark.parametrize(("predictions", "wrong"), [(3, 4), (None, 1), (0, 1)])
def test_wrong_ones_count_among_the_predictions_of_the_same_call(predictions: int | None, wrong: int) -> None:
    """More wrong ones than predictions cannot be; the message has both."""
    with pytest.raises(ConfigError, match=rf"^wrong must be at most predictions, got {wrong} of {predictions}; give both in one call"):
        said(predictions, wrong)


@given(told=st.lists(told, max_size=6))
def test_counts_add_up_and_the_last_of_the_others_holds(told: list[Application]) -> None:
    """Over one process's calls counts are sums, and a value that a call leaves out stays."""
    have = Application()
    for each in told:
        have = added(have, each)
    assert (have.predictions or 0, have.wrong or 0) == (sum(each.predictions or 0 for each in told), sum(each.wrong or 0 for each in told))
    assert [have.accuracy] == ([each.accuracy for each in told if each.accuracy is not None][-1:] or [None])
    assert [have.cost_per_hour] == ([each.cost_per_hour for each in told if each.cost_per_hour is not None][-1:] or [None])


def test_processes_cost_as_much_as_all_of_them() -> None:
    """Over processes costs add up like counts; silence of all stays silence."""
    assert Application(30, 3, 0.5, None, 5.0) == together(Application(10, 3, None, None, 2.0), Application(20, None, 0.5, None, 3.0))
    assert Application() == together(Application(), Application())
