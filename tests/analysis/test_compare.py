"""Two models on the same inputs: the same is the same, and what was changed is named at the layer where it was."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import geluwatch
from geluwatch.analysis.compare import compare_models
from geluwatch.errors import AttachError, ConfigError
from geluwatch.records import LayerDifference

LAYERS = 4


class Block(nn.Module):
    """A residual block of a transformer, without attention."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.norm, self.up, self.act, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input with what the block makes of it."""
        return x + self.down(self.act(self.up(self.norm(x))))


class Functional(Block):
    """The same with the function in place of the module."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input with what the block makes of it."""
        return x + self.down(functional.gelu(self.up(self.norm(x))))


def stack(block: type[Block] = Block) -> nn.Module:
    """Return a small model in evaluation mode."""
    torch.manual_seed(3)
    return nn.Sequential(*[block() for _ in range(LAYERS)]).eval()


def inputs(count: int = 3) -> list[torch.Tensor]:
    """Return a few batches."""
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(2, 5, 16, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("block", [Block, Functional])
def test_a_copy_is_the_same(block: type[Block]) -> None:
    """Every row of every pass is compared, nothing differs by a bit, and no hook is left on either model."""
    known = stack(block)
    other = copy.deepcopy(known)
    found = compare_models(known, other, inputs())
    assert found.same
    assert str(found).startswith("the same at 4 GELUs, within 1e-05")
    assert {LayerDifference(each.layer, 30, 0.0, 0.0, 0.0, "") for each in found.layers if each.rows} <= {*found.layers}
    assert LAYERS == sum(each.rows == 30 for each in found.layers)
    assert not any(module._forward_hooks or module._forward_pre_hooks for model in (known, other) for module in model.modules())


def scaled(model: Any, layer: int) -> None:
    """Change the weights before a GELU by a thousandth."""
    with torch.no_grad():
        model[layer].up.weight.mul_(1.001)


def swapped(model: Any, layer: int) -> None:
    """Put the tanh form in place of the exact one."""
    model[layer].act = nn.GELU(approximate="tanh")


@pytest.mark.parametrize("layer", range(LAYERS))
def test_a_weight_changed_by_a_thousandth_is_found_where_it_is(layer: int) -> None:
    """The models part at that layer, before its GELU, by about so much; the layers in front agree to the bit."""
    known = stack()
    other = copy.deepcopy(known)
    scaled(other, layer)
    found = compare_models(known, other, inputs())
    assert found.first is not None
    assert f"{layer}.act" == found.first.layer
    assert 2e-4 < found.first.before < 2e-3
    assert [0.0] * layer == [each.after for each in found.layers[:layer]]
    assert str(found).startswith(f"the models part at {layer}.act: what goes into that GELU differs by ")


@pytest.mark.parametrize("layer", range(LAYERS))
def test_another_formula_is_found_in_the_gelu(layer: int) -> None:
    """The same goes in, another value comes out, and the census says which formula it is now."""
    known = stack()
    other = copy.deepcopy(known)
    swapped(other, layer)
    found = compare_models(known, other, inputs())
    assert found.first is not None
    assert (f"{layer}.act", 0.0) == (found.first.layer, found.first.before)
    assert found.first.after > 1e-5
    assert f"the models part at {layer}.act (its formula is erf in one and tanh in the other): the same goes in" in str(found)


def test_a_cast_is_found_at_the_first_layer_with_its_size() -> None:
    """A copy in bfloat16 differs from the first layer on, by what eight bits leave."""
    known = stack()
    other = copy.deepcopy(known).to(torch.bfloat16)
    found = compare_models(known, other, inputs(), call=lambda model, x: model(x.to(next(model.parameters()).dtype)))
    assert found.first is not None
    assert ("0.act", "its values are float32 in one and bfloat16 in the other") == (found.first.layer, found.first.difference)
    assert 1e-3 < found.first.before < 2e-2


@pytest.mark.filterwarnings("ignore")  # torch warns that its quantisation moves to a package of its own
def test_a_quantised_copy_is_found() -> None:
    """Dynamic int8 quantisation moves every layer, and is no failure of the comparison."""
    known = stack()
    other = torch.ao.quantization.quantize_dynamic(copy.deepcopy(known), {nn.Linear}, dtype=torch.qint8)
    found = compare_models(known, other, inputs())
    assert found.first is not None
    assert "0.act" == found.first.layer
    assert all(each.after > 1e-4 for each in found.layers)


def test_noise_of_float32_is_no_difference() -> None:
    """Values off by a rounding, as from kernels that sum in another order, are the same; a tolerance of zero tells them apart."""
    known = stack()
    other = copy.deepcopy(known)
    with torch.no_grad():
        other[1].up.weight.mul_(1.0 + 2.0**-23)
    assert compare_models(known, other, inputs()).same
    assert not compare_models(known, other, inputs(), tolerance=0.0).same


def test_what_is_not_finite_differs_unless_both_are() -> None:
    """A NaN in one model is an infinite difference; the same NaN in both is none."""
    known = stack()
    other = copy.deepcopy(known)
    poisoned = inputs()
    poisoned[1][0, 0, 0] = math.nan
    assert compare_models(known, other, poisoned).same
    with torch.no_grad():
        other[2].up.bias[3] = math.inf
    found = compare_models(known, other, inputs())
    assert found.first is not None
    assert ("2.act", math.inf) == (found.first.layer, found.first.before)


def test_layers_that_only_one_has_are_told() -> None:
    """A layer that is gone, and one that is new, are differences of the census."""
    known, other = stack(), stack()
    other[3] = nn.Identity()
    found = compare_models(known, other, inputs())
    assert ("3.act", "the second model lacks it") == (found.layers[3].layer, found.layers[3].difference)
    back = compare_models(other, known, inputs())
    assert ("3.act", "the first model lacks it") == (back.layers[3].layer, back.layers[3].difference)


def test_mappings_and_tuples_are_arguments() -> None:
    """A mapping is given as keyword arguments and a tuple as positional ones; rows that a mask hides are not compared."""

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Block()

        def forward(self, x: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:  # noqa: ARG002  # read by the watch
            out: torch.Tensor = self.block(x)
            return out

    known = Masked().eval()
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    for given in ({"x": inputs()[0], "attention_mask": mask}, (inputs()[0], mask)):
        found = compare_models(known, copy.deepcopy(known), [given])
        assert found.same
        assert 8 == found.layers[0].rows


def test_what_cannot_be_compared_is_refused_and_leaves_nothing() -> None:
    """The same object, no input, a negative tolerance, a watched model, a pass that raises: one error, and both models are free again."""
    known = stack()
    other = copy.deepcopy(known)
    with pytest.raises(AttachError, match="the same object"):
        compare_models(known, known, inputs())
    with pytest.raises(ConfigError, match="no input"):
        compare_models(known, other, [])
    with pytest.raises(ConfigError, match=r"tolerance must be a number of at least 0, got -1\.0"):
        compare_models(known, other, inputs(), tolerance=-1.0)
    with geluwatch.attach(other, name="other"), pytest.raises(AttachError, match="being watched already"):
        compare_models(known, other, inputs())
    with pytest.raises(RuntimeError, match="size"):
        compare_models(known, other, [torch.randn(2, 3)])
    with pytest.raises(AttachError, match="No GELU gave rows to compare: "):
        compare_models(known, other, [torch.randn(0, 5, 16)])
    assert compare_models(known, other, inputs()).same


@dataclasses.dataclass
class Output:
    """What some models return."""

    boxes: torch.Tensor


@pytest.mark.parametrize("wrapped", [Output, lambda x: [{"boxes": x}], lambda x: (torch.ones(3), x)])
def test_every_tensor_that_a_model_returns_is_compared(wrapped: Any) -> None:
    """A head that changed is told whatever its output is wrapped in, and not only where its tensor is the first one."""

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.last = stack(), nn.Linear(16, 4)

        def forward(self, x: torch.Tensor) -> object:
            return wrapped(self.last(self.body(x)))

    known = Head().eval()
    other = copy.deepcopy(known)
    assert compare_models(known, other, inputs()).same
    nn.init.zeros_(other.last.weight)
    found = compare_models(known, other, inputs())
    assert not found.same
    assert "behind the last of them the models part" in str(found)


def test_an_output_without_a_tensor_is_not_called_the_same() -> None:
    """The sentence says that what the models return was not compared."""

    class Silent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = stack()

        def forward(self, x: torch.Tensor) -> str:
            self.body(x)
            return "done"

    known = Silent().eval()
    assert str(compare_models(known, copy.deepcopy(known), inputs())).endswith(
        "no tensor was found in what they return, which is not compared"
    )


def test_inputs_written_in_place_are_the_same_for_both() -> None:
    """A model that scales its input where it lies finds it unscaled in every pass, and the caller keeps it."""

    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = stack()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.body(x.div_(255.0))
            return out

    known = InPlace().eval()
    given = inputs()
    before = [each.clone() for each in given]
    assert compare_models(known, copy.deepcopy(known), given).same
    assert all(map(torch.equal, before, given))
