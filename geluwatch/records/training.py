"""What a training loop says of its steps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Training:
    """Sums over the steps noted, and the loss scale after the last of them."""

    steps: int = 0
    nonfinite_losses: int = 0
    """Steps whose loss was NaN or infinite."""
    skipped_steps: int = 0
    """Steps that the loss scaler skipped, because gradients were not finite: its scale fell."""
    skipped_in_a_row: int = 0
    """Steps skipped without one between them that was not, up to the last one noted."""
    scale: float | None = None
    """The loss scaler's scale; None without a scaler."""
