"""The look that cannot miss, the exact count behind it, and every GELU class with planted values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from geluwatch.tap import guard

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


@given(
    st.lists(_ANY_FLOAT, min_size=8, max_size=8),
    st.lists(_ANY_FLOAT, min_size=8, max_size=8),
    st.lists(st.booleans(), min_size=4, max_size=4),
)
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


def test_a_column_whose_sum_overflows_in_16_bits_is_no_suspicion() -> None:
    """A column of a dense layer in half precision may have a sum beyond the largest half; it is finite all the same."""
    column = torch.full((8, 2), 6e4, dtype=torch.float16)
    assert not guard.plainly_finite(column[:, 0])
    assert not guard.suspicious_column(column)
    column[3, 0] = math.inf
    assert guard.suspicious_column(column)


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
