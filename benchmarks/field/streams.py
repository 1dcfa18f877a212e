"""Drawn activations, window after window: normal values in channels that traffic moves to and fro.

A window holds 64 rows of 64 channels at each of three layers, 4,096 values a layer, in float16 as served. Channels have mean
0 and deviation 1, so a layer's pooled values tell as much as its channels do, which is the best case for tools that pool.

What makes windows differ beyond sampling is the batch effect: the means of all rows of a window are off by `jitter` standard
deviations, remembered from window to window with correlation `rho`. By default each channel of each layer goes its own way with
two topics, as a real model's do: what comes in moves all layers, each in its own direction. Two harder kinds stand beside: with
`own`, a third of the effect is a state of each layer that no other layer knows of; with `common`, all channels of a layer move as
one, which no sum over channels can tell from a fault.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special
from scipy.signal import lfilter

LAYERS, ROWS, CHANNELS = 3, 64, 64
MINUTES_A_DAY = 1440
_CHUNK = 120
_TOPICS = 2
# Correlation of the batch effect's size from window to window, where that changes.
_SLOW = 0.995

Halves = npt.NDArray[np.float16]
Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Null:
    """One kind of calm traffic."""

    name: str
    rho: float = 0.0
    jitter: float = 0.0
    common: bool = False
    """Whether all channels of a layer move as one."""
    own: bool = False
    """Whether part of the batch effect is each layer's own."""
    freedom: float = math.inf
    """Degrees of freedom of the batch effect, which is Student's."""
    restless: float = 0.0
    """Deviation of the logarithm of the batch effect's size, which changes slowly."""
    daily: float = 0.0
    """Deviations by which the time of day moves each channel, at its peak."""
    baseline: int = 2_880
    """Windows in a baseline."""


def _memory(rho: float, jitter: float, baseline: int) -> Null:
    return Null(f"AR(1), rho {rho:g}, jitter {jitter:g}", rho, jitter, baseline=baseline)


_LENGTHS = ((0.0, 2_880), (0.5, 4_320), (0.9, 5_760), (0.99, 28_800))

NULLS = (
    Null("iid"),
    *(_memory(rho, jitter, windows) for rho, windows in _LENGTHS for jitter in (0.03, 0.1)),
    Null("AR(1), rho 0.9, jitter 0.1, a third each layer's own", 0.9, 0.1, own=True, baseline=5_760),
    Null("AR(1), rho 0.9, jitter 0.03, all channels as one", 0.9, 0.03, common=True, own=True, baseline=5_760),
    Null("AR(1), rho 0.9, jitter 0.03, Student's t with 5 degrees", 0.9, 0.03, freedom=5.0, baseline=5_760),
    Null("AR(1), rho 0.9, jitter 0.03, Student's t with 3 degrees", 0.9, 0.03, freedom=3.0, baseline=5_760),
    Null("AR(1), rho 0.9, jitter 0.03, of changing size", 0.9, 0.03, restless=0.7, baseline=5_760),
    Null("daily cycle", 0.5, 0.03, daily=0.1, baseline=17_280),
)
"""Without jitter there is nothing to remember, so rho 0 to .99 with jitter 0 are one cell, the first."""


class Stream:
    """Calm windows of one model, without end; those of one `seed` are the same model's, each `part` at a time of its own."""

    def __init__(self, null: Null, seed: int, part: int, channels: int = CHANNELS) -> None:
        self._null = null
        # A day has the same hour at the same minute in every part.
        self.minute = part * 60 * MINUTES_A_DAY
        model = np.random.default_rng([31, seed])
        loads = model.normal(size=(_TOPICS + LAYERS, LAYERS, channels))
        if null.common:
            loads = np.ones_like(loads)
        for layer in range(LAYERS):  # a layer's own state moves no other
            loads[_TOPICS:, layer] *= (np.arange(LAYERS) == layer)[:, None]
        if not null.own:
            loads[_TOPICS:] = 0.0
        size = np.sqrt(np.square(loads).sum(axis=0).mean(axis=-1))
        self._loads = (null.jitter * loads / size[None, :, None]).astype(np.float32)
        self._cycle = (null.daily * model.normal(size=(LAYERS, channels))).astype(np.float32)
        self._rng = np.random.default_rng([32, seed, part])
        self._state = self._rng.normal(size=_TOPICS + LAYERS)
        self._size = self._rng.normal(size=_TOPICS + LAYERS) if null.restless else self._state

    def chunks(self, count: int) -> Iterator[Singles]:
        """Yield the next `count` windows in chunks (n, L, R, C), before the GELU."""
        for start in range(0, count, _CHUNK):
            yield self._draw(min(_CHUNK, count - start))

    def take(self, count: int) -> Singles:
        """Return the next `count` windows (n, L, R, C)."""
        return np.concatenate(list(self.chunks(count)))

    def offsets(self, count: int) -> Singles:
        """Return by how much the next windows' means are off (n, L, C)."""
        states = self._remembered(self._state, self._null.rho, count)
        self._state = states[-1]
        if self._null.restless:
            sizes = self._remembered(self._size, _SLOW, count)
            self._size = sizes[-1]
            states = states * np.exp(self._null.restless * sizes - self._null.restless**2)  # of deviation 1 again
        elif math.isfinite(self._null.freedom):
            states = _student(states, self._null.freedom)
        found: Singles = np.tensordot(states.astype(np.float32), self._loads, 1)
        phase = 2.0 * np.pi * (self.minute + np.arange(count)) / MINUTES_A_DAY
        found += np.sin(phase).astype(np.float32)[:, None, None] * self._cycle
        self.minute += count
        return found

    def _remembered(self, state: Doubles, rho: float, count: int) -> Doubles:
        """Return normal states (n, S) of deviation 1, each of which resembles the one before; the first resembles `state`."""
        moves = self._rng.normal(size=(count, state.size)) * math.sqrt(1.0 - rho**2)
        states: Doubles = lfilter([1.0], [1.0, -rho], moves, axis=0, zi=rho * state[None])[0]
        return states

    def _draw(self, count: int) -> Singles:
        offsets = self.offsets(count)
        values = self._rng.standard_normal((count, LAYERS, ROWS, CHANNELS), dtype=np.float32)
        values += offsets[:, :, None]
        return values


def _student(states: Doubles, freedom: float) -> Doubles:
    """Return normal states as Student's of deviation 1, each at the same probability."""
    found: Doubles = special.stdtrit(freedom, special.ndtr(states)) / math.sqrt(freedom / (freedom - 2.0))
    return found


def gelu(values: npt.NDArray[np.floating]) -> Singles:
    """Return the GELU of values, in float32."""
    x = values.astype(np.float32)
    found: Singles = (0.5 * x * (1.0 + special.erf(x * np.float32(math.sqrt(0.5))))).astype(np.float32)
    return found


def served(values: Singles) -> Halves:
    """Return windows (n, L, R, C) as series (n, 2L, R, C) in float16: each layer before its GELU, then behind it."""
    pre = values.astype(np.float16)
    both = np.stack([pre, gelu(pre).astype(np.float16)], axis=2)
    return both.reshape(len(values), -1, *values.shape[2:])


def summaries(series: Halves) -> Singles:
    """Return channel means and the logarithms of channel deviations (n, S, 2, C) of series (n, S, R, C)."""
    values = series.astype(np.float32)
    spread = values.std(axis=2, ddof=1)
    return np.stack([values.mean(axis=2), np.log(np.maximum(spread, 1e-6))], axis=2)
