"""A task with real answers for the demonstration's encoder: which package of the standard library is a paragraph of a docstring from?

Half of a package's paragraphs make its centre; the others are told by the centre that they are nearest to. Nothing is trained.
"""

from __future__ import annotations

import random
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from geluwatch.cli.demo import texts
from geluwatch.cli.demo.model import Encoder
from geluwatch.cli.demo.model import load as load_encoder
from geluwatch.errors import MissingPartError

_PACKAGES = 8
_MOST, _FEWEST = 120, 16
"""Paragraphs of a package: an even number is used."""
_BATCH = 16


@dataclass(frozen=True, slots=True)
class Task:
    """A model in evaluation mode, its inputs, and the right answers."""

    model: nn.Module
    inputs: list[dict[str, torch.Tensor]]
    labels: list[torch.Tensor]
    packages: tuple[str, ...]
    """Names of the answers."""


class MiniLM(nn.Module):
    """The encoder, its tokens averaged, against the centre of each package: returns cosines (batch, packages)."""

    def __init__(self, encoder: nn.Module, centres: torch.Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("centres", centres)

    def forward(self, **tokens: torch.Tensor) -> torch.Tensor:
        """Return the cosines of a batch."""
        return _embedded(self.encoder, tokens) @ self.get_buffer("centres").T


def load(packages: int = _PACKAGES, most: int = _MOST) -> Task:
    """Return the task over the packages with most paragraphs; the same Python gives the same.

    Raises:
        MissingPartError: The model is not installed, or the standard library has too few paragraphs.
    """
    encoder, found = load_encoder(), _paragraphs()
    names = sorted(found, key=lambda name: (-len(found[name]), name))[:packages]
    order = random.Random(6)  # noqa: S311  # no secret is drawn
    centres, held_out = [], []
    for number, name in enumerate(names):
        chosen = order.sample(found[name], min(len(found[name]), most))
        if len(chosen) < _FEWEST:
            raise MissingPartError(f"The standard library has {len(chosen)} paragraphs in {name}, too few; use a Python with its sources.")
        middle = len(chosen) // 2
        centres.append(_centre(encoder, chosen[:middle]))
        held_out += [(text, number) for text in chosen[middle:]]
    order.shuffle(held_out)
    batches = list(_batches(held_out))
    inputs = [_tokens(encoder, [text for text, _ in batch]) for batch in batches]
    labels = [torch.tensor([number for _, number in batch]) for batch in batches]
    return Task(MiniLM(encoder.model, torch.stack(centres)).eval(), inputs, labels, tuple(names))


def _paragraphs() -> dict[str, list[str]]:
    """Return the paragraphs of prose by package or module, none of them twice."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, dict[str, str]] = {}
    for path in texts.source_files(root):
        prose = found.setdefault(path.relative_to(root).parts[0].removesuffix(".py"), {})
        for tree, lines in texts.parsed([path]):
            texts.gather(tree, lines, prose, {})
    return {name: list(prose.values()) for name, prose in found.items()}


def _batches(held_out: Sequence[tuple[str, int]]) -> Iterator[Sequence[tuple[str, int]]]:
    """Yield whole batches, so that each pass takes as long as any other; what is left over is not used."""
    for start in range(0, len(held_out) - _BATCH + 1, _BATCH):
        yield held_out[start : start + _BATCH]


def _centre(encoder: Encoder, paragraphs: Sequence[str]) -> torch.Tensor:
    with torch.no_grad():
        embedded = [_embedded(encoder.model, _tokens(encoder, paragraphs[at : at + _BATCH])) for at in range(0, len(paragraphs), _BATCH)]
    return functional.normalize(torch.cat(embedded).mean(dim=0), dim=0)


def _tokens(encoder: Encoder, batch: Sequence[str]) -> dict[str, torch.Tensor]:
    return dict(encoder.tokenizer(list(batch), padding=True, truncation=True, max_length=encoder.tokens, return_tensors="pt"))


def _embedded(encoder: nn.Module, tokens: dict[str, Any]) -> torch.Tensor:
    """Return the mean over a text's tokens, of length 1."""
    mask = tokens["attention_mask"].unsqueeze(-1)
    hidden = encoder(**tokens).last_hidden_state
    return functional.normalize((hidden * mask).sum(dim=1) / mask.sum(dim=1), dim=1)
