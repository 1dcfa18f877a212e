"""The benchmark beside the field: how alarms are counted and limits tuned, and what the detector that is told everything can do."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.signal import lfilter

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def field() -> Iterator[dict[str, ModuleType]]:
    """The benchmark's modules by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield {name: importlib.import_module(f"field.{name}") for name in ("book", "tables", "told", "tuning")}
        for name in [name for name in sys.modules if name.partition(".")[0] == "field"]:
            sys.modules.pop(name)


def test_an_alarm_ends_after_five_quiet_windows_and_counts_again_each_day(field) -> None:
    """Two windows in alarm six apart are two alarms, five apart one; one that lasts two days and a window is three."""
    apart, near, lasting = np.zeros(100, bool), np.zeros(100, bool), np.ones(2 * 1_440 + 1, bool)
    apart[[10, 16]] = near[[10, 15]] = True
    assert [2, 1, 3, 0] == [field["tuning"].episodes(each) for each in (apart, near, lasting, np.zeros(9, bool))]


def test_a_tuned_limit_leaves_the_budget(field) -> None:
    """Exponential scores of a month, tuned: other months have about two alarms each; scores that never vary have no limit."""
    tuning, rng = field["tuning"], np.random.default_rng(1)
    limit = tuning.limit(rng.exponential(size=tuning.MONTH), ladder=False)
    counts = [tuning.episodes(rng.exponential(size=tuning.MONTH) >= limit) for _ in range(20)]
    assert 0.5 < np.mean(counts) / tuning.BUDGET < 2.0
    assert math.isinf(tuning.limit(np.zeros(1_000), ladder=False))


def test_a_tail_that_falls_faster_than_exponentially_is_judged_where_it_is_thin(field) -> None:
    """A chart of squares, whose scores remember, has nearly the budget in other months, not what the bend of its tail would give it."""
    tuning, rng = field["tuning"], np.random.default_rng(3)

    def month() -> np.ndarray:
        wander = lfilter([math.sqrt(1.0 - 0.9**2)], [1.0, -0.9], rng.standard_normal(tuning.MONTH))
        return np.abs(wander)

    counts = [tuning.episodes(month() >= tuning.limit(month(), ladder=False)) for _ in range(20)]
    assert 0.4 < np.mean(counts) / tuning.BUDGET < 2.0


def test_a_ladder_is_tuned_to_its_mildest_rung(field) -> None:
    """Of settings that alarm in ten, two and no windows of a month, the one of two is chosen."""
    scores = np.zeros(field["tuning"].MONTH)
    scores[1_000:11_000:1_000] = 1.0
    scores[[3_000, 5_000]] = 2.0
    assert 2.0 == field["tuning"].limit(scores, ladder=True)


def test_who_is_told_a_change_sees_it_as_soon_as_theory_says(field) -> None:
    """A shift of two deviations in one number of three is seen after some log(windows a month / 2) / 2 windows, and no chance is."""
    told, rng = field["told"], np.random.default_rng(2)
    calm, change = told._learn(rng.standard_normal((5_000, 3))), np.array([2.0, 0.0, 0.0])
    limit = math.log(field["tuning"].MONTH / field["tuning"].BUDGET)
    seen = [field["tuning"].delay(calm.scores(rng.standard_normal((40, 3)) + change, change) >= limit) for _ in range(200)]
    assert 3.0 <= np.median(seen) <= 7.0
    assert field["tuning"].episodes(calm.scores(rng.standard_normal((field["tuning"].MONTH, 3)), change) >= limit) <= 4


def test_no_one_can_be_twice_as_fast_as_a_rival_that_needs_one_window(field) -> None:
    """The summary counts the cells in which somebody is: not where the rival needs a window, nor where who is told needs as long."""
    cells = {}
    for shift, delays in {"large": (1, 1, 1), "small": (3, 6, 3), "hard": (5, 6, 5)}.items():
        for who, delay in zip(("geluwatch", "rival", "told the change"), delays, strict=True):
            cells[f"{shift} {who}"] = {
                "null": "calm",
                "shift": shift,
                "place": "all",
                "most": 0,
                "who": who,
                "tuned": [delay],
                "default": [],
            }
    said = field["tables"].against(cells)
    assert "| calm | small | all | 3 | 6 | rival | 2.0 | 3 |" in said
    assert "in 1 of 3 cells, in 1 of the 1 in which ours or a detector that is told the change is" in said
    assert "equal or faster in 3, more than 1.2 times slower in 0." in said


def test_results_are_stale_when_what_measured_them_has_changed(field) -> None:
    """A part's stamp covers the modules that it reaches, and no other part's, nor those that only show results."""
    reached = field["book"].reached
    assert {"streams", "ours"} <= reached("calm") & reached("delays") & reached("faults")
    assert {"tuning", "told"} <= reached("delays") - reached("calm") - reached("faults")
    assert {"subjects"} <= reached("delays") & reached("faults") - reached("calm")
    assert not {"tables", "pictures", "driver"} & (reached("delays") | reached("calm") | reached("faults"))
    assert 3 == len({field["book"].source_hash(module) for module in ("calm", "delays", "faults")})
