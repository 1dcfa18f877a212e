"""Judging a run against its own past: what keeps its pace is calm, what breaks it is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geluwatch.config import Config
from geluwatch.core import follow
from geluwatch.core.follow import Follower, even_pace
from geluwatch.core.judge import Judged
from geluwatch.errors import ConfigError
from geluwatch.records import Moments, PointKey, Window

MomentsMaker = Callable[..., Moments]
WindowMaker = Callable[..., Window]

CHANNELS, ROWS = 64, 400
LAYERS = ("a", "b", "c")
POSITIONS = {layer: place for place, layer in enumerate(LAYERS)}
KEYS: tuple[PointKey, ...] = tuple((layer, point) for layer in LAYERS for point in ("pre", "post"))  # type: ignore[misc]  # literals


class Run:
    """A run of three layers whose channels drift at a pace; levels and scales may be changed under way."""

    def __init__(self, make_moments: MomentsMaker, make_window: WindowMaker, pace: float = 0.0, seed: int = 0, **settings: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.make_moments, self.make_window = make_moments, make_window
        self.follower = Follower(Config(), **settings)
        self.direction = self.rng.standard_normal(CHANNELS)
        self.pace, self.at = pace, 0
        self.scale = dict.fromkeys(LAYERS, 1.0)

    def step(self, *, rows: int = ROWS, **others: object) -> Judged:
        """Judge the next window."""
        level = self.pace * self.at * self.direction
        points = {key: self.make_moments(self.rng, rows, CHANNELS, level, self.scale[key[0]]) for key in KEYS}
        window = self.make_window(points, 60.0 * self.at, **others)
        self.at += 1
        return self.follower.judge(window, POSITIONS)

    def steps(self, count: int) -> list[Judged]:
        """Judge so many windows."""
        return [self.step() for _ in range(count)]


@given(windows=st.integers(8, 64), lag=st.integers(1, 32), pace=st.floats(1e-3, 1e3))
def test_an_even_pace_has_one_score_whatever_it_is(windows: int, lag: int, pace: float) -> None:
    """The closed form is the score of channels that run on in a straight line, slow or fast."""
    line = pace * np.arange(windows + lag + 1)
    z = (line[-1] - line[:windows].mean()) / line[:windows].std(ddof=1)
    assert z**2 / 0.456947 / (1.0 + 1.0 / windows) == pytest.approx(even_pace(windows, lag), rel=1e-4)


@pytest.mark.parametrize("pace", [0.0, 0.01, 0.1, 10.0])
def test_learning_at_an_even_pace_is_calm(pace: float, make_moments: MomentsMaker, make_window: WindowMaker) -> None:
    """Over a hundred windows nothing alarms, though in the end every channel is far from where it began."""
    run = Run(make_moments, make_window, pace)
    judged = run.steps(100)
    assert {()} == {each.onset.layers for each in judged}
    assert [0] * 20 + [len(KEYS)] * 80 == [len(each.points) for each in judged]
    assert max(found.evidence for each in judged for found in each.points.values()) < 0.75


@pytest.mark.parametrize("factor", [0.01, 0.5, 2.0])
def test_a_layer_that_breaks_the_pace_is_named(factor: float, make_moments: MomentsMaker, make_window: WindowMaker) -> None:
    """One layer's scale jumps: it alone is in alarm, from that window on, in words of its own."""
    run = Run(make_moments, make_window, 0.01)
    run.steps(30)
    run.scale["b"] = factor
    judged = run.step()
    assert (("b",), "model") == (judged.onset.layers, judged.onset.scope)
    assert {"ticket"} == {judged.points["b", point].alarm for point in ("pre", "post")}
    assert {1800.0} == set(judged.onset.times.values())


def test_of_layers_that_break_together_the_first_is_the_models_first(make_moments: MomentsMaker, make_window: WindowMaker) -> None:
    """What came earlier stands first; of those that came at once, the one that is first in the model."""
    run = Run(make_moments, make_window)
    run.steps(30)
    run.scale["c"] = run.scale["b"] = 2.0
    assert ("b", "c") == run.step().onset.layers
    run.scale["a"] = 2.0
    assert ("b", "c", "a") == run.step().onset.layers


def test_an_alarm_lasts_while_the_fault_does(make_moments: MomentsMaker, make_window: WindowMaker) -> None:
    """The reference stands still meanwhile; when the layer comes back, the alarm ends at once."""
    run = Run(make_moments, make_window)
    run.steps(30)
    run.scale["b"] = 2.0
    assert {("b",)} == {each.onset.layers for each in run.steps(10)}
    run.scale["b"] = 1.0
    assert () == run.step().onset.layers


def test_what_stays_is_followed_anew(make_moments: MomentsMaker, make_window: WindowMaker) -> None:
    """After a stretch of windows in alarm the new state becomes the reference, after the same wait as at the start."""
    run = Run(make_moments, make_window)
    run.steps(30)
    run.scale["b"] = 2.0
    assert {("b",)} == {each.onset.layers for each in run.steps(16)}
    assert run.follower.since is None
    judged = run.steps(40)
    assert [0] * 20 + [len(KEYS)] * 20 == [len(each.points) for each in judged]
    assert {()} == {each.onset.layers for each in judged}


def test_windows_that_are_not_clean_do_not_become_the_reference(make_moments: MomentsMaker, make_window: WindowMaker) -> None:
    """A window with a NaN is not judged, and neither it nor a thin one is compared with later."""
    run = Run(make_moments, make_window)
    run.steps(19)
    assert {} == run.step(first_nonfinite="a").points
    assert {} == run.step(rows=3).points
    run.step()
    assert set(KEYS) == set(run.step().points)


def test_memory_is_bounded(make_moments: MomentsMaker, make_window: WindowMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the run, no more than stretch and lag are held; of a model too large for that, a shorter stretch."""
    run = Run(make_moments, make_window)
    run.steps(200)
    assert {20} == {len(track.held) for track in run.follower._tracks.values()}
    monkeypatch.setattr(follow, "MOST_BYTES", 1)
    large = Run(make_moments, make_window)
    large.steps(50)
    assert {follow.LEAST_WINDOWS + 4} == {len(track.held) for track in large.follower._tracks.values()}


@pytest.mark.parametrize("wrong", [{"windows": 7}, {"lag": 0}, {"windows": 16.0}, {"lag": True}])
def test_what_cannot_be_followed_is_refused(wrong: dict[str, int]) -> None:
    """The message names the argument and its value."""
    ((name, value),) = wrong.items()
    with pytest.raises(ConfigError, match=f"{name} must be .* got {value}"):
        Follower(Config(), **wrong)
