"""Large outputs are looked at through the dense layer behind them, and nothing gets lost on the way."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from geluwatch.tap import guard, look

KINDS = {"nan": math.nan, "posinf": math.inf, "neginf": -math.inf}


@pytest.fixture
def through_consumers(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Leave outputs of any size to their consumers, and count how often each look is taken."""
    looks = {"suspicious": 0, "suspicious_column": 0}

    def counted(name: str) -> None:
        look = getattr(guard, name)

        def wrapper(values: torch.Tensor) -> bool:
            looks[name] += 1
            result: bool = look(values)
            return result

        monkeypatch.setattr(guard, name, wrapper)

    monkeypatch.setattr(look, "LARGE", 1)
    for name in looks:
        counted(name)
    return looks


def learn(model: nn.Module, watch: Any, looks: dict[str, int], x: torch.Tensor) -> None:
    """Run one pass and one flush, after which large outputs go through their consumers."""
    model(x)
    watch.flush()
    looks.update(dict.fromkeys(looks, 0))


def test_large_outputs_are_looked_at_through_their_consumer_alone(
    through_consumers: dict[str, int], attach: Callable[..., Any], block: Callable[..., Any]
) -> None:
    """After the first pass and a flush, a clean pass takes one look a site, at a column, and none at the whole."""
    model = nn.Sequential(block(), block())
    watch = attach(model)
    x = torch.randn(4, 8)
    learn(model, watch, through_consumers, x)
    assert [1, 1] == [len(part.down._forward_hooks) for part in model]
    model(x)
    assert {"suspicious": 0, "suspicious_column": 2} == through_consumers


def test_the_dense_layer_of_gpt2_is_a_consumer(through_consumers: dict[str, int], attach: Callable[..., Any]) -> None:
    """A dense layer with its weights the other way round stands for a GELU like any other, and a NaN before it is counted as one."""
    transposed = pytest.importorskip("transformers.pytorch_utils").Conv1D
    model = nn.Sequential(transposed(16, 8), nn.GELU(), transposed(8, 16))
    watch = attach(model)
    x = torch.randn(4, 8)
    learn(model, watch, through_consumers, x)
    model(x)
    assert {"suspicious": 0, "suspicious_column": 1} == through_consumers
    x[2] = math.nan
    model(x)
    seen = watch.flush().totals.nonfinite["1"]
    assert (1, {("pre", "nan"): 16}) == (seen.forwards, seen.elements)


def test_a_class_that_is_only_called_conv1d_is_no_consumer() -> None:
    """What a class of the user's computes is not known by its name."""

    class Conv1D(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 2))

    assert not look.dense(Conv1D())
    assert not look.dense(nn.Conv1d(2, 2, 1))


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_a_sparse_dense_layer_is_no_consumer(
    through_consumers: dict[str, int], attach: Callable[..., Any], block: Callable[..., Any]
) -> None:
    """A product with a sparse weight loses what is non-finite where the weight is zero: every fault is found, looked at whole."""
    model = block()
    kept = torch.zeros_like(model.down.weight)
    kept[1, 1] = 1.0
    model.down.weight = nn.Parameter(kept.to_sparse_csr(), requires_grad=False)
    watch = attach(model)
    with torch.no_grad():
        learn(model, watch, through_consumers, torch.randn(4, 8))
        model.up.bias[3] = math.nan
        assert bool(torch.isfinite(model(torch.randn(4, 8))).all())
    assert (1, 0) == (watch.flush().totals.nonfinite_forwards, through_consumers["suspicious_column"])


def test_consumers_are_learnt_from_a_small_pass_too(
    through_consumers: dict[str, int], monkeypatch: pytest.MonkeyPatch, attach: Callable[..., Any], block: Callable[..., Any]
) -> None:
    """A model that warmed up on small batches goes through consumers once its batches grow."""
    model = block()
    watch = attach(model)
    monkeypatch.setattr(look, "LARGE", 1000)
    model(torch.randn(4, 8))
    watch.flush()
    model(torch.randn(400, 8))
    watch.flush()
    through_consumers.update(suspicious=0, suspicious_column=0)
    model(torch.randn(400, 8))
    assert {"suspicious": 0, "suspicious_column": 1} == through_consumers


def test_a_first_pass_that_raises_teaches_later(
    through_consumers: dict[str, int], attach: Callable[..., Any], block: Callable[..., Any]
) -> None:
    """A first pass that fails (out of memory, say) does not end the learning."""
    model = block()
    watch = attach(model)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        model(torch.randn(4, 9))
    watch.flush()
    model(torch.randn(4, 8))
    watch.flush()
    assert 1 == len(model.down._forward_hooks)


@pytest.mark.parametrize("kind", KINDS)
def test_hits_through_a_consumer_are_counted_exactly(
    kind: str, through_consumers: dict[str, int], attach: Callable[..., Any], block: Callable[..., Any]
) -> None:
    """A value planted before either of two GELUs is found through the consumer, at the right layer, with exact counts."""
    model = nn.Sequential(block(), block())
    watch = attach(model)
    learn(model, watch, through_consumers, torch.randn(4, 8))
    with torch.no_grad():
        model[1].up.bias[3] = KINDS[kind]
    model(torch.randn(4, 8))
    nonfinite = watch.flush().totals.nonfinite
    assert ["1.act"] == list(nonfinite)
    assert (1, 1, {("pre", kind): 4}) == (nonfinite["1.act"].forwards, nonfinite["1.act"].first, nonfinite["1.act"].elements)


def test_overflow_in_the_consumer_is_not_blamed_on_the_gelu(
    through_consumers: dict[str, int], attach: Callable[..., Any], block: Callable[..., Any]
) -> None:
    """A consumer whose own product overflows, or whose weights are NaN, is looked into, and the GELU found clean."""
    model = block()
    watch = attach(model)
    learn(model, watch, through_consumers, torch.randn(4, 8))
    with torch.no_grad():
        model.down.weight.fill_(3e38)
        model.up.bias.fill_(100.0)
    assert bool(torch.isinf(model(torch.randn(4, 8))).any())
    with torch.no_grad():
        model.down.weight.fill_(math.nan)
    model(torch.randn(4, 8))
    totals = watch.flush().totals
    assert (3, 0, {}) == (totals.forwards, totals.nonfinite_forwards, totals.nonfinite)
    assert 2 == through_consumers["suspicious_column"]


class Between(nn.Module):
    """Dense, GELU, something, dense."""

    def __init__(self, between: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.up, self.act, self.down = nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)
        self.between = between

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., 8) to the same shape."""
        return self.down(self.between(self.act(self.up(x))))


def test_a_consumer_that_gets_another_tensor_hides_nothing(through_consumers: dict[str, int], attach: Callable[..., Any]) -> None:
    """With dropout switched on between the two, the output is looked at whole, at once from the second pass on."""
    model = Between(nn.Dropout(0.5)).eval()
    watch = attach(model)
    learn(model, watch, through_consumers, torch.randn(4, 8))
    model.train()
    x = torch.randn(4, 8)
    x[0, 0] = math.nan
    for passes in (1, 2):
        model(x)
        totals = watch.flush().totals
        assert (passes, {("pre", "nan"): 16 * passes}) == (totals.nonfinite_forwards, totals.nonfinite["act"].elements)
    assert 0 == through_consumers["suspicious_column"]
    model.eval()
    model(x)
    assert (3, 1) == (watch.flush().totals.nonfinite_forwards, through_consumers["suspicious_column"])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_an_output_changed_in_place_is_not_left_to_the_consumer(
    mode: Callable[[], Any], through_consumers: dict[str, int], attach: Callable[..., Any]
) -> None:
    """Where the model overwrites the GELU's output before the dense layer, NaNs are found before they are overwritten."""
    model = Between(lambda x: x.add_(1.0).nan_to_num_())
    watch = attach(model)
    with mode():
        learn(model, watch, through_consumers, torch.randn(4, 8))
        x = torch.randn(4, 8)
        x[2, 2] = math.nan
        assert bool(torch.isfinite(model(x)).all())
    assert 1 == watch.flush().totals.nonfinite_forwards
    assert 0 == len(model.down._forward_hooks)


def test_a_change_in_place_that_comes_later_ends_the_trust(through_consumers: dict[str, int], attach: Callable[..., Any]) -> None:
    """Where the output is overwritten in some passes only, the first such pass is noticed, and all later ones looked at whole."""
    overwrite = False
    model = Between(lambda x: x.nan_to_num_() if overwrite else x)
    watch = attach(model)
    x = torch.randn(4, 8)
    x[2, 2] = math.nan
    with torch.no_grad():
        learn(model, watch, through_consumers, torch.randn(4, 8))
        overwrite = True
        for _ in range(5):
            model(x)
    assert watch.flush().totals.nonfinite_forwards >= 4


@pytest.mark.parametrize(("mode", "counted"), [(torch.no_grad, 4), (torch.inference_mode, 0)])
def test_repairs_in_place_are_seen_where_torch_counts_writes(
    mode: Callable[[], Any], counted: int, through_consumers: dict[str, int], attach: Callable[..., Any]
) -> None:
    """A repair that changes nothing in the first pass is seen from then on, but in inference mode, as the documents say, never."""
    model = Between(torch.Tensor.nan_to_num_)
    watch = attach(model)
    with mode():
        learn(model, watch, through_consumers, torch.randn(4, 8))
        x = torch.randn(4, 8)
        model(x)
        x[2, 2] = math.nan
        for _ in range(4):
            model(x)
    assert counted == watch.flush().totals.nonfinite_forwards


def test_the_consumer_is_looked_at_before_other_hooks_change_it(
    through_consumers: dict[str, int], attach: Callable[..., Any], block: Callable[..., Any]
) -> None:
    """A hook of the user's that mends the dense layer's output comes after ours, so that nothing is mended unseen."""
    model = block()
    model.down.register_forward_hook(lambda _module, _args, output: output.nan_to_num())
    watch = attach(model)
    learn(model, watch, through_consumers, torch.randn(4, 8))
    model(torch.full((4, 8), math.nan))
    assert (1, 1) == (watch.flush().totals.nonfinite_forwards, through_consumers["suspicious_column"])


def test_a_consumer_that_is_skipped_hides_nothing(through_consumers: dict[str, int], attach: Callable[..., Any]) -> None:
    """Where the dense layer does not run at all (early exit), the output is looked at whole at the end of the pass."""
    model = Between(nn.Identity())
    watch = attach(model)
    learn(model, watch, through_consumers, torch.randn(4, 8))
    model.down.forward = lambda x: x
    with torch.no_grad():
        model.up.bias[5] = math.inf
    x = torch.randn(4, 8)
    model(x)
    assert 1 == watch.flush().totals.nonfinite_forwards
    del model.down.forward
    down, model.down = model.down, nn.Identity()
    model(x)
    assert 2 == watch.flush().totals.nonfinite_forwards
    model.down = down


class EarlyExit(nn.Module):
    """A large GELU whose dense layer may be passed by, a small one behind it, and a mend of the first one's output in place."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.act, self.down, self.gate = nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8), nn.GELU()
        self.exits = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., 8) to (8,)."""
        hidden = self.act(self.up(x))
        out = hidden[..., :8] if self.exits else self.down(hidden)
        gates = self.gate(x[0])
        hidden.nan_to_num_()
        return gates * out.sum()


def test_the_next_gelu_finds_that_the_consumer_did_not_come(attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """In an ordinary pass, too, an output whose dense layer was passed by is looked at before its values are overwritten."""
    monkeypatch.setattr(look, "LARGE", 40)
    model = EarlyExit()
    watch = attach(model)
    with torch.inference_mode():
        model(torch.randn(4, 8))
        watch.flush()
        watch._source._tap.pacer.take = lambda _now: False
        model(torch.randn(4, 8))
        model.exits = True
        model.up.bias[3] = math.nan
        model(torch.randn(4, 8))
    assert {"act": 1} == {layer: seen.forwards for layer, seen in watch.flush().totals.nonfinite.items()}


@pytest.mark.parametrize(
    "replaced",
    [
        lambda: nn.Sequential(nn.Linear(16, 8)),
        lambda: nn.Conv1d(4, 4, 1),
        lambda: type("Sub", (nn.Linear,), {})(16, 8),
        lambda: nn.LazyLinear(8),
    ],
    ids=["inner dense layer", "convolution", "subclass", "lazy"],
)
def test_other_consumers_are_found_or_done_without(
    replaced: Callable[[], nn.Module], through_consumers: dict[str, int], attach: Callable[..., Any]
) -> None:
    """Whatever stands behind the GELU, a planted value is counted once."""
    model = Between(nn.Identity())
    model.down = replaced()
    watch = attach(model)
    learn(model, watch, through_consumers, torch.randn(4, 8))
    x = torch.randn(4, 8)
    x[0, 0] = math.inf
    model(x)
    totals = watch.flush().totals
    assert (2, 1) == (totals.forwards, totals.nonfinite_forwards)


class Hides(nn.Module):
    """A GELU that hides what is not finite, as clipping does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return finite values, whatever the input."""
        return nn.functional.gelu(x).nan_to_num(0.0, 10.0, -10.0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gelu_that_hides_keeps_the_whole_look_on_both_sides(
    kind: str, through_consumers: dict[str, int], attach: Callable[..., Any], block: Callable[..., Any]
) -> None:
    """Where the output can be finite though the input is not, the input is looked at, however large it is."""
    model = block(Hides())
    watch = attach(model, gelu_classes=(Hides,))
    learn(model, watch, through_consumers, torch.randn(4, 8))
    with torch.no_grad():
        model.up.bias[0] = KINDS[kind]
        assert bool(torch.isfinite(model(torch.randn(4, 8))).all())
    assert {("pre", kind): 4} == watch.flush().totals.nonfinite["act"].elements
    assert 0 == through_consumers["suspicious_column"]
