"""The real encoder against changed copies of itself: each change is seen, and named at the layer where it was made."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from geluwatch.analysis.compare import compare_models
from geluwatch.cli.demo import model

PROSE = [
    ["Return a list of the lines of the input, with line ends kept.", "Raise an error if the file is missing."],
    ["The process waits until every child has ended, then returns the status of the last one that did."],
]
Change = Callable[[nn.Module], None]


def layer(encoder: Any, number: int) -> Any:
    """Return a layer of the encoder."""
    return encoder.encoder.layer[number]


def scaled(part: str, number: int, by: float) -> Change:
    """Scale a weight of one layer."""

    def change(encoder: nn.Module) -> None:
        layer(encoder, number).get_submodule(part).weight.data.mul_(by)

    return change


def activation(number: int, made: Callable[[], nn.Module]) -> Change:
    """Put another activation into one layer."""

    def change(encoder: nn.Module) -> None:
        layer(encoder, number).intermediate.intermediate_act_fn = made()

    return change


def pruned(encoder: nn.Module) -> None:
    """Set the smallest tenth of a layer's weights to zero."""
    weight = layer(encoder, 3).intermediate.dense.weight.data
    weight[weight.abs() < weight.abs().quantile(0.1)] = 0.0


def flipped(encoder: nn.Module) -> None:
    """Flip one bit of one weight, as faulty memory does."""
    weight = layer(encoder, 5).intermediate.dense.weight.data
    weight[7, 11] *= 2.0**8


def tuned(encoder: nn.Module) -> None:
    """Make one step of fine-tuning."""
    loss = encoder(input_ids=torch.arange(1000, 1016).reshape(1, -1)).last_hidden_state.square().mean()
    loss.backward()
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=0.01)
                parameter.grad = None


def embedded(encoder: Any) -> None:
    """Change the embeddings."""
    encoder.embeddings.word_embeddings.weight.data.mul_(1.001)


CHANGES: dict[str, tuple[Change, int, bool]] = {
    "a thousandth of a weight before a GELU": (scaled("intermediate.dense", 4, 1.001), 4, False),
    "a thousandth of an attention weight": (scaled("attention.self.value", 2, 1.001), 2, False),
    "a thousandth behind a GELU": (scaled("output.dense", 1, 1.001), 2, False),
    "tanh": (activation(2, lambda: nn.GELU(approximate="tanh")), 2, True),
    "a tenth of a layer pruned": (pruned, 3, False),
    "a flipped bit": (flipped, 5, False),
    "a step of fine-tuning": (tuned, 0, False),
    "embeddings": (embedded, 0, False),
}
"""By name: the change, the layer at which it shows first, and whether it is the GELU itself."""


@pytest.fixture(scope="module")
def encoder() -> model.Encoder:
    """The encoder."""
    return model.load()


def passes(encoder: model.Encoder) -> list[Any]:
    """Return tokens of two batches, one of them padded."""
    return [dict(encoder.tokenizer(texts, padding=True, return_tensors="pt")) for texts in PROSE]


def test_a_copy_is_the_same(encoder: model.Encoder) -> None:
    """At no GELU does anything differ by a bit; what is returned may in its last, which hang on where weights lie in memory."""
    found = compare_models(encoder.model, copy.deepcopy(encoder.model), passes(encoder), tolerance=0.0)
    assert found.first is None, found
    assert found.output < 1e-6


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_named_where_it_was_made(change: str, encoder: model.Encoder) -> None:
    """The first layer is right, and so is whether the GELU or what goes into it changed."""
    make, number, within = CHANGES[change]
    other = copy.deepcopy(encoder.model)
    make(other)
    found = compare_models(encoder.model, other, passes(encoder))
    assert found.first is not None
    assert f"encoder.layer.{number}.intermediate.intermediate_act_fn" == found.first.layer
    assert within == (found.first.before <= found.tolerance)


@pytest.mark.filterwarnings("ignore")  # torch warns that its quantisation moves to a package of its own
@pytest.mark.parametrize(
    ("cast", "least"),
    [
        (lambda encoder: encoder.to(torch.bfloat16), 1e-3),
        (lambda encoder: torch.ao.quantization.quantize_dynamic(encoder, {nn.Linear}, dtype=torch.qint8), 1e-2),
    ],
    ids=["bfloat16", "int8"],
)
def test_a_narrower_copy_is_seen_from_the_first_layer_on(
    cast: Callable[[nn.Module], nn.Module], least: float, encoder: model.Encoder
) -> None:
    """A cast and a dynamic quantisation move every layer, with the size of what they cost."""
    found = compare_models(encoder.model, cast(copy.deepcopy(encoder.model)), passes(encoder))
    assert found.first is not None
    assert "encoder.layer.0.intermediate.intermediate_act_fn" == found.first.layer
    assert all(each.after > least for each in found.layers)
