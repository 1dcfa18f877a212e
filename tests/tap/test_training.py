"""Training under the watch: not a bit of any parameter, gradient or random state changes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed, nn

from geluwatch.tap import look

STEPS = 20


class Attention(nn.Module):
    """A transformer block with dropout in every place where it usually stands."""

    def __init__(self, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, dropout=0.1, batch_first=True)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(0.1), nn.Linear(4 * width, width), nn.Dropout(0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, tokens, width) to the same shape."""
        y = self.first(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.feed(self.second(x))


def transformer() -> nn.Module:
    """Return a small transformer with two blocks, always the same."""
    torch.manual_seed(1)
    return nn.Sequential(Attention(), Attention(), nn.Linear(16, 4))


def train(model: nn.Module, autocast: bool, after_step: Callable[[], object] = lambda: None) -> list[torch.Tensor]:
    """Train for some steps; return parameters, gradients and losses, and the state of every random generator."""
    torch.manual_seed(2)
    random.seed(2)
    np.random.seed(2)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(STEPS):
        x, target = torch.randn(8, 6, 16), torch.randint(4, (48,))
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = nn.functional.cross_entropy(model(x).flatten(0, 1), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
        after_step()
    others = torch.tensor([random.random(), np.random.random()], dtype=torch.float64)
    parameters = [tensor for parameter in model.parameters() for tensor in (parameter.detach(), parameter.grad)]
    return [*(tensor for tensor in parameters if tensor is not None), *losses, torch.get_rng_state(), others]


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16 autocast"])
@pytest.mark.parametrize("large", [1, look.LARGE], ids=["through consumers", "as it is"])
def test_training_is_identical_to_the_bit(autocast: bool, large: int, attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty steps with dropout end in the same parameters, gradients, losses and generator states, watched or not."""
    monkeypatch.setattr(look, "LARGE", large)
    expected = train(transformer(), autocast)
    model = transformer()
    watch = attach(model, cost_budget=1.0)
    actual = train(model, autocast, watch.flush)
    assert len(expected) == len(actual)
    assert all(torch.equal(left, right) for left, right in zip(expected, actual, strict=True))
    totals = watch.report.totals
    assert (STEPS, 0, {}) == (totals.forwards, totals.nonfinite_forwards, totals.errors)
    assert totals.sampled_forwards > 3
    assert totals.dropped_rows == 0


def test_training_with_user_hooks_goes_on_as_before(attach: Callable[..., Any]) -> None:
    """Forward, backward and gradient hooks of the user's own see the same calls in the same order under the watch."""

    def calls(watched: bool) -> list[tuple[str, str]]:
        seen: list[tuple[str, str]] = []
        model = transformer()
        for name, module in model.named_modules():
            if isinstance(module, (nn.GELU, nn.Linear)):
                module.register_forward_pre_hook(lambda *_, name=name: seen.append(("before", name)))
                module.register_forward_hook(lambda *_, name=name: seen.append(("after", name)))
                module.register_full_backward_hook(lambda *_, name=name: seen.append(("backward", name)))
        if watched:
            watch = attach(model)
            train(model, False, watch.flush)
            assert {} == watch.report.totals.errors
        else:
            train(model, False)
        return seen

    assert calls(watched=False) == calls(watched=True)


def test_a_hook_that_replaces_the_output_is_seen_behind(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """What the guard looks at is what the next layer gets, the user's own replacement of it included."""
    model = block()
    model.act.register_forward_hook(lambda _module, _args, output: output * float("inf"))
    watch = attach(model)
    model(torch.ones(2, 8))
    assert {("post", "posinf"), ("post", "neginf"), ("post", "nan")} & set(watch.flush().totals.nonfinite["act"].elements)


@pytest.fixture
def process_group() -> Iterator[None]:
    """Make this process a group of one."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_distributed_training_is_identical_and_ids_are_the_same(attach: Callable[..., Any]) -> None:
    """Under DistributedDataParallel training is the same to the bit, and sites are called what they are without it."""
    expected = train(nn.parallel.DistributedDataParallel(transformer()), False)
    model = nn.parallel.DistributedDataParallel(transformer())
    watch = attach(model)
    actual = train(model, False, watch.flush)
    assert all(torch.equal(left, right) for left, right in zip(expected, actual, strict=True))
    assert ["0.feed.1", "1.feed.1"] == [site.layer for site in watch.sites]
    assert (STEPS, {}) == (watch.report.totals.forwards, watch.report.totals.errors)
