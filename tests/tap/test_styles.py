"""GELU in every style that people write it in, held against an independent count of what torch runs."""

from __future__ import annotations

import copy
import functools
import types
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.functional import gelu
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

Build = Callable[[], nn.Module]

X = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))
ONE = nn.GELU()
TABLE = {"gelu": functional.gelu}


class Base(nn.Module):
    """Two dense layers for a forward that a style gives."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)
        for name, value in attributes.items():
            setattr(self, name, value)


def built(forward: Any, *bases: type, attributes: dict[str, Any] | None = None, **of_class: Any) -> nn.Module:
    """Return a model of a class of its own."""
    made: nn.Module = type("Styled", (*bases, Base), {"forward": forward, **of_class})(**(attributes or {}))
    return made


def mlp() -> nn.Module:
    """Return a block with a call of its own."""
    return built(lambda self, x: self.down(functional.gelu(self.up(x))))


def kept_by_a_wrapper(function: Any) -> Any:
    """Decorate a function."""

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def helper(x: torch.Tensor) -> torch.Tensor:
    """Apply GELU."""
    return gelu(x)


def again(x: torch.Tensor, times: int) -> torch.Tensor:
    """Apply GELU again and again."""
    return x if not times else again(gelu(x), times - 1)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    scripted = torch.jit.script(helper)


class Activation:
    """An object that is called."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Apply GELU."""
        return functional.gelu(x)


class Through(torch.autograd.Function):
    """A function with a backward of its own."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:  # noqa: ARG004  # torch gives it
        """Apply GELU."""
        return functional.gelu(x)


def nested(self: Any, x: torch.Tensor) -> torch.Tensor:
    """Call it two functions deep."""

    def outer(y: torch.Tensor) -> torch.Tensor:
        def inner(z: torch.Tensor) -> torch.Tensor:
            return functional.gelu(z)

        return inner(y)

    return self.down(outer(self.up(x)))


def looped(self: Any, x: torch.Tensor) -> torch.Tensor:
    """Call it in one place three times."""
    for _ in range(3):
        x = self.down(functional.gelu(self.up(x)))
    return x


def routed(self: Any, x: torch.Tensor) -> torch.Tensor:
    """Send each token to its best two experts."""
    weights, chosen = self.up(x)[..., :4].softmax(-1).topk(2)
    out = torch.zeros_like(x)
    for number, expert in enumerate(self.experts):
        *token, place = torch.where(chosen == number)
        out.index_put_(tuple(token), weights[(*token, place)][:, None] * expert(x[tuple(token)]), accumulate=True)
    return out


def recursive(self: Any, x: torch.Tensor, times: int) -> torch.Tensor:
    """Call the block again and again."""
    return x if not times else self.go(self.down(functional.gelu(self.up(x))), times - 1)


def aliased(self: Any, x: torch.Tensor) -> torch.Tensor:
    """Call it by another name."""
    act = functional.gelu
    return self.down(act(self.up(x)))


def with_forward_of_its_own(*, wrapped: bool) -> nn.Module:
    """Return a model in which an instance's forward was replaced, or wrapped as libraries for placing models do."""
    model = mlp()
    if wrapped:
        before = model.forward
        model.forward = functools.update_wrapper(functools.partial(lambda _module, *args: before(*args), model), before)
    else:
        model.forward = types.MethodType(lambda self, x: self.down(functional.gelu(self.up(x)) + 1), model)
    return nn.Sequential(model)


def parametrized() -> nn.Module:
    """Return a model whose block is of a class made for its parametrized weight."""
    model = mlp()
    model.gain = nn.Parameter(torch.ones(1))
    nn.utils.parametrize.register_parametrization(model, "gain", nn.Identity())
    return nn.Sequential(model, nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)))


def convnext() -> nn.Module:
    """Return a ConvNeXt block: depthwise convolution, channels last, GELU."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(self.act(self.up(self.depthwise(x.mT).mT)))

    return nn.Sequential(built(forward, attributes={"act": nn.GELU(), "depthwise": nn.Conv1d(8, 8, 3, padding=1, groups=8)}))


def unet() -> nn.Module:
    """Return a small U of convolutions, with channels first and a module of its own for each."""

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        top = self.act(self.first(x.mT))
        return functional.gelu(self.last(torch.cat((top, self.rise(functional.gelu(self.fall(top)))), 1))).mT

    parts = {
        "act": nn.GELU(),
        "first": nn.Conv1d(8, 8, 3, padding=1),
        "fall": nn.Conv1d(8, 8, 2, stride=2),
        "rise": nn.ConvTranspose1d(8, 8, 2, stride=2),
        "last": nn.Conv1d(16, 8, 3, padding=1),
    }
    return built(forward, attributes=parts)


def transformer(activation: Any) -> nn.Module:
    """Return torch's own transformer, encoder and decoder."""
    return built(
        lambda self, x: self.inner(x, x),
        attributes={"inner": nn.Transformer(8, 2, 1, 2, 16, activation=activation, batch_first=True)},
    )


def attending(self: Any, x: torch.Tensor) -> torch.Tensor:
    """Attend, then apply the block."""
    return self.down(functional.gelu(self.up(self.attention(x, x, x, need_weights=False)[0])))


EXACT: dict[str, Build] = {
    "plain": mlp,
    "nested functions": lambda: built(nested),
    "partial": lambda: built(
        lambda self, x: self.act(self.up(x)), attributes={"act": functools.partial(functional.gelu, approximate="tanh")}
    ),
    "decorated forward": lambda: built(kept_by_a_wrapper(torch.no_grad()(lambda self, x: self.down(functional.gelu(self.up(x)))))),
    "generator": lambda: built(lambda self, x: sum(functional.gelu(part) for part in self.up(x).split(8, -1))),
    "list comprehension": lambda: built(lambda self, x: torch.cat([functional.gelu(part) for part in self.up(x).split(4, -1)], -1)),
    "loop": lambda: built(looped),
    "recursion": lambda: built(lambda self, x: self.go(x, 3), go=recursive),
    "forward of the instance": lambda: with_forward_of_its_own(wrapped=False),
    "forward wrapped": lambda: with_forward_of_its_own(wrapped=True),
    "Sequential subclass": lambda: type("Own", (nn.Sequential,), {"forward": lambda self, x: functional.gelu(self[0](x))})(nn.Linear(8, 8)),
    "parametrized": parametrized,
    "experts": lambda: built(routed, attributes={"experts": nn.ModuleList(mlp() for _ in range(4))}),
    "attention": lambda: built(attending, attributes={"attention": nn.MultiheadAttention(8, 2, batch_first=True)}),
    "transformer": lambda: transformer(functional.gelu),
    "transformer by name": lambda: transformer("gelu"),
    "ConvNeXt": convnext,
    "U-Net": unet,
    "gate": lambda: built(lambda self, x: self.up(x)[..., :8] * functional.gelu(self.up(x)[..., 8:])),
    "one call within another": lambda: built(lambda _self, x: gelu(gelu(x) + gelu(x + 1))),
    "one module for three blocks": lambda: nn.Sequential(*(built(lambda self, x: self.act(x), attributes={"act": ONE}) for _ in range(3))),
    "one block twice": lambda: nn.Sequential(*[mlp()] * 2),
    "checkpointed parts": lambda: built(
        lambda self, x: checkpoint_sequential(self.parts, 2, x, use_reentrant=False),
        attributes={"parts": nn.Sequential(mlp(), nn.GELU(), mlp())},
    ),
    "checkpointed method": lambda: built(
        lambda self, x: checkpoint(self.feed, x, use_reentrant=False), feed=lambda self, x: self.down(functional.gelu(self.up(x)))
    ),
    "lambda attribute": lambda: built(lambda self, x: self.act(self.up(x)), attributes={"act": lambda y: functional.gelu(y) * 2}),
    "helper": lambda: built(lambda self, x: self.down(helper(self.up(x)))),
    "recursive helper": lambda: built(lambda self, x: self.down(again(self.up(x), 3))),
    "static function": lambda: built(lambda self, x: self.act(x), act=staticmethod(helper)),
    "static attribute of the class": lambda: built(lambda self, x: self.act(self.up(x)), act=staticmethod(functional.gelu)),
    "alias": lambda: built(aliased),
    "either": lambda: built(lambda self, x: (gelu if self.training else functional.gelu)(x)),
    "operation itself": lambda: built(lambda _self, x: torch.ops.aten.gelu(x)),
    "lambda in a layer": lambda: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, activation=lambda x: functional.gelu(x) * 2, batch_first=True), 2, enable_nested_tensor=False
    ),
}
"""Seen from the first pass."""

FOUND: dict[str, Build] = {
    "dictionary of functions": lambda: built(lambda self, x: self.down(TABLE["gelu"](self.up(x)))),
    "list of functions": lambda: built(lambda self, x: self.acts[0](self.up(x)), attributes={"acts": [functional.gelu]}),
    "module of nobody": lambda: built(lambda self, x: self.down(ONE(self.up(x)))),
    "module made in forward": lambda: built(lambda self, x: self.down(nn.GELU()(self.up(x)))),
    "modules in a list": lambda: built(lambda self, x: self.acts[0](x), attributes={"acts": [nn.GELU()]}),
    "property": lambda: built(lambda self, x: self.act(self.up(x)), act=property(lambda _self: functional.gelu)),
    "default argument": lambda: built(lambda self, x, act=functional.gelu: act(self.up(x))),
    "looked up by name": lambda: built(lambda self, x: getattr(functional, "ge" + "lu")(self.up(x))),
    "callable object": lambda: built(lambda self, x: self.act(self.up(x)), attributes={"act": Activation()}),
    "autograd function": lambda: built(lambda self, x: self.down(Through.apply(self.up(x)))),
    "scripted function": lambda: built(lambda self, x: self.down(scripted(self.up(x)))),
}
"""Shown by no code, found in the first pass, and seen from the second."""


MISSED = [
    pytest.param(
        lambda: built(lambda self, x: self.inner.forward(x), attributes={"inner": mlp()}),
        id="forward called",
        marks=pytest.mark.xfail(strict=True, reason="seen as the caller's; the module so called has a site too, never executed"),
    ),
    pytest.param(
        lambda: built(lambda self, x: self.act.forward(self.up(x)), attributes={"act": nn.GELU()}),
        id="a GELU's forward called",
        marks=pytest.mark.xfail(strict=True, reason="seen as the caller's; the module so called has a site too, never executed"),
    ),
]


def assert_exact(build: Build, attach: Any, calls: list[Any], truth_of: Any, *, passes: tuple[int, ...]) -> None:
    """Assert that, in these of three passes, the watch sees the GELUs that torch runs, no more and no less, and names none as blind."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.GELU(), build()).eval()
    expected, truth = copy.deepcopy(model)(X), truth_of(model, lambda copied: copied(X))
    watch = attach(model, cost_budget=None)
    for number in range(3):
        calls.clear()
        assert torch.equal(expected, model(X))
        report = watch.flush()
        if number in passes:
            seen = Counter(values for _, values in calls if values is not None)
            assert not Counter(truth.inputs) - seen
            assert len(truth.inputs) + truth.fused == len(calls)
    assert {} == report.totals.errors
    assert {"observed"} == {site.state for site in watch.sites}
    assert {site.position for site in watch.sites} == {site for site, _ in calls}


@pytest.mark.parametrize("build", EXACT.values(), ids=EXACT)
def test_a_style_is_seen_at_once(build: Build, attach: Any, calls: list[Any], truth_of: Any) -> None:
    """Read from the code: every call is one of a site's, in every pass."""
    assert_exact(build, attach, calls, truth_of, passes=(0, 1, 2))


@pytest.mark.parametrize("build", FOUND.values(), ids=FOUND)
def test_a_style_that_no_code_shows_is_seen_from_the_second_pass(build: Build, attach: Any, calls: list[Any], truth_of: Any) -> None:
    """Found when it ran: every call is one of a site's from the second pass on."""
    assert_exact(build, attach, calls, truth_of, passes=(1, 2))


@pytest.mark.parametrize("build", MISSED)
def test_a_style_that_is_missed(build: Build, attach: Any, calls: list[Any], truth_of: Any) -> None:
    """Every call ought to be one of a site's from the second pass on, at the latest, and none blind."""
    assert_exact(build, attach, calls, truth_of, passes=(1, 2))


UNTRAINED = frozenset({"decorated forward", "forward wrapped"})
"""Without gradients; and one whose copies compute with the original's weights."""


@pytest.mark.parametrize("build", [case for case in EXACT if case not in UNTRAINED])
def test_a_style_trains_as_without_the_watch(build: str, attach: Any) -> None:
    """The gradients of a training step are the bare model's, bit for bit."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.GELU(), EXACT[build]()).train()
    bare = copy.deepcopy(model)
    watch = attach(model, cost_budget=None, gradients=True)
    for each in (bare, model):
        torch.manual_seed(1)
        each(X.clone().requires_grad_()).square().sum().backward()
    assert {} == watch.flush().totals.errors
    for left, right in zip(bare.parameters(), model.parameters(), strict=True):
        assert (left.grad is None) == (right.grad is None)
        assert left.grad is None or torch.equal(left.grad, right.grad)
