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


FIELD = """
import json
import sys
from pathlib import Path

import numpy as np
from field import cells, ours, rivals, tuning
from field.streams import Null

exponential = np.random.default_rng(0).exponential(size=4 * tuning.MONTH)
limit = tuning.limit(exponential[: tuning.MONTH // 4], ladder=False)
endless = np.ones(3 * tuning.REPEATED, bool)
counted = {
    "beyond the limit, in a month": float((exponential >= limit).mean() * tuning.MONTH),
    "an endless alarm": tuning.episodes(endless),
    "two with a pause": tuning.episodes(np.repeat([True, False, True], [3, tuning.QUIET, 2])),
    "one with a short one": tuning.episodes(np.repeat([True, False, True], [3, tuning.QUIET - 1, 2])),
}

size = cells.Size(values=20, summaries=40, baselines=1, trials=1, after=4)
traffic = cells.Drawn(Null("small", 0.5, 0.03, baseline=100), size, Path(sys.argv[1]))
case = next(case for case in traffic.cases if case.shift == "mean + .25")
said = {}
for rival in rivals.RIVALS:
    if rival.script in {"ks", "three_sigma", "never"}:
        job = Path(sys.argv[1]) / rival.script
        answer = rivals.ask(rival, job, traffic.planted(rival, case), [traffic.known(0)], Path(sys.executable))
        said[rival.script] = [tuning.delay(each[cells.LEAD:] >= answer.limit) for each in answer.scores]
for seed, windows in traffic.trials(case):
    seen = ours.watch(windows, traffic.baseline(seed), traffic.layers, 1e6)
    said["ours"] = [tuning.delay(np.array(seen.tickets[cells.LEAD:]))]
    said["first"] = seen.first[-1]
print(json.dumps([counted, said]))
"""


def test_the_field_is_given_the_same_and_counted_alike(tmp_path: Path) -> None:
    """Limits leave the budget, endless alarms do not pass for calm, and rivals in other processes see a planted shift as ours does."""
    arguments = [sys.executable, "-c", FIELD, str(tmp_path)]
    run = subprocess.run(arguments, cwd=BENCHMARKS, capture_output=True, text=True, timeout=120, check=True)
    counted, said = json.loads(run.stdout)
    assert 0.2 < counted.pop("beyond the limit, in a month") < 10.0
    assert {"an endless alarm": 3, "two with a pause": 2, "one with a short one": 1} == counted
    assert {"ks": [1.0], "three_sigma": [1.0], "never": [float("inf")], "ours": [1.0], "first": "layer.1"} == said
