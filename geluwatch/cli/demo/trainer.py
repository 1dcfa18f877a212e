"""A training run that goes wrong by itself: a tiny transformer in half precision under a learning rate that keeps growing.

It is the usual learning-rate range test, carried too far: the loss falls, climbs, and ends as NaN. Nothing is
planted; float16 ends at 65504, and the activations get there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

STEPS = 60
"""Steps of the run; the loss is NaN well before."""

SEED = 5

_CHARACTERS = 128
_CONTEXT = 32
_BATCH = 4
_FIRST_RATE = 1e-3
_GROWTH = 1.3


@dataclass(frozen=True, slots=True)
class Step:
    """One optimiser step; `loss` is that of the forward pass before it."""

    number: int
    loss: float
    learning_rate: float

    @property
    def broken(self) -> bool:
        """Whether the loss is no number any more."""
        return not math.isfinite(self.loss)


class Block(nn.Module):
    """Causal self-attention, then a GELU between two dense layers, each with a residual around it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm_dense = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.act = nn.GELU()
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return x (batch, tokens, width) after the block; `mask` (tokens, tokens) is true where looking is forbidden."""
        seen = self.norm_attention(x)
        x = x + self.attention(seen, seen, seen, attn_mask=mask, need_weights=False)[0]
        dense: torch.Tensor = self.down(self.act(self.up(self.norm_dense(x))))
        return x + dense


class TinyTransformer(nn.Module):
    """Predicts the next character; its weights depend on the seed alone."""

    def __init__(self, *, width: int = 48, heads: int = 4, blocks: int = 3, seed: int = SEED) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embed = nn.Embedding(_CHARACTERS, width)
            self.place = nn.Embedding(_CONTEXT, width)
            self.blocks = nn.ModuleList(Block(width, heads) for _ in range(blocks))
            self.norm = nn.LayerNorm(width)
            self.predict = nn.Linear(width, _CHARACTERS)

    def forward(self, characters: torch.Tensor) -> torch.Tensor:
        """Return logits (batch, tokens, 128) for characters (batch, tokens) int64, at most 32 tokens."""
        tokens = characters.shape[1]
        mask = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
        x = self.embed(characters) + self.place(torch.arange(tokens))
        for block in self.blocks:
            x = block(x, mask)
        logits: torch.Tensor = self.predict(self.norm(x))
        return logits


def train(model: TinyTransformer, text: str, *, steps: int = STEPS, seed: int = SEED) -> Iterator[Step]:
    """Train on a text in float16 autocast, one step each time the iterator is asked; go on when the loss is NaN.

    Args:
        model: What is trained, in place.
        text: What it learns; longer than a few hundred characters.
        steps: How many steps there are at most.
        seed: Chooses the passages.
    """
    characters = torch.tensor(list(text.encode("ascii", "replace")))
    chosen = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_FIRST_RATE)
    for number in range(1, steps + 1):
        starts = torch.randint(len(characters) - _CONTEXT - 1, (_BATCH,), generator=chosen)
        passages = torch.stack([characters[start : start + _CONTEXT + 1] for start in starts.tolist()])
        with torch.autocast("cpu", dtype=torch.float16):
            logits = model(passages[:, :-1])
        loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), passages[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # as torch declares it
        optimizer.step()
        rate = float(optimizer.param_groups[0]["lr"])
        optimizer.param_groups[0]["lr"] = rate * _GROWTH
        yield Step(number, loss.item(), rate)
