"""Judging windows: evidence at the worst horizon, KS, and what is left unjudged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from geluwatch.core import calibrate, histogram
from geluwatch.core.judge import Judge
from geluwatch.errors import BaselineError
from geluwatch.records import Baseline, Moments, PointKey, PointWindow

ROWS, CHANNELS = 1000, 128
KEY: PointKey = ("layer.0", "pre")
OTHER: PointKey = ("layer.1", "pre")


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator of this test's own."""
    return np.random.default_rng(0)


@pytest.fixture
def baseline(rng: np.random.Generator, make_window, make_moments) -> Baseline:
    """Sixty calm windows of two layers, with a histogram of standard normal values in each."""
    windows = []
    for k in range(60):
        window = make_window({key: make_moments(rng, ROWS, CHANNELS) for key in (KEY, OTHER)}, 60.0 * k)
        counted = histogram.from_values(rng.normal(size=2000).astype(np.float32))
        windows.append(replace(window, points={key: replace(seen, histogram=counted) for key, seen in window.points.items()}))
    certificate = calibrate.certify(tuple(windows), 0, (1, 4), 2.0)
    assert certificate.horizons == (1, 4)
    return Baseline("m", "1", "v1", 0.0, (), tuple(windows), certificate)


def point(moments: Moments, rng: np.random.Generator, shift: float = 0.0) -> PointWindow:
    """One point of a window, with normal values in its histogram."""
    return PointWindow(histogram.from_values(rng.normal(shift, 1, 5000).astype(np.float32)), moments)


def test_a_calm_window_shows_little_evidence(baseline: Baseline, rng: np.random.Generator, make_moments) -> None:
    """Evidence is score over threshold, below 1 in calm, with a small certified distance beside it."""
    found = Judge(baseline, 64).judge({KEY: point(make_moments(rng, ROWS, CHANNELS), rng)})[KEY]
    assert found.evidence == found.score / found.threshold < 1.0
    assert found.threshold == baseline.certificate.thresholds[(*KEY, found.horizon)]
    assert 0.0 < found.distance.lower <= found.distance.upper < 0.05


def test_a_shift_is_evidence_at_its_layer_only(baseline: Baseline, rng: np.random.Generator, make_moments) -> None:
    """Half a deviation of shift is drift at once at its own layer, with the distance to match, and nothing elsewhere."""
    points = {
        KEY: point(make_moments(rng, ROWS, CHANNELS, level=0.5), rng, 0.5),
        OTHER: point(make_moments(rng, ROWS, CHANNELS), rng),
    }
    found = Judge(baseline, 64).judge(points)
    assert found[OTHER].evidence < 1.0 < found[KEY].evidence
    assert 0.15 < found[KEY].distance.lower <= found[KEY].distance.upper < 0.25


def test_a_small_lasting_shift_is_found_at_the_longer_horizon(baseline: Baseline, rng: np.random.Generator, make_moments) -> None:
    """A shift too small for one window is drift once four of them are averaged, and the horizon says so."""
    judge = Judge(baseline, 64)
    found = [judge.judge({KEY: point(make_moments(rng, ROWS, CHANNELS, level=0.028), rng)})[KEY] for _ in range(6)]
    assert all(seen.evidence < 1.0 and seen.horizon == 1 for seen in found[:3])
    assert all(seen.evidence > 1.0 and seen.horizon == 4 for seen in found[3:])


def test_a_shift_leaves_the_horizon_when_it_is_over(baseline: Baseline, rng: np.random.Generator, make_moments) -> None:
    """Four calm windows after an incident nothing of it is left in the evidence."""
    judge = Judge(baseline, 64)
    levels = [0.5, 0.5, 0.0, 0.0, 0.0, 0.0]
    found = [judge.judge({KEY: point(make_moments(rng, ROWS, CHANNELS, level=level), rng)})[KEY] for level in levels]
    assert found[3].evidence > 1.0 > found[-1].evidence


def test_points_with_too_few_rows_are_left_unjudged(baseline: Baseline, rng: np.random.Generator, make_moments) -> None:
    """Fewer rows than the minimum, or none at all, give no judgement, and enter no later average."""
    judge = Judge(baseline, 64)
    assert judge.judge({}) == {}
    assert judge.judge({KEY: point(make_moments(rng, 63, CHANNELS, level=9.0), rng)}) == {}
    for _ in range(4):
        assert judge.judge({KEY: point(make_moments(rng, ROWS, CHANNELS), rng)})[KEY].evidence < 1.0


def test_points_the_baseline_does_not_know_are_left_unjudged(baseline: Baseline, rng: np.random.Generator, make_moments) -> None:
    """A layer that came after the baseline has nothing to be compared with."""
    assert Judge(baseline, 64).judge({("new", "pre"): point(make_moments(rng, ROWS, CHANNELS), rng)}) == {}


def test_another_width_is_refused_in_a_sentence(baseline: Baseline, rng: np.random.Generator, make_moments) -> None:
    """A layer with 8 channels cannot be judged against a baseline with 128; layer, widths and remedy are named."""
    with pytest.raises(BaselineError, match=r"^layer\.0 now has 8 channels, the armed baseline 'v1' has 128; record a baseline"):
        Judge(baseline, 64).judge({KEY: point(make_moments(rng, ROWS, 8), rng)})


def test_horizons_without_a_threshold_are_not_judged(baseline: Baseline, rng: np.random.Generator, make_moments) -> None:
    """Where a point could not be calibrated the distance is still told, and the evidence is not a number."""
    bare = replace(baseline, certificate=replace(baseline.certificate, thresholds={(*OTHER, 1): 2.0}))
    found = Judge(bare, 64).judge({KEY: point(make_moments(rng, ROWS, CHANNELS), rng)})[KEY]
    assert found.horizon == 0
    assert np.isnan([found.score, found.threshold, found.evidence]).all()
    assert found.distance.lower > 0.0
