"""Fault campaign: 10,000 passes with faults at random, in every mode, against an unwatched copy that keeps what its GELUs saw.

The oracle owes nothing to hooks: the copy's own forward keeps the input and output of every GELU, and each value is asked
whether it is finite. After every single pass all counters are compared, so that no miss can make up for a false hit.
"""

from __future__ import annotations

import copy
import itertools
import math
import random
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.functional import gelu
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from geluwatch.records import Totals
from geluwatch.tap import look

WIDTH, TOKENS, BATCH, LAYERS = 8, 3, 2, 4
KINDS = {"nan": math.nan, "posinf": math.inf, "neginf": -math.inf}
LARGE = 1e25
"""Finite, with a square that is not: what a look that sums squares must not take for a fault."""


Calls = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Input and output of a GELU, and what goes on to the next dense layer."""


class Layer(nn.Module):
    """A transformer layer that keeps what its GELU saw where it is asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.act: Callable[[torch.Tensor], torch.Tensor] = nn.GELU()
        self.kept: list[tuple[torch.Tensor, torch.Tensor]] | None = None

    def activate(self, x: torch.Tensor) -> Calls:
        """Apply the GELU, a module."""
        post = self.act(x)
        return x, post, post

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, tokens, width) to the same shape."""
        query, key, value = self.qkv(self.before(x)).chunk(3, -1)
        x = x + self.out(functional.scaled_dot_product_attention(query, key, value))
        pre, post, onward = self.activate(self.up(self.after(x)))
        if self.kept is not None:
            self.kept.append((pre.detach(), post.detach()))
        result: torch.Tensor = x + self.down(onward)
        return result


class Moduleless(Layer):
    """A layer without a GELU module."""

    def __init__(self) -> None:
        super().__init__()
        del self.act


class Attribute(Moduleless):
    """The GELU is a function that the layer holds, as torch's own encoder layer does."""

    def __init__(self) -> None:
        super().__init__()
        self.act = functional.gelu


class Called(Moduleless):
    """The GELU is a call, in a method of its own."""

    def activate(self, x: torch.Tensor) -> Calls:
        """Call the GELU by its full name."""
        post = functional.gelu(x, approximate="tanh")
        return x, post, post


class EarlyBound(Moduleless):
    """The GELU is a call of a name that was bound when this file was read."""

    def activate(self, x: torch.Tensor) -> Calls:
        """Call the GELU by its short name."""
        post = gelu(x)
        return x, post, post


class Gated(Moduleless):
    """The GELU of one half is the gate of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, 4 * WIDTH)

    def activate(self, x: torch.Tensor) -> Calls:
        """Multiply one half by the GELU of the other."""
        value, gate = x.chunk(2, -1)
        post = functional.gelu(gate)
        return gate, post, value * post


FORMS = {"modules": Layer, "attribute": Attribute, "called": Called, "early bound": EarlyBound, "gated": Gated}


class Transformer(nn.Module):
    """Four layers, each under a checkpoint where `how` is given."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList(FORMS[form]() for _ in range(LAYERS))
        self.how: dict[str, Any] | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, tokens, width) to the same shape."""
        for layer in self.layers:
            x = layer(x) if self.how is None else checkpoint(layer, x, **self.how)
        return x


@dataclass
class Tally:
    """What the copy says should have been counted."""

    layers: list[str]
    forwards: int = 0
    nonfinite_forwards: int = 0
    by_layer: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Passes with a non-finite value at a layer, and those in which it was the first."""
    elements: dict[tuple[str, str, str], int] = field(default_factory=dict)
    """Elements by (layer, point, kind), after the GELU only where the value before it was finite."""

    def add(self, kept: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Count one pass."""
        self.forwards += 1
        hit = [not (pre.isfinite().all() and post.isfinite().all()) for pre, post in kept]
        self.nonfinite_forwards += any(hit)
        for position in (position for position, bad in enumerate(hit) if bad):
            layer = self.layers[position]
            often, first = self.by_layer.get(layer, (0, 0))
            self.by_layer[layer] = often + 1, first + (not any(hit[:position]))
            pre, post = kept[position]
            self._count(layer, "pre", pre)
            self._count(layer, "post", post[pre.isfinite()])

    def _count(self, layer: str, point: str, values: torch.Tensor) -> None:
        for kind, bad in (("nan", values.isnan()), ("posinf", values.isposinf()), ("neginf", values.isneginf())):
            if count := int(bad.sum()):
                self.elements[layer, point, kind] = self.elements.get((layer, point, kind), 0) + count

    def check(self, totals: Totals) -> None:
        """Compare with what the watch has counted."""
        assert (self.forwards, self.nonfinite_forwards, {}) == (totals.forwards, totals.nonfinite_forwards, totals.errors)
        seen = totals.nonfinite
        assert self.by_layer == {layer: (counted.forwards, counted.first) for layer, counted in seen.items()}
        elements = {(layer, *key): count for layer, counted in seen.items() for key, count in counted.elements.items()}
        assert self.elements == elements


@dataclass(frozen=True)
class Fault:
    """A value at one element of a layer's first dense weights or biases, or of the model's input."""

    place: str
    layer: int
    element: int
    value: float

    def plant(self, model: Transformer, x: torch.Tensor) -> Callable[[], object]:
        """Plant it; return what takes it away again."""
        up = model.layers[self.layer].up
        target = x.data if self.place == "input" else getattr(up, self.place).data
        flat = target.view(-1)
        place, before = self.element % flat.numel(), target.view(-1)[self.element % flat.numel()].item()
        flat[place] = self.value
        return lambda: flat[place].fill_(before)


def faults_of_a_pass(dice: random.Random) -> list[Fault]:
    """Return no fault in three passes of four, else one or two; one value in five is large and no fault at all."""
    count = dice.choice((1, 1, 2)) if dice.random() < 0.25 else 0
    values = [*KINDS.values(), LARGE, -LARGE] if dice.random() < 0.5 else [*KINDS.values()]
    places = ("weight", "bias", "input")
    return [Fault(dice.choice(places), dice.randrange(LAYERS), dice.randrange(10**6), dice.choice(values)) for _ in range(count)]


SAVE_NONE = partial(create_selective_checkpoint_contexts, lambda *_args, **_kwargs: CheckpointPolicy.PREFER_RECOMPUTE)
SAVE_ALL = partial(create_selective_checkpoint_contexts, lambda *_args, **_kwargs: CheckpointPolicy.MUST_SAVE)


@dataclass(frozen=True)
class Mode:
    """How the passes are run; `forwards` of them."""

    forwards: int
    context: Callable[[], Any] = nullcontext
    train: bool = False
    how: dict[str, Any] | None = None
    backend: str = ""
    relayed: bool = False
    """Whether outputs are left to the dense layers behind them, as large ones are."""


MODES = {
    "no_grad": Mode(1500, torch.no_grad),
    "no_grad, through consumers": Mode(1000, torch.no_grad, relayed=True),
    "inference_mode": Mode(1500, torch.inference_mode),
    "training": Mode(600, train=True),
    "training, through consumers": Mode(400, train=True, relayed=True),
    "autocast bf16": Mode(600, partial(torch.autocast, "cpu", torch.bfloat16)),
    "autocast bf16, through consumers": Mode(400, partial(torch.autocast, "cpu", torch.bfloat16), relayed=True),
    "autocast fp16": Mode(500, partial(torch.autocast, "cpu", torch.float16)),
    "autocast fp16, through consumers": Mode(300, partial(torch.autocast, "cpu", torch.float16), relayed=True),
    "autocast bf16, training": Mode(400, partial(torch.autocast, "cpu", torch.bfloat16), train=True),
    "checkpoint reentrant": Mode(400, train=True, how={"use_reentrant": True}),
    "checkpoint not reentrant": Mode(200, train=True, how={"use_reentrant": False}),
    "checkpoint not reentrant, through consumers": Mode(200, train=True, how={"use_reentrant": False}, relayed=True),
    "checkpoint selective, recomputing": Mode(200, train=True, how={"use_reentrant": False, "context_fn": SAVE_NONE}),
    "checkpoint selective, saving": Mode(200, train=True, how={"use_reentrant": False, "context_fn": SAVE_ALL}),
    "checkpoint in autocast": Mode(200, partial(torch.autocast, "cpu", torch.bfloat16), train=True, how={"use_reentrant": False}),
    "compiled, aot_eager": Mode(800, torch.no_grad, backend="aot_eager"),
    "compiled, aot_eager, training": Mode(200, train=True, backend="aot_eager"),
    "compiled, inductor": Mode(400, torch.no_grad, backend="inductor"),
}
FUNCTIONAL = ["no_grad", "inference_mode", "autocast bf16", "checkpoint not reentrant", "compiled, aot_eager"]
"""Modes in which the other forms are run too, for `FEW` passes each, beyond the ten thousand."""
FEW = 100


def test_the_campaign_is_of_ten_thousand_passes() -> None:
    """The modes add up to the figure that is published."""
    assert 10_000 == sum(mode.forwards for mode in MODES.values())


@pytest.fixture
def _fresh_compiler(request: pytest.FixtureRequest) -> Iterator[None]:
    """Start and leave with no compiled code, where there will be any."""
    compiles = bool(MODES[request.node.callspec.params["name"]].backend)
    if compiles:
        torch._dynamo.reset()
    yield
    if compiles:
        torch._dynamo.reset()


def bits(values: torch.Tensor) -> torch.Tensor:
    """Return the bit patterns, in which a NaN equals itself."""
    return values.detach().contiguous().view(torch.int32 if values.element_size() == 4 else torch.int16)


def one_pass(model: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, mode: Mode) -> list[torch.Tensor]:
    """Run a pass, backward where the mode trains; return the output and the gradient of the input."""
    x = x.clone().requires_grad_(mode.train)
    with mode.context():
        output = model(x)
    if mode.train:
        output.float().sum().backward()
    return [output, *([x.grad] if x.grad is not None else [])]


def run_campaign(form: str, mode: Mode, dice: random.Random, attach: Callable[..., Any]) -> Tally:
    """Run the passes of a mode on a watched model and an unwatched copy, and compare after each."""
    generator = torch.Generator().manual_seed(dice.randrange(2**31))
    torch.manual_seed(1)
    model = Transformer(form)
    twin = copy.deepcopy(model)
    for layer in twin.layers:
        layer.kept = []
    model.how = mode.how
    watch = attach(model)
    # Most passes of a service give no rows, and are looked at by other lines than those that do.
    sampled = itertools.cycle((True, False, False))
    watch._source._tap.pacer.take = lambda _now: next(sampled)
    # The copy is compiled alike, for a compiler may overflow where eager kernels do not.
    run, oracle = (torch.compile(each, fullgraph=True, backend=mode.backend) if mode.backend else each for each in (model, twin))
    tally = Tally([site.layer for site in watch.sites])
    for _ in range(mode.forwards):
        x = torch.randn(BATCH, TOKENS, WIDTH, generator=generator)
        faults = faults_of_a_pass(dice)
        undo = [fault.plant(planted, x) for fault in faults for planted in (model, twin)]
        expected, actual = one_pass(oracle, x, mode), one_pass(run, x, mode)
        for take_away in reversed(undo):
            take_away()
        if mode.backend == "inductor":
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4, equal_nan=True)
        else:
            assert all(torch.equal(bits(left), bits(right)) for left, right in zip(expected, actual, strict=True))
        tally.add([layer.kept.pop() for layer in twin.layers])
        tally.check(watch.flush().totals)
    return tally


def campaigns() -> Iterator[Any]:
    """Yield (form, mode) of every campaign."""
    for name in MODES:
        yield pytest.param("modules", name, id=f"modules-{name}")
    for form, name in itertools.product(FORMS, FUNCTIONAL):
        if form != "modules":
            yield pytest.param(form, name, id=f"{form}-{name}")


@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # a compiler of torch's own uses it
@pytest.mark.parametrize(("form", "name"), list(campaigns()))
def test_every_fault_is_counted_once_at_the_right_layer_and_none_is_false(
    form: str, name: str, attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each pass of a campaign outputs and gradients are those of an unwatched copy, and every counter is exact."""
    mode = MODES[name] if form == "modules" else replace(MODES[name], forwards=FEW)
    if mode.relayed:
        monkeypatch.setattr(look, "LARGE", 1)
    tally = run_campaign(form, mode, random.Random(f"{form}, {name}"), attach)
    assert LAYERS == len(tally.layers)
    assert tally.forwards / 10 < tally.nonfinite_forwards < tally.forwards / 2
    firsts = {layer: first for layer, (_, first) in tally.by_layer.items()}
    print(f"\n{form}, {name}: {tally.forwards} passes, {tally.nonfinite_forwards} faulty, first layers {firsts}")
    print(f"  {sum(tally.elements.values())} elements, all exact")
    assert form != "modules" or all(firsts.get(layer) for layer in tally.layers), "the faults begin at every layer"
