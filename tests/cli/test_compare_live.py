"""`geluwatch compare` of two running processes, each with a real agent that serves its report."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import geluwatch
from geluwatch.cli.main import main


class Pair:
    """Two models with one baseline, served on loopback."""

    def __init__(self, store: str) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 4))
        config = geluwatch.Config(window_seconds=None, cost_budget=None)
        self.models = [model, copy.deepcopy(model)]
        self.watches = [geluwatch.attach(each, name="tiny", config=config, store=store) for each in self.models]
        for _ in range(60):
            self.serve(0)
        self.watches[0].record_baseline("v1", arm=True)
        self.watches[1].arm("v1")
        self.urls = [watch.serve() for watch in self.watches]

    def serve(self, number: int, shift: float = 0.0) -> None:
        """Send traffic through one, and close its window."""
        for _ in range(8):
            with torch.no_grad():
                self.models[number](torch.randn(32, 16) + shift)
        self.watches[number].close_window()

    def close(self) -> None:
        """Take both watches off."""
        for watch in self.watches:
            watch.detach()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Two such processes."""
    made = Pair(f"sqlite:///{tmp_path}/store.db")
    yield made
    made.close()


def test_two_processes_are_held_against_each_other(pair: Pair, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Without traffic nothing is said; calm, they are the same, with bounds on their distance; then the second drifts, and is named."""
    pair.serve(0)
    assert 1 == main(["compare", *pair.urls])
    assert "The other one is warming, so nothing can be said" in capsys.readouterr().out

    pair.serve(1)
    assert 0 == main(["compare", *pair.urls, "--json", f"{tmp_path}/found.json"])
    lines = capsys.readouterr().out.splitlines()
    assert f"tiny 1 at {pair.urls[1]} against tiny 1 at {pair.urls[0]}" == lines[0]
    assert "The same: neither has drifted from its baseline." == lines[-1]
    low, high = json.loads((tmp_path / "found.json").read_text())["layers"][0]["ks"]["pre"]
    assert 0 <= low <= high < 0.2

    pair.serve(1, shift=3.0)
    assert 1 == main(["compare", *pair.urls, "--junit", f"{tmp_path}/found.xml"])
    assert "The other one has drifted in 1 layers where the known one has not, first in 1" in capsys.readouterr().out
    assert '<failure type="drift"' in (tmp_path / "found.xml").read_text()


def test_what_serves_no_report_is_named(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    """An address at which nobody listens, and one that serves something else, are one sentence each."""
    for address, reason in (("http://127.0.0.1:9", "9/report.json gave no report ("), (f"{pair.urls[0]}/nowhere", "gave no report (")):
        assert 1 == main(["compare", pair.urls[0], address])
        assert reason in capsys.readouterr().err
