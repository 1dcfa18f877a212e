"""Function transforms over faulty passes, on both paths of the guard: counted exactly, or blind with a reason; never a failure of ours."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from geluwatch.tap import look

BAD = torch.full((2, 8), math.nan)
CALLS = 3

Run = Callable[[torch.Tensor], object]


def dual(model: nn.Module) -> Run:
    """Return a run of the model on dual numbers, for derivatives in forward mode."""

    def run(x: torch.Tensor) -> object:
        with forward_ad.dual_level():
            return model(forward_ad.make_dual(x, torch.ones_like(x)))

    return run


READABLE: dict[str, Callable[[nn.Module], Run]] = {
    "grad": lambda model: torch.func.grad(lambda x: model(x).sum()),
    "jacrev": lambda model: torch.func.jacrev(lambda x: model(x).sum(0)),
    "jacfwd": lambda model: torch.func.jacfwd(lambda x: model(x).sum(0)),
    "hessian": lambda model: torch.func.hessian(lambda x: model(x).sum()),
    "jvp": lambda model: lambda x: torch.func.jvp(model, (x,), (torch.ones_like(x),)),
    "vjp": lambda model: lambda x: torch.func.vjp(model, x),
    "dual numbers": dual,
}
UNREADABLE: dict[str, Callable[[nn.Module], Run]] = {
    "vmap": torch.func.vmap,
    "vmap of grad": lambda model: torch.func.vmap(torch.func.grad(lambda x: model(x).sum())),
}


@pytest.fixture(params=[1, look.LARGE], ids=["through consumers", "as it is"])
def watched(
    request: pytest.FixtureRequest, attach: Callable[..., Any], block: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> tuple[nn.Module, Any]:
    """Return a model and its watch, which switches a part off at its first failure; one clean pass has been run and flushed."""
    monkeypatch.setattr(look, "LARGE", request.param)
    model = nn.Sequential(block())
    watch = attach(model, breaker_limit=1, cost_budget=None)
    model(torch.randn(2, 8))
    watch.flush()
    return model, watch


@pytest.mark.parametrize("name", READABLE)
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_faults_under_derivatives_are_counted(name: str, watched: tuple[nn.Module, Any]) -> None:
    """Under transforms whose tensors can be read, each faulty call is a hit with exact elements."""
    model, watch = watched
    run = READABLE[name](model)
    for _ in range(CALLS):
        run(BAD)
    totals = watch.flush().totals
    assert (1 + CALLS, CALLS, {}) == (totals.forwards, totals.nonfinite_forwards, totals.errors)
    assert {("pre", "nan"): 32 * CALLS} == totals.nonfinite["0.act"].elements


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.parametrize("large", [1, look.LARGE], ids=["through consumers", "as it is"])
def test_calls_that_cannot_be_read_are_blind_and_no_failure(
    name: str, large: int, attach: Callable[..., Any], block: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under vmap the site is blind with the reason, no part of the agent is blamed, and the next plain pass is counted."""
    monkeypatch.setattr(look, "LARGE", large)
    model = nn.Sequential(block())
    watch = attach(model, breaker_limit=1, cost_budget=None)
    model(torch.randn(2, 8))
    watch.flush()
    run = UNREADABLE[name](model)
    for _ in range(CALLS):
        run(BAD)
    report = watch.flush()
    assert ({}, (), 0) == (report.totals.errors, report.disabled, report.totals.nonfinite_forwards)
    assert "blind" == watch.sites[0].state
    assert "torch.func" in watch.sites[0].reason
    model(BAD)
    assert 1 == watch.flush().totals.nonfinite_forwards


@pytest.mark.parametrize("large", [1, look.LARGE], ids=["through consumers", "as it is"])
def test_nested_tensors_after_plain_ones_are_blind_and_no_failure(
    large: int, attach: Callable[..., Any], block: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A nested tensor whose type is plain, given to a model that has run on plain ones, leaves the site blind and no part blamed."""
    monkeypatch.setattr(look, "LARGE", large)
    model = block()
    watch = attach(model, breaker_limit=1, cost_budget=None)
    model(torch.randn(2, 8))
    watch.flush()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        model(torch.nested.nested_tensor([torch.randn(2, 8), torch.randn(3, 8)]))
    report = watch.flush()
    assert ({}, ()) == (report.totals.errors, report.disabled)
    assert "nested" in watch.sites[0].reason
    model(BAD)
    assert 1 == watch.flush().totals.nonfinite_forwards
