"""Every GELU of a copy is replaced, whatever its form, and the model that was copied does not notice."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from geluwatch.errors import AttachError
from geluwatch.tap import dispatch
from geluwatch.tap.substitute import Swapped


class Called(nn.Module):
    """Calls the function, and holds a module as well."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.act = nn.Linear(8, 8), nn.GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Call both, the function twice."""
        return self.act(functional.gelu(self.up(functional.gelu(x))))


class InPlace(nn.Module):
    """Overwrites what it has."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the function in place."""
        return torch.ops.aten.gelu_(self.up(x))


def spelled_gelu(x: torch.Tensor) -> torch.Tensor:
    """Return GELU, computed by hand."""
    return x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))


class Spelled(nn.Module):
    """Spells the formula out."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.act = nn.Linear(8, 8), nn.GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute it by hand, and once by the module."""
        x = self.up(x)
        return self.act(spelled_gelu(x))


def shared() -> nn.Module:
    """Return a model in which one GELU is held three times."""
    act = nn.GELU()
    return nn.Sequential(nn.Linear(8, 8), act, nn.Sequential(nn.Linear(8, 8), act), act)


def encoder() -> nn.Module:
    """Return torch's own encoder, which takes its fused path."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


MODELS = {"module": (lambda: nn.Sequential(nn.Linear(8, 8), nn.GELU(approximate="tanh")), 1), "itself": (nn.GELU, 1), "shared": (shared, 3),
          "function": (Called, 3), "fused": (encoder, 2)}  # fmt: skip
"""A model by name, and the calls of GELU in a pass."""


@pytest.fixture
def given() -> torch.Tensor:
    """An input."""
    return torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", MODELS)
def test_every_call_is_replaced_and_counted(name: str, given: torch.Tensor) -> None:
    """With zero in place of GELU every call gives zero; the model gives the same bits before and after, and its weights are shared."""
    make, calls = MODELS[name]
    model = make().eval()
    with torch.no_grad():
        before = model(given)
        seen: list[float] = []
        swapped = Swapped(model, lambda values: (seen.append(float(values.abs().max())), torch.zeros_like(values))[1])
        with swapped.running() as changed:
            other = changed(given)
        again = model(given)
    assert (calls, calls, {}) == (swapped.calls, len(seen), swapped.kept)
    assert torch.equal(before, again)
    assert not torch.equal(before, other)
    assert {id(each) for each in model.parameters()} == {id(each) for each in swapped.model.parameters()}


@pytest.mark.parametrize("name", MODELS)
def test_nothing_in_the_place_of_gelu_is_the_model(name: str, given: torch.Tensor) -> None:
    """A copy with nothing replaced gives the model's own bits, on the way that calls of the function take in copies."""
    model = MODELS[name][0]().eval()
    with torch.no_grad(), Swapped(model, None).running() as same:
        assert torch.equal(model(given), same(given))


def test_calls_that_the_function_makes_are_its_own(given: torch.Tensor) -> None:
    """A function made of GELU is applied once a call, not to its own GELU again."""
    model = Called().eval()
    swapped = Swapped(model, lambda values: 2 * functional.gelu(values))
    with torch.no_grad(), swapped.running() as changed:
        other = changed(given)
    with torch.no_grad():
        expected = 2 * functional.gelu(2 * functional.gelu(model.up(2 * functional.gelu(given))))
    assert torch.equal(expected, other)
    assert 3 == swapped.calls


def test_a_call_in_place_is_overwritten(given: torch.Tensor) -> None:
    """`gelu_` leaves what stands in its place in the very tensor."""
    model = nn.Sequential(InPlace(), Called()).eval()
    swapped = Swapped(model, torch.relu)
    with torch.no_grad(), swapped.running() as changed:
        assert torch.equal(torch.relu(model[0].up(given)), changed[0](given))


def test_what_is_spelled_out_is_named(given: torch.Tensor) -> None:
    """A formula in a function of unknown code stays, and is named with the reason."""
    swapped = Swapped(Spelled().eval(), torch.relu)
    with torch.no_grad(), swapped.running() as changed:
        changed(given)
    assert 1 == swapped.calls
    (reason,) = swapped.kept.values()
    assert "spelled out in" in reason


def test_gated_and_clipped_modules_keep_their_other_half() -> None:
    """What a module does besides its GELU is still done: the product with the other half, the bounds of its output."""
    # Known by name and package; what they compute themselves is not run.
    gate = type("GeluAndMul", (nn.Module,), {"__module__": "vllm.model_executor"})()
    bounded = type("ClippedGELUActivation", (nn.Module,), {"__module__": "transformers.activations"})()
    bounded.min, bounded.max = -1.0, 1.0
    x = torch.randn(5, 8) * 3
    for module, expected in ((gate, torch.relu(x[:, :4]) * x[:, 4:]), (bounded, torch.relu(x).clip(-1, 1))):
        with Swapped(nn.Sequential(module), torch.relu).running() as changed:
            assert torch.equal(expected, changed(x))


def test_a_model_that_cannot_be_copied_is_refused() -> None:
    """The reason is part of the sentence."""
    model = nn.Sequential(nn.GELU())
    model.lock = __import__("threading").Lock()
    with pytest.raises(AttachError, match=r"This Sequential cannot be copied \(TypeError: cannot pickle"):
        Swapped(model, None)


def test_the_thread_is_left_as_it_was(given: torch.Tensor) -> None:
    """After a run, even one that failed, calls of GELU are torch's own, and no kernel of ours stands before them."""
    swapped = Swapped(Called(), torch.zeros_like)
    expected = functional.gelu(given)
    with pytest.raises(RuntimeError, match="shapes"), swapped.running() as changed:
        changed(torch.randn(2, 3))
    assert torch.equal(expected, functional.gelu(given))
    assert (0, dispatch.own_kernel) == (dispatch._ears.held, dispatch._ears.compute)
    assert torch.equal(expected, copy.deepcopy(nn.GELU())(given))
