"""What the benchmarks promise of themselves: accuracy and price are measured with the settings that everybody gets."""

from __future__ import annotations

import importlib
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import geluwatch

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what imports a module of the benchmarks."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def test_accuracy_and_price_are_of_one_configuration(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The score is measured with `Config()`, and the price with the same but for back-off, which is off, and the rows.

    These are as many in proportion to the time that the agent has as a window's are to a minute.
    """
    contenders, stage = benchmark("contenders"), benchmark("stage")
    scored: list[geluwatch.Config] = []
    monkeypatch.setattr(stage, "TorchSource", lambda _model, config, _clock: scored.append(config))
    monkeypatch.setattr(stage, "Watch", lambda _source, _store, _clock, config, **_names: scored.append(config))
    stage.Stage(SimpleNamespace(model=None), None)
    default = asdict(geluwatch.Config())
    priced = asdict(contenders.DEFAULT)
    changed = {name for name, value in default.items() if priced[name] != value}
    assert {"cost_budget", "rows_per_window"} == changed
    assert priced["cost_budget"] is None
    assert default["rows_per_window"] * contenders.SHARE_OF_TIME == priced["rows_per_window"]
    assert [default, default] == [asdict(config) for config in scored]
