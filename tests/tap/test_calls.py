"""What a module's code says of the GELUs it calls as functions, before it has run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn import functional as nnf
from torch.nn.functional import gelu as early_bound

from geluwatch.tap.calls import Call, Reader, is_gelu, methods_of

tanh_gelu = functools.partial(functional.gelu, approximate="tanh")


def calls_of(instance: nn.Module) -> tuple[Call, ...]:
    """Return what a fresh reader finds."""
    return Reader().calls_of(instance)


def helper(x: torch.Tensor) -> torch.Tensor:
    """Call GELU one function away."""
    return functional.gelu(x)


def new_gelu(x: torch.Tensor) -> torch.Tensor:
    """Spell the formula out."""
    return 0.5 * x * (1.0 + torch.tanh(0.7978845608 * (x + 0.044715 * x**3)))


def gelu_free(x: torch.Tensor) -> torch.Tensor:
    """Have the word in the name and no formula behind it."""
    return x + 1


def decorated(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method, as libraries do with forwards."""

    @functools.wraps(method)
    def around(self: Any, *args: Any) -> Any:
        return method(self, *args)

    return around


class Base(nn.Module):
    """Holds GELU in every way an instance can."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.act = functional.gelu
        self.bound = tanh_gelu

    def part(self, x: torch.Tensor) -> torch.Tensor:
        """Call GELU in a method of its own."""
        return functional.gelu(x)


def module(body: Callable[..., Any]) -> nn.Module:
    """Return a module whose forward is the given function."""
    return type("Module", (Base,), {"forward": body})()


CALLED: dict[str, tuple[Callable[..., Any], list[str]]] = {
    "a name of a module": (lambda self, x: functional.gelu(self.fc(x)), ["<lambda>"]),
    "another name of it": (lambda self, x: nnf.gelu(self.fc(x), approximate="tanh"), ["<lambda>"]),
    "a long path": (lambda _self, x: torch.nn.functional.gelu(x), ["<lambda>"]),
    "bound early": (lambda _self, x: early_bound(x), ["<lambda>"]),
    "partially applied": (lambda _self, x: tanh_gelu(x), ["<lambda>"]),
    "the operation": (lambda _self, x: torch.ops.aten.gelu(x) + torch.ops.aten.gelu.default(x), ["<lambda>", "<lambda>"]),
    "an attribute": (lambda self, x: self.act(x) + self.bound(x), ["<lambda>", "<lambda>"]),
    "an instance by another name": (lambda me, x: me.act(x), ["<lambda>"]),
    "a method": (lambda self, x: self.part(self.part(x)), ["part"]),
    "a helper, twice": (lambda _self, x: helper(helper(x)), ["helper", "helper"]),
    "in one another": (lambda _self, x: nnf.gelu(nnf.gelu(x)), ["<lambda>", "<lambda>"]),
    "a chain behind it": (lambda _self, x: nnf.gelu(x).mul(2).sum(), ["<lambda>"]),
    "a comprehension": (lambda _self, x: sum([nnf.gelu(y) for y in (x, x)]), ["<listcomp>"]),
    "a decorated forward": (decorated(lambda _self, x: nnf.gelu(x)), ["<lambda>"]),
    "none at all": (lambda self, x: functional.relu(self.fc(x)), []),
    "the word alone": (lambda _self, x: gelu_free(x), []),
}


@pytest.mark.parametrize("case", CALLED)
def test_every_call_is_found_where_it_is(case: str) -> None:
    """However GELU is named, each place that calls it is found, in the function that makes the call, and no other."""
    body, expected = CALLED[case]
    found = calls_of(module(body))
    inline = [name if name != "<listcomp>" else found[0].chain[0][0].co_name for name in expected]  # newer Pythons inline comprehensions
    assert inline == [call.chain[0][0].co_name for call in found]
    assert len({call.chain for call in found}) == len(found)
    assert {""} >= {call.spelled for call in found}


def test_a_call_through_an_attribute_bears_its_name() -> None:
    """A function that an instance holds is named like a module in its place."""
    found = calls_of(module(lambda self, x: self.act(x) + self.bound(x) + nnf.gelu(x)))
    assert ["act", "bound", ""] == [call.attribute for call in found]


def test_calls_end_at_the_owners_own_method() -> None:
    """A chain of calls begins at the GELU's caller and ends at the module's own code, whatever lies between."""
    instance = module(lambda _self, x: helper(x))
    (call,) = calls_of(instance)
    assert ["helper", "<lambda>"] == [code.co_name for code, _ in call.chain]
    assert call.chain[-1][0] in methods_of(instance)


def test_a_formula_spelled_out_in_a_function_is_named() -> None:
    """A function with the word in its name and the formula in its code is found, though nothing in it is torch's GELU."""
    (call,) = calls_of(module(lambda self, x: new_gelu(self.fc(x))))
    assert ((), f"{__name__}.new_gelu") == (call.chain, call.spelled)


def test_reading_runs_nothing_of_the_users() -> None:
    """A property that raises, and a forward that cannot be read, do no harm."""

    class Odd(nn.Module):
        @property
        def act(self) -> Any:
            raise RuntimeError("must not be read")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.act(x)

    assert () == calls_of(Odd())
    odd = Odd()
    odd.forward = torch.relu  # type: ignore[assignment]  # a builtin has no code
    assert () == calls_of(odd)


def test_reading_imports_nothing() -> None:
    """A module that imports what it is asked for is not asked; what it has already is read like any other."""
    asked: list[str] = []
    lazy = ModuleType("lazy")
    vars(lazy).update(__getattr__=asked.append, kept=helper)
    assert () == calls_of(module(lambda self, x: lazy.flash(self.fc(x))))
    assert 1 == len(calls_of(module(lambda self, x: lazy.kept(lazy.flash.deep(self.fc(x))))))
    assert [] == asked


def test_instances_that_hold_other_functions_are_read_apart() -> None:
    """Of one class, an instance whose attribute is GELU has a call and one whose attribute is ReLU has none, read by one reader."""
    reader = Reader()
    first, second, third = (module(CALLED["an attribute"][0]) for _ in range(3))
    kinds = [type(first)() for _ in range(3)]
    kinds[1].act = functional.relu
    kinds[1].bound = functional.relu
    assert [2, 0, 2] == [len(reader.calls_of(each)) for each in kinds]
    assert reader.calls_of(kinds[0]) is reader.calls_of(kinds[2])
    assert {2} == {len(reader.calls_of(each)) for each in (first, second, third)}


def test_only_torchs_gelu_is_torchs_gelu() -> None:
    """The function, its partial applications and its operations are GELU; a module's class and other functions are not."""
    assert all(map(is_gelu, (functional.gelu, tanh_gelu, functools.partial(tanh_gelu), torch.ops.aten.gelu, torch.ops.aten.gelu.default)))
    assert not any(map(is_gelu, (nn.GELU, nn.GELU(), functional.relu, new_gelu, None, "gelu")))
