"""Non-finite gradients: counted once a backward pass, at the right site, without a bit of difference."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from geluwatch.records import Nonfinite, Report
from geluwatch.tap import _compat
from geluwatch.tap.gradients import DeviceGradients

Attach = Callable[..., Any]


class Stack(nn.Module):
    """Three blocks, each with a GELU, checkpointed in a way or not."""

    def __init__(self, reentrant: bool | None = None, inplace: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.ReLU(inplace=True) if inplace else nn.Identity(), nn.Linear(8, 8))
            for _ in range(3)
        )
        self.reentrant = reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the blocks."""
        for block in self.blocks:
            x = block(x) if self.reentrant is None else checkpoint(block, x, use_reentrant=self.reentrant)
        return x


class Poison(torch.autograd.Function):
    """The identity, whose gradient is NaN."""

    @staticmethod
    def forward(_ctx: Any, x: torch.Tensor) -> torch.Tensor:
        """Return the input."""
        return x.view_as(x)

    @staticmethod
    def backward(_ctx: Any, grad: torch.Tensor) -> torch.Tensor:  # type: ignore[override]  # torch's own is untyped
        """Return NaN."""
        return torch.full_like(grad, math.nan)


def of(report: Report) -> dict[str, tuple[int, int]]:
    """Return (backward passes, of those first) with a non-finite gradient by layer."""
    seen = {layer: report.totals.nonfinite.get(layer, Nonfinite()) for layer, point in report.sites if point == "pre"}
    return {layer: (counted.backwards, counted.first_backward) for layer, counted in seen.items()}


def inputs() -> torch.Tensor:
    """Return an input that is part of a graph, as an embedding's output would be."""
    return torch.randn(4, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()


EVERY_WAY = pytest.mark.parametrize("reentrant", [None, False, True], ids=["plain", "checkpoint", "reentrant checkpoint"])


@EVERY_WAY
def test_a_backward_pass_counts_once_at_each_site(reentrant: bool | None, attach: Attach) -> None:
    """A loss that is infinite reaches every site: one pass each, and the first is the one nearest to the loss."""
    model = Stack(reentrant)
    watch = attach(model, gradients=True)
    (model(inputs()).sum() * math.inf).backward()
    expected = {"blocks.0.1": (1, 0), "blocks.1.1": (1, 0), "blocks.2.1": (1, 1)}
    assert expected == of(watch.flush())
    model(inputs()).sum().backward()
    (model(inputs()).sum() * math.inf).backward()
    assert {layer: (2 * each, 2 * first) for layer, (each, first) in expected.items()} == of(watch.flush())
    assert {} == watch.report.totals.errors


@EVERY_WAY
def test_the_first_site_is_where_the_gradient_broke(reentrant: bool | None, attach: Attach) -> None:
    """A gradient that breaks in the middle is not counted at the sites behind it, which it never reaches."""
    model = Stack(reentrant)
    watch = attach(model, gradients=True)
    model.blocks[1].register_forward_hook(lambda _, __, output: Poison.apply(output))
    model(inputs()).sum().backward()
    assert {"blocks.0.1": (1, 0), "blocks.1.1": (1, 1), "blocks.2.1": (0, 0)} == of(watch.flush())


@EVERY_WAY
@pytest.mark.parametrize("inplace", [False, True])
def test_gradients_stay_what_they_are(reentrant: bool | None, inplace: bool, attach: Attach) -> None:
    """With an in-place layer behind the GELU or without, every gradient is the same to the bit."""
    results = []
    for watched in (False, True):
        model = Stack(reentrant, inplace)
        if watched:
            attach(model, gradients=True)
        x = inputs()
        model(x).square().sum().backward()
        results.append([x.grad, *(parameter.grad for parameter in model.parameters())])
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


class Mlp(nn.Module):
    """Dense, GELU as a function, dense."""

    def __init__(self, up: nn.Module, _act: nn.Module, _behind: nn.Module, down: nn.Module) -> None:
        super().__init__()
        self.up, self.down = up, down

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply them."""
        return self.down(nn.functional.gelu(self.up(x)))


@EVERY_WAY
def test_calls_of_the_function_count_once_too(reentrant: bool | None, attach: Attach) -> None:
    """GELU as a function counts as the module does; its thread listens no more afterwards, and gradients are the same bits."""
    results = []
    for watched in (False, True):
        model = Stack(reentrant)
        model.blocks = nn.ModuleList(Mlp(*block) for block in model.blocks)
        watch = attach(model, gradients=True) if watched else None
        for factor in (math.inf, 1.0, math.inf):
            model.zero_grad()
            (model(inputs()).square().sum() * factor).backward()
            results.append([parameter.grad.nan_to_num() for parameter in model.parameters()])
            assert not torch._C._dispatch_tls_is_dispatch_key_included(_compat._TAP_KEY)
    assert all(torch.equal(*pair) for one, two in zip(results[:3], results[3:], strict=True) for pair in zip(one, two, strict=True))
    assert {"blocks.0": (2, 0), "blocks.1": (2, 0), "blocks.2": (2, 2)} == of(watch.flush())
    totals = watch.report.totals
    assert (3, 0, {}) == (totals.forwards, totals.nonfinite_forwards, totals.errors)


def test_it_is_off_unless_asked_for(attach: Attach) -> None:
    """By default no hook is put on any tensor."""
    model = Stack()
    kept: list[torch.Tensor] = []
    model.blocks[0][2].register_forward_hook(lambda _, args, __: kept.append(args[0]))
    watch = attach(model)
    (model(inputs()).sum() * math.inf).backward()
    assert not kept[0]._backward_hooks
    assert {(0, 0)} == set(of(watch.flush()).values())
    assert watch.report.gradients is False


def test_accumulated_backward_passes_count_one_by_one(attach: Attach) -> None:
    """Of four micro-batches the one that is broken counts, whatever was accumulated before it."""
    model = Stack()
    watch = attach(model, gradients=True)
    for place in range(4):
        (model(inputs()).sum() * (math.nan if place == 2 else 1.0)).backward()
    assert {"blocks.0.1": (1, 0), "blocks.1.1": (1, 0), "blocks.2.1": (1, 1)} == of(watch.flush())


def test_a_graph_that_is_walked_twice_counts_twice(attach: Attach) -> None:
    """With retain_graph each backward pass is one of its own."""
    model = Stack()
    watch = attach(model, gradients=True)
    loss = model(inputs()).sum() * math.inf
    loss.backward(retain_graph=True)
    loss.backward()
    assert (2, 2) == of(watch.flush())["blocks.2.1"]


def test_one_site_called_often_counts_once(attach: Attach) -> None:
    """A GELU that runs three times in a forward has one backward pass."""
    act = nn.GELU()
    model = nn.Sequential(nn.Linear(4, 4), act, nn.Linear(4, 4))
    model.forward = lambda x: act(act(act(model[0](x))))  # type: ignore[method-assign]  # a recurrent layer in one line
    watch = attach(model, gradients=True)
    (model(torch.randn(2, 4)).sum() * math.inf).backward()
    assert [(1, 1)] == list(of(watch.flush()).values())


def test_a_scaled_loss_is_not_mistaken(attach: Attach) -> None:
    """Gradients scaled so far that their squares overflow are finite all the same."""
    model = Stack()
    watch = attach(model, gradients=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**100)
    scaler.scale(model(inputs()).sum()).backward()
    assert {(0, 0)} == set(of(watch.flush()).values())


def test_double_backward_works(attach: Attach) -> None:
    """Gradients that are themselves part of a graph are looked at without a trace in it."""
    model = Stack()
    watch = attach(model, gradients=True)
    x = inputs()
    (gradient,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert {} == watch.flush().totals.errors
    assert {(0, 0)} == set(of(watch.report).values())


def test_graphs_and_models_are_let_go(attach: Attach) -> None:
    """Neither the output nor the model is held once the caller lets go."""
    model = Stack()
    watch = attach(model, gradients=True)
    seen: list[weakref.ref[torch.Tensor]] = []
    handle = model.blocks[0][1].register_forward_hook(lambda _, __, output: seen.append(weakref.ref(output)))
    loss = model(inputs()).sum()
    loss.backward()
    handle.remove()
    del loss
    gc.collect()
    assert [None] == [reference() for reference in seen]
    watch.detach()
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None


class Stray(nn.Module):
    """A call that no reading of code shows."""

    def __init__(self) -> None:
        super().__init__()
        self.table = {"gelu": nn.functional.gelu}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (...) to the same shape."""
        return self.table["gelu"](x)


def test_a_call_found_when_it_ran_counts_like_the_others(attach: Attach) -> None:
    """In a thread that was there before the call was found, its gradients are counted, and nothing fails of it."""
    model = nn.Sequential(nn.Linear(4, 4), nn.GELU(), Stray())
    watch = attach(model, gradients=True, breaker_limit=2)
    model(torch.randn(2, 4)).sum().backward()
    watch.flush()
    for _ in range(3):
        (model(torch.randn(2, 4)).sum() * math.inf).backward()
    counted = watch.flush().totals.nonfinite
    assert {"1": (3, 0), "2": (3, 3)} == {layer: (each.backwards, each.first_backward) for layer, each in counted.items()}
    assert ({}, ()) == (watch.report.totals.errors, watch.report.disabled)


def test_a_failure_is_the_agents_alone(attach: Attach, monkeypatch: pytest.MonkeyPatch) -> None:
    """The backward pass goes on, the part is counted and goes off at its limit."""
    model = Stack()
    watch = attach(model, gradients=True, breaker_limit=2)

    def fail(*_: Any) -> None:
        raise ValueError("broken")

    monkeypatch.setattr("geluwatch.tap.gradients.Gradients._look", fail)
    model(inputs()).sum().backward()
    assert ({"gradients": 2}, ("gradients",)) == (dict(watch.flush().totals.errors), watch.report.disabled)
    assert model.blocks[0][0].weight.grad is not None


def test_devices_count_as_the_host_does() -> None:
    """The counters of an accelerator, run on the CPU's tensors: hits, and the first of each pass in order of arrival."""
    device = DeviceGradients(3, torch.device("cpu"))
    good, bad = torch.ones(2, 2), torch.tensor([[1.0, math.inf], [0.0, 1.0]])
    for task, hits in enumerate([(2,), (), (1, 0), (2, 1, 0), (0,)] * 8):
        for site in (2, 1, 0):
            device.look(site, task, bad if site in hits else good)
    assert ([24, 16, 16], [8, 8, 16]) == device.counts(final=True)


def test_devices_counts_arrive_without_a_wait() -> None:
    """A copy of the counters is picked up by a later pass."""
    device = DeviceGradients(1, torch.device("cpu"))
    for task in range(40):
        device.look(0, task, torch.tensor([math.nan]))
    hits, firsts = device.counts(final=False)
    assert hits == firsts
    assert 16 <= hits[0] <= 39


def test_devices_tell_backward_passes_apart_that_are_met_in_turn() -> None:
    """Of backward passes of several threads, whose gradients come mixed, each is counted once, with its own first site."""
    device = DeviceGradients(3, torch.device("cpu"))
    for tasks in ((1, 2), (3, 4, 5, 6), (7,)):
        for site in (2, 1, 0):
            for task in tasks:
                device.look(site, task, torch.full((2,), math.nan if task % 2 or site == 0 else 1.0))
    assert ([7, 4, 4], [3, 0, 4]) == device.counts(final=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_devices_take_large_gradients_for_finite(dtype: torch.dtype) -> None:
    """Finite gradients whose sum overflows are no hit, at a site called twice or with no element either; an Inf among them is."""
    device = DeviceGradients(1, torch.device("cpu"))
    large = torch.full((4,), torch.finfo(dtype).max, dtype=dtype)
    for task, gradients in enumerate([(large, large), (large[:0],), (large * math.inf, large), (large, -large * math.inf)]):
        for gradient in gradients:
            device.look(0, task, gradient)
    assert ([2], [2]) == device.counts(final=True)


def test_derivatives_computed_all_at_once_are_passed_over(attach: Attach) -> None:
    """Gradients that stand for many are not looked at, in any way that torch has of it; nothing fails, and others count as before."""
    model = Stack()
    watch = attach(model, gradients=True, breaker_limit=1)
    x = inputs()
    expected = torch.autograd.functional.jacobian(lambda x: model(x).sum(dim=0), x)
    assert torch.allclose(expected, torch.autograd.functional.jacobian(lambda x: model(x).sum(dim=0), x, vectorize=True))
    y = model(x).sum(dim=0)
    torch.autograd.grad(y, x, torch.eye(8), retain_graph=True, is_grads_batched=True)
    torch.func.vmap(lambda each: torch.autograd.grad(y, x, each, retain_graph=True)[0])(torch.eye(8))
    torch.func.jacrev(lambda x: model(x).sum(dim=0))(x)
    assert {(0, 0)} == set(of(watch.flush()).values())
    (model(inputs()).sum() * math.inf).backward()
    assert (1, 1) == of(watch.flush())["blocks.2.1"]
    assert ({}, ()) == (watch.report.totals.errors, watch.report.disabled)
