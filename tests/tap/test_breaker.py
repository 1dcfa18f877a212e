"""Failures of the agent end inside the agent: counted, logged once, switched off at the limit, said in the report."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from geluwatch.tap import guard, look, padding, shared
from geluwatch.tap.breaker import Breaker
from tests.test_log import Raising

LIMIT = 3
PASSES = 10


class BrokenPartError(RuntimeError):
    """What the broken part raises."""


def broken(*_args: Any, **_kwargs: Any) -> Any:
    """Fail, whatever is asked."""
    raise BrokenPartError("on purpose")


@given(st.lists(st.sampled_from(["guard", "rows"]), max_size=20), st.integers(1, 6))
def test_a_part_is_on_until_it_has_failed_as_often_as_the_limit(failures: list[str], limit: int) -> None:
    """Each part's failures are counted apart, and a part is off exactly from its limit on."""
    breaker = Breaker(limit)
    for part in failures:
        breaker.trip(part, BrokenPartError())
    for part in ("guard", "rows"):
        count = failures.count(part)
        assert count == breaker.failures.get(part, 0)
        assert (count < limit) == breaker.allows(part)


@pytest.fixture
def raising_handler() -> Iterator[None]:
    """Have every log record of ours raise."""
    handler = Raising()
    logging.getLogger("geluwatch").addHandler(handler)
    yield
    logging.getLogger("geluwatch").removeHandler(handler)


@pytest.mark.usefixtures("raising_handler")
def test_a_log_handler_that_raises_is_no_way_out() -> None:
    """A failure is counted, and the part switched off, also where logging it fails."""
    breaker = Breaker(2)
    breaker.trip("guard", BrokenPartError())
    breaker.trip("guard", BrokenPartError())
    assert (2, False) == (breaker.failures["guard"], breaker.allows("guard"))


def break_guard(monkeypatch: pytest.MonkeyPatch, _watch: Any) -> None:
    """Break the look itself."""
    monkeypatch.setattr(guard, "suspicious", broken)


def break_rows(monkeypatch: pytest.MonkeyPatch, _watch: Any) -> None:
    """Break the capture of rows."""
    monkeypatch.setattr(look, "capture", broken)


def break_mask(monkeypatch: pytest.MonkeyPatch, _watch: Any) -> None:
    """Break the reading of the mask."""
    monkeypatch.setattr(padding, "from_call", broken)


def break_clock(monkeypatch: pytest.MonkeyPatch, watch: Any) -> None:
    """Break the clock, at the end of the pass."""
    monkeypatch.setattr(watch._clock, "time", broken)


def break_pacer(monkeypatch: pytest.MonkeyPatch, watch: Any) -> None:
    """Break the choice of passes, at their beginning."""
    monkeypatch.setattr(watch._source._tap.pacer, "take", broken)


def break_batch_size(monkeypatch: pytest.MonkeyPatch, _watch: Any) -> None:
    """Break the counting of samples."""
    monkeypatch.setattr(padding, "batch_size", broken)


def break_state(monkeypatch: pytest.MonkeyPatch, _watch: Any) -> None:
    """Break the state of threads."""
    monkeypatch.setattr(shared, "ThreadState", broken)


PARTS = [
    (break_guard, "guard"),
    (break_rows, "rows"),
    (break_mask, "mask"),
    (break_clock, "root"),
    (break_pacer, "root"),
    (break_batch_size, "meter"),
    (break_state, "guard"),
]


@pytest.mark.parametrize(("break_part", "part"), PARTS, ids=[function.__name__ for function, _ in PARTS])
def test_a_broken_part_never_reaches_the_model(
    break_part: Callable[[pytest.MonkeyPatch, Any], None],
    part: str,
    attach: Callable[..., Any],
    block: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With one part broken outputs stay the same bits; the part is logged twice in all, counted, and off at its limit."""
    model = block()
    x = torch.randn(2, 8)
    expected = model(x)
    watch = attach(model, breaker_limit=LIMIT, cost_budget=1.0)
    tap = watch._source._tap
    if part != "root":
        tap.pacer.take = lambda _now: True
    with monkeypatch.context() as patch:
        break_part(patch, watch)
        for _ in range(PASSES):
            assert torch.equal(expected, model(x))
        errors, disabled = dict(tap.breaker.failures), tap.breaker.disabled
    assert LIMIT <= errors[part]
    assert part in disabled
    about = [record for record in caplog.records if record.args and record.args[0] == part]
    assert ["WARNING", "ERROR"] == [record.levelname for record in about]
    report = watch.flush()
    assert errors == report.totals.errors
    assert part in report.disabled


def test_a_site_whose_guard_is_off_is_blind(attach: Callable[..., Any], block: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """When the guard has been switched off its sites are blind with the reason, and so is the verdict."""
    model = block()
    watch = attach(model, breaker_limit=LIMIT)
    monkeypatch.setattr(guard, "suspicious", broken)
    for _ in range(LIMIT):
        model(torch.randn(2, 8))
    report = watch.flush()
    assert ("blind", "blind") == (report.verdict, watch.sites[0].state)
    assert "switched off" in watch.sites[0].reason


def test_one_failure_costs_one_look(attach: Callable[..., Any], block: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """After a single failure the guard works on, and the next hit is counted."""
    model = block()
    watch = attach(model, breaker_limit=LIMIT)
    with monkeypatch.context() as patch:
        patch.setattr(guard, "suspicious", broken)
        model(torch.randn(2, 8))
    model(torch.full((2, 8), math.nan))
    totals = watch.flush().totals
    assert (2, 1, {"guard": 1}) == (totals.forwards, totals.nonfinite_forwards, totals.errors)


@pytest.mark.parametrize("part", ["clock", "batch size"])
def test_hits_are_counted_before_the_rest_can_fail(
    part: str, attach: Callable[..., Any], block: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails at the end of a pass costs neither the pass nor its hit."""
    model = block()
    watch = attach(model)
    with monkeypatch.context() as patch:
        (break_clock if part == "clock" else break_batch_size)(patch, watch)
        model(torch.full((2, 8), math.nan))
    totals = watch.flush().totals
    failed = {"root": 1, "incident": 1} if part == "clock" else {"meter": 1}
    assert (1, 1, failed) == (totals.forwards, totals.nonfinite_forwards, totals.errors)


def test_a_mask_function_that_fails_leaves_all_rows_valid(attach: Callable[..., Any], only: Callable[..., Any]) -> None:
    """Without its mask the guard takes every row for valid, so that a failure of the user's function hides nothing."""
    model = only()
    watch = attach(model, padding=broken, breaker_limit=LIMIT)
    for _ in range(PASSES):
        model(torch.full((2, 3, 4), math.nan))
    totals = watch.flush().totals
    assert (PASSES, {"mask": LIMIT}) == (totals.nonfinite_forwards, totals.errors)


def test_one_bad_batch_of_rows_does_not_cost_the_others(
    attach: Callable[..., Any], block: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that cannot be turned into arrays are counted as a failure; the rest of the drain arrives."""
    model = nn.Sequential(block(), block())
    watch = attach(model)
    model(torch.randn(2, 8))
    state = watch._source._tap.states[0]
    object.__setattr__(state.rows[0], "pre", torch.empty(2, 16, device="meta"))
    drained = watch._source.drain()
    assert (["1.act"], {"rows": 1}, 1) == ([rows.layer for rows in drained.rows], drained.errors, drained.forwards)
