"""Which passes give rows, which rows, and that both sides of a GELU are taken in pairs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from geluwatch.tap import padding
from geluwatch.tap.rows import Pacer, RowPicker
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

_MASKS = st.lists(st.booleans(), min_size=1, max_size=60)


@given(_MASKS, st.integers(1, 70), st.booleans())
def test_drawn_rows_are_distinct_valid_ascending_and_as_many_as_can_be(valid: list[bool], most: int, masked: bool) -> None:
    """Of the valid rows as many are drawn as asked for, without repeats, in order, and no other."""
    mask = torch.tensor(valid) if masked else None
    allowed = [row for row, ok in enumerate(valid) if ok or not masked]
    drawn = RowPicker(most).pick(len(valid), mask).tolist()
    assert min(most, len(allowed)) == len(drawn)
    assert sorted(set(drawn)) == drawn
    assert set(drawn) <= set(allowed)


def test_every_row_is_as_likely() -> None:
    """Over many draws each row comes up about equally often: no stride, no bias to the front."""
    picker = RowPicker(8)
    counts = torch.zeros(64, dtype=torch.long)
    draws = 4000
    for _ in range(draws):
        counts[picker.pick(64, None)] += 1
    expected = draws * 8 / 64
    assert (counts - expected).abs().max() < 5 * math.sqrt(expected)


def test_quiet_traffic_is_sampled_whole_and_busy_traffic_to_the_budget() -> None:
    """Passes far apart are all taken; at full speed the share of time spent on rows is the budget, within jitter."""
    quiet = Pacer(spacing=1.0, budget=0.01)
    assert all(_sampled(quiet, 2.0 * turn, 0.001) for turn in range(50))
    busy = Pacer(spacing=0.0, budget=0.01)
    taken = sum(_sampled(busy, 0.001 * turn, 0.001) for turn in range(100_000))
    assert 0.008 < taken * 0.001 / 100.0 < 0.012


def _sampled(pacer: Pacer, now: float, cost: float) -> bool:
    if not pacer.take(now):
        return False
    pacer.spent(now, cost)
    return True


def test_sampling_keeps_no_step_with_periodic_traffic() -> None:
    """Traffic that repeats every ten passes is sampled at all ten phases, about equally."""
    pacer = Pacer(spacing=0.1, budget=1.0)
    phases = [turn % 10 for turn in range(40_000) if _sampled(pacer, 0.01 * turn, 0.0)]
    counts = np.bincount(phases, minlength=10)
    assert counts.min() > 0.8 * counts.mean()


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


MASK = torch.tensor([[1, 1, 0], [1, 0, 0]])


@pytest.mark.parametrize("shape", [(2, 3), (2, 4, 8), (6, 8), (2, 3, 5, 8), (3, 2, 8), (8,), ()])
def test_a_mask_applies_only_where_its_shape_fits(shape: tuple[int, ...]) -> None:
    """A mask (batch, tokens) is for tensors (batch, tokens, channels) and for no other shape."""
    assert padding.for_rows(MASK.bool(), torch.Size(shape)) is None


def test_a_mask_that_fits_is_flattened_and_one_that_hides_nothing_is_none() -> None:
    """The fitting mask comes as one flag a row; a mask without padding costs nothing later."""
    flags = padding.for_rows(MASK.bool(), torch.Size((2, 3, 8)))
    assert flags is not None
    assert [True, True, False, True, False, False] == flags.tolist()
    assert padding.for_rows(torch.ones(2, 3, dtype=torch.bool), torch.Size((2, 3, 8))) is None


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((torch.zeros(3, 2),), {}, 3),
        ((), {"a": None, "b": torch.zeros(5)}, 5),
        (("text", torch.tensor(1.0)), {}, 1),
        (("text",), {"flag": True}, 0),
        ((), {}, 0),
    ],
)
def test_the_batch_size_is_read_off_the_first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any], expected: int) -> None:
    """The batch is the first dimension of the first tensor among the arguments, 0 where there is none."""
    assert expected == padding.batch_size(args, kwargs)


class Unreadable(nn.Module):
    """A module whose forward has no signature to read."""

    forward = dict.fromkeys  # type: ignore[assignment]  # a builtin


class Masked(nn.Module):
    """A module that takes its mask second."""

    def forward(self, x: torch.Tensor, attention_mask: torch.Tensor, *, other: int = 0) -> torch.Tensor:
        """Return the input."""
        return x


class OnlyByName(nn.Module):
    """A module that takes its mask by name alone."""

    def forward(self, x: torch.Tensor, *, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the input."""
        return x


@pytest.mark.parametrize(("cls", "expected"), [(Masked, 1), (OnlyByName, None), (Unreadable, None), (nn.Identity, None)])
def test_the_mask_is_found_by_position_where_the_forward_names_it(cls: type[nn.Module], expected: int | None) -> None:
    """The place of `attention_mask` among positional arguments is read off the forward's signature, where it has one."""
    assert expected == padding.argument_position(cls())
