"""Compilers, exporters and tracers: hooks speak from compiled code, stay out of exported code, and what is blind is said to be."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from geluwatch.tap._compat import Traces

BAD = torch.full((2, 8), math.nan)


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    """Start and leave with no compiled code."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def compiled_outside(model: nn.Module, backend: str = "aot_eager") -> nn.Module:
    """Return the model in torch.compile's wrapper."""
    wrapped: nn.Module = torch.compile(model, backend=backend, fullgraph=True)
    return wrapped


def compiled_in_place(model: nn.Module, backend: str = "aot_eager") -> nn.Module:
    """Compile the model's own call."""
    model.compile(backend=backend, fullgraph=True)
    return model


HOW = [compiled_outside, compiled_in_place]


@pytest.mark.parametrize("compiled", HOW)
@pytest.mark.parametrize("warm", [False, True], ids=["at once", "after eager passes"])
@pytest.mark.filterwarnings("ignore:.torch.jit.script")
@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_a_model_compiled_while_watched_is_one_graph_with_the_same_bits_and_data(
    backend: str, compiled: Callable[..., nn.Module], warm: bool, attach: Callable[..., Any], block: Callable[..., Any]
) -> None:
    """Compiled under the watch a model is one graph without a break, computes what it did, and every pass is guarded and gives rows."""
    model = block()
    x = torch.randn(2, 8)
    bare = compiled(copy.deepcopy(model), backend)
    expected = bare(x)
    torch._dynamo.reset()
    counters.clear()
    watch = attach(model, cost_budget=None)
    if warm:
        model(x)
        watch.flush()
    fast = compiled(model, backend)
    for _ in range(3):
        assert torch.equal(expected, fast(x))
    assert (1, {}) == (counters["stats"]["unique_graphs"], dict(counters["graph_break"]))
    assert torch.isnan(fast(BAD)).all()
    report = watch.close_window()
    assert [("act", "observed", "")] == [(site.layer, site.state, site.reason) for site in watch.sites]
    assert (4 + warm, 1, {}) == (report.totals.forwards, report.totals.nonfinite_forwards, report.totals.errors)
    assert 8 + 2 * warm == report.sites["act", "pre"].rows + 2
    assert "act" == report.first_nonfinite


@pytest.mark.parametrize("compiled", HOW)
@pytest.mark.parametrize("outer", [False, True], ids=["the model", "what the compiler returned"])
def test_a_model_compiled_before_it_is_watched_is_blind_until_it_is_seen_to_run(
    compiled: Callable[..., nn.Module], outer: bool, attach: Callable[..., Any], block: Callable[..., Any]
) -> None:
    """Hooks put on compiled code may never run, and the census says so; where torch compiles it again with them, they do."""
    model = block()
    x = torch.randn(2, 8)
    fast = compiled(model)
    expected = fast(x)
    watch = attach(fast if outer else model)
    assert [("act", "blind")] == [(site.layer, site.state) for site in watch.sites]
    assert "compiled" in watch.sites[0].reason
    assert torch.equal(expected, fast(x))
    report = watch.flush()
    assert "blind" == report.verdict or report.sites["act", "pre"].totals.elements == x.shape[0] * 16
    assert {} == report.totals.errors


def test_hooks_that_the_compiler_left_out_are_blind(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Where compiled code is kept although hooks have come, as with unsafe guards, the census says blind, not nothing."""
    model = block()
    fast = torch.compile(model, backend="eager", options={"guard_filter_fn": lambda guards: [False for _ in guards]})
    x = torch.randn(2, 8)
    fast(x)
    watch = attach(model)
    fast(x)
    report = watch.flush()
    assert ("blind", ["blind"]) == (report.verdict, [site.state for site in watch.sites])
    assert "compiled" in watch.sites[0].reason


def test_a_container_compiled_before_is_blind_too(attach: Callable[..., Any]) -> None:
    """Where compilation begins in torch's own code, for a Sequential, it is seen all the same."""
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU())
    fast = torch.compile(model, backend="eager")
    fast(torch.randn(2, 8))
    assert ["blind"] == [site.state for site in attach(model).sites]


def test_a_site_that_runs_eagerly_again_is_observed_again(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Blindness by compilation ends with the first eager pass, in which a NaN is caught."""
    model = block()
    fast = torch.compile(model, backend="eager")
    fast(torch.randn(2, 8))
    watch = attach(model)
    torch.compiler.reset()
    model(BAD)
    assert 1 == watch.flush().totals.nonfinite_forwards
    assert ["observed"] == [site.state for site in watch.sites]


def test_detaching_from_a_compiled_model_is_harmless(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Compiled code goes on when the watch comes off, with the same bits."""
    model = block()
    watch = attach(model)
    fast = compiled_outside(model)
    x = torch.randn(2, 8)
    expected = fast(x)
    watch.flush()
    watch.detach()
    assert torch.equal(expected, fast(x))


def test_blocks_share_their_compiled_code_as_before(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Equal blocks compiled one by one share one graph, watched or not, and no flush has them compiled again."""

    def graphs(watched: bool) -> int:
        torch._dynamo.reset()
        counters.clear()
        model = nn.Sequential(*(block() for _ in range(12)))
        watch = attach(model) if watched else None
        for part in model:
            part.compile(backend="eager", fullgraph=True)
        with torch.no_grad():
            model(torch.randn(2, 8))
            if watch:
                watch.flush()
            with torch.compiler.set_stance("fail_on_recompile"):
                model(torch.randn(2, 8))
        if watch:
            assert {"observed"} == {site.state for site in watch.sites}
            assert 2 == watch.flush().totals.forwards
        return int(counters["stats"]["unique_graphs"])

    assert graphs(watched=False) == graphs(watched=True)


def test_other_watched_models_prove_themselves_again(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """When one watched model is compiled, another that runs eagerly is observed again from its next pass."""
    eager, other = block(), block()
    watch = attach(eager)
    attach(other)
    eager(torch.randn(2, 8))
    before = Traces.count
    compiled_outside(other)(torch.randn(2, 8))
    assert Traces.count > before
    watch.flush()
    eager(BAD)
    assert 1 == watch.flush().totals.nonfinite_forwards
    assert ["observed"] == [site.state for site in watch.sites]


@pytest.mark.parametrize("strict", [False, True])
def test_a_watched_model_can_be_exported(strict: bool, attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """torch.export of a watched model gives a program with the same operations and bits as of a bare one."""
    model = block()
    x = torch.randn(2, 8)
    bare = torch.export.export(model, (x,), strict=strict)
    watch = attach(model)
    model(x)
    exported = torch.export.export(model, (x,), strict=strict)
    assert [str(node.target) for node in bare.graph.nodes] == [str(node.target) for node in exported.graph.nodes]
    assert torch.equal(model(x), exported.module()(x))
    assert (2, {}) == (watch.flush().totals.forwards, watch.report.totals.errors)


def test_a_watched_model_can_be_traced(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """torch.jit.trace of a watched model warns of nothing, records nothing of ours, and counts no pass."""
    model = block()
    x = torch.randn(2, 8)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is deprecated", category=DeprecationWarning)
        bare = torch.jit.trace(model, x, check_trace=False)
        watch = attach(model)
        traced = torch.jit.trace(model, x, check_trace=False)
    assert [node.kind() for node in bare.inlined_graph.nodes()] == [node.kind() for node in traced.inlined_graph.nodes()]
    assert torch.equal(model(x), traced(x))
    assert (1, {}) == (watch.flush().totals.forwards, watch.report.totals.errors)


def test_a_watched_model_can_be_traced_symbolically(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """torch.fx traces through a watched GELU of transformers, which is no leaf to it, and finds nothing of ours in it."""
    from transformers.activations import ACT2FN

    model = block(ACT2FN["gelu_new"])
    bare = torch.fx.symbolic_trace(model)
    watch = attach(model)
    model(torch.randn(2, 8))
    traced = torch.fx.symbolic_trace(model)
    assert [node.format_node() for node in bare.graph.nodes] == [node.format_node() for node in traced.graph.nodes]
    model(BAD)
    assert (1, {}) == (watch.flush().totals.nonfinite_forwards, watch.report.totals.errors)


def test_vmap_over_a_watched_model_is_right_and_blind(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Under vmap values cannot be read: the result is right, the site blind with the reason, and the guard stays on."""
    model = block()
    x = torch.randn(5, 2, 8)
    expected = torch.func.vmap(model)(x)
    watch = attach(model)
    for _ in range(10):
        assert torch.equal(expected, torch.func.vmap(model)(x))
    assert "vmap" in watch.sites[0].reason
    model(BAD)
    assert (1, {}) == (watch.flush().totals.nonfinite_forwards, watch.report.totals.errors)
    assert ["observed"] == [site.state for site in watch.sites]


@pytest.mark.parametrize(
    "transform",
    [
        lambda model: torch.func.grad(lambda x: model(x).sum()),
        lambda model: torch.func.jacrev(lambda x: model(x).sum(0)),
        lambda model: torch.func.vmap(torch.func.grad(lambda x: model(x).sum())),
        lambda model: torch.func.jacfwd(lambda x: model(x).sum(0)),
        lambda model: lambda x: torch.func.jvp(model, (x,), (torch.ones_like(x),))[1],
    ],
    ids=["grad", "jacrev", "vmap of grad", "jacfwd", "jvp"],
)
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_function_transforms_of_a_watched_model_are_right(
    transform: Callable[[nn.Module], Callable[[torch.Tensor], torch.Tensor]], attach: Callable[..., Any], block: Callable[..., Any]
) -> None:
    """Gradients and Jacobians through a watched model are the same bits, sampled or not, and no failure is counted."""
    model = block()
    x = torch.randn(2, 8)
    expected = transform(model)(x)
    watch = attach(model, cost_budget=1.0)
    for _ in range(10):
        assert torch.equal(expected, transform(model)(x))
        watch.flush()
    assert ({}, ()) == (watch.report.totals.errors, watch.report.disabled)


def test_a_functional_call_is_watched(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """torch.func.functional_call with other weights runs the hooks on those weights' values."""
    model = block()
    watch = attach(model)
    weights = {name: torch.full_like(value, math.nan) for name, value in model.named_parameters()}
    torch.func.functional_call(model, weights, (torch.randn(2, 8),))
    assert {("pre", "nan"): 32} == watch.flush().totals.nonfinite["act"].elements


def test_compiled_code_can_be_left_alone(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """With Config(compiled=False) nothing of ours is in the compiled code, and its sites are blind with the reason."""
    model = block()
    x = torch.randn(2, 8)
    graphs: list[list[str]] = []

    def backend(graph: torch.fx.GraphModule, _inputs: Any) -> Any:
        graphs.append([str(node.target) for node in graph.graph.nodes])
        return graph

    for compiled in (True, False):
        torch._dynamo.reset()
        watch = attach(model, compiled=compiled)
        torch.compile(model, backend=backend)(x)
        watch.flush()
        assert ["observed" if compiled else "blind"] == [site.state for site in watch.sites]
        watch.detach()
    assert [True, False] == [any("geluwatch" in target for target in graph) for graph in graphs]


@pytest.mark.parametrize("transform", ["vmap", "grad", "jvp"])
def test_transforms_inside_of_compiled_code_are_right(transform: str, attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Compiled together with a function transform, a watched model gives the same bits, and no failure is counted."""
    model = block()
    x = torch.randn(3, 2, 8)
    work: Callable[[torch.Tensor], Any] = {
        "vmap": torch.func.vmap(lambda each: model(each) * 1.0),
        "grad": torch.func.grad(lambda each: model(each).sum()),
        "jvp": lambda each: torch.func.jvp(model, (each,), (torch.ones_like(each),))[1],
    }[transform]
    expected = torch.compile(work, backend="aot_eager", fullgraph=True)(x)
    torch._dynamo.reset()
    watch = attach(model, cost_budget=None)
    assert torch.equal(expected, torch.compile(work, backend="aot_eager", fullgraph=True)(x))
    assert {} == watch.flush().totals.errors


def test_a_pass_within_a_larger_compiled_function_is_a_pass(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Called from a compiled function, in one graph, the model's passes begin and end, with their batch, their mask and their rows."""
    model = block()
    watch = attach(model, cost_budget=None)
    step = torch.compile(lambda x: model(x) * 2.0, backend="aot_eager", fullgraph=True)
    for _ in range(3):
        step(torch.randn(4, 8))
    step(BAD.repeat(2, 1))
    report = watch.close_window()
    assert (4, 16, 1, {}) == (report.totals.forwards, report.totals.samples, report.totals.nonfinite_forwards, report.totals.errors)
    assert 12 == report.sites["act", "pre"].rows


def test_a_checkpointed_pass_of_compiled_code_is_seen_once(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """In compiled training with checkpoints the recomputation is not counted, and gradients are the same bits."""
    from torch.utils.checkpoint import checkpoint

    model = block()
    x = torch.randn(2, 8)

    def gradients() -> list[torch.Tensor]:
        torch._dynamo.reset()
        step = torch.compile(lambda x: checkpoint(model, x, use_reentrant=False), backend="aot_eager", fullgraph=True)
        model.zero_grad()
        step(x).sum().backward()
        return [weight.grad.clone() for weight in model.parameters()]

    expected = gradients()
    watch = attach(model, cost_budget=None)
    assert all(torch.equal(a, b) for a, b in zip(expected, gradients(), strict=True))
    report = watch.flush()
    assert (1, 32, {}) == (report.totals.forwards, report.sites["act", "pre"].totals.elements, report.totals.errors)


def test_a_shared_module_in_compiled_code_is_told_apart_by_its_callers(attach: Callable[..., Any]) -> None:
    """One GELU that two blocks share is two sites in compiled code as well, and the fault is at the one that has it."""
    act = nn.GELU()

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.act = nn.Linear(8, 8), act

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.act(self.up(x))

    model = nn.Sequential(Layer(), Layer())
    watch = attach(model, cost_budget=None)
    fast = torch.compile(model, backend="aot_eager", fullgraph=True)
    fast(torch.randn(2, 8))
    with torch.no_grad():
        model[1].up.weight[0, 0] = math.nan
    fast(torch.randn(2, 8))
    report = watch.flush()
    assert ("1.act", {"1.act"}) == (report.first_nonfinite, set(report.totals.nonfinite))
