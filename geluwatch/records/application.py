"""What the application says of its own work."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Application:
    """Numbers that only the application knows; None where it has said nothing."""

    predictions: int | None = None
    """Predictions of which it learned whether they were right."""
    wrong: int | None = None
    """Of those, predictions that were wrong."""
    accuracy: float | None = None
    """Accuracy of the last evaluation, 0 to 1."""
    quantized_accuracy_delta: float | None = None
    """Accuracy of the quantised model minus that of the original, on the same data."""
    cost_per_hour: float | None = None
    """What an hour of this process costs."""
