"""The look that cannot miss, the exact count behind it, and every GELU class with planted values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from geluwatch.tap import guard, hooks
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

KINDS = {"nan": math.nan, "posinf": math.inf, "neginf": -math.inf}
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
NAMES = [
    "gelu", "gelu_10", "gelu_fast", "gelu_new", "gelu_python", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate", "quick_gelu",
]  # fmt: skip

_ANY_FLOAT = st.floats(width=32, allow_nan=True, allow_infinity=True)


def every_gelu() -> dict[str, nn.Module]:
    """Return one instance of each GELU that geluwatch knows."""
    from transformers.activations import ACT2FN
    from transformers.models.bloom.modeling_bloom import BloomGelu

    named = {name: ACT2FN[name] for name in NAMES}
    return {**named, "nn.GELU": nn.GELU(), "nn.GELU tanh": nn.GELU(approximate="tanh"), "BloomGelu": BloomGelu()}


@given(st.lists(_ANY_FLOAT, min_size=0, max_size=40), st.sampled_from(DTYPES), st.booleans())
def test_a_finite_sum_is_proof(values: list[float], dtype: torch.dtype, strided: bool) -> None:
    """Whatever the values, their dtype and their layout, the quick look never calls a non-finite tensor clean."""
    tensor = torch.tensor(values, dtype=torch.float64).to(dtype)
    if strided:
        tensor = torch.stack([tensor, torch.zeros_like(tensor)], dim=-1)[..., 0]
    assert guard.suspicious(tensor) or bool(torch.isfinite(tensor).all())


@given(st.lists(_ANY_FLOAT, min_size=8, max_size=8), st.lists(_ANY_FLOAT, min_size=8, max_size=8), st.lists(st.booleans(), min_size=4, max_size=4))
def test_confirmation_counts_each_element_once_where_it_arose(before: list[float], after: list[float], valid: list[bool]) -> None:
    """An element counts before the GELU if it is non-finite there, else after it, by kind, at valid rows only."""
    expected: dict[tuple[str, str], int] = {}
    anything = False
    for place, (pre, post) in enumerate(zip(before, after, strict=True)):
        point, value = ("pre", pre) if not math.isfinite(pre) else ("post", post)
        if math.isfinite(value):
            continue
        anything = True
        if valid[place // 2]:
            kind = "nan" if math.isnan(value) else "posinf" if value > 0 else "neginf"
            expected[point, kind] = expected.get((point, kind), 0) + 1
    hit = guard.confirm(
        torch.tensor(before).reshape(2, 2, 2), torch.tensor(after).reshape(2, 2, 2), lambda: None if all(valid) else torch.tensor(valid)
    )
    assert (expected if anything else None) == (hit.elements if hit else None)


@pytest.mark.parametrize("kind", KINDS)
def test_one_column_of_a_dense_layer_speaks_for_its_whole_input(kind: str) -> None:
    """A NaN or an Inf anywhere in a dense layer's input shows in the first column of its output, also at zero weights."""
    generator = torch.Generator().manual_seed(1)
    dense = nn.Linear(64, 3)
    with torch.no_grad():
        dense.weight[0, ::2] = 0.0
    for _ in range(200):
        x = torch.randn(5, 64, generator=generator)
        assert not guard.suspicious_column(dense(x))
        x[torch.randint(5, (), generator=generator), torch.randint(64, (), generator=generator)] = KINDS[kind]
        assert guard.suspicious_column(dense(x))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", [*NAMES, "nn.GELU", "nn.GELU tanh", "BloomGelu"])
def test_every_gelu_is_guarded_in_every_dtype(name: str, dtype: torch.dtype, attach: Callable[..., Any], only: Callable[..., Any]) -> None:
    """NaN, +Inf and -Inf at random places in any GELU's input are counted exactly, by kind; clean passes are not."""
    model = only(every_gelu()[name])
    watch = attach(model)
    generator = torch.Generator().manual_seed(7)
    expected = dict.fromkeys(KINDS, 0)
    planted = 0
    for turn in range(12):
        x = torch.randn(2, 3, 40, generator=generator).to(dtype)
        if turn % 2:
            planted += 1
            places = torch.randperm(x.numel(), generator=generator)[: 1 + turn % 5]
            for place in places.tolist():
                kind = list(KINDS)[(place + turn) % 3]
                x.view(-1)[place] = KINDS[kind]
                expected[kind] += 1
        with torch.no_grad():
            model(x)
    totals = watch.flush().totals
    assert (12, planted) == (totals.forwards, totals.nonfinite_forwards)
    assert {("pre", kind): count for kind, count in expected.items()} == totals.nonfinite["act"].elements
    assert {} == totals.errors


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_sum_that_overflows_is_no_hit(dtype: torch.dtype, attach: Callable[..., Any], only: Callable[..., Any]) -> None:
    """Finite values whose sum or squares overflow are looked at again, and not counted."""
    model = only()
    watch = attach(model)
    model(torch.full((4, 64), {torch.float16: 6e4, torch.float64: 1e308}.get(dtype, 1e38), dtype=dtype))
    model(torch.full((4, 64), 1e30 if dtype is not torch.float16 else 1e4, dtype=dtype))
    totals = watch.flush().totals
    assert (2, 0, {}) == (totals.forwards, totals.nonfinite_forwards, totals.nonfinite)


class Overflows(nn.Module):
    """A GELU that makes an infinity of its own: the cube overflows, and the product with zero is NaN."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return something GELU-like, wrong for large magnitudes."""
        return x / (1 + torch.exp(-1.702 * x)) + 0 * x**3


def test_what_arises_in_the_gelu_is_counted_after_it(attach: Callable[..., Any], only: Callable[..., Any]) -> None:
    """Where the input is finite and the output is not, the element is counted on the output's side."""
    model = only(Overflows())
    watch = attach(model, gelu_classes=(Overflows,))
    x = torch.zeros(2, 4)
    x[0, 1] = 1e20
    x[1, 2] = math.inf
    model(x)
    assert {("post", "nan"): 1, ("pre", "posinf"): 1} == watch.flush().totals.nonfinite["act"].elements


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

    monkeypatch.setattr(hooks, "LARGE", 1)
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


def test_consumers_are_learnt_from_a_small_pass_too(
    through_consumers: dict[str, int], monkeypatch: pytest.MonkeyPatch, attach: Callable[..., Any], block: Callable[..., Any]
) -> None:
    """A model that warmed up on small batches goes through consumers once its batches grow."""
    model = block()
    watch = attach(model)
    monkeypatch.setattr(hooks, "LARGE", 1000)
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
    model = Between(lambda x: x.clamp_(-1.0, 1.0).nan_to_num_())
    watch = attach(model)
    with mode():
        learn(model, watch, through_consumers, torch.randn(4, 8))
        x = torch.randn(4, 8)
        x[2, 2] = math.nan
        assert bool(torch.isfinite(model(x)).all())
    assert 1 == watch.flush().totals.nonfinite_forwards
    assert 0 == len(model.down._forward_hooks)


def test_a_consumer_that_is_skipped_hides_nothing(through_consumers: dict[str, int], attach: Callable[..., Any]) -> None:
    """Where the dense layer does not run at all (early exit), the output is looked at whole at the end of the pass."""
    model = Between(nn.Identity())
    watch = attach(model)
    learn(model, watch, through_consumers, torch.randn(4, 8))
    model.down.forward = lambda x: x  # type: ignore[method-assign]  # another library patches an instance
    x = torch.full((4, 8), math.inf)
    model(x)
    assert 1 == watch.flush().totals.nonfinite_forwards
    del model.down.forward  # type: ignore[method-assign]
    down, model.down = model.down, nn.Identity()
    model(x)
    assert 2 == watch.flush().totals.nonfinite_forwards
    model.down = down


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
    model.down = replaced()  # type: ignore[assignment]  # stands in for any consumer
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
