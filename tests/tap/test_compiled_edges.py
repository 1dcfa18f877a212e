"""Compiled code at its edges: wherever a watch cannot count in it exactly, the site says that it is blind, and never counts wrongly."""

from __future__ import annotations

import copy
import gc
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.utils.checkpoint import checkpoint

BAD = torch.full((2, 8), math.nan)
compiled = partial(torch.compile, backend="aot_eager", fullgraph=True)

# Dynamo looks at `grad` of every graph input; it hides the warning, but not from those who make warnings errors.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    """Start and leave with no compiled code."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def check(watch: Any, hits: dict[str, int]) -> None:
    """Assert that each site has counted exactly so many hits, or is blind with a reason and has counted no more."""
    totals = watch.flush().totals
    assert {} == totals.errors
    for site in watch.sites:
        seen = totals.nonfinite.get(site.layer)
        count = seen.forwards if seen else 0
        expected = hits.get(site.layer, 0)
        assert expected == count if site.state == "observed" else site.reason and expected >= count, site.layer


@pytest.mark.parametrize("watched_first", [True, False])
def test_an_unwatched_twin_shares_no_count(watched_first: bool, attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Of two models of one class, compiled alike, the one without a watch counts into nothing, whichever was compiled first."""
    model, twin = block(), block()
    watch = attach(model)
    runs = [(compiled(model), True), (compiled(twin), False)]
    for run, _ in runs if watched_first else reversed(runs):
        run(torch.randn(2, 8))
    for turn in range(3):
        for run, watched in runs:
            run(BAD if watched == (turn < 1) else torch.randn(2, 8))
    check(watch, {"act": 1})


def test_detach_ends_the_counting_of_compiled_code(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Code that was compiled under a watch goes on after it with the same bits, and adds nothing to its report."""
    model = block()
    twin = copy.deepcopy(model)
    watch = attach(model)
    run = compiled(model)
    run(BAD)
    watch.detach()
    report = watch.report
    x = torch.randn(2, 8)
    assert torch.equal(twin(x), run(x))
    run(BAD)
    watch.flush()
    assert (report.totals.forwards, report.totals.nonfinite) == (watch.report.totals.forwards, watch.report.totals.nonfinite)


def test_a_second_watch_on_compiled_code_is_exact_or_blind(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Compiled under one watch and then watched by another, a model counts into the second exactly or not at all."""
    model = block()
    first = attach(model)
    run = compiled(model)
    run(BAD)
    first.detach()
    second = attach(model)
    for _ in range(3):
        run(BAD)
    check(second, {"act": 3})
    run(torch.randn(2, 8))
    check(second, {"act": 3})


def test_keyword_arguments_cost_no_recompilation(attach: Callable[..., Any], only: Callable[..., Any]) -> None:
    """A model called with keyword arguments compiles as many graphs under a watch as without."""

    def graphs(watched: bool) -> int:
        torch._dynamo.reset()
        counters.clear()
        model = only()
        if watched:
            attach(model)
        run = compiled(model)
        for _ in range(3):
            run(torch.randn(2, 3, 8), attention_mask=torch.ones(2, 3))
            run(x=torch.randn(2, 3, 8))
        return int(counters["stats"]["unique_graphs"])

    assert graphs(watched=False) == graphs(watched=True)


class Checkpointed(nn.Module):
    """Two blocks under activation checkpointing."""

    def __init__(self, block: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([block(), block()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., 8) to the same shape."""
        for part in self.blocks:
            x = checkpoint(part, x, use_reentrant=False)
        return x


def test_compiled_checkpoints_train_to_the_same_bits(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Checkpointed blocks compile into as many graphs under a watch, gradients are the same bits, recomputation counts once or blind."""
    model = Checkpointed(block)
    twin = copy.deepcopy(model)
    x = torch.randn(2, 8)

    def gradients(each: nn.Module, run: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor | None]:
        for _ in range(3):
            run(x).square().sum().backward()
        return [parameter.grad for parameter in each.parameters()]

    expected = gradients(twin, compiled(twin))
    bare = int(counters["stats"]["unique_graphs"])
    torch._dynamo.reset()
    counters.clear()
    watch = attach(model)
    run = compiled(model)
    assert all(torch.equal(left, right) for left, right in zip(expected, gradients(model, run), strict=True))
    assert bare == int(counters["stats"]["unique_graphs"])
    run(BAD).sum().backward()
    check(watch, {"blocks.0.act": 1, "blocks.1.act": 1})


@pytest.mark.parametrize("dynamic", [True, None], ids=["dynamic", "automatic"])
def test_changing_batch_sizes_are_exact_or_blind(dynamic: bool | None, attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Batches of many sizes through code compiled for any size give the same bits, and are counted exactly or blind."""
    model = block()
    twin = copy.deepcopy(model)
    watch = attach(model)
    run = compiled(model, dynamic=dynamic)
    with torch.no_grad():
        for size in (2, 3, 5, 4, 1, 7):
            x = torch.randn(size, 8)
            torch.testing.assert_close(twin(x), run(x))
            x[0, 0] = math.inf
            run(x)
    check(watch, {"act": 6})


class Broken(nn.Module):
    """Two blocks with a graph break between them."""

    def __init__(self, block: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.first, self.second = block(), block()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., 8) to the same shape."""
        x = self.first(x)
        torch._dynamo.graph_break()
        return self.second(x)


def test_graph_breaks_are_exact_or_blind(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """A model that falls into two graphs has as many under a watch, and its sites count exactly or are blind."""

    def graphs(model: nn.Module) -> int:
        counters.clear()
        run = torch.compile(model, backend="aot_eager")
        for _ in range(2):
            run(torch.randn(2, 8))
        run(BAD)
        return int(counters["stats"]["unique_graphs"])

    model = Broken(block)
    bare = graphs(copy.deepcopy(model))
    torch._dynamo.reset()
    watch = attach(model)
    assert bare == graphs(model)
    check(watch, {"first.act": 1, "second.act": 1})


def test_a_model_compiled_in_part_is_exact_or_blind_by_site(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Where one block of three is compiled, the eager ones are observed and exact, and the compiled one is exact or blind."""
    model = nn.Sequential(block(), block(), block())
    watch = attach(model)
    model[1].compile(backend="aot_eager", fullgraph=True)
    for x in (torch.randn(2, 8), BAD, torch.randn(2, 8)):
        model(x)
    watch.flush()  # from here on every site has to prove again that it runs
    model(BAD)
    check(watch, {f"{place}.act": 2 for place in range(3)})
    assert ("observed", "observed") == (watch.sites[0].state, watch.sites[2].state)
    assert (4, 2) == (watch.report.totals.forwards, watch.report.totals.nonfinite_forwards)


def test_threads_that_share_compiled_code_are_exact_or_blind(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Four threads that run one compiled model at once are counted exactly or not at all."""
    model = block()
    watch = attach(model)
    run = compiled(model)
    with torch.no_grad():
        run(torch.randn(2, 8))

    def serve(worker: int) -> None:
        with torch.no_grad():
            for turn in range(20):
                run(BAD if (turn + worker) % 4 == 0 else torch.ones(2, 8))

    threads = [threading.Thread(target=serve, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check(watch, {"act": 20})


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad, partial(torch.autocast, "cpu", torch.bfloat16)])
def test_compiled_code_in_every_context_is_exact_or_blind(
    context: Callable[[], Any], attach: Callable[..., Any], block: Callable[..., Any]
) -> None:
    """Compiled and run in inference mode, without gradients or in autocast, a model gives the same bits as its bare twin compiled alike."""
    model = block()
    twin = copy.deepcopy(model)
    x = torch.randn(2, 8)
    with context():
        expected = compiled(twin)(x)
    watch = attach(model)
    run = compiled(model)
    with context():
        assert torch.equal(expected, run(x))
        run(BAD)
    check(watch, {"act": 1})


def test_a_compiled_model_let_go_while_watched_is_freed(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Compiled code and a watch together keep a model alive no longer than compiled code does by itself."""

    def freed(watched: bool) -> bool:
        torch._dynamo.reset()
        model = nn.Sequential(block())
        if watched:
            attach(model)
        run = compiled(model)
        run(torch.randn(2, 8))
        reference = weakref.ref(model)
        del model, run
        torch._dynamo.reset()
        gc.collect()
        return reference() is None

    assert freed(watched=False) == freed(watched=True)
