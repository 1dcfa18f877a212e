"""Two real models whose GELUs are looked into: the trained MiniLM-L6, and a small GPT trained here on the same texts."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .streams import Halves

ROWS, CHANNELS = 256, 128
"""Rows and channels taken of a window at each layer: a tool that reads values cannot be given millions."""
BATCH = 8

Texts = Sequence[str]
Change = Callable[[torch.Tensor], torch.Tensor]


class Subject:
    """A model in evaluation mode; changes are planted before or in the place of one layer's GELU."""

    def __init__(self, name: str, model: nn.Module, gelus: Sequence[nn.Module], forward: Callable[[Texts], torch.Tensor]) -> None:
        self.name = name
        self.model = model
        self.layers = [f"layer.{number}" for number in range(len(gelus))]
        self._gelus = gelus
        self.forward = forward
        """Sends texts through the model and returns which of its rows are text (batch, tokens)."""

    def window(self, texts: Texts, seed: int) -> Halves:
        """Return what the layers gave on the texts of a window: series (2L, R, C) of rows drawn at random, the same of all layers."""
        taken: list[list[tuple[torch.Tensor, torch.Tensor]]] = [[] for _ in self._gelus]
        hooks = [
            gelu.register_forward_hook(lambda _, given, found, place=place: taken[place].append((given[0], found)))
            for place, gelu in enumerate(self._gelus)
        ]
        with torch.inference_mode():
            ordered = sorted(texts, key=len)
            masks = [self.forward(ordered[start : start + BATCH]).reshape(-1).bool() for start in range(0, len(ordered), BATCH)]
        for hook in hooks:
            hook.remove()
        order = np.random.default_rng([51, seed])
        rows = order.choice(int(sum(mask.sum() for mask in masks)), ROWS, replace=False)
        channels = np.linspace(0, taken[0][0][0].shape[-1] - 1, CHANNELS).astype(int)
        series = []
        for layer in taken:
            for side in (0, 1):
                whole = torch.cat([part[side].flatten(0, -2)[mask] for part, mask in zip(layer, masks, strict=True)])
                series.append(whole[rows][:, channels].numpy().astype(np.float16))
        return np.stack(series)

    @contextmanager
    def changed(self, layer: int, change: Change) -> Iterator[None]:
        """Map what comes to a layer's GELU for a while."""
        hook = self._gelus[layer].register_forward_pre_hook(lambda _, given: (change(given[0]),))
        try:
            yield
        finally:
            hook.remove()

    @contextmanager
    def other_kernel(self, layer: int) -> Iterator[None]:
        """Compute a layer's GELU by the sigmoid form for a while."""
        hook = self._gelus[layer].register_forward_hook(lambda _, given, __: given[0] * torch.sigmoid(1.702 * given[0]))
        try:
            yield
        finally:
            hook.remove()

    @staticmethod
    def calm() -> nullcontext[None]:
        """Change nothing."""
        return nullcontext()


def minilm() -> Subject:
    """Return the demonstration's encoder."""
    from geluwatch.cli.demo import model

    encoder = model.load(128)

    def forward(texts: Texts) -> torch.Tensor:
        batch = encoder.tokenizer(list(texts), padding=True, truncation=True, max_length=128, return_tensors="pt")
        encoder.model(**batch)
        return batch["attention_mask"]  # type: ignore[no-any-return]

    # The activation is one object for all layers in some releases: each layer is given its own.
    for layer in encoder.model.encoder.layer:
        layer.intermediate.intermediate_act_fn = nn.GELU()
    found = [layer.intermediate.intermediate_act_fn for layer in encoder.model.encoder.layer]
    return Subject("MiniLM", encoder.model, found, forward)


class Block(nn.Module):
    """A block of a GPT, norms first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.before, self.behind = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.gelu, self.down = nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the residual stream (batch, tokens, width) behind this block."""
        query, key, value = (part.unflatten(-1, (self._heads, -1)).transpose(1, 2) for part in self.mix(self.before(x)).chunk(3, dim=-1))
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).flatten(-2))
        return x + self.down(self.gelu(self.up(self.behind(x))))


class Gpt(nn.Module):
    """A GPT over bytes: four layers of 128, GELUs of 512."""

    TOKENS = 128

    def __init__(self, width: int = 128, layers: int = 4) -> None:
        super().__init__()
        self.bytes, self.places = nn.Embedding(256, width), nn.Embedding(self.TOKENS, width)
        self.blocks = nn.ModuleList(Block(width, 4) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 256)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return logits of the next byte (batch, tokens, 256)."""
        x = self.bytes(tokens) + self.places.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def gpt(texts: Texts, kept: Path, steps: int) -> Subject:
    """Return the GPT trained on texts, or the one kept from an earlier run."""
    torch.manual_seed(0)
    model = Gpt()
    if not kept.exists():
        _train(model, texts, steps)
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.save(model.state_dict(), kept)
    model.load_state_dict(torch.load(kept, weights_only=True))
    model.eval()

    def forward(batch: Texts) -> torch.Tensor:
        encoded = [text.encode()[: Gpt.TOKENS] for text in batch]
        longest = max(map(len, encoded))
        tokens = torch.tensor([[*text, *[0] * (longest - len(text))] for text in encoded])
        model(tokens)
        return torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in encoded])

    return Subject("GPT", model, [block.gelu for block in model.blocks], forward)  # type: ignore[misc]  # blocks are modules


def _train(model: Gpt, texts: Texts, steps: int) -> None:
    data = torch.frombuffer(bytearray("\n".join(texts).encode()), dtype=torch.uint8).long()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(step / 100, 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.05)
        starts = torch.randint(len(data) - Gpt.TOKENS - 1, (16,))
        batch = torch.stack([data[start : start + Gpt.TOKENS + 1] for start in starts])
        loss = functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"training the GPT: step {step}, {loss.item() / math.log(2):.2f} bits a byte", file=sys.stderr, flush=True)
