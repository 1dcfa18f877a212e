"""Builders of calm windows and calm scores, handed out through fixtures, so that hypothesis may use them too."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import settings

from geluwatch.core import histogram
from geluwatch.records import POINTS, Calm, Floats, Moments, PointKey, PointWindow, Window

# Time limits per example fail on a busy machine, and say nothing about numbers.
settings.register_profile("numbers", deadline=None)
settings.load_profile("numbers")

MomentsMaker = Callable[..., Moments]
WindowMaker = Callable[..., Window]
CalmMaker = Callable[..., Calm]

SPREAD = 0.15
"""Standard deviation of the logarithms of calm scores, about that of a layer with a hundred channels."""


def gaussian_moments(rng: np.random.Generator, rows: int, channels: int, level: float | np.ndarray = 0.0, scale: float = 1.0) -> Moments:
    """Moments of `rows` independent normal rows, drawn from their exact distribution instead of row by row."""
    mean = level + scale * rng.standard_normal(channels) / np.sqrt(rows)
    return Moments(rows, mean, scale**2 * rng.chisquare(rows - 1, channels))


def build_window(points: dict[PointKey, Moments], started: float = 0.0, seconds: float = 60.0, **others: object) -> Window:
    """A clean window with the given moments and nothing in its histograms."""
    filled = {key: PointWindow(histogram.empty(), moments) for key, moments in points.items()}
    return Window(started, started + seconds, 10, 10, filled, **others)  # type: ignore[arg-type]  # passed through


def build_calm(
    deviations: Floats,
    layers: int | None = None,
    horizons: tuple[int, ...] = (1,),
    seconds: float = 60.0,
    leans: Floats | float = 0.0,
    largest: Floats | None = None,
) -> Calm:
    """Calm scores from how many standard deviations (n, K) or (n, K, H) each lies out, with shifts and scales (n, 2, K, H).

    Its logarithm is normal where the deviations are. The keys are those of `layers` layers, one layer a key if not told. Without the
    largest (n, K, H) they are such as older baselines have.
    """
    filled = deviations if deviations.ndim == 3 else deviations[:, :, None]
    scores = np.concatenate([np.exp(SPREAD * filled)[:, None], np.broadcast_to(leans, (len(filled), 2, *filled.shape[1:]))], axis=1)
    if largest is not None:
        scores = np.concatenate([scores, largest[:, None]], axis=1)
    per = filled.shape[1] // (layers or filled.shape[1])
    keys: tuple[PointKey, ...] = tuple((f"layer.{k // per}", POINTS[k % per]) for k in range(filled.shape[1]))
    return Calm(keys, horizons, seconds * np.arange(1.0, len(filled) + 1), scores.astype(np.float32))


@pytest.fixture(scope="session")
def make_moments() -> MomentsMaker:
    """The drawer of moments: `make_moments(rng, rows, channels, level, scale)`."""
    return gaussian_moments


@pytest.fixture(scope="session")
def make_window() -> WindowMaker:
    """The builder of windows: `make_window({(layer, point): moments}, started, seconds, ...)`."""
    return build_window


@pytest.fixture(scope="session")
def make_calm() -> CalmMaker:
    """The builder of calm scores: `make_calm(deviations, layers, horizons, seconds, leans, largest)`."""
    return build_calm
