"""What a training loop says of its steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from geluwatch.errors import ConfigError
from geluwatch.records import Training

Attach = Callable[..., Any]


def model_and_optimiser() -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return something to train."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 1))
    return model, torch.optim.SGD(model.parameters(), lr=0.01)


def test_before_the_first_step_there_is_no_training(attach: Attach) -> None:
    """A model in service has none of it."""
    assert attach(nn.Sequential(nn.GELU())).flush().totals.training is None


@pytest.mark.parametrize(
    "bad",
    [math.nan, math.inf, torch.tensor(math.nan), torch.tensor([1.0, -math.inf]), torch.tensor(math.nan).half(), np.float32(math.nan)],
)
def test_losses_that_are_no_number_are_counted(bad: Any, attach: Attach) -> None:
    """Three steps, the second with such a loss, as a float, one of NumPy's, a tensor, a vector or in half precision."""
    model = nn.Sequential(nn.GELU())  # which lives as long as its watch is asked
    watch = attach(model)
    for loss in (np.float32(0.5), bad, torch.tensor(0.25, requires_grad=True)):
        watch.note_step(loss)
    assert Training(3, 1) == watch.flush().totals.training
    watch.note_step()
    assert Training(4, 1) == watch.flush().totals.training


def test_a_large_loss_in_half_precision_is_a_number(attach: Attach) -> None:
    """Parts whose sum a half could not hold are finite each."""
    model = nn.Sequential(nn.GELU())  # which lives as long as its watch is asked
    watch = attach(model)
    watch.note_step(torch.full((4,), 60000.0, dtype=torch.float16))
    assert Training(1, 0) == watch.flush().totals.training


def test_skipped_steps_are_seen_by_the_scale(attach: Attach) -> None:
    """A real GradScaler: what its optimiser really skipped is what is counted; the row ends with the next good step."""
    model, optimiser = model_and_optimiser()
    watch = attach(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000)
    taken, rows = 0, []
    for broken in (False, True, True, False, True):
        weight = model[0].weight.detach().clone()
        optimiser.zero_grad()
        loss = model(torch.randn(2, 4)).sum() * (math.inf if broken else 1.0)
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        watch.note_step(loss, scaler)
        taken += not torch.equal(weight, model[0].weight)
        rows.append(watch.flush().totals.training.skipped_in_a_row)
    training = watch.report.totals.training
    assert (5, 3, 3, 128.0) == (training.steps, training.nonfinite_losses, training.skipped_steps, training.scale)
    assert (5 - training.skipped_steps, [0, 1, 2, 0, 1]) == (taken, rows)


def test_a_disabled_scaler_has_no_scale(attach: Attach) -> None:
    """A loop that keeps its scaler but has switched it off is one without."""
    model = nn.Sequential(nn.GELU())  # which lives as long as its watch is asked
    watch = attach(model)
    watch.note_step(1.0, torch.amp.GradScaler("cpu", enabled=False))
    assert Training(1) == watch.flush().totals.training


@pytest.mark.parametrize(("loss", "scaler", "wrong"), [("0.5", None, "str"), (1.0, object(), "object")])
def test_what_is_neither_loss_nor_scaler_is_refused(loss: Any, scaler: Any, wrong: str, attach: Attach) -> None:
    """The message names the argument's type."""
    model = nn.Sequential(nn.GELU())  # which lives as long as its watch is asked
    watch = attach(model)
    with pytest.raises(ConfigError, match=wrong):
        watch.note_step(loss, scaler)


def test_after_detaching_the_loop_goes_on(attach: Attach) -> None:
    """A step that is noted too late is ignored."""
    model = nn.Sequential(nn.GELU())  # which lives as long as its watch is asked
    watch = attach(model)
    watch.note_step(1.0)
    watch.detach()
    watch.note_step(math.nan)
    assert Training(1) == watch.report.totals.training


def test_a_scaler_that_fails_does_not_stop_the_loop(attach: Attach) -> None:
    """The failure is counted under its own name."""

    class Broken:
        def is_enabled(self) -> bool:
            raise RuntimeError("broken")

        def get_scale(self) -> float:
            return 1.0

    model = nn.Sequential(nn.GELU())  # which lives as long as its watch is asked
    watch = attach(model)
    watch.note_step(1.0, Broken())
    assert {"training": 1} == watch.flush().totals.errors


def test_a_scale_of_zero_skips_for_ever(attach: Attach) -> None:
    """A real GradScaler whose scale has come down to zero takes no step any more: every one is counted as skipped."""
    model, optimiser = model_and_optimiser()
    watch = attach(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1e-44, growth_interval=1000)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for _ in range(20):
        optimiser.zero_grad()
        loss = model(torch.randn(2, 4)).sum() * math.inf
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        watch.note_step(loss, scaler)
    training = watch.flush().totals.training
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))
    assert 0.0 == training.scale
    assert training.skipped_steps >= 19  # whether the first was, its scale alone does not tell
    assert training.skipped_steps == training.skipped_in_a_row
