"""Kernel parity on real inputs: a wrong kernel is named at its layer, and the right one is never called wrong."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import geluwatch
from geluwatch.core import parity

Attach = Callable[..., geluwatch.Watch]
Kernel = Callable[[torch.Tensor], torch.Tensor]

LAYERS = [f"encoder.layer.{k}.intermediate.intermediate_act_fn" for k in range(6)]

tanh: Kernel = partial(functional.gelu, approximate="tanh")


def quick(x: torch.Tensor) -> torch.Tensor:
    """The sigmoid form."""
    return x * torch.sigmoid(1.702 * x)


def in_bfloat16(x: torch.Tensor) -> torch.Tensor:
    """The GELU, computed in bfloat16 whatever comes in."""
    return functional.gelu(x.bfloat16()).to(x.dtype)


def tokens(batch: int = 4, length: int = 24) -> dict[str, torch.Tensor]:
    """A batch of tokens for the encoder."""
    ids = torch.randint(1000, 20000, (batch, length), generator=torch.Generator().manual_seed(5))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def faults(watch: geluwatch.Watch) -> dict[str, str]:
    """The faults of the kernels in a report by layer, and a check that every kernel was measured."""
    report = watch.close_window()
    found = {layer: seen.parity for (layer, point), seen in report.sites.items() if point == "post"}
    assert all(measured is not None for measured in found.values())
    assert all(seen.parity is None for (_, point), seen in report.sites.items() if point == "pre")
    wrong = {layer: measured.fault for layer, measured in found.items() if measured is not None and measured.fault}
    assert ("ticket" if wrong else "warming") == report.verdict
    return wrong


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        (tanh, "declared erf in float32, measured tanh: off by up to 0.00047"),
        (quick, "declared erf in float32, measured quick: off by up to 0.02"),
        (in_bfloat16, "declared erf in float32, measured erf with errors of the size of bfloat16's"),
        (torch.relu, "declared erf in float32, measured none of the known formulas"),
    ],
)
def test_a_wrong_kernel_is_named_at_its_layer_and_only_there(
    kernel: Kernel, words: str, minilm: nn.Module, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One layer of the real encoder computes another GELU: a ticket that names it, and no other layer; it ends with the kernel."""
    watch = attach(minilm, cost_budget=None)
    with monkeypatch.context() as swapped, torch.no_grad():
        swapped.setattr(minilm.get_submodule(LAYERS[3]), "act", kernel)
        minilm(**tokens())
        found = faults(watch)
    assert [LAYERS[3]] == list(found)
    assert found[LAYERS[3]].startswith(words)
    with torch.no_grad():
        minilm(**tokens())
    assert {} == faults(watch)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_right_kernel_under_autocast_is_no_fault(dtype: torch.dtype, minilm: nn.Module, attach: Attach) -> None:
    """Under autocast on the CPU every layer is measured as what it declares, in 16 bits, or, with few telling values, as undecided."""
    watch = attach(minilm, cost_budget=None)
    with torch.no_grad(), torch.autocast("cpu", dtype):
        minilm(**tokens())
    assert {} == faults(watch)
    found = [seen.parity for seen in watch.report.sites.values() if seen.parity]
    assert {str(dtype).removeprefix("torch.")} == {seen.precision for seen in found}
    assert "erf" in {seen.variant for seen in found} <= {"erf", ""}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_another_formula_is_told_under_autocast_too(
    dtype: torch.dtype, minilm: nn.Module, attach: Attach, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In 16 bits, where erf and tanh differ by a few units at best, the layer with the wrong one is told, and only that."""
    watch = attach(minilm, cost_budget=None)
    monkeypatch.setattr(minilm.get_submodule(LAYERS[1]), "act", tanh)
    with torch.no_grad(), torch.autocast("cpu", dtype):
        minilm(**tokens())
    assert [LAYERS[1]] == list(faults(watch))


class Stack(nn.Module):
    """Three dense layers with a GELU behind each."""

    def __init__(self, act: Callable[[], nn.Module], width: int = 32) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.blocks = nn.ModuleList([nn.ModuleList([nn.Linear(width, width), act()]) for _ in range(3)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (rows, width) to the same shape."""
        for dense, act in self.blocks:  # type: ignore[misc]  # a list of two
            x = act(4.0 * dense(x))
        return x


def activations() -> dict[str, Callable[[], nn.Module]]:
    """GELU classes as they are found in models, spelled-out ones among them."""
    from transformers import activations as library

    return {
        "erf": nn.GELU,
        "tanh": partial(nn.GELU, approximate="tanh"),
        "new": library.NewGELUActivation,
        "fast": library.FastGELUActivation,
        "quick": library.QuickGELUActivation,
        "python": partial(library.GELUActivation, use_gelu_python=True),
        "clipped": partial(library.ClippedGELUActivation, -1.0, 1.0),
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", list(activations()))
def test_no_class_is_called_wrong_in_any_dtype(name: str, dtype: torch.dtype, attach: Attach) -> None:
    """Models all in one dtype, with native kernels, clamped ones and formulas spelled out operation by operation: no fault."""
    model = Stack(activations()[name]).to(dtype)
    watch = attach(model, cost_budget=None)
    with torch.no_grad():
        model(torch.randn(500, 32, generator=torch.Generator().manual_seed(1)).to(dtype))
    assert {} == faults(watch)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", list(activations()))
def test_no_class_is_called_wrong_under_autocast(name: str, dtype: torch.dtype, attach: Attach) -> None:
    """The same under autocast, where parts of a formula may run in float32."""
    model = Stack(activations()[name])
    watch = attach(model, cost_budget=None)
    with torch.no_grad(), torch.autocast("cpu", dtype):
        model(torch.randn(500, 32, generator=torch.Generator().manual_seed(1)))
    assert {} == faults(watch)


def test_a_dropout_in_place_behind_a_gelu_is_no_fault(attach: Attach) -> None:
    """What a later layer does to the output in place is not the kernel's doing."""
    model = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Dropout(0.1, inplace=True))
    watch = attach(model, cost_budget=None)
    with torch.no_grad():
        model(torch.randn(500, 32))
    report = watch.close_window()
    assert "warming" == report.verdict
    assert not any(seen.parity and seen.parity.fault for seen in report.sites.values())


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of inductor's own
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_that_inductor_fuses_are_no_fault(dtype: torch.dtype) -> None:
    """Fused with what stands before it, a GELU may see inputs that were not rounded to the dtype; it is still what is declared."""
    torch.manual_seed(0)
    weight, bias = (4.0 * torch.randn(256, 64) / math.sqrt(64)).to(dtype), torch.randn(256).to(dtype)

    @torch.compile(backend="inductor")
    def both(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        before = functional.linear(x, weight) * 0.4 + bias
        return before, functional.gelu(before), functional.gelu(before, approximate="tanh")

    before, erf, other = (side.float().numpy() for side in both(torch.randn(400, 64).to(dtype)))
    for after, declared, wrong in ((erf, "erf", False), (other, "tanh", False), (other, "erf", True)):
        found: Any = parity.compare(*parity.choose(before, after, 4096), str(dtype).removeprefix("torch."), declared)
        assert wrong == bool(found.fault)
