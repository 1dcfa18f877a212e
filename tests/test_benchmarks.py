"""What the benchmarks promise of themselves: accuracy and price are measured with the settings that everybody gets."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import geluwatch

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"

# In a process of its own, for modules of the benchmarks and of the tests have names in common.
CONFIGURATIONS = """
import json
from dataclasses import asdict
from types import SimpleNamespace

import contenders
import stage

scored = []
stage.TorchSource = lambda model, config, clock: scored.append(config)
stage.Watch = lambda source, store, clock, config, **names: scored.append(config)
stage.Stage(SimpleNamespace(model=None), None)
print(json.dumps([contenders.SHARE_OF_TIME, asdict(contenders.DEFAULT), *map(asdict, scored)]))
"""


def test_accuracy_and_price_are_of_one_configuration() -> None:
    """The score is measured with `Config()`, and the price with the same but for back-off, which is off, and the rows.

    These are as many in proportion to the time that the agent has as a window's are to a minute.
    """
    run = subprocess.run([sys.executable, "-c", CONFIGURATIONS], cwd=BENCHMARKS, capture_output=True, text=True, timeout=120, check=True)
    share, priced, *scored = json.loads(run.stdout)
    default = json.loads(json.dumps(asdict(geluwatch.Config())))
    assert {"cost_budget", "rows_per_window"} == {name for name, value in default.items() if priced[name] != value}
    assert priced["cost_budget"] is None
    assert default["rows_per_window"] * share == priced["rows_per_window"]
    assert [default, default] == scored
