"""Watched models on accelerators: tensors of the CPU that say they are elsewhere, so that every look takes the way without a wait."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from geluwatch.tap import deferred, look
from geluwatch.tap.deferred import DeviceGuard, DeviceRows

Attach = Callable[..., Any]


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every tensor say that it is not on the CPU."""
    monkeypatch.setattr(torch.Tensor, "is_cpu", property(lambda _: False))


class Overwriting(nn.Module):
    """A GELU that writes its output over its input."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., 8) to the same shape."""
        return torch.ops.aten.gelu_(self.dense(x))  # type: ignore[no-any-return]  # torch's own is untyped


def test_a_gelu_in_place_does_not_wait(attach: Attach, accelerator: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GELU that writes over its input on an accelerator is guarded there: no value is asked for, and the NaN is counted."""
    model = Overwriting()
    watch = attach(model)
    asked: list[torch.Tensor] = []
    with torch.no_grad(), monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "item", asked.append)
        for values in (torch.randn(2, 8), torch.full((2, 8), math.nan), torch.randn(2, 8)):
            model(values)
    watch.detach()
    assert ([], 1, {}) == (asked, watch.report.totals.nonfinite_forwards, watch.report.totals.errors)


def chosen(_context: Any, operation: Any, *_args: Any, **_options: Any) -> CheckpointPolicy:
    """Save the products of a checkpoint, and compute the rest anew."""
    saved = (torch.ops.aten.mul.Tensor, torch.ops.aten.addmm.default)
    return CheckpointPolicy.MUST_SAVE if operation in saved else CheckpointPolicy.PREFER_RECOMPUTE


class Gated(nn.Module):
    """A GELU times what it came from."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.act = nn.Linear(8, 8), nn.GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., 8) to the same shape."""
        return self.act(self.dense(x)) * x


def gradients_of(model: nn.Module) -> list[torch.Tensor]:
    """Return the gradients of three passes of a model within one checkpoint that saves some operations."""
    model.zero_grad()
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    contexts = partial(create_selective_checkpoint_contexts, chosen)
    y = checkpoint(lambda x: model(model(model(x))), x, use_reentrant=False, context_fn=contexts)
    y.square().sum().backward()
    return [each.grad for each in (x, *model.parameters()) if each.grad is not None]


def test_selective_checkpoints_see_nothing_of_a_pass_that_ends(attach: Attach, request: pytest.FixtureRequest) -> None:
    """A checkpoint that chooses what it saves, around a whole model on an accelerator, gives the gradients that it gave unwatched."""
    model = Gated()
    expected = [each.clone() for each in gradients_of(model)]
    watch = attach(model)
    request.getfixturevalue("accelerator")
    for _ in range(2):
        assert all(torch.equal(one, two) for one, two in zip(expected, gradients_of(model), strict=True))
    assert {} == watch.flush().totals.errors


class Split(nn.Module):
    """Two GELUs on one device, and two on another."""

    def __init__(self) -> None:
        super().__init__()
        self.here = nn.Sequential(nn.GELU(), nn.GELU())
        self.there = nn.Sequential(nn.GELU(), nn.GELU())

    def forward(self, x: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:  # noqa: ARG002  # for the hooks
        """Map (..., C) to the same shape, on the other device."""
        return self.there(self.here(x).to("meta"))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_model_on_two_devices_is_watched_on_both(
    masked: bool, device: str, attach: Attach, accelerator: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a mask on the first of them or none, or all on the other device than the mask, nothing fails, and rows are drawn on each.

    CPU and "meta" stand for the two, which torch does not mix either; of "meta" no value can be read.
    """
    drawn: list[tuple[str, torch.device, torch.device]] = []

    def capture(_rows: DeviceRows, layer: str, pre: torch.Tensor, _post: torch.Tensor, choice: deferred.Choice) -> None:
        drawn.append((layer, pre.device, choice.indices.device))

    monkeypatch.setattr(torch.Tensor, "is_meta", property(lambda _: False))
    monkeypatch.setattr(look, "watchable", lambda *_: "")
    monkeypatch.setattr(DeviceRows, "_generator", lambda *_: None)
    monkeypatch.setattr(DeviceRows, "capture", capture)
    monkeypatch.setattr(DeviceGuard, "counts", lambda guard, **_: ([0] * guard.sites, [0] * guard.sites, 0))
    model = Split()
    watch = attach(model)
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]]) if masked else None
    for _ in range(2):
        model(torch.randn(2, 3, 8, device=device), attention_mask=mask)
    assert ({}, 8) == (watch.flush().totals.errors, len(drawn))
    assert all(rows == chosen for _, rows, chosen in drawn)
    assert {"here.0": device, "there.1": "meta"}.items() <= {layer: rows.type for layer, rows, _ in drawn}.items()


class Branches(nn.Module):
    """Two blocks, each run by a thread of its own."""

    def __init__(self, block: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.left, self.right = block(), block()
        self.pool = [ThreadPoolExecutor(2)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., 8) to the same shape."""
        return sum(self.pool[0].map(lambda part: part(x).detach(), (self.left, self.right)), torch.zeros(()))


def counted(watch: Any) -> tuple[int, int, dict[str, int], int]:
    """Return passes, those with a hit, hits by layer, and first hits, once the watch has come off."""
    watch.detach()
    totals = watch.report.totals
    hits = {layer: seen.forwards for layer, seen in totals.nonfinite.items()}
    return totals.forwards, totals.nonfinite_forwards, hits, sum(seen.first for seen in totals.nonfinite.values())


@pytest.mark.parametrize("there", [False, True], ids=["CPU", "accelerator"])
def test_branches_in_other_threads_belong_to_the_pass(
    there: bool, attach: Attach, block: Callable[..., nn.Module], request: pytest.FixtureRequest
) -> None:
    """A NaN met by threads that work for a pass counts as one pass with one first layer, and their rows arrive."""
    model = Branches(block)
    watch = attach(model)
    if there:
        request.getfixturevalue("accelerator")
    for values in (torch.randn(2, 8), torch.full((2, 8), math.nan), torch.full((2, 8), math.nan), torch.randn(2, 8)):
        model(values)
    assert {("left.act", "pre"), ("right.act", "pre")} <= {key for key, seen in watch.close_window().sites.items() if seen.rows}
    assert (4, 2, {"left.act": 2, "right.act": 2}, 2) == counted(watch)


@pytest.mark.parametrize("there", [False, True], ids=["CPU", "accelerator"])
def test_a_part_called_by_itself_is_guarded(
    there: bool, attach: Attach, block: Callable[..., nn.Module], request: pytest.FixtureRequest
) -> None:
    """A NaN in a part of the model that is called without the model counts each time, and not in the passes around it."""
    model = nn.Sequential(block(), block())
    watch = attach(model)
    if there:
        request.getfixturevalue("accelerator")
    for part, values in ((model, torch.ones(2, 8)), (model[1], torch.full((2, 8), math.nan)), (model[1], torch.ones(2, 8))) * 2:
        part(values)
    assert (2, 2, {"1.act": 2}, 2) == counted(watch)
