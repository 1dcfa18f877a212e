"""GELU called as a function and in fused layers: every call is seen, at its place, and the model does not notice."""

from __future__ import annotations

import copy
import math
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.nn import functional

from geluwatch.tap import _compat, dispatch

BAD = torch.full((2, 8), math.nan)


class Mlp(nn.Module):
    """Dense, GELU as a function, dense."""

    def __init__(self, width: int = 8, hidden: int = 16) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., width) to the same shape."""
        return self.down(functional.gelu(self.up(x), approximate="tanh"))


class Twice(nn.Module):
    """Two calls in one forward, of which the second sees what the first one gave."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (...) to the same shape."""
        return functional.gelu(functional.gelu(x) - 1.0)


class Chain(nn.Module):
    """Modules one after another; a class of its own, for compilation of torch's own containers begins elsewhere."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., width) to the same shape."""
        for part in self.parts:
            x = part(x)
        return x


class Stray(nn.Module):
    """A call that no reading of code shows."""

    def __init__(self) -> None:
        super().__init__()
        self.table = {"gelu": functional.gelu}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (...) to the same shape."""
        return self.table["gelu"](x)


def seen(watch: Any) -> dict[str, int]:
    """Return the elements captured before the GELU by layer."""
    return {layer: point.totals.elements for (layer, side), point in watch.report.sites.items() if side == "pre"}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16])
def test_outputs_and_gradients_are_the_same_bits(training: bool, autocast: torch.dtype | None, attach: Callable[..., Any]) -> None:
    """A model that calls the function computes and learns the same bits watched and not."""
    model = nn.Sequential(Mlp(), Mlp(), Twice()).train(training)
    bare = copy.deepcopy(model)
    watch = attach(model, cost_budget=None)
    for step in range(5):
        x = torch.randn(2, 3, 8)
        with torch.set_grad_enabled(training), torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
            outputs = [each(x) for each in (bare, model)]
        assert torch.equal(*outputs)
        if training:
            for output in outputs:
                output.float().square().sum().backward()
        assert all(
            torch.equal(a.grad, b.grad) if training else a.grad is None for a, b in zip(bare.parameters(), model.parameters(), strict=True)
        ), step
    report = watch.flush()
    assert ({}, 5) == (report.totals.errors, report.totals.sampled_forwards)
    assert {"0": 5 * 6 * 16, "1": 5 * 6 * 16, "2#0": 5 * 6 * 8, "2#1": 5 * 6 * 8} == seen(watch)


def test_each_place_is_its_own_site(attach: Callable[..., Any]) -> None:
    """Of two calls in one forward each has its own values: the second one's input is the first one's output less one."""
    model = nn.Sequential(Twice())
    watch = attach(model, cost_budget=None)
    x = torch.randn(4, 3)
    model(x)
    first, second = watch._source.drain().rows
    assert ("0#0", "0#1") == (first.layer, second.layer)
    assert (x.numpy() == first.pre).all()
    assert (first.post - 1.0 == second.pre).all()


def test_the_formula_that_was_asked_for_is_the_declared_one(attach: Callable[..., Any]) -> None:
    """Whether a call approximates is an argument: the census takes it from the call."""
    model = nn.Sequential(Mlp(), Twice())
    watch = attach(model)
    model(torch.randn(2, 8))
    assert ["tanh", "erf", "erf"] == [site.variant for site in watch.sites]


@pytest.mark.parametrize("sampled", [True, False])
def test_every_fault_is_counted_at_its_place(sampled: bool, attach: Callable[..., Any]) -> None:
    """A NaN and an Inf are counted on every pass, sampled or not, at the first place where they are."""
    model = nn.Sequential(Mlp(), Twice(), Mlp())
    watch = attach(model)
    watch._source._tap.pacer.take = lambda _now: sampled
    x = torch.randn(2, 8)
    for layer in ("0", "2"):
        weights = model[int(layer)].up.weight
        with torch.no_grad():
            kept = weights[3, 2].item()
            weights[3, 2] = math.inf
            model(x)
            weights[3, 2] = kept
        model(x)
        assert layer == watch.close_window().first_nonfinite
    assert (2, 4, {}) == (watch.report.totals.nonfinite_forwards, watch.report.totals.forwards, watch.report.totals.errors)
    assert {"0": 1, "2": 1} == {layer: count.first for layer, count in watch.report.totals.nonfinite.items() if count.first}


def test_a_part_called_by_itself_is_guarded(attach: Callable[..., Any]) -> None:
    """A part of the model that is called without the model, as generation does with encoders, is guarded all the same."""
    model = nn.Sequential(Mlp(), Mlp())
    watch = attach(model)
    model[1](BAD)
    assert (1, "1") == (watch.flush().totals.nonfinite_forwards, watch.report.first_nonfinite)


def test_nothing_is_heard_outside_of_the_model(attach: Callable[..., Any]) -> None:
    """A GELU of the user's own, before, after and in another thread meanwhile, belongs to nobody."""
    model = nn.Sequential(Mlp())
    watch = attach(model, cost_budget=None)
    functional.gelu(BAD)
    model.register_forward_pre_hook(lambda *_: _elsewhere(lambda: functional.gelu(BAD)))
    model(torch.randn(2, 8))
    functional.gelu(BAD)
    Mlp()(BAD)
    report = watch.flush()
    assert (0, {}) == (report.totals.nonfinite_forwards, report.totals.errors)
    assert {"0": 32} == seen(watch)


def _elsewhere(work: Callable[[], Any]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_a_call_that_no_code_showed_joins_the_census_when_it_runs(attach: Callable[..., Any]) -> None:
    """What only running shows is taken in as a site of its module, and watched from then on."""
    model = nn.Sequential(nn.GELU(), Stray(), Stray())
    watch = attach(model, cost_budget=None)
    assert ["0"] == [site.layer for site in watch.sites]
    model(torch.randn(2, 8))
    watch.flush()
    assert ["0", "1", "2"] == [site.layer for site in watch.sites]
    model(torch.randn(2, 8))
    model[2](BAD)
    report = watch.flush()
    assert {"observed"} == {site.state for site in watch.sites}
    assert ({"0": 32, "1": 16, "2": 16}, "2", {}) == (seen(watch), report.first_nonfinite, report.totals.errors)


def test_the_census_takes_in_a_bounded_number(attach: Callable[..., Any]) -> None:
    """However many calls are found when they run, the census stops growing, and says so."""
    model = nn.Sequential(nn.GELU(), *(Stray() for _ in range(80)))
    watch = attach(model, cost_budget=None)
    for _ in range(3):
        model(torch.randn(2, 8))
        watch.flush()
    states = [site.state for site in watch.sites]
    assert (65, 1) == (states.count("observed"), states.count("blind"))
    assert "one too many" in watch.sites[-1].reason


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("activation", [functional.gelu, nn.GELU()], ids=["function", "module"])
def test_torchs_encoder_is_seen_on_both_of_its_paths(activation: Any, attach: Callable[..., Any]) -> None:
    """Training or fused, masked or not, the encoder's one GELU is one site, its rows are right and every fault is counted."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation=activation, batch_first=True, dropout=0.0)
    model = nn.TransformerEncoder(layer, 2)
    slow = copy.deepcopy(model).train()
    watch = attach(model, cost_budget=None, rows_per_forward=10_000)
    x = torch.randn(2, 3, 8)
    hidden: list[torch.Tensor] = []
    slow.layers[0].linear1.register_forward_hook(lambda _module, _args, output: hidden.append(output.detach()))
    slow(x)
    for training in (True, False):
        model.train(training)
        with torch.set_grad_enabled(training):
            model(x)
        (rows, _) = watch._source.drain().rows
        assert "layers.0.activation" == rows.layer
        assert torch.allclose(hidden[0].reshape(-1, 16), torch.from_numpy(rows.pre), atol=1e-6)
        assert torch.allclose(functional.gelu(torch.from_numpy(rows.pre)), torch.from_numpy(rows.post), atol=1e-6)
    with torch.no_grad():
        model(x, src_key_padding_mask=torch.tensor([[False, False, True], [False, False, False]]))
        model(x * math.inf)
    report = watch.flush()
    assert (1, "layers.0.activation", {}) == (report.totals.nonfinite_forwards, report.first_nonfinite, report.totals.errors)
    assert {"observed"} == {site.state for site in watch.sites}


@pytest.mark.filterwarnings("ignore:.torch.jit.script")
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_calls_in_compiled_code_are_seen(backend: str, attach: Callable[..., Any]) -> None:
    """Compiled whole, in one graph, each call of the function is watched at its place, with the same bits as unwatched."""
    torch._dynamo.reset()
    model = Chain(Mlp(), Twice(), nn.GELU(), Mlp())
    x = torch.randn(2, 8)
    expected = torch.compile(copy.deepcopy(model), backend=backend, fullgraph=True)(x)
    torch._dynamo.reset()
    counters.clear()
    watch = attach(model, cost_budget=None)
    fast = torch.compile(model, backend=backend, fullgraph=True)
    for _ in range(2):
        assert torch.equal(expected, fast(x))
    with torch.no_grad():
        model.parts[3].up.weight[0, 0] = math.nan
    fast(x)
    report = watch.flush()
    assert (1, {}) == (counters["stats"]["unique_graphs"], dict(counters["graph_break"]))
    assert {"parts.0": 96, "parts.1#0": 48, "parts.1#1": 48, "parts.2": 48, "parts.3": 96} == seen(watch)
    assert ("parts.3", {}) == (report.first_nonfinite, report.totals.errors)
    torch._dynamo.reset()


def test_calls_that_compiled_code_cannot_tell_apart_are_blind(attach: Callable[..., Any]) -> None:
    """Where a forward makes other calls than its code shows, compiled code attributes none, and the census says why."""

    class Either(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.gelu(x) if x.shape[0] == 2 else functional.gelu(x + 1.0)

    torch._dynamo.reset()
    model = Chain(Either())
    watch = attach(model)
    torch.compile(model, backend="eager", fullgraph=True)(torch.randn(2, 8))
    watch.flush()
    assert {"blind"} == {site.state for site in watch.sites}
    assert "it made 1 where 2 were known" in watch.sites[0].reason
    torch._dynamo.reset()


@pytest.mark.parametrize("where", ["a checkpoint", "a function around the model"])
def test_calls_that_compiled_code_does_not_show_are_blind(where: str, attach: Callable[..., Any]) -> None:
    """In a region of its own, or compiled from elsewhere, the code is what it was, one graph, and the calls are blind, not silent."""
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(Chain):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint(super().forward, x, use_reentrant=False)

    torch._dynamo.reset()
    model = Checkpointed(Mlp(), nn.GELU()) if where == "a checkpoint" else Chain(Mlp(), nn.GELU())
    work = model if where == "a checkpoint" else (lambda x: model(x) + 0.0)
    x = torch.randn(2, 8)
    expected = torch.compile(work, backend="aot_eager", fullgraph=True)(x)
    torch._dynamo.reset()
    watch = attach(model)
    assert torch.equal(expected, torch.compile(work, backend="aot_eager", fullgraph=True)(x))
    watch.flush()
    assert ["blind", "observed"] == [site.state for site in watch.sites]
    assert "calls do not show" in watch.sites[0].reason
    torch._dynamo.reset()


def test_operations_of_higher_order_pass_by(attach: Callable[..., Any]) -> None:
    """`cond`, which dispatches by itself, runs in a watched forward as it does in a bare one."""

    class Branches(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cond(x.sum() > 0, lambda y: y.sin(), lambda y: y.cos(), (functional.gelu(x),))

    torch._dynamo.reset()
    model = nn.Sequential(Branches())
    x = torch.randn(2, 8)
    expected = model(x)
    watch = attach(model, cost_budget=None)
    assert torch.equal(expected, model(x))
    assert ({}, {"0": 16}) == (watch.flush().totals.errors, seen(watch))
    torch._dynamo.reset()


def test_a_thread_that_runs_nothing_watched_keeps_torchs_own_dispatch(attach: Callable[..., Any]) -> None:
    """After a pass, and after one that raised, nothing listens in the thread any more."""
    model = nn.Sequential(Mlp())
    attach(model)
    included = torch._C._dispatch_tls_is_dispatch_key_included
    model(torch.randn(2, 8))
    assert not included(_compat._TAP_KEY)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        model(torch.randn(2, 3))
    assert not included(_compat._TAP_KEY)
    assert [] == dispatch._ears.listeners


def test_compiled_parts_are_compiled_once_however_passes_are_sampled(attach: Callable[..., Any]) -> None:
    """A part compiled by itself within an eager model keeps its one graph: nothing of a sampled pass shows in what it guards."""
    torch._dynamo.reset()
    counters.clear()
    model = nn.Sequential(Mlp(), nn.Linear(8, 8), nn.GELU())
    watch = attach(model)
    turns = iter((False, True, True, False, True))
    watch._source._tap.pacer.take = lambda _now: next(turns)
    model[1].compile(backend="eager", fullgraph=True)
    with torch.no_grad():
        model(torch.randn(2, 8))
    watch.flush()
    with torch.compiler.set_stance("fail_on_recompile"):
        for _ in range(4):
            with torch.no_grad():
                model(torch.randn(2, 8))
            watch.flush()
    assert (1, {}) == (counters["stats"]["unique_graphs"], watch.report.totals.errors)
    torch._dynamo.reset()


def test_a_recomputed_forward_is_not_counted_again(attach: Callable[..., Any]) -> None:
    """Under checkpointing the call runs twice and is seen once."""
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(nn.Module):
        def __init__(self, reentrant: bool) -> None:
            super().__init__()
            self.inner, self.reentrant = Mlp(), reentrant

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint(self.inner, x, use_reentrant=self.reentrant)

    for reentrant in (True, False):
        model = nn.Sequential(Checkpointed(reentrant))
        watch = attach(model, cost_budget=None)
        model(torch.randn(2, 8, requires_grad=True)).sum().backward()
        assert ({"0.inner": 32}, {}) == ((watch.flush(), seen(watch))[1], watch.report.totals.errors)


def test_the_time_of_calls_is_taken_on_sampled_passes(attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """On sampled passes every GELU's own time is taken, module or function, and it is a part of the pass's."""
    monkeypatch.delitem(sys.modules, "torch._dynamo.convert_frame", raising=False)
    model = nn.Sequential(Mlp(), nn.GELU(), Twice())
    watch = attach(model, cost_budget=None)
    for _ in range(3):
        model(torch.randn(64, 8))
    drained = watch._source.drain()
    assert {"0", "1", "2#0", "2#1"} == set(drained.op_seconds)
    assert 0.0 < sum(drained.op_seconds.values()) < drained.timed_seconds
