"""Print the census of well-known architectures, built small from their configurations: every GELU call site of each.

Run it with `python examples/census.py`; it needs transformers, and no network.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

import geluwatch

IDS = torch.arange(14).reshape(2, 7)


class Geglu(nn.Module):
    """A gated feed-forward block: one half of the projection goes through GELU and scales the other."""

    def __init__(self, width: int = 8, hidden: int = 16) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., width) to the same shape."""
        values, gate = self.up(x).chunk(2, dim=-1)
        return self.down(values * functional.gelu(gate))


class Block(nn.Module):
    """A transformer block in the style of small research code: functions where libraries have modules."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, tokens, width) to the same shape."""
        normed = self.norm(x)
        x = x + self.attention(normed, normed, normed, need_weights=False)[0]
        return x + self.c_proj(functional.gelu(self.c_fc(x), approximate="tanh"))


def bert() -> tuple[nn.Module, dict[str, Any]]:
    """Return a BERT and its inputs."""
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    return BertModel(config, add_pooling_layer=False), {"input_ids": IDS}


def minilm() -> tuple[nn.Module, dict[str, Any]]:
    """Return a MiniLM with as many layers as the published one, and its inputs."""
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=60, hidden_size=24, num_hidden_layers=6, num_attention_heads=2, intermediate_size=96)
    return BertModel(config, add_pooling_layer=False), {"input_ids": IDS}


def gpt2() -> tuple[nn.Module, dict[str, Any]]:
    """Return a GPT-2 and its inputs."""
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(vocab_size=60, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    return GPT2Model(config), {"input_ids": IDS}


def vit() -> tuple[nn.Module, dict[str, Any]]:
    """Return a vision transformer and its inputs."""
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8)
    return ViTModel(config, add_pooling_layer=False), {"pixel_values": torch.randn(2, 3, 32, 32)}


def t5() -> tuple[nn.Module, dict[str, Any]]:
    """Return a T5 v1.1, whose feed-forward layers are gated, and its inputs."""
    from transformers import T5Config, T5Model

    config = T5Config(vocab_size=60, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu")
    return T5Model(config), {"input_ids": IDS, "decoder_input_ids": IDS}


def whisper() -> tuple[nn.Module, dict[str, Any]]:
    """Return a Whisper, whose convolutional stem calls GELU as a function, and its inputs."""
    from transformers import WhisperConfig, WhisperModel

    layers = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    sizes = {"d_model": 16, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_mel_bins": 8, "vocab_size": 60}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = WhisperConfig(**layers, **sizes, **tokens, max_source_positions=20, max_target_positions=20)
    return WhisperModel(config), {"input_features": torch.randn(2, 8, 40), "decoder_input_ids": IDS}


def geglu() -> tuple[nn.Module, dict[str, Any]]:
    """Return two gated blocks and their input."""
    return nn.Sequential(Geglu(), Geglu()), {"input": torch.randn(2, 3, 8)}


def encoder() -> tuple[nn.Module, dict[str, Any]]:
    """Return torch's own encoder, which takes a fused path in evaluation, and its input."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, activation="gelu", batch_first=True)
    return nn.TransformerEncoder(layer, 2), {"src": torch.randn(2, 5, 16)}


def nanogpt() -> tuple[nn.Module, dict[str, Any]]:
    """Return blocks that call functions, and their input."""
    return nn.Sequential(Block(), Block()), {"input": torch.randn(2, 3, 16)}


MODELS: dict[str, tuple[Callable[[], tuple[nn.Module, dict[str, Any]]], bool]] = {
    "MiniLM": (minilm, False),
    "BERT": (bert, True),
    "GPT-2": (gpt2, False),
    "ViT": (vit, False),
    "T5 v1.1": (t5, False),
    "Whisper": (whisper, False),
    "GEGLU": (geglu, False),
    "nn.TransformerEncoder, training": (encoder, True),
    "nn.TransformerEncoder, evaluation": (encoder, False),
    "nanoGPT-like": (nanogpt, False),
}
"""Models by name, and whether they are shown in training mode."""


def main() -> None:
    """Attach to each model, run it once, and print its census."""
    warnings.simplefilter("ignore")
    for name, (build, training) in MODELS.items():
        model, inputs = build()
        model.train(training)
        with geluwatch.attach(model, name=name, config=geluwatch.Config(window_seconds=None)) as watch, torch.set_grad_enabled(training):
            model(**inputs)
            watch.flush()
            print(f"{name}\n{watch.census()}\n")


if __name__ == "__main__":
    main()
