"""What is done to a stream's values before the GELU from one window on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .streams import Singles

RAMP = 48
"""Windows over which a ramp rises."""

Change = Callable[[Singles, np.random.Generator], Singles]


@dataclass(frozen=True)
class Shift:
    """A change of the values of some layers; `most` is the median delay in windows that is promised, 0 where none is."""

    name: str
    change: Change
    most: int = 0


def _tail(values: Singles, rng: np.random.Generator) -> Singles:
    """Return the values (n, R, C) with one in a hundred five times as large."""
    return np.where(rng.random(values.shape, dtype=np.float32) < 0.01, 5.0 * values, values)


def _dead(values: Singles, rng: np.random.Generator, count: int) -> Singles:
    """Return the values with some channels that give zero; the same ones in each window."""
    changed = values.copy()
    changed[..., rng.choice(values.shape[-1], count, replace=False)] = 0.0
    return changed


def _alone(values: Singles, rng: np.random.Generator, size: float) -> Singles:
    """Return the values with one channel moved; the same one in each window."""
    changed = values.copy()
    changed[..., rng.integers(values.shape[-1])] += np.float32(size)
    return changed


def _coarse(values: Singles, bits: int) -> Singles:
    """Return the values rounded to so many significant bits."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.round(mantissa * 2.0**bits) / 2.0**bits, exponent).astype(np.float32)


def _ramp(values: Singles, size: float) -> Singles:
    rise = np.minimum(np.arange(1, len(values) + 1, dtype=np.float32) / RAMP, 1.0)
    return values + np.float32(size) * rise[:, None, None]


SHIFTS = (
    Shift("mean + .05", lambda values, _: values + np.float32(0.05), 30),
    Shift("mean + .1", lambda values, _: values + np.float32(0.1), 5),
    Shift("mean + .25", lambda values, _: values + np.float32(0.25)),
    Shift("scale x 1.05", lambda values, _: values * np.float32(1.05), 15),
    Shift("scale x 1.15", lambda values, _: values * np.float32(1.15), 3),
    Shift("tail: 1 % x 5", _tail),
    Shift("one of 64 channels + .5", lambda values, rng: _alone(values, rng, 0.5)),
    Shift("dead: 1 of 64 channels", lambda values, rng: _dead(values, rng, 1)),
    Shift("dead: 2 of 64 channels", lambda values, rng: _dead(values, rng, 2), 2),
    Shift("precision: float8 (e4m3)", lambda values, _: _coarse(values, 4)),
    Shift("ramp: mean to + .25 over 48", lambda values, _: _ramp(values, 0.25)),
)

PLACES: dict[str, tuple[int, ...]] = {"one layer": (1,), "all layers": (0, 1, 2)}


def planted(values: Singles, shift: Shift, layers: tuple[int, ...], rng: np.random.Generator) -> Singles:
    """Return windows (n, L, R, C) with the shift in some layers from the first window on."""
    changed = values.copy()
    for layer in layers:
        changed[:, layer] = shift.change(values[:, layer], rng)
    return changed
