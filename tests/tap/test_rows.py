"""Which passes give rows, which rows, and that both sides of a GELU are taken in pairs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from geluwatch.tap.rows import RowPicker

_MASKS = st.lists(st.booleans(), min_size=1, max_size=60)


@given(_MASKS, st.integers(1, 70), st.booleans())
def test_drawn_rows_are_distinct_valid_ascending_and_as_many_as_can_be(valid: list[bool], most: int, masked: bool) -> None:
    """Of the valid rows as many are drawn as asked for, without repeats, in order, and no other."""
    mask = torch.tensor(valid) if masked else None
    allowed = [row for row, ok in enumerate(valid) if ok or not masked]
    drawn = RowPicker().pick(len(valid), mask, lambda _valid: most).tolist()
    assert min(most, len(allowed)) == len(drawn)
    assert sorted(set(drawn)) == drawn
    assert set(drawn) <= set(allowed)


def test_every_row_is_as_likely() -> None:
    """Over many draws each row comes up about equally often: no stride, no bias to the front."""
    picker = RowPicker()
    counts = torch.zeros(64, dtype=torch.long)
    draws = 4000
    for _ in range(draws):
        counts[picker.pick(64, None, lambda _valid: 8)] += 1
    expected = draws * 8 / 64
    assert (counts - expected).abs().max() < 5 * math.sqrt(expected)


def test_rows_come_in_pairs_with_their_dtype(attach: Callable[..., Any], only: Callable[..., Any]) -> None:
    """Captured rows of both sides are the same rows, exact in float32, and carry the dtype they had."""
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        model = only()
        watch = attach(model, rows_per_forward=5)
        x = torch.randn(3, 4, 6).to(dtype)
        expected = torch.cat([x.reshape(12, 6), model.act(x).reshape(12, 6)], dim=1).float().tolist()
        model(x)
        (rows,) = watch._source.drain().rows
        assert (str(dtype).removeprefix("torch."), "act") == (rows.dtype, rows.layer)
        assert 5 == len(rows.pre)
        assert all(row in expected for row in np.concatenate([rows.pre, rows.post], axis=1).tolist())


def test_rows_are_copies(attach: Callable[..., Any], only: Callable[..., Any]) -> None:
    """What the model does to its tensors afterwards does not reach captured rows."""
    model = only()
    watch = attach(model)
    x = torch.ones(2, 3)
    model(x).zero_()
    x.zero_()
    (rows,) = watch._source.drain().rows
    assert (1.0, True) == (float(rows.pre.min()), bool((rows.post > 0.8).all()))


def test_all_sites_of_a_pass_give_the_same_rows(attach: Callable[..., Any]) -> None:
    """Within one pass the rows are drawn once, so that layers can be compared token by token."""
    model = nn.Sequential(nn.GELU(), nn.GELU())
    watch = attach(model, rows_per_forward=3)
    model(torch.randn(50, 4))
    first, second = watch._source.drain().rows
    assert first.post.tolist() == second.pre.tolist()


def test_captured_rows_hold_no_graph(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Rows of a training pass keep nothing of autograd alive."""
    model = block()
    watch = attach(model)
    model(torch.randn(2, 8, requires_grad=True)).sum().backward()
    for state in watch._source._tap.states:
        assert not any(side.requires_grad for captured in state.rows for side in (captured.pre, captured.post))


class Loop(nn.Module):
    """A model that calls one GELU again and again, and another once."""

    def __init__(self, cut: int) -> None:
        super().__init__()
        self.act, self.once, self.cut = nn.GELU(), nn.GELU(), cut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply them; rows are cut off from call to call."""
        for turn in range(8):
            x = self.act(x[self.cut * turn :])
        return self.once(x)


@pytest.mark.parametrize("cut", [0, 1], ids=["of one shape", "of many shapes"])
def test_all_calls_of_a_site_share_the_cap_on_a_pass(cut: int, attach: Callable[..., Any]) -> None:
    """Of a GELU called in a loop each call gives as many rows, together no more than the cap; one that is called once gives what it did."""
    model = Loop(cut)
    watch = attach(model, rows_per_forward=40, cost_budget=None)
    model(torch.randn(64, 4))
    watch._source.drain()  # how often it is called is known from the first pass on
    for _ in range(2):
        model(torch.randn(64, 4))
        rows = [(taken.layer, len(taken.pre)) for taken in watch._source.drain().rows]
        assert [*[("act", 5)] * 8, ("once", 36 if cut else 40)] == rows
