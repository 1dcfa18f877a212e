"""A model of as many GELUs as wanted, for measuring how costs grow: cheap by itself, so that what is added to it shows."""

from __future__ import annotations

import torch
from torch import nn

import geluwatch

NARROW = 32
"""Channels between the blocks."""
TOKENS = 16
"""Rows of a pass: as many as a capture of busy traffic brings."""
PASSES = 4
"""Passes that make a window of just enough rows to be judged."""
WINDOWS = 40
"""Windows of a baseline: enough to be armed at all horizons."""
BY_HAND = geluwatch.Config(window_seconds=None, cost_budget=None, flush_seconds=3600.0)
"""Nothing happens in the background, every pass gives all of its rows, and windows are closed by hand."""


class Block(nn.Module):
    """A transformer's feed-forward block, with one GELU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(NARROW)
        self.up, self.gelu, self.down = nn.Linear(NARROW, channels), nn.GELU(), nn.Linear(channels, NARROW)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return rows of the same shape."""
        added: torch.Tensor = self.down(self.gelu(self.up(self.norm(rows))))
        # Without the shortcut a thousand blocks would forget what came in, and their channels cease to vary.
        return rows + added


def stack(sites: int, channels: int) -> nn.Module:
    """Return a model with so many GELUs of so many channels."""
    torch.manual_seed(0)
    return nn.Sequential(*(Block(channels) for _ in range(sites))).eval()


def serve(model: nn.Module) -> None:
    """Do one forward pass of random rows."""
    with torch.inference_mode():
        model(torch.randn(TOKENS, NARROW))
