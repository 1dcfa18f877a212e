"""Runs that will overflow: the alarm comes well before the first Inf, and a normal run of the same length is silent."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import nn

import geluwatch

Attach = Callable[..., geluwatch.Watch]
MOST_STEPS = 1200


class Run(NamedTuple):
    """What became of a run; steps are counted from 0."""

    steps: int
    alarmed: int | None
    """Step after which an alarm was raised first."""
    where: set[str]
    """Layers that it named."""
    first: str | None
    """Layer that the page over NaN or Inf named."""
    verdict: str


def transformer() -> nn.Module:
    """A small encoder of three layers with random weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    settings = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 100}
    return BertModel(BertConfig(**settings))


def train(
    model: nn.Module, watch: geluwatch.Watch, dtype: torch.dtype, growth: float, *, layer: str, every: int = 1, steps: int = MOST_STEPS
) -> Run:
    """Train a head on a model while the input weights of one layer grow, until something is non-finite or the steps are done."""
    dense = model.get_submodule(layer.replace("intermediate_act_fn", "dense"))
    head = nn.Linear(model.config.hidden_size, 2)  # type: ignore[union-attr,arg-type]  # a transformer's
    optimizer = torch.optim.AdamW([*head.parameters(), *model.parameters()], lr=1e-5)
    generator = torch.Generator().manual_seed(1)
    alarmed, where = None, set()
    for step in range(steps):
        ids = torch.randint(0, 100, (4, 16), generator=generator)
        with torch.autocast("cpu", dtype):
            hidden = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            loss = nn.functional.cross_entropy(head(hidden[:, 0]).float(), ids[:, 0] % 2)
        loss.backward()
        if all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters()):
            optimizer.step()  # as a loss scaler does, which skips a step whose gradients overflow
        optimizer.zero_grad()
        with torch.no_grad():
            dense.weight.mul_(growth)
            dense.bias.mul_(growth)
        if (step + 1) % every == 0:
            report = watch.close_window()
            ahead = {name for (name, _), seen in report.sites.items() if seen.headroom.alarm}
            if ahead and alarmed is None:
                alarmed, where = step, ahead
                assert report.verdict in ("ticket", "page")
            if report.first_nonfinite:
                return Run(step, alarmed, where, report.first_nonfinite, report.verdict)
    return Run(steps, alarmed, where, None, watch.report.verdict)


LAYER = "encoder.layer.1.intermediate.intermediate_act_fn"
NEXT = "encoder.layer.2.intermediate.intermediate_act_fn"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("growth", "every"), [(1.02, 3), (1.05, 3), (1.2, 1), (1.2, 2)])
def test_growing_weights_are_told_twenty_steps_before_the_first_inf(dtype: torch.dtype, growth: float, every: int, attach: Attach) -> None:
    """The alarm names the layer that grows; when the Inf comes, the page names it or the next, where a sum of its values overflows."""
    model = transformer()
    # From nearer to the limit; the run would otherwise take thousands of steps in bfloat16.
    with torch.no_grad():
        model.get_submodule(LAYER.replace("intermediate_act_fn", "dense")).weight.mul_(2.0 ** (7 if dtype is torch.float16 else 52))
    run = train(model, attach(model, cost_budget=None, minimum_rows=64), dtype, growth, layer=LAYER, every=every)
    print(f"\n{dtype}, x {growth} a step, a window every {every}: alarm at step {run.alarmed}, first non-finite at {run.steps}")
    assert run.first in (LAYER, NEXT)
    assert "page" == run.verdict
    assert {LAYER} == run.where
    assert run.alarmed is not None
    assert run.steps - run.alarmed >= 20


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_normal_run_is_silent(dtype: torch.dtype, attach: Attach) -> None:
    """The same training without growth, for as many steps as the slowest run above takes in float16, raises nothing."""
    model = transformer()
    run = train(model, attach(model, cost_budget=None, minimum_rows=64), dtype, 1.0, layer=LAYER, steps=380)
    assert (380, None, None, "warming") == (run.steps, run.alarmed, run.first, run.verdict)


def test_the_real_encoder_is_told_twenty_steps_ahead(minilm: nn.Module, attach: Attach) -> None:
    """The input weights of one layer of a trained encoder grow by a fifth a step in float16; restored, it is as it was."""
    layer = "encoder.layer.3.intermediate.intermediate_act_fn"
    before = {name: value.clone() for name, value in minilm.state_dict().items()}
    minilm.requires_grad_(False)
    try:
        run = train(minilm, attach(minilm, cost_budget=None, minimum_rows=64), torch.float16, 1.2, layer=layer, steps=100)
    finally:
        minilm.load_state_dict(before)
        minilm.requires_grad_(True)
    print(f"\nMiniLM, float16, x 1.2 a step: alarm at step {run.alarmed}, first non-finite at {run.steps}")
    assert run.first in (layer, layer.replace("3", "4"))
    assert {layer} == run.where
    assert run.alarmed is not None
    assert run.steps - run.alarmed >= 20
