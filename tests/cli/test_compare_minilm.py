"""`geluwatch compare` on the real encoder: itself passes, another formula and another precision are named."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import geluwatch
from geluwatch.cli.demo import model, texts
from geluwatch.cli.main import main

WINDOWS, TEXTS = 48, 8
LAYERS = [f"encoder.layer.{number}.intermediate.intermediate_act_fn" for number in range(6)]

pytestmark = pytest.mark.e2e


def record(encoder: model.Encoder, name: str, prose: Sequence[str], url: str) -> None:
    """Send texts through a watched model, and store a baseline of them."""
    config = geluwatch.Config(window_seconds=None, cost_budget=None)
    with geluwatch.attach(encoder.model, name="minilm", config=config, store=url) as watch:
        for number in range(WINDOWS):
            for start in (0, TEXTS // 2):
                encoder.forward(prose[number * TEXTS + start :][: TEXTS // 2])
            watch.close_window()
        watch.record_baseline(name)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with a baseline of the model, and of three others on prose that it has not seen."""
    url = f"sqlite:///{tmp_path_factory.mktemp('compare')}/store.db"
    encoder = model.load()
    read = texts.load(baseline=WINDOWS * TEXTS, held_out=WINDOWS * TEXTS)
    record(encoder, "good", read.baseline, url)
    record(encoder, "again", read.held_out, url)
    swapped = copy.deepcopy(encoder.model)
    swapped.get_submodule("encoder.layer.3.intermediate").intermediate_act_fn = nn.GELU(approximate="tanh")
    record(replace(encoder, model=swapped), "swapped", read.held_out, url)
    record(replace(encoder, model=copy.deepcopy(encoder.model).to(torch.bfloat16)), "cast", read.held_out, url)
    return url


def compare(capsys: pytest.CaptureFixture[str], url: str, other: str) -> tuple[int, list[str]]:
    """Return exit status and lines of a comparison with the good baseline."""
    status = main(["compare", "good", other, "--store", url, "--model", "minilm"])
    return status, capsys.readouterr().out.splitlines()


def test_itself_and_prose_not_seen_before_pass(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The model against itself, on the same texts and on others, exits with 0."""
    for other in ("good", "again"):
        status, lines = compare(capsys, store, other)
        assert 0 == status, lines
        assert ["same"] * 6 == [line.split()[1] for line in lines[3:9]]


def test_a_tanh_at_one_layer_is_named(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The tanh form at layer 3 exits with 1 and is named there, and nowhere else."""
    status, lines = compare(capsys, store, "swapped")
    assert 1 == status
    named = [line for line in lines[3:9] if line.split()[1] == "differs"]
    assert [LAYERS[3]] == [line.split()[0] for line in named]
    assert "its formula was erf, and is tanh" in named[0]
    assert f"first at {LAYERS[3]}" in lines[10]
    assert f"declared formula erf became tanh at {LAYERS[3]}" in lines[-1]


def test_a_cast_is_named_with_its_size(store: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A cast to bfloat16 exits with 1, is named at every layer, and the distance of the values beside it says how little it moved them."""
    status, lines = compare(capsys, store, "cast")
    assert 1 == status
    assert all("its values were float32, and are bfloat16" in line for line in lines[3:9])
    assert all(float(line.split()[2].split("-")[0]) < 0.05 for line in lines[3:9])
