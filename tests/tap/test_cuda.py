"""CUDA graphs: a watch never spoils a capture, and what it cannot see of replays it says."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from geluwatch.tap import usage

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def on_device(block: Callable[..., nn.Module]) -> nn.Module:
    """Return two blocks on the device."""
    return nn.Sequential(block(), block()).cuda()


def captured(model: nn.Module, x: torch.Tensor) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
    """Return a graph of one pass over a fixed input, and the output that its replays fill."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream), torch.no_grad():
        for _ in range(3):
            model(x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        output = model(x)
    return graph, output


@pytest.mark.parametrize("warm", [0, 15, 16, 40])
def test_a_watched_model_can_be_captured(warm: int, attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """However many passes went before, and whatever copies are under way, a capture succeeds while a thread flushes, with the same bits."""
    model = on_device(block)
    twin = copy.deepcopy(model)
    watch = attach(model, flush_seconds=0.001)
    x = torch.randn(64, 8, device="cuda")
    with torch.no_grad():
        for _ in range(warm):
            model(x)
    graph, output = captured(model, x)
    x.normal_()
    graph.replay()
    with torch.no_grad():
        assert torch.equal(twin(x), output)
    assert {} == watch.flush().totals.errors


def test_replays_of_a_captured_graph_are_exact_or_blind(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Faulty replays are all counted, or the sites are blind with the reason."""
    model = on_device(block)
    watch = attach(model)
    x = torch.randn(64, 8, device="cuda")
    graph, _ = captured(model, x)
    x.fill_(math.nan)
    for _ in range(50):
        graph.replay()
    torch.cuda.synchronize()
    blind = all(site.state == "blind" and site.reason for site in watch.sites)
    watch.detach()
    assert blind or 50 == watch.report.totals.nonfinite_forwards


def test_compiled_code_keeps_its_cuda_graphs(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """A watched model compiled to reduce overhead skips no CUDA graph, and its sites are exact or blind."""
    model = on_device(block)
    watch = attach(model)
    counters.clear()
    run = torch.compile(model, mode="reduce-overhead", fullgraph=True)
    x = torch.randn(64, 8, device="cuda")
    with torch.no_grad():
        for _ in range(5):
            run(x)
        run(torch.full_like(x, math.nan))
    torch.cuda.synchronize()
    assert 0 == counters["inductor"]["cudagraph_skips"]
    blind = all(site.state == "blind" and site.reason for site in watch.sites)
    watch.detach()
    assert blind or 1 == watch.report.totals.nonfinite_forwards


def test_a_device_says_how_much_memory_it_has() -> None:
    """The limit of a device in use is what its driver says, to a twentieth, and above what has been used of it."""
    held = torch.ones(1000, device="cuda")
    seen = usage.read().devices[0]
    assert torch.cuda.mem_get_info(0)[1] == pytest.approx(seen.limit, rel=0.05)
    assert held.nbytes <= seen.allocated <= seen.peak < (seen.limit or 0)
