"""Calibration: what a threshold promises is what unseen calm windows do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from geluwatch.core import calibrate, histogram, score
from geluwatch.errors import BaselineError
from geluwatch.records import Baseline, Floats, Moments, Point, PointKey, Window

ROWS, CHANNELS = 1000, 64
KEYS: tuple[PointKey, ...] = tuple((f"layer.{k}", "pre") for k in range(4))
LAYERS = tuple(layer for layer, _ in KEYS)
MONTH = 30 * 24 * 60.0


def baseline_windows(make_window, make_moments, rng: np.random.Generator, count: int, channels: int = CHANNELS) -> tuple[Window, ...]:
    """Calm minutes of four independent layers."""
    return tuple(make_window({key: make_moments(rng, ROWS, channels) for key in KEYS}, 60.0 * k) for k in range(count))


def budget(error: float, keys: int = len(KEYS), horizons: int = 1) -> float:
    """Tickets a month that leave `error` to each look of one-minute windows."""
    return error * MONTH * keys * horizons


def wandering(rng: np.random.Generator, count: int, memory: float) -> Floats:
    """Vectors (count, 2C) of traffic with three slow directions as strong as the sampling noise."""
    loadings = rng.standard_normal((3, 2 * CHANNELS)) / np.sqrt(3)
    state, steps = rng.standard_normal(3), rng.standard_normal((count, 3)) * np.sqrt(1 - memory**2)
    path = np.empty((count, 3))
    for k in range(count):
        path[k] = state = memory * state + steps[k]
    return 0.02 * (path @ loadings + rng.standard_normal((count, 2 * CHANNELS)))


def test_threshold_falls_with_more_runs_and_rises_with_less_error() -> None:
    """The same calm scores give a lower bound when worth more independent ones, and a higher one at a smaller error."""
    calm = np.exp(np.random.default_rng(0).normal(0, 0.2, 100))
    by_runs = [calibrate.threshold(calm, runs, 1e-4) for runs in (6, 12, 25, 50, 100)]
    by_error = [calibrate.threshold(calm, 50, error) for error in (1e-1, 1e-2, 1e-4, 1e-7)]
    assert sorted(by_runs, reverse=True) == by_runs
    assert sorted(by_error) == by_error
    assert by_error[0] > 1.0


def test_threshold_stays_finite_for_the_worst_of_inputs() -> None:
    """Scores that vary wildly, or not at all, or are zero, give a positive number."""
    for calm in (np.array([1e-30, 1.0, 1e30]), np.ones(20), np.zeros(20)):
        assert 0.0 < calibrate.threshold(calm, 2, 1e-9) < np.inf


@pytest.mark.parametrize("error", [1e-2])
def test_false_alarms_are_those_asked_for(make_window, make_moments, error: float) -> None:
    """Twenty baselines of 40 calm windows, each tried on 300 unseen ones: between a tenth and twice the rate asked for."""
    rng = np.random.default_rng(1)
    looks = alarms = 0
    for _ in range(20):
        windows = baseline_windows(make_window, make_moments, rng, 40)
        certificate = calibrate.certify(windows, 0, (1,), budget(error))
        for key in KEYS:
            calm = score.reference(*calibrate.series(windows, key))
            fresh = (score.vector(make_moments(rng, ROWS, CHANNELS)) for _ in range(300))
            scores = np.array([score.score(calm, vector[None], np.array([float(ROWS)])) for vector in fresh])
            looks += scores.size
            alarms += int((scores > certificate.thresholds[(*key, 1)]).sum())
    assert looks == 24_000
    assert 0.1 * error < alarms / looks < 2.0 * error


@pytest.mark.parametrize("horizon", [1, 4])
def test_traffic_with_a_memory_does_not_break_the_promise(horizon: int) -> None:
    """Where each window resembles the last (correlation .9), false alarms stay within three times the rate asked for."""
    rng, error = np.random.default_rng(2), 1e-2
    rates = []
    for _ in range(20):
        vectors, rows = wandering(rng, 128 + 200, 0.9), np.full(128, float(ROWS))
        scores = score.replay(vectors[:128], rows, horizon, 16)
        limit = calibrate.threshold(scores, calibrate.independent(scores, horizon), error)
        calm = score.reference(vectors[:128], rows)
        rates.append(np.mean([score.score(calm, vectors[k : k + horizon], rows[:horizon]) > limit for k in range(128, 328 - horizon)]))
    assert np.mean(rates) < 3.0 * error


def test_scarce_calm_windows_stay_under_the_threshold(make_window, make_moments) -> None:
    """Calibrated on 1,000 rows a window, 200 calm windows of 100 rows stay below every threshold."""
    rng = np.random.default_rng(3)
    windows = baseline_windows(make_window, make_moments, rng, 60)
    certificate = calibrate.certify(windows, 0, (1, 4), 2.0)
    calm = score.reference(*calibrate.series(windows, KEYS[0]))
    scarce = np.stack([score.vector(make_moments(rng, 100, CHANNELS)) for _ in range(200)])
    for horizon in (1, 4):
        rows = np.full(horizon, 100.0)
        highest = max(score.score(calm, scarce[k : k + horizon], rows) for k in range(0, 200, horizon))
        assert highest < certificate.thresholds[(*KEYS[0], horizon)]


def test_independent_scores_are_counted() -> None:
    """Scores drawn apart count whole, overlapping runs by their overlap, and scores with a memory by their memory."""
    rng = np.random.default_rng(4)
    apart = np.exp(0.1 * rng.standard_normal(200))
    assert calibrate.independent(apart, 1) == 200
    # Runs of 4 share three quarters with the next: 1 + 2 * (9 + 4 + 1) / 16 scores are worth one.
    assert calibrate.independent(apart, 4) == int(203 / 2.75)
    slow = score.replay(wandering(rng, 200, 0.9), np.full(200, 1.0), 1, 25)
    assert calibrate.independent(slow, 1) < 60
    assert calibrate.independent(np.ones(50), 1) == 50


def test_the_certificate_states_what_was_done(make_window, make_moments) -> None:
    """Windows, left out, horizons, budget, replay and one threshold a point and horizon are all in it."""
    windows = baseline_windows(make_window, make_moments, np.random.default_rng(5), 50)
    found = calibrate.certify(windows, 3, (1, 4, 16), 2.0)
    assert (50, 3, (1, 4), 2.0) == (found.windows, found.left_out, found.horizons, found.tickets_per_month)
    assert {(*key, horizon) for key in KEYS for horizon in (1, 4)} == set(found.thresholds)
    assert len(KEYS) * (50 + 47) == found.replayed
    assert (0, True, "") == (found.exceeded, found.armed, found.reason)
    assert min(found.thresholds.values()) > 1.0


def test_windows_needed_follow_the_overlap_of_runs() -> None:
    """Overlapping runs are worth more than disjoint ones: 129 windows, not 192, make twelve independent runs of 16."""
    assert {1: 12, 2: 18, 4: 33, 16: 129} == {horizon: calibrate.windows_needed(horizon) for horizon in (1, 2, 4, 16)}


def test_a_larger_budget_lowers_thresholds_but_never_into_calm(make_window, make_moments) -> None:
    """More tickets a month mean lower thresholds, down to those of one alarm in ten looks."""
    windows = baseline_windows(make_window, make_moments, np.random.default_rng(6), 30)
    limits = [calibrate.certify(windows, 0, (1,), tickets).thresholds[(*KEYS[0], 1)] for tickets in (0.1, 2.0, 100.0, 1e9, 1e12)]
    assert sorted(limits, reverse=True) == limits
    assert limits[-1] == limits[-2] > 1.0


def test_the_replay_counts_an_incident_within_the_baseline(make_window, make_moments) -> None:
    """Six shifted windows in one half of the baseline exceed the threshold that the other half gives."""
    rng = np.random.default_rng(7)
    windows = list(baseline_windows(make_window, make_moments, rng, 60))
    for k in range(40, 46):
        windows[k] = make_window({key: make_moments(rng, ROWS, CHANNELS, level=0.5) for key in KEYS}, 60.0 * k)
    assert calibrate.certify(tuple(windows), 0, (1,), 2.0).exceeded >= 6 * len(KEYS)


@pytest.mark.parametrize(("have", "horizons", "more"), [(11, (1, 4), 1), (5, (1,), 7), (30, (4, 16), 3)])
def test_too_few_windows_are_not_armed(make_window, make_moments, have: int, horizons: tuple[int, ...], more: int) -> None:
    """Below twelve independent runs at the shortest horizon nothing is armed, and the reason says how many more windows it takes."""
    rng = np.random.default_rng(8)
    found = calibrate.certify(baseline_windows(make_window, make_moments, rng, have, 8), 0, horizons, 2.0)
    assert (False, {}, ()) == (found.armed, found.thresholds, found.horizons)
    assert found.reason == f"{have} usable windows are too few to calibrate: {more} more are needed."
    assert calibrate.certify(baseline_windows(make_window, make_moments, rng, have + more, 8), 0, horizons, 2.0).armed


def test_windows_that_drift_all_along_are_not_armed(make_window, make_moments) -> None:
    """A baseline that moves steadily has no calm to compare with, and the reason says so."""
    rng = np.random.default_rng(9)
    windows = tuple(make_window({KEYS[0]: make_moments(rng, ROWS, 8, level=0.3 * k)}, 60.0 * k) for k in range(40))
    found = calibrate.certify(windows, 0, (1,), 2.0)
    assert not found.armed
    assert "resemble their neighbours" in found.reason


def test_windows_without_a_common_point_are_not_armed(make_window, make_moments) -> None:
    """Where no site gave rows in every window there is nothing to calibrate."""
    rng = np.random.default_rng(10)
    windows = tuple(make_window({KEYS[k % 2]: make_moments(rng, ROWS, 8)}) for k in range(20))
    found = calibrate.certify(windows, 0, (1,), 2.0)
    assert not found.armed
    assert found.reason.startswith("No site gave rows in every window")


def test_windows_of_different_widths_are_refused(make_window, make_moments) -> None:
    """A layer with 8 channels in one window and 9 in the next cannot be a baseline, and is named."""
    rng = np.random.default_rng(11)
    windows = tuple(make_window({KEYS[0]: make_moments(rng, ROWS, 8 + k % 2)}) for k in range(20))
    with pytest.raises(BaselineError, match=r"layer\.0 had 8 and 9 channels in different windows"):
        calibrate.certify(windows, 0, (1,), 2.0)


def test_constant_traffic_gives_thresholds_that_forgive_rounding(make_window) -> None:
    """A baseline of one request repeated has finite thresholds above what rounding scores and below what a change scores."""
    still = Moments(ROWS, np.full(8, 0.7), np.zeros(8))
    windows = tuple(make_window({KEYS[0]: still}, 60.0 * k) for k in range(20))
    limit = calibrate.certify(windows, 0, (1,), 2.0).thresholds[(*KEYS[0], 1)]
    calm = score.reference(*calibrate.series(windows, KEYS[0]))
    rounded, moved = (replace(still, mean=still.mean * factor) for factor in (1 + 1e-6, 1.01))
    assert score.score(calm, score.vector(rounded)[None], np.array([ROWS])) < limit < 2.0
    assert score.score(calm, score.vector(moved)[None], np.array([ROWS])) > limit


@pytest.mark.parametrize(
    "spoilt",
    [{"first_nonfinite": "layer.0"}, {"blind": ("layer.1",)}, {"thinned": True}, {"rows": 63}, {"missing": True}],
    ids=lambda spoilt: next(iter(spoilt)),
)
def test_unfit_windows_are_left_out_up_to_a_tenth(make_window, make_moments, spoilt: dict[str, object]) -> None:
    """One bad window in ten is left out; two are refused in a sentence with both numbers."""
    rng = np.random.default_rng(12)
    good = baseline_windows(make_window, make_moments, rng, 9, 8)
    points = {key: make_moments(rng, int(spoilt.get("rows", ROWS)), 8) for key in KEYS[: 3 if spoilt.get("missing") else 4]}
    flags = {name: value for name, value in spoilt.items() if name not in {"rows", "missing"}}
    bad = make_window(points, **flags)
    assert good == calibrate.usable([*good, bad], LAYERS, 64)
    with pytest.raises(BaselineError, match=r"^2 of 11 windows held .* fewer than 64 rows, more than the tenth"):
        calibrate.usable([*good, bad, bad], LAYERS, 64)


def test_no_window_at_all_is_refused() -> None:
    """Recording before the first window says what to do."""
    with pytest.raises(BaselineError, match="No window has been closed yet"):
        calibrate.usable([], LAYERS, 64)


@pytest.mark.parametrize("point", ["pre", "post"])
def test_arming_pools_the_baseline_s_windows(make_window, make_moments, point: Point) -> None:
    """The armed reference is the one of all windows, and the histogram counts every value of theirs."""
    rng = np.random.default_rng(13)
    key: PointKey = ("layer.0", point)
    windows = []
    for k in range(15):
        window = make_window({key: make_moments(rng, ROWS, 4)}, 60.0 * k)
        counted = histogram.from_values(rng.normal(size=50).astype(np.float32))
        windows.append(replace(window, points={key: replace(window.points[key], histogram=counted)}))
    certificate = calibrate.certify(tuple(windows), 0, (1,), 2.0)
    armed = calibrate.arm(Baseline("m", "1", "b", 0.0, (), tuple(windows), certificate))
    assert armed[key].histogram.finite == 15 * 50
    expected = score.reference(*calibrate.series(windows, key))
    assert (expected.mean.tolist(), expected.rows) == (armed[key].reference.mean.tolist(), armed[key].reference.rows)
