"""Ways of running a model that change what a pass, a call or a tensor is: outputs stay the same bits and counts are exact."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from geluwatch.tap import look

BAD = torch.full((2, 8), math.nan)


def gradients(model: nn.Module) -> list[torch.Tensor]:
    """Return the gradients of all parameters that have one."""
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def test_gradient_accumulation_counts_each_micro_batch(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Four micro-batches before one step are four passes, the bad one a hit, and the summed gradients are the same bits."""
    model = nn.Sequential(block(), block())
    twin = copy.deepcopy(model)
    watch = attach(model)
    batches = [torch.randn(3, 8) for _ in range(4)]
    batches[2][0, 0] = math.inf
    for each in (model, twin):
        for batch in batches[:2] + batches[3:]:
            (each(batch).square().sum() / 4).backward()
    assert all(torch.equal(left, right) for left, right in zip(gradients(twin), gradients(model), strict=True))
    (model(batches[2]).square().sum() / 4).backward()
    totals = watch.flush().totals
    assert (4, 1, {}) == (totals.forwards, totals.nonfinite_forwards, totals.errors)
    assert (1, 1) == (totals.nonfinite["0.act"].forwards, totals.nonfinite["0.act"].first)


def test_scaled_gradients_change_nothing(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """With a gradient scaler whose scale overflows, losses and parameters are the same bits, and no hit is counted: forwards were sound."""

    def train(model: nn.Module) -> list[torch.Tensor]:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=2)
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(6):
            optimiser.zero_grad()
            x = torch.linspace(-1, 1, 24).reshape(3, 8) + step
            with torch.autocast("cpu", torch.float16):
                loss = 100 * model(x).float().square().sum()
            scaler.scale(loss).backward()
            scaler.step(optimiser)
            scaler.update()
        return [loss.detach(), *(parameter.detach() for parameter in model.parameters())]

    model = block()
    expected = train(copy.deepcopy(model))
    watch = attach(model)
    assert all(torch.equal(left, right) for left, right in zip(expected, train(model), strict=True))
    totals = watch.flush().totals
    assert (6, 0, {}) == (totals.forwards, totals.nonfinite_forwards, totals.errors)


@pytest.mark.parametrize("frozen", ["all", "up", "none"])
def test_frozen_parameters_are_no_matter(frozen: str, attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Where tensors at the GELU need no gradient, in part or at all, backward runs as before and hits are counted."""
    model = block()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(frozen == "none" or (frozen == "up" and not name.startswith("up")))
    twin = copy.deepcopy(model)
    watch = attach(model)
    x = torch.randn(2, 8)
    for each in (model, twin):
        loss = each(x).sum()
        if loss.requires_grad:
            loss.backward()
    assert all(torch.equal(left, right) for left, right in zip(gradients(twin), gradients(model), strict=True))
    model(BAD)
    assert (1, {}) == (watch.flush().totals.nonfinite_forwards, watch.report.totals.errors)


class InPlace(nn.Module):
    """Dense, GELU, an operation that writes into the GELU's output, dense."""

    def __init__(self, write: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.up, self.act, self.down = nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)
        self.write = write

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., 8) to the same shape."""
        return self.down(self.write(self.act(self.up(x))))


WRITES = {
    "dropout": nn.Dropout(0.5, inplace=True),
    "mul_": lambda x: x.mul_(3.0),
    "zero_": lambda x: x.mul_(0.0).nan_to_num_(),
    "relu": nn.ReLU(inplace=True),
}


@pytest.mark.parametrize("large", [1, look.LARGE], ids=["through consumers", "as it is"])
@pytest.mark.parametrize("write", WRITES)
def test_writing_into_the_output_changes_neither_bits_nor_counts(
    write: str, large: int, attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a GELU whose output is overwritten in training, gradients are the same bits, rows are the GELU's own, hits exact."""
    monkeypatch.setattr(look, "LARGE", large)
    model = InPlace(WRITES[write])
    twin = copy.deepcopy(model)
    watch = attach(model)
    x = torch.randn(2, 8)
    with torch.no_grad():
        whole = nn.functional.gelu(model.up(x))
    for each in (twin, model):
        torch.manual_seed(5)
        each(x).square().sum().backward()
    assert all(torch.equal(left, right) for left, right in zip(gradients(twin), gradients(model), strict=True))
    (rows,) = watch._source.drain().rows
    assert torch.equal(whole, torch.from_numpy(rows.post))
    for passes in range(1, 4):
        model(BAD)
        totals = watch.flush().totals
        assert (passes, {("pre", "nan"): 32 * passes}) == (totals.nonfinite_forwards, totals.nonfinite["act"].elements)
    assert {} == totals.errors


class Reuses(nn.Module):
    """Writes into the GELU's input once its output is there, as code that saves memory in serving does."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.act, self.down = nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., 8) to the same shape."""
        pre = self.up(x)
        post = self.act(pre)
        pre.zero_()
        return self.down(post)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("large", [1, look.LARGE], ids=["through consumers", "as it is"])
def test_an_input_written_over_is_not_blamed_on_the_gelu(
    large: int, mode: Callable[[], Any], attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the model reuses the memory of the GELU's input, values that arose before the GELU are counted before it."""
    monkeypatch.setattr(look, "LARGE", large)
    model = Reuses()
    watch = attach(model)
    with mode():
        model(torch.randn(2, 8))
        watch.flush()
        model(BAD)
    assert {("pre", "nan"): 32} == watch.flush().totals.nonfinite["act"].elements


class Repeated(nn.Module):
    """One block run several times, as models with tied layers do."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: torch.Tensor, spoil: int = -1) -> torch.Tensor:
        """Run the block four times; spoil one element of one run's input."""
        for turn in range(4):
            if turn == spoil:
                x = x.index_fill(0, torch.tensor([0]), math.inf)
            x = self.block(x)
        return x


def test_tied_layers_are_one_site_and_one_hit_a_pass(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """A block run four times is one site: a pass is hit once, its elements count in every run from the bad one on."""
    model = Repeated(block())
    watch = attach(model)
    x = torch.randn(2, 8)
    expected = copy.deepcopy(model)(x)
    assert torch.equal(expected, model(x))
    for spoil in (0, 2, 3):
        model(x, spoil)
    totals = watch.flush().totals
    seen = totals.nonfinite["block.act"]
    assert (4, 3, 3, 3, {}) == (totals.forwards, totals.nonfinite_forwards, seen.forwards, seen.first, totals.errors)
    assert 16 * (4 + 2 + 1) == sum(seen.elements.values())


def test_nested_checkpoints_count_once(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """A checkpoint within a checkpoint recomputes its inner part twice; passes, hits and elements count once."""
    inner, outer = block(), block()
    model = nn.Sequential(inner, outer)
    watch = attach(model)

    def twice(x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = model[1](checkpoint(model[0], x, use_reentrant=False))
        return result

    model.forward = lambda x: checkpoint(twice, x, use_reentrant=False)
    x = torch.randn(3, 8)
    x[0, 0] = math.nan
    model(x.requires_grad_()).sum().backward()
    totals = watch.flush().totals
    assert (1, 1, {}) == (totals.forwards, totals.nonfinite_forwards, totals.errors)
    assert [16, 16] == [sum(totals.nonfinite[layer].elements.values()) for layer in ("0.act", "1.act")]


def replica(module: nn.Module) -> nn.Module:
    """Return what nn.DataParallel runs on each device: shallow copies that share the hooks, with parameters of their own."""
    twin = module._replicate_for_data_parallel()
    for name, child in module._modules.items():
        twin._modules[name] = None if child is None else replica(child)
    for name, parameter in module._parameters.items():
        setattr(twin, name, None if parameter is None else parameter.detach().clone())
    return twin


@pytest.mark.parametrize("shared", [False, True], ids=["own GELUs", "a shared GELU"])
def test_replicas_in_threads_count_into_the_watched_model(shared: bool, attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Replicas as nn.DataParallel makes them, each in a thread, give the same bits, and count at the sites of their original."""
    act = nn.GELU() if shared else None
    model = nn.Sequential(block(act), block(act))
    x = torch.randn(4, 3, 8)
    expected = [model(part) for part in x]
    watch = attach(model)
    with ThreadPoolExecutor(4) as pool:
        for turn in range(10):
            parts = [part.clone() for part in x]
            if turn % 2:
                parts[turn % 4][0, 0] = math.inf
            replicas = [replica(model) for _ in parts]
            if turn == 9:
                with torch.no_grad():
                    replicas[0][1].up.bias.fill_(math.nan)
            outputs = list(pool.map(lambda run, part: run(part), replicas, parts))
            if not turn % 2:
                assert all(torch.equal(left, right) for left, right in zip(expected, outputs, strict=True))
    totals = watch.flush().totals
    assert (40, 6, {}) == (totals.forwards, totals.nonfinite_forwards, totals.errors)
    assert (5, 1) == (totals.nonfinite["0.act"].first, totals.nonfinite["1.act"].first)


class Branches(nn.Module):
    """Two branches run in threads of their own, as a data-parallel part of a model runs its replicas."""

    def __init__(self, block: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.left, self.right, self.last = block(), block(), block()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., 8) to the same shape."""
        with ThreadPoolExecutor(2) as pool:
            left, right = pool.map(lambda branch: branch(x), (self.left, self.right))
        result: torch.Tensor = self.last(left + right)
        return result


def test_threads_inside_a_forward_belong_to_its_pass(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Where a forward runs its branches in threads, a bad pass is one hit with one first layer, and every layer gives rows."""
    model = Branches(block)
    watch = attach(model)
    model(torch.randn(2, 8))
    model(BAD)
    totals = watch.close_window().totals
    assert (2, 1, {}) == (totals.forwards, totals.nonfinite_forwards, totals.errors)
    assert 1 == sum(seen.first for seen in totals.nonfinite.values())
    assert all(watch.report.sites[site.layer, "pre"].rows for site in watch.sites)


class Spoiled(nn.Module):
    """Blocks in a row, the input of one of which is spoilt in a call that asks for it."""

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: torch.Tensor, spoil: int = -1) -> torch.Tensor:
        """Map (..., 8) to the same shape."""
        for place, part in enumerate(self.blocks):
            x = part(x.index_fill(0, torch.tensor([0]), math.nan) if place == spoil else x)
        return x


@pytest.mark.parametrize("large", [1, look.LARGE], ids=["through consumers", "as it is"])
def test_sixteen_threads_at_once_are_counted_exactly(
    large: int, attach: Callable[..., Any], block: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen threads, sixteen passes each, faults at all layers: outputs, first layers and elements are exact amid flushes."""
    monkeypatch.setattr(look, "LARGE", large)
    model = Spoiled([block() for _ in range(3)])
    x = torch.randn(2, 8)
    expected = model(x)
    watch = attach(model)
    done = threading.Event()
    start = threading.Barrier(16)

    def serve(worker: int) -> bool:
        same = True
        start.wait()
        for turn in range(16):
            with (torch.inference_mode if worker % 2 else torch.no_grad)():
                spoil = (worker + turn) % 8 if (worker + turn) % 8 < 3 else -1
                y = model(x, spoil)
                same &= torch.equal(expected[1], y[1]) and torch.equal(expected, y) == (spoil < 0)
        return same

    def drain() -> None:
        while not done.wait(0.005):
            watch.flush()

    drainer = threading.Thread(target=drain)
    drainer.start()
    with ThreadPoolExecutor(16) as pool:
        same = list(pool.map(serve, range(16)))
    done.set()
    drainer.join()
    totals = watch.flush().totals
    firsts = [totals.nonfinite[site.layer].first for site in watch.sites]
    elements = [sum(totals.nonfinite[site.layer].elements.values()) for site in watch.sites]
    assert ([True] * 16, 256, 96, {}) == (same, totals.forwards, totals.nonfinite_forwards, totals.errors)
    assert ([32, 32, 32], [32 * 16, 64 * 16, 96 * 16]) == (firsts, elements)
