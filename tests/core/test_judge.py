"""Judging windows: surprise against limits, alarms that do not flap, where drift began, and what is left unjudged."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from geluwatch.config import Config
from geluwatch.core import histogram
from geluwatch.core.judge import Judge, Judged
from geluwatch.core.recorder import Recorder
from geluwatch.errors import BaselineError
from geluwatch.records import Baseline, PointKey, Site, Window

ROWS, CHANNELS = 1000, 32
LAYERS = tuple(f"layer.{number}" for number in range(5))
KEYS: tuple[PointKey, ...] = tuple((layer, "pre") for layer in LAYERS)
SITES = tuple(Site(layer, position, "module", "GELU", "erf") for position, layer in enumerate(LAYERS))
CONFIG = Config(horizons=(1, 4))
ODD = LAYERS[2]
TOPIC = np.random.default_rng(99).normal(0.0, 0.05, (len(LAYERS), CHANNELS))
FAULT = np.random.default_rng(98).permutation(np.repeat([-1.0, 1.0], CHANNELS // 2))

Minute = Callable[..., Window]


@pytest.fixture(scope="session")
def minute(make_window, make_moments) -> Minute:
    """The drawer of one minute of traffic whose topic moves all layers: `minute(rng, number, topic, fault, rows)`."""

    def draw(rng: np.random.Generator, number: int = 0, topic: float = 0.0, fault: float = 0.0, rows: int = ROWS) -> Window:
        move = rng.standard_normal() + topic
        levels = {key: move * TOPIC[place] + (fault * FAULT if key[0] == ODD else 0.0) for place, key in enumerate(KEYS)}
        window = make_window({key: make_moments(rng, rows, CHANNELS, level) for key, level in levels.items()}, 60.0 * number)
        counted = histogram.from_values(rng.normal(0, 1, 2000).astype(np.float32))
        return replace(window, points={key: replace(seen, histogram=counted) for key, seen in window.points.items()})

    return draw


@pytest.fixture(scope="session")
def baseline(minute: Minute) -> Baseline:
    """Four hundred calm minutes of five layers, which arm paging too."""
    rng = np.random.default_rng(0)
    recorder = Recorder(CONFIG)
    for number in range(400):
        recorder.add(minute(rng, number), LAYERS)
    made = recorder.baseline(model="m", model_version="1", name="v1", created=0.0, sites=SITES)
    assert (made.certificate.armed, made.certificate.paging, made.certificate.horizons) == (True, True, (1, 4))
    return made


def judged(baseline: Baseline, minute: Minute, seed: int, count: int, config: Config = CONFIG, **traffic: float) -> Judged:
    """What a fresh judge says of the last of some minutes."""
    rng, judge = np.random.default_rng(seed), Judge(baseline, config)
    for number in range(count):
        seen = judge.judge(minute(rng, 1000 + number, **traffic))
    return seen


def test_calm_raises_no_alarm(baseline: Baseline, minute: Minute) -> None:
    """Five hours of calm that the baseline has not seen raise nothing, and evidence is surprise over the ticket's limit."""
    rng, judge = np.random.default_rng(1), Judge(baseline, CONFIG)
    limit = baseline.certificate.ticket_limit
    for number in range(300):
        seen = judge.judge(minute(rng, 1000 + number))
        assert set(KEYS) == set(seen.points)
        assert ((), {}, "") == tuple(seen.onset)
        for found in seen.points.values():
            assert "" == found.alarm
            assert found.evidence == pytest.approx(found.surprise / limit)
            assert 0.0 <= found.evidence < 1.0
            assert found.horizon in CONFIG.horizons


def test_a_shift_of_one_layer_names_it_and_its_contrast(baseline: Baseline, minute: Minute) -> None:
    """A fault inside the model is an alarm at that layer only, found by its contrast, and the model is what changed."""
    seen = judged(baseline, minute, 2, 8, fault=0.15)
    found = seen.points[ODD, "pre"]
    assert "contrast" == found.family
    assert found.alarm
    assert found.evidence >= 1.0
    assert [(ODD, "pre")] == [key for key, each in seen.points.items() if each.alarm]
    assert ((ODD,), "model") == (seen.onset.layers, seen.onset.scope)
    assert abs(seen.onset.times[ODD, "pre"] - 1000 * 60.0) <= 120.0


def test_a_fault_that_hides_in_the_traffic_is_seen_by_contrast_alone(baseline: Baseline, minute: Minute) -> None:
    """Without other layers to compare with, what one layer has alone is nearly lost in what the topics do."""
    alone = replace(
        baseline,
        references={(ODD, "pre"): baseline.references[ODD, "pre"]},
        calm=replace(baseline.calm, keys=((ODD, "pre"),), scores=baseline.calm.scores[:, :, 2:3]),  # type: ignore[union-attr]  # it has some
    )
    by_all, by_itself = (judged(each, minute, 3, 4, fault=0.06).points[ODD, "pre"] for each in (baseline, alone))
    assert "contrast" == by_all.family != by_itself.family
    assert by_all.surprise > by_itself.surprise + 2.0


def test_a_shift_of_all_layers_is_the_traffic(baseline: Baseline, minute: Minute) -> None:
    """Traffic that stays on a topic far off moves every layer: a level's alarm at most of them, the first first, and the scope says so."""
    seen = judged(baseline, minute, 4, 20, topic=12.0)
    alarmed = [each for each in seen.points.values() if each.alarm]
    assert len(alarmed) >= 4
    assert {"level"} == {each.family for each in alarmed}
    assert "traffic" == seen.onset.scope
    assert list(seen.onset.layers) == sorted(seen.onset.layers)


def test_a_small_lasting_shift_is_found_at_the_longer_horizon(baseline: Baseline, minute: Minute) -> None:
    """What is hardly evidence in one window is more once four are averaged, and the horizon says so."""
    first, last = (judged(baseline, minute, 5, count, fault=0.05).points[ODD, "pre"] for count in (1, 20))
    assert 1 == first.horizon
    assert 4 == last.horizon
    assert last.surprise > first.surprise + 1.0


def test_an_incident_leaves_the_averages_when_it_is_over(baseline: Baseline, minute: Minute) -> None:
    """Two windows of a gross fault are an alarm that ends within twelve calm ones."""
    rng, judge = np.random.default_rng(14), Judge(baseline, CONFIG)
    for number in range(2):
        assert judge.judge(minute(rng, 1000 + number, fault=0.5)).points[ODD, "pre"].alarm
    after = [judge.judge(minute(rng, 1002 + number)).points[ODD, "pre"] for number in range(20)]
    assert {""} == {each.alarm for each in after[12:]}
    assert max(each.evidence for each in after[12:]) < 1.0


def test_a_spoilt_window_is_judged_and_not_remembered(baseline: Baseline, minute: Minute) -> None:
    """Windows with a known fault alarm while they last; the windows behind them are judged as if there had been none."""
    rng, judge, other = np.random.default_rng(15), Judge(baseline, CONFIG), Judge(baseline, CONFIG)
    for number in range(6):
        calm = minute(rng, 1000 + number)
        assert judge.judge(calm).points == other.judge(calm).points
    for number in range(6):
        assert "page" == judge.judge(minute(rng, 1006 + number, fault=5.0), spoilt=True).points[ODD, "pre"].alarm
    after = minute(rng, 1012)
    assert judge.judge(after).points == other.judge(after).points


def amplitude(baseline: Baseline, minute: Minute, evidence: float) -> float:
    """The fault whose first window shows so much evidence."""
    low, high = 0.0, 2.0
    for _ in range(24):
        middle = 0.5 * (low + high)
        enough = judged(baseline, minute, 7, 1, fault=middle).points[ODD, "pre"].evidence >= evidence
        low, high = (low, middle) if enough else (middle, high)
    return high


@pytest.fixture(scope="module")
def single(baseline: Baseline) -> Baseline:
    """The baseline with the horizon of one window only, so that a window's evidence is its own."""
    calm = baseline.calm
    assert calm is not None
    return replace(baseline, certificate=replace(baseline.certificate, horizons=(1,)))


def alarms(baseline: Baseline, minute: Minute, faults: list[float]) -> list[str]:
    """The odd layer's alarm after each of successive windows, all drawn alike but for the fault."""
    judge = Judge(baseline, CONFIG)
    return [judge.judge(minute(np.random.default_rng(7), n, fault=fault)).points[ODD, "pre"].alarm for n, fault in enumerate(faults)]


def test_an_alarm_is_held_until_the_evidence_has_halved(single: Baseline, minute: Minute) -> None:
    """Evidence between a half and one starts no alarm but holds one; below a half the alarm is over."""
    under, over = amplitude(single, minute, 0.8), amplitude(single, minute, 1.05)
    assert ["", "ticket", "ticket", "", "", "ticket"] == alarms(single, minute, [under, over, under, 0.0, under, over])


def test_a_ticket_becomes_a_page_and_stays_one(single: Baseline, minute: Minute) -> None:
    """Beyond the page's limit drift pages, and goes on paging while the ticket's alarm would last."""
    over, far = amplitude(single, minute, 1.05), amplitude(single, minute, 3.0)
    under = amplitude(single, minute, 0.8)
    assert ["ticket", "page", "page", "page", "", "ticket"] == alarms(single, minute, [over, far, over, under, 0.0, over])


def test_drift_does_not_page_where_paging_is_not_armed(single: Baseline, minute: Minute) -> None:
    """With an infinite page limit the worst drift is a ticket."""
    unpaged = replace(single, certificate=replace(single.certificate, page_limit=math.inf, paging=False))
    assert ["ticket"] == alarms(unpaged, minute, [0.5])


def test_what_is_tolerated_is_no_drift(baseline: Baseline, minute: Minute) -> None:
    """Traffic that moved by a little for good surprises less the more the baseline was recorded to tolerate."""
    found = []
    for tolerance in (0.0, 0.05, 1.0):
        lenient = replace(baseline, certificate=replace(baseline.certificate, tolerance=tolerance))
        seen = judged(lenient, minute, 8, 20, topic=2.5)
        found.append(max(each.surprise for each in seen.points.values() if each.family == "level"))
    assert found[0] > found[1] > found[2]


def test_points_with_too_few_rows_are_left_unjudged(baseline: Baseline, minute: Minute) -> None:
    """Fewer rows than the minimum, or none at all, give no judgement, and enter no later average."""
    rng, judge = np.random.default_rng(9), Judge(baseline, CONFIG)
    assert {} == judge.judge(minute(rng, 1000, fault=50.0, rows=63)).points
    assert {} == judge.judge(replace(minute(rng, 1001), points={})).points
    for number in range(5):
        found = judge.judge(minute(rng, 1002 + number)).points
        assert {""} == {each.alarm for each in found.values()}
    assert {1, 4} >= {each.horizon for each in found.values()}


def test_a_starving_layer_leaves_the_others_judged(baseline: Baseline, minute: Minute) -> None:
    """Where one layer has no rows the others are judged all the same, against those that are left."""
    rng, judge = np.random.default_rng(10), Judge(baseline, CONFIG)
    for number in range(8):
        window = minute(rng, 1000 + number, fault=0.15)
        points = {key: seen for key, seen in window.points.items() if key != KEYS[0]}
        seen = judge.judge(replace(window, points=points))
    assert set(KEYS[1:]) == set(seen.points)
    assert (ODD,) == seen.onset.layers


def test_points_the_baseline_does_not_know_are_left_unjudged(baseline: Baseline, minute: Minute) -> None:
    """A layer that came after the baseline has nothing to be compared with."""
    window = minute(np.random.default_rng(11))
    stranger = replace(window, points={("new", "pre"): window.points[KEYS[0]]})
    assert {} == Judge(baseline, CONFIG).judge(stranger).points


def test_another_width_is_refused_in_a_sentence(baseline: Baseline, make_window, make_moments) -> None:
    """A layer with 8 channels cannot be judged against a baseline with 32; layer, widths and remedy are named."""
    narrow = make_window({KEYS[0]: make_moments(np.random.default_rng(12), ROWS, 8)})
    with pytest.raises(BaselineError, match=r"^layer\.0 now has 8 channels, the armed baseline 'v1' has 32; record a baseline"):
        Judge(baseline, CONFIG).judge(narrow)


def test_a_baseline_without_scores_is_refused_in_a_sentence(baseline: Baseline) -> None:
    """What holds no calm scores cannot judge, and the sentence says what to do."""
    with pytest.raises(BaselineError, match=r"^Baseline 'v1' holds no calm scores, .*; record it again\.$"):
        Judge(replace(baseline, calm=None), CONFIG)


def test_only_certified_horizons_are_judged(single: Baseline, minute: Minute) -> None:
    """A horizon that the certificate leaves out names no judgement."""
    assert {1} == {each.horizon for each in judged(single, minute, 13, 20).points.values()}


def test_values_on_a_coarser_grid_are_drift_at_once(baseline: Baseline, minute: Minute) -> None:
    """Rounding to a lower precision moves no score, but is never chance; the layer is named, with the grid as the cause."""
    rng, judge = np.random.default_rng(12), Judge(baseline, CONFIG)
    key = (ODD, "pre")
    window = minute(rng, 1000)
    mantissa, exponent = np.frexp(rng.normal(0, 1, 2000).astype(np.float32))
    rounded = replace(window.points[key], histogram=histogram.from_values(np.ldexp(np.round(mantissa * 16) / 16, exponent)))
    seen = judge.judge(replace(window, points={**window.points, key: rounded}))
    assert {key} == {each for each, found in seen.points.items() if found.alarm}
    assert (ODD,) == seen.onset.layers
    assert "significant bits" in seen.cause


def test_one_channel_of_few_that_ceases_to_vary_is_drift_at_once(baseline: Baseline, minute: Minute) -> None:
    """In a narrow layer a single dead channel is told, though the score of all channels hardly moves; in the baseline's noise it is not."""
    rng, judge = np.random.default_rng(13), Judge(baseline, CONFIG)
    key = (ODD, "pre")
    window = minute(rng, 1000)
    for still, alarmed in ((0.95, set()), (0.0, {key})):
        spreads = window.points[key].moments.m2.copy()
        spreads[7] *= still
        seen = replace(window.points[key], moments=replace(window.points[key].moments, m2=spreads))
        judged = judge.judge(replace(window, points={**window.points, key: seen}))
        assert alarmed == {each for each, found in judged.points.items() if found.alarm}


def test_one_channel_that_moves_is_told_by_its_number(baseline: Baseline, minute: Minute) -> None:
    """A channel of one layer that leaves its place is drift of that layer, and the cause says which and by how much."""
    rng, judge = np.random.default_rng(14), Judge(baseline, CONFIG)
    key = (ODD, "pre")
    for number in range(6):
        window = minute(rng, 1000 + number)
        seen = window.points[key]
        mean = seen.moments.mean.copy()
        mean[11] += 8.0 * np.sqrt(baseline.references[key].variance[11])
        moved = replace(seen, moments=replace(seen.moments, mean=mean))
        judged = judge.judge(replace(window, points={**window.points, key: moved}))
    assert {key} == {each for each, found in judged.points.items() if found.alarm}
    assert "largest" == judged.points[key].family
    found = re.fullmatch(
        rf"{ODD}: pre-GELU channel 11 moved, its mean lies ([\d.]+) standard deviations off the baseline's\.", judged.cause
    )
    assert found is not None
    assert 6.5 < float(found[1]) < 10.0


def test_a_baseline_from_before_the_largest_was_measured_judges_by_the_rest(baseline: Baseline, minute: Minute) -> None:
    """Three statistics a window are enough: calm stays calm, and a fault is named as before."""
    assert baseline.calm is not None
    older = replace(baseline, calm=replace(baseline.calm, scores=baseline.calm.scores[:, :3]))
    assert not any(found.alarm for found in judged(older, minute, 15, 20).points.values())
    assert [(ODD, "pre")] == [key for key, found in judged(older, minute, 2, 8, fault=0.15).points.items() if found.alarm]


def test_a_burst_opens_a_ticket_at_all_that_moved_and_pages_nobody(make_window, make_moments) -> None:
    """A window of strange traffic that just makes a ticket is one at every layer, which have only to show it, and a page at none."""
    rng = np.random.default_rng(16)

    def minute(topic: float, number: int = 0) -> Window:
        points = {key: make_moments(rng, ROWS, CHANNELS, 0.1 * topic * TOPIC[place]) for place, key in enumerate(KEYS)}
        return make_window(points, 60.0 * number)

    recorder = Recorder(CONFIG)
    for number in range(600):
        recorder.add(minute(rng.standard_normal(), number), LAYERS)
    baseline = recorder.baseline(model="m", model_version="1", name="v1", created=0.0, sites=SITES)
    assert baseline.certificate.paging
    bursts = (Judge(baseline, CONFIG).judge(minute(topic, 1000)).points for topic in np.arange(10.0, 100.0))
    seen = next(points for points in bursts if any(found.alarm for found in points.values()))
    assert [("ticket", "level")] * len(KEYS) == [(found.alarm, found.family) for found in seen.values()]
    limits = baseline.certificate.ticket_limit, baseline.certificate.page_limit
    assert all(limits[0] <= found.surprise < limits[1] for found in seen.values())


def test_a_fault_behind_calm_layers_pages_at_once(make_window, make_moments) -> None:
    """A layer that is far out while those before it are calm is no burst of the traffic, so its first window counts in full."""
    rng = np.random.default_rng(17)

    def minute(fault: float = 0.0, number: int = 0) -> Window:
        levels = {key: fault * FAULT if SITES[place].position >= 2 else 0.0 for place, key in enumerate(KEYS)}
        return make_window({key: make_moments(rng, ROWS, CHANNELS, level) for key, level in levels.items()}, 60.0 * number)

    recorder = Recorder(CONFIG)
    for number in range(600):
        recorder.add(minute(number=number), LAYERS)
    baseline = recorder.baseline(model="m", model_version="1", name="v1", created=0.0, sites=SITES)
    seen = Judge(baseline, CONFIG).judge(minute(1.0, 1000)).points
    assert ["", "", "page"] == [seen[key].alarm for key in KEYS[:3]]
    assert seen[KEYS[2]].surprise > 3.0 * baseline.certificate.page_limit
