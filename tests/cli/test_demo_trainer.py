"""The training run that goes wrong by itself."""

from __future__ import annotations

import pytest
import torch

import geluwatch
from geluwatch.cli.demo import trainer
from geluwatch.cli.demo.texts import Texts


@pytest.mark.parametrize("seed", [trainer.SEED, 0])
def test_the_run_ends_in_nan_and_the_watch_names_the_layer(corpus: Texts, seed: int) -> None:
    """The loss falls at first; then a GELU meets a non-finite value, no earlier than one of the model's inputs to it does."""
    model = trainer.TinyTransformer(seed=seed)
    hit: list[str] = []

    def note(name: str, values: torch.Tensor) -> None:
        if not torch.isfinite(values).all():
            hit.append(name)

    hooks = [
        block.act.register_forward_pre_hook(lambda _, args, name=f"blocks.{place}.act": note(name, args[0]))
        for place, block in enumerate(model.blocks)
    ]
    with geluwatch.attach(model, name="tiny", config=geluwatch.Config(window_seconds=None)) as watch:
        losses = []
        for step in trainer.train(model, "\n".join(corpus.held_out), seed=seed):
            losses.append(step.loss)
            first = watch.flush().first_nonfinite
            assert (hit[0] if hit else None) == first
            if first:
                break
    for hook in hooks:
        hook.remove()
    assert hit
    assert 20 < len(losses) < trainer.STEPS
    assert min(losses) < losses[0] - 1.0
    assert not torch.isfinite(torch.tensor(losses[-1]))


def test_weights_depend_on_the_seed_alone() -> None:
    """Making the model neither reads nor moves torch's random state."""
    state = torch.random.get_rng_state()
    one, same, other = trainer.TinyTransformer(seed=1), trainer.TinyTransformer(seed=1), trainer.TinyTransformer(seed=2)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(one.predict.weight, same.predict.weight)
    assert not torch.equal(one.predict.weight, other.predict.weight)
