"""What a training loop says of its steps: how many, which losses were no number, what became of the loss scale.

A value on an accelerator is not read but copied without a wait; a later call picks it up, in order. So counts may lag
by a step or two, and the queue never waits for them.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch

from geluwatch.core.totals import add_training
from geluwatch.errors import ConfigError
from geluwatch.records import Training
from geluwatch.tap._compat import scale_of
from geluwatch.tap.breaker import Breaker

_MOST_IN_FLIGHT = 256
"""Steps whose values may be on their way; of more, the newest go unread."""


@dataclass(frozen=True, slots=True)
class _Flight:
    """Values of one step; None where there is none."""

    loss: torch.Tensor | float | None
    scale: torch.Tensor | float | None
    event: torch.cuda.Event | None

    @property
    def landed(self) -> bool:
        return self.event is None or bool(self.event.query())  # type: ignore[no-untyped-call]  # torch's own


class Steps:
    """Counts the steps of one training loop; called by one thread at a time."""

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker
        self._flights: deque[_Flight] = deque()
        self._steps = self._nonfinite = self._skipped = self._in_a_row = 0
        self._scale: float | None = None
        self._told: Training | None = None

    def note(self, loss: Any, scaler: Any) -> None:
        """Note a step that is over.

        Raises:
            ConfigError: The loss is neither a number nor a tensor, or the scaler no GradScaler.
        """
        if not isinstance(loss, (torch.Tensor, Real, type(None))):
            raise ConfigError(f"loss must be a tensor or a number, got {type(loss).__name__}; pass the step's loss as it is.")
        if scaler is not None and not callable(getattr(scaler, "get_scale", None)):
            raise ConfigError(f"scaler must be a torch.amp.GradScaler, got {type(scaler).__name__}.")
        self._steps += 1
        try:
            if self._breaker.allows("training"):
                self._note(loss, scaler)
        except Exception as error:  # noqa: BLE001  # the training loop must go on
            self._breaker.trip("training", error)

    def drain(self, *, final: bool = False) -> Training | None:
        """Return what has come since the last call; None before the first step.

        Args:
            final: Wait for what is still on its way; only once the model has been detached.
        """
        if final:
            while self._flights:
                flight = self._flights.popleft()
                if flight.event is not None:
                    flight.event.synchronize()
                self._land(flight)
        if not self._steps:
            return None
        now = Training(self._steps, self._nonfinite, self._skipped, self._in_a_row, self._scale)
        before, self._told = self._told or Training(), now
        return add_training(Training(-before.steps, -before.nonfinite_losses, -before.skipped_steps), now)

    def _note(self, loss: Any, scaler: Any) -> None:
        if len(self._flights) < _MOST_IN_FLIGHT:
            self._flights.append(_start(loss, scale_of(scaler)))
        while self._flights and self._flights[0].landed:
            self._land(self._flights.popleft())

    def _land(self, flight: _Flight) -> None:
        if flight.loss is not None and not math.isfinite(float(flight.loss)):
            self._nonfinite += 1
        if flight.scale is None:
            return
        before, self._scale = self._scale, float(flight.scale)
        # A scale that has come down to zero can fall no further, and with it no step is taken.
        if self._scale == 0.0 or (before is not None and self._scale < before):
            self._skipped += 1
            self._in_a_row += 1
        else:
            self._in_a_row = 0


def _start(loss: torch.Tensor | float | None, scale: torch.Tensor | float | None) -> _Flight:
    """Return the values of a step, those on an accelerator on their way to the host."""
    if isinstance(loss, torch.Tensor):
        # A loss that is not reduced is no number where one of its parts is none; a half's range would not hold the sum.
        loss = loss.detach().sum(dtype=torch.float64 if loss.dtype is torch.float64 else torch.float32)
    landing_loss, landing_scale = _landing(loss), _landing(scale)
    devices = [value.device for value in (loss, scale) if isinstance(value, torch.Tensor) and value.is_cuda]
    event = None
    if devices:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's own
        event.record(torch.cuda.current_stream(devices[-1]))
    return _Flight(landing_loss, landing_scale, event)


def _landing(value: torch.Tensor | float | None) -> torch.Tensor | float | None:
    if not isinstance(value, torch.Tensor):
        return value
    if value.is_cpu:
        return float(value)
    landing = torch.empty(value.shape, dtype=value.dtype, device="cpu", pin_memory=value.is_cuda)
    return landing.copy_(value, non_blocking=True)
