"""Following real runs: a transformer that learns from scratch, on real text, until something breaks in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

import geluwatch
from geluwatch.cli.demo.texts import Texts
from geluwatch.cli.demo.trainer import TinyTransformer
from geluwatch.records import Report

WARM_UP, WINDOWS, STEPS = 20, 45, 5
BROKEN = 1


def dies(layer: nn.Linear) -> None:
    """Make every unit the same and inactive."""
    layer.weight.data.zero_()
    layer.bias.data.fill_(-0.01)


def doubles(layer: nn.Linear) -> None:
    """Let the scale jump."""
    layer.weight.data.mul_(2.0)


def collapses(layer: nn.Linear) -> None:
    """Map every input onto one direction."""
    layer.weight.data.copy_(layer.weight.data.mean(0, keepdim=True).expand_as(layer.weight).clone())


def train(model: TinyTransformer, text: str, watch: geluwatch.Watch, seed: int) -> Iterator[tuple[float, Report]]:
    """Train without end; yield the loss and the report of each window."""
    characters = torch.tensor(list(text.encode("ascii", "replace")))
    chosen = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    while True:
        for _ in range(STEPS):
            starts = torch.randint(len(characters) - 33, (8,), generator=chosen)
            passages = torch.stack([characters[start : start + 33] for start in starts.tolist()])
            loss = nn.functional.cross_entropy(model(passages[:, :-1]).flatten(0, 1), passages[:, 1:].flatten())
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # as torch declares it
            optimiser.step()
            watch.note_step(loss)
        yield float(loss.detach()), watch.close_window()


@pytest.mark.parametrize("break_it", [dies, doubles, collapses])
def test_a_run_is_silent_until_a_layer_breaks(break_it: Callable[[nn.Linear], None], corpus: Texts) -> None:
    """Over 45 windows in which the loss falls by more than one there is no alarm; then the broken layer is named at once."""
    model = TinyTransformer(seed=0)
    config = geluwatch.Config(window_seconds=None, cost_budget=None, flush_seconds=3600.0)
    with geluwatch.attach(model, name="run", config=config) as watch:
        watch.follow_training()
        run = train(model, "\n".join(corpus.baseline), watch, seed=0)
        calm = [next(run) for _ in range(WINDOWS)]
        assert calm[0][0] - calm[-1][0] > 1.0
        assert ["warming"] * WARM_UP + ["ok"] * (WINDOWS - WARM_UP) == [report.verdict for _, report in calm]
        assert ("following", None) == (calm[-1][1].baseline, calm[-1][1].certificate)
        assert WINDOWS * STEPS == calm[-1][1].totals.training.steps
        break_it(model.blocks[BROKEN].up)
        _, report = next(run)
    assert f"blocks.{BROKEN}.act" == report.drifting[0]
    assert report.verdict in {"ticket", "page"}
    assert report.cause.startswith(f"blocks.{BROKEN}.act: ")


def test_a_baseline_takes_the_place_of_following(corpus: Texts) -> None:
    """Arming ends it, and following again ends the baseline."""
    model = TinyTransformer(seed=0)
    text = "\n".join(corpus.baseline)
    config = geluwatch.Config(window_seconds=None, cost_budget=None, flush_seconds=3600.0)
    with geluwatch.attach(model, name="run", config=config) as watch:
        watch.follow_training(windows=8, lag=1)
        run = train(model, text, watch, seed=0)
        for _ in range(16):
            next(run)
        assert "following" == watch.report.baseline
        certificate = watch.record_baseline("run")
        if certificate.armed:
            watch.arm("run")
            assert "run" == watch.report.baseline
        watch.follow_training()
        assert watch.report.baseline is None
        with pytest.raises(geluwatch.GeluwatchError, match="windows must be"):
            watch.follow_training(windows=2)
