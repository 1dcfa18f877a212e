"""Weights from files: what fits is loaded, what does not is told in a sentence, and no code of a file is run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from geluwatch.analysis.checkpoints import load_into
from geluwatch.errors import ConfigError


def model(width: int = 4) -> nn.Module:
    """Return a small model."""
    return nn.Sequential(nn.Linear(3, width), nn.GELU())


def wrote(path: Path, what: Any) -> Path:
    """Write something with torch and return where it is."""
    torch.save(what, path)
    return path


def test_weights_are_loaded_into_a_copy(tmp_path: Path) -> None:
    """From safetensors, from a state dictionary, and from one among other things: the same bits, in the dtype of the file."""
    known, state = model(), model().state_dict()
    before = {name: tensor.clone() for name, tensor in known.state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")
    files = [tmp_path / "weights.safetensors", wrote(tmp_path / "a.pt", state), wrote(tmp_path / "b.pt", {"state_dict": state, "step": 3})]
    for path in files:
        loaded = load_into(known, path)
        assert all(torch.equal(state[name], tensor) for name, tensor in loaded.state_dict().items())
    half = {name: tensor.half() for name, tensor in state.items()}
    assert {torch.float16} == {each.dtype for each in load_into(known, wrote(tmp_path / "half.pt", half)).parameters()}
    assert all(torch.equal(before[name], tensor) for name, tensor in known.state_dict().items())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: folder / "none.pt", "none.pt is no file; give a checkpoint"),
        (lambda folder: wrote(folder / "all.pt", model()), "all.pt holds more than tensors, and would have to run code to be read"),
        (lambda folder: wrote(folder / "list.pt", [1, 2]), "list.pt holds list, and no tensors by name"),
        (lambda folder: wrote(folder / "few.pt", {"0.bias": torch.zeros(4)}), "few.pt lacks 0.weight; it belongs to another model"),
        (lambda folder: wrote(folder / "more.pt", {**model().state_dict(), "x": torch.zeros(1)}), "more.pt has, and the model lacks, x;"),
        (lambda folder: wrote(folder / "wide.pt", model(5).state_dict()), r"wide.pt has 0.weight of shape \(5, 3\), the model \(4, 3\)"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[Path], Path], sentence: str, tmp_path: Path) -> None:
    """A file that is none, that holds code, no tensors, or another model's."""
    with pytest.raises(ConfigError, match=sentence):
        load_into(model(), make(tmp_path))


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    """Text under either name is told with the library's own reason."""
    for name in ("text.pt", "text.safetensors"):
        (tmp_path / name).write_text("weights")
        with pytest.raises(ConfigError, match=f"{name} (is neither a file of safetensors|holds more than tensors)"):
            load_into(model(), tmp_path / name)


def test_tied_weights_may_be_there_once(tmp_path: Path) -> None:
    """A file that holds a tensor under one of its two names belongs to the model all the same."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.act, self.head = nn.Embedding(5, 4), nn.GELU(), nn.Linear(4, 5, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.head(self.act(self.embed(ids)))
            return out

    model = Tied()
    torch.save({"embed.weight": torch.full((5, 4), 2.0)}, tmp_path / "once.pt")
    loaded = load_into(model, tmp_path / "once.pt")
    assert torch.equal(loaded.head.weight, torch.full((5, 4), 2.0))
