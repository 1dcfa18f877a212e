"""The recorder: bounded memory however long it runs, a reference of everything, scores that no later window changes."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from geluwatch.config import Config
from geluwatch.core import calibrate, histogram, recorder, score
from geluwatch.core.average import Averages, replay
from geluwatch.core.recorder import KEPT_WINDOWS, Recorder
from geluwatch.errors import BaselineError
from geluwatch.records import Baseline, Floats, PointKey, Window

ROWS, CHANNELS = 500, 4
LAYERS = ("layer.0", "layer.1")
KEYS: tuple[PointKey, ...] = tuple((layer, "pre") for layer in LAYERS)
CONFIG = Config(horizons=(1, 4), minimum_rows=64)
VALUES = 50

Draw = Callable[..., Iterator[Window]]


@pytest.fixture(scope="module")
def draw(make_window, make_moments) -> Draw:
    """The drawer of calm minutes: `draw(seed, count, keys, channels, rows)`, with values in their histograms."""

    def windows(
        seed: int, count: int, keys: tuple[PointKey, ...] = KEYS, channels: int = CHANNELS, rows: int = ROWS, level: float = 0.0
    ) -> Iterator[Window]:
        rng = np.random.default_rng(seed)
        counted = histogram.from_values(rng.normal(level, 1, VALUES).astype(np.float32))
        for number in range(count):
            window = make_window({key: make_moments(rng, rows, channels, level) for key in keys}, 60.0 * number)
            yield replace(window, points={key: replace(seen, histogram=counted) for key, seen in window.points.items()})

    return windows


def recorded(windows: Iterator[Window] | list[Window], config: Config = CONFIG, layers: tuple[str, ...] = LAYERS) -> Recorder:
    """A recorder that has taken windows."""
    made = Recorder(config)
    for window in windows:
        made.add(window, layers)
    return made


def finished(made: Recorder) -> Baseline:
    """The recorder's baseline."""
    return made.baseline(model="m", model_version="1", name="v1", created=9.0, sites=())


def vectors(windows: list[Window], key: PointKey) -> Floats:
    """The vectors (n, 2C) of windows at one point."""
    return np.stack([score.vector(window.points[key].moments) for window in windows])


def test_memory_is_bounded_over_three_thousand_windows(draw: Draw) -> None:
    """Whole windows stay at their number, and from then on a window costs a few bytes for each score of its."""
    made = recorded(draw(1, KEPT_WINDOWS + 50))
    coming = list(draw(2, 3000 - KEPT_WINDOWS - 50))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for window in coming:
            made.add(window, LAYERS)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert (3000, 0, KEPT_WINDOWS) == (made.closed, made.left_out, len(made._kept))
    scores = len(KEYS) * len(CONFIG.horizons)
    assert grown / len(coming) < 300 + 16 * scores
    baseline = finished(made)
    assert (KEPT_WINDOWS, 3000, 2250) == (len(baseline.windows), baseline.certificate.windows, baseline.certificate.replayed)
    assert coming[-1].ended - 60.0 == baseline.certificate.seconds
    assert baseline.calm is not None
    assert (2250, 4, len(KEYS), 2) == baseline.calm.scores.shape


def test_only_the_newest_scores_are_kept(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the longest baseline the oldest of the later scores go; the reference has still seen everything."""
    monkeypatch.setattr(recorder, "LONGEST", KEPT_WINDOWS + 60)
    windows = list(draw(3, KEPT_WINDOWS + 100))
    baseline = finished(recorded(windows))
    ended = [window.ended for window in windows]
    assert baseline.calm is not None
    assert [*ended[:KEPT_WINDOWS], *ended[-60:]] == list(baseline.calm.ended)
    assert {len(windows)} == {known.windows for known in baseline.references.values()}


def test_what_paging_is_said_to_take_is_enough(draw: Draw) -> None:
    """A baseline of a hundred windows says how many more it takes to page; with a tenth more than that it does."""
    config = Config(horizons=(1, 4, 16), minimum_rows=64)
    short = finished(recorded(draw(31, 100), config)).certificate
    assert not short.paging
    (more,) = map(int, re.findall(r"about (\d+) more windows", short.paging_reason))
    long = finished(recorded(draw(31, 100 + round(1.1 * more)), config)).certificate
    assert (True, "") == (long.paging, long.paging_reason)
    assert long.replayed == long.windows - long.windows // 4


@pytest.mark.parametrize("longest", [10**6, KEPT_WINDOWS + 500])
@pytest.mark.parametrize(("count", "left_out"), [(4 * KEPT_WINDOWS - 1, 0), (4 * KEPT_WINDOWS, KEPT_WINDOWS), (5 * KEPT_WINDOWS, 180)])
def test_a_long_baseline_is_calibrated_without_its_first_quarter(
    draw: Draw, monkeypatch: pytest.MonkeyPatch, longest: int, count: int, left_out: int
) -> None:
    """Once the windows kept whole are a quarter, the first quarter is left out; where older scores are gone, no more than that."""
    monkeypatch.setattr(recorder, "LONGEST", longest)
    windows = list(draw(30, count))
    calm = recorded(windows).calm()
    kept = windows[left_out:] if left_out else windows
    expected = [window.ended for window in kept]
    if count > longest:
        expected = expected[-500:] if left_out else [*expected[:KEPT_WINDOWS], *expected[-500:]]
    assert expected == list(calm.ended)
    assert calm.scores.shape[0] == len(expected)


def test_the_memory_of_scores_is_capped_in_bytes(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores of deep models take no more than their bytes, and cover the whole time all the same: every second's, or fourth's."""
    one = 4 * len(KEYS) * len(CONFIG.horizons) * 4
    monkeypatch.setattr(recorder, "CALM_BYTES", 40 * one)
    windows = list(draw(4, KEPT_WINDOWS + 500))
    made = recorded(windows)
    assert 20 < len(made._later) <= 40
    baseline = finished(made)
    calm = baseline.calm
    assert calm is not None
    assert 16 == calm.every
    assert {16 * 60.0} == set(np.diff(calm.ended))
    assert calm.ended[-1] > windows[-16].ended
    assert calm.ended[0] <= windows[-500 + 32].ended
    assert (True, len(calm.ended)) == (baseline.certificate.armed, baseline.certificate.replayed)
    assert 43_200 == calibrate.windows_a_month(calm)


def test_every_second_window_tells_of_the_traffic_what_all_of_them_do(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits and looks from every fourth window's scores are about those from all."""
    windows = list(draw(40, 3000))
    whole = finished(recorded(windows)).certificate
    one = 4 * len(KEYS) * len(CONFIG.horizons) * 4
    monkeypatch.setattr(recorder, "CALM_BYTES", 800 * one)
    thinned = finished(recorded(windows)).certificate
    assert thinned.replayed < whole.replayed / 3
    assert thinned.ticket_limit == pytest.approx(whole.ticket_limit, abs=1.0)
    assert 0.4 < thinned.looks / whole.looks < 1.3


def test_one_window_far_out_is_not_the_reference(draw: Draw) -> None:
    """A window a million deviations out, among those kept whole or later, leaves mean and variance about where they were."""
    windows = list(draw(41, KEPT_WINDOWS + 200))
    calm = finished(recorded(windows))
    for place in (50, KEPT_WINDOWS + 100):
        odd = list(windows)
        odd[place] = replace(
            odd[place],
            points={
                key: replace(seen, moments=replace(seen.moments, mean=seen.moments.mean + 1e6)) for key, seen in odd[place].points.items()
            },
        )
        found = finished(recorded(odd))
        for key in KEYS:
            known, now = calm.references[key], found.references[key]
            assert np.abs(now.mean - known.mean).max() < 0.1 * np.sqrt(known.variance).max()
            assert (now.variance < 1.5 * known.variance).all()


def test_fewer_wide_windows_are_kept_whole(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where windows take much memory, as few as sixteen are kept whole, and the others scored as they come."""
    monkeypatch.setattr(recorder, "KEPT_BYTES", 1)
    made = recorded(draw(5, 60))
    assert recorder.LEAST_KEPT == len(made._kept)
    assert 60 == len(made.calm().ended)
    assert finished(made).certificate.armed


@pytest.mark.parametrize("count", [20, KEPT_WINDOWS, KEPT_WINDOWS + 200])
def test_the_reference_takes_part_in_every_window(draw: Draw, count: int) -> None:
    """Mean and variance are numpy's over all windows' vectors, kept whole or not; the rows are the typical ones."""
    windows = list(draw(6, count, level=100.0))
    baseline = finished(recorded(windows))
    for key in KEYS:
        known, seen = baseline.references[key], vectors(windows, key)
        expected = score.reference(seen.mean(axis=0), seen.var(axis=0, ddof=1), ROWS, count)
        assert known.mean == pytest.approx(expected.mean, rel=1e-6, abs=1e-7)  # of windows kept to a float32's precision
        assert known.variance == pytest.approx(expected.variance, rel=1e-4)
        assert (ROWS, count) == (known.rows, known.windows)


def test_the_first_windows_are_replayed_and_the_rest_scored_as_they_came(draw: Draw) -> None:
    """Statistics of windows kept whole are those of `replay` with an eighth left out; later scores are about 1 too, leans about 0."""
    windows = list(draw(7, KEPT_WINDOWS + 300, channels=64))
    calm = recorded(windows).calm()
    assert KEYS == calm.keys
    assert [window.ended for window in windows] == list(calm.ended)
    rows, requests = np.full(KEPT_WINDOWS, float(ROWS)), np.array([window.requests for window in windows[:KEPT_WINDOWS]])
    for place, key in enumerate(KEYS):
        for which, horizon in enumerate(CONFIG.horizons):
            expected = replay(vectors(windows[:KEPT_WINDOWS], key), rows, requests, horizon, KEPT_WINDOWS // 8)
            found = calm.scores[:, :, place, which]
            assert found[:KEPT_WINDOWS].T == pytest.approx(expected, rel=1e-5, abs=1e-5, nan_ok=True)
            assert found[KEPT_WINDOWS:, 0].mean() == pytest.approx(1.0, abs=0.05)
            assert np.abs(found[KEPT_WINDOWS:, 1:]).max() < 6.0


def test_no_later_window_changes_a_score(draw: Draw) -> None:
    """Whether calm or an incident follows, the scores of windows scored as they came stay what they were."""
    windows = list(draw(8, KEPT_WINDOWS + 100))
    before = recorded(windows).calm()
    for level in (0.0, 5.0):
        after = recorded([*windows, *draw(9, 50, level=level)]).calm()
        assert before.scores[KEPT_WINDOWS:].tolist() == after.scores[KEPT_WINDOWS : len(windows)].tolist()
    assert after.scores[len(windows), 0, :, 0].min() > 20.0


def test_a_window_is_scored_before_it_is_learnt(draw: Draw) -> None:
    """The first window of an incident has a score that does not depend on its own part in the reference."""
    windows = list(draw(10, KEPT_WINDOWS))
    odd = next(draw(11, 1, level=5.0))
    made = recorded([*windows, odd])
    known = finished(recorded(windows)).references[KEYS[0]]
    alone = Averages(known, (1,))
    alone.add(score.vector(odd.points[KEYS[0]].moments), ROWS, odd.requests)
    assert made.calm().scores[-1, :, 0, 0] == pytest.approx(alone.statistics()[:, 0], rel=1e-3)


def test_thin_windows_scored_as_they_come_do_not_pass_for_drift(draw: Draw) -> None:
    """Later windows with a fifth of the rows score about 1 too: what their number explains is not held against them."""
    windows = [*draw(28, KEPT_WINDOWS, channels=64), *draw(29, 36, channels=64, rows=ROWS // 5)]  # before they are learnt
    scores = recorded(windows).calm().scores[KEPT_WINDOWS:, 0]
    assert scores.mean(axis=0) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(
    "spoilt",
    [{"first_nonfinite": "layer.0"}, {"blind": ("layer.1",)}, {"thinned": True}, {"rows": 63}, {"missing": True}],
    ids=lambda spoilt: next(iter(spoilt)),
)
def test_unfit_windows_are_left_out_up_to_a_tenth(draw: Draw, make_window, make_moments, spoilt: dict[str, object]) -> None:
    """One bad window in twenty is left out and counted; three of 22 are refused in a sentence with both numbers."""
    rng = np.random.default_rng(12)
    keys = KEYS[:1] if spoilt.get("missing") else KEYS
    points = {key: make_moments(rng, int(spoilt.get("rows", ROWS)), CHANNELS, level=9.0) for key in keys}  # type: ignore[call-overload]  # a number
    flags = {name: value for name, value in spoilt.items() if name not in {"rows", "missing"}}
    good, bad = list(draw(13, 19)), make_window(points, **flags)
    made = recorded([*good, bad])
    expected, found = finished(recorded(good)), finished(made)
    assert (20, 1, 1) == (made.closed, made.left_out, found.certificate.left_out)
    assert expected.references[KEYS[0]].mean.tolist() == found.references[KEYS[0]].mean.tolist()
    made.add(bad, LAYERS)
    made.add(bad, LAYERS)
    with pytest.raises(BaselineError, match=r"^3 of 22 windows held .* fewer than 64 rows, more than the tenth"):
        finished(made)


def test_recording_nothing_is_refused() -> None:
    """Without a window there is no baseline, and the sentence says what to do."""
    with pytest.raises(BaselineError, match="No window has been closed yet"):
        finished(Recorder(CONFIG))


@pytest.mark.parametrize("widths", [(4, 5), (5, 4)])
def test_changed_widths_are_refused(draw: Draw, widths: tuple[int, int]) -> None:
    """A layer with 4 channels in some windows and 5 in others cannot be a baseline, and is named with both widths."""
    made = recorded([*draw(14, 30, channels=widths[0]), *draw(15, 5, channels=widths[1])])
    sentence = "layer.0 had 4 and 5 channels in different windows, which cannot be compared; record on traffic of one width."
    with pytest.raises(BaselineError) as caught:
        finished(made)
    assert sentence == str(caught.value)


def test_a_single_window_of_another_width_is_left_out(draw: Draw) -> None:
    """One odd window among thirty is left out and counted, like any other that is unfit."""
    found = finished(recorded([*draw(14, 30), *draw(15, 1, channels=CHANNELS + 1)]))
    assert (30, 1) == (found.certificate.windows, found.certificate.left_out)


def test_windows_without_any_rows_do_no_harm(draw: Draw) -> None:
    """Windows in which no site gave rows, closed by hand without end, are gathered without an error and calibrate nothing."""
    made = Recorder(CONFIG)
    for number in range(KEPT_WINDOWS + 20):
        made.add(Window(60.0 * number, 60.0 * number + 60.0, 0, 0, {}), ())
    assert not finished(made).certificate.armed


def test_a_starving_layer_is_no_part_of_the_baseline(draw: Draw) -> None:
    """A layer that the census does not count on, and that misses some windows, is left out; the others are calibrated."""
    windows = [*draw(16, 20), *draw(17, 20, keys=KEYS[:1]), *draw(18, 20)]
    made = recorded(windows, layers=LAYERS[:1])
    baseline = finished(made)
    assert (0, KEYS[:1]) == (made.left_out, made.keys())
    assert set(KEYS[:1]) == set(baseline.references) == set(baseline.histograms)
    assert baseline.calm is not None
    assert (KEYS[:1], 60) == (baseline.calm.keys, baseline.certificate.windows)


def test_a_layer_that_appears_late_does_not_stop_the_others(draw: Draw) -> None:
    """A layer first seen when windows are no longer kept whole is passed over, and the scores of the others are sound."""
    windows = [*draw(19, KEPT_WINDOWS + 20, keys=KEYS[:1]), *draw(20, 40)]
    baseline = finished(recorded(windows, layers=LAYERS[:1]))
    calm = baseline.calm
    assert calm is not None
    assert (KEYS[:1], (KEPT_WINDOWS + 60, 4, 1, 2)) == (calm.keys, calm.scores.shape)
    assert np.isfinite(calm.scores[KEPT_WINDOWS:]).all()


def test_the_baseline_s_histograms_count_every_window(draw: Draw) -> None:
    """All windows' values are in the baseline's histograms, and none in the windows that it keeps."""
    windows = [*draw(21, KEPT_WINDOWS), *draw(22, 30)]
    baseline = finished(recorded(windows))
    for key in KEYS:
        expected = histogram.merge([window.points[key].histogram for window in windows])
        found = baseline.histograms[key]
        assert (expected.cells.tolist(), expected.counts.tolist()) == (found.cells.tolist(), found.counts.tolist())
        assert len(windows) * VALUES == found.finite
        assert {0} == {window.points[key].histogram.finite for window in baseline.windows}


def test_histograms_stay_within_their_bytes(draw: Draw) -> None:
    """Values spread over all magnitudes do not make a baseline's histogram outgrow its bytes."""
    rng = np.random.default_rng(23)
    made = Recorder(CONFIG)
    for window in draw(24, 12):
        wide = histogram.from_values((rng.standard_normal(200_000) * 10.0 ** rng.uniform(-20, 20, 200_000)).astype(np.float32))
        made.add(replace(window, points={key: replace(seen, histogram=wide) for key, seen in window.points.items()}), LAYERS)
    counted = finished(made).histograms[KEYS[0]]
    assert 12 * 200_000 == counted.finite
    assert counted.cells.nbytes + counted.counts.nbytes <= histogram.MOST_BYTES


def test_the_certificate_is_that_of_the_calm_scores(draw: Draw) -> None:
    """A baseline carries its names, its scores and what they promise."""
    baseline = finished(recorded(draw(25, 60)))
    assert ("m", "1", "v1", 9.0, ()) == (baseline.model, baseline.model_version, baseline.name, baseline.created, baseline.sites)
    assert baseline.calm is not None
    assert calibrate.certify(baseline.calm, 0, CONFIG) == baseline.certificate
    assert baseline.certificate.armed


def test_a_baseline_of_windows_only_is_calibrated_when_it_is_revived(draw: Draw) -> None:
    """One from an earlier release, whole windows with their histograms and nothing else, becomes what recording them gives."""
    windows = list(draw(26, 50))
    expected = finished(recorded(windows))
    earlier = Baseline("m", "1", "v1", 9.0, (), tuple(windows), replace(expected.certificate, armed=False, ticket_limit=1.0))
    found = recorder.revived(earlier, CONFIG)
    assert expected.certificate == found.certificate
    assert ("m", "1", "v1", 9.0) == (found.model, found.model_version, found.name, found.created)
    assert expected.calm is not None
    assert found.calm is not None
    assert expected.calm.scores == pytest.approx(found.calm.scores, nan_ok=True)
    assert {50 * VALUES} == {counted.finite for counted in found.histograms.values()}
    assert "eu" == recorder.revived(replace(earlier, traffic="eu"), CONFIG).traffic


def test_limits_of_an_older_release_are_found_anew(draw: Draw) -> None:
    """A baseline whose limits were found in another way is calibrated again from its scores, with the budgets that it was recorded for."""
    baseline = finished(recorded(draw(28, 50), replace(CONFIG, tickets_per_month=5.0)))
    older = replace(baseline, certificate=replace(baseline.certificate, method=1, ticket_limit=99.0, looks=0.0))
    found = recorder.revived(older, CONFIG)
    assert baseline.certificate == found.certificate
    assert 5.0 == found.certificate.tickets_per_month
    assert baseline.calm is found.calm


def test_a_baseline_that_has_its_scores_is_left_alone(draw: Draw) -> None:
    """Reviving what needs no reviving gives the very same record."""
    baseline = finished(recorded(draw(27, 20)))
    assert baseline is recorder.revived(baseline, CONFIG)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_state_is_sixteen_bytes_a_channel_and_a_bounded_histogram(draw: Draw, dtype: str) -> None:
    """A point's reference and a window's moments take 16 bytes a channel each, its histogram 64 kB however many values it has seen."""
    rng = np.random.default_rng(40)
    spread = (rng.standard_normal(400_000) * np.exp(rng.normal(size=400_000) * 4)).astype(np.float32)
    if dtype == "float16":
        spread = np.clip(spread, -6e4, 6e4).astype(np.float16).astype(np.float32)
    counted = histogram.from_values(spread, dtype)
    windows = [
        replace(each, points={key: replace(seen, histogram=counted) for key, seen in each.points.items()})
        for each in draw(41, 20, channels=64)
    ]
    baseline = finished(recorded(windows))
    reference, values, moments = baseline.references[KEYS[0]], baseline.histograms[KEYS[0]], windows[0].points[KEYS[0]].moments
    assert (16 * 64, 16 * 64) == (reference.mean.nbytes + reference.variance.nbytes, moments.mean.nbytes + moments.m2.nbytes)
    assert values.cells.nbytes + values.counts.nbytes <= 64 * 1024
    assert 20 * counted.finite == values.finite
