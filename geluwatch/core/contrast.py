"""What one layer does beyond the others: the level that the others share, and how a contrast with it depends on it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geluwatch.records import Floats, Ints, PointKey

_TINY = 1e-30


Layers = tuple[Ints, ...]
"""The keys (L, g) of the layers, as places; those with equally many keys lie in one array."""


def by_layer(keys: tuple[PointKey, ...]) -> Layers:
    """Return which keys belong to the same layers."""
    places: dict[str, list[int]] = {}
    for place, (layer, _) in enumerate(keys):
        places.setdefault(layer, []).append(place)
    sizes = sorted(set(map(len, places.values())))
    return tuple(np.array([own for own in places.values() if len(own) == size]) for size in sizes)


def shared(levels: Floats, layers: Layers) -> Floats:
    """Return for each key the median of the other layers' levels (..., K, H); NaN where there is no other layer or no level."""
    moved = np.moveaxis(levels, -2, -1)
    missing = np.isnan(moved)
    filled = np.where(missing, _median(moved)[..., None], moved) if missing.any() else moved
    order = np.argsort(filled, axis=-1, kind="stable")
    ranks = np.argsort(order, axis=-1, kind="stable")
    ordered = np.take_along_axis(filled, order, axis=-1)
    others = np.full(moved.shape, np.nan)
    for members in layers:
        left = moved.shape[-1] - members.shape[1]
        if left:
            own = np.sort(ranks[..., members], axis=-1)
            found = 0.5 * (_at(ordered, own, (left - 1) // 2) + _at(ordered, own, left // 2))
            others[..., members] = found[..., None]
    others[missing] = np.nan
    return np.moveaxis(others, -1, -2)


def before(levels: Floats, positions: Ints) -> Floats:
    """Return for each key the median level (K, H) of the layers before it; infinite where there is none.

    Args:
        levels: (K, H) of one window; NaN where there is none.
        positions: (K,) each key's layer's place in the model.
    """
    found = np.full_like(levels, np.inf)
    for place in np.unique(positions)[1:]:
        earlier = levels[positions < place]
        found[positions == place] = np.where(np.isnan(earlier).all(axis=0), np.inf, _median(earlier.T))
    return found


def _at(ordered: Floats, gone: Ints, place: int) -> Floats:
    """Return for each layer the value at a place among ordered values (..., K) without those at its ascending ranks (..., L, g)."""
    index = np.full(gone.shape[:-1], place)
    for each in range(gone.shape[-1]):
        index += index >= gone[..., each]
    return np.take_along_axis(ordered, index, axis=-1)


def _median(values: Floats) -> Floats:
    """Return the median of the values that are not NaN; 0 where there is none."""
    counted = np.sum(~np.isnan(values), axis=-1)
    ordered = np.sort(values, axis=-1)  # NaN last
    low, high = np.maximum(counted - 1, 0) // 2, np.minimum(counted // 2, values.shape[-1] - 1)
    both = [np.take_along_axis(ordered, index[..., None], axis=-1)[..., 0] for index in (low, high)]
    return np.where(counted > 0, 0.5 * (both[0] + both[1]), 0.0)


@dataclass(frozen=True, slots=True)
class Bend:
    """How a contrast's mean and the logarithm of its spread depend on the others' level; lines, flat outside what was seen.

    When traffic is quiet the scores are sampling noise and contrasts scatter; when it moves everything they are tight.
    Without this, calm contrasts would have heavier tails than any normal distribution.
    """

    low: Floats
    high: Floats
    middle: Floats
    slope: Floats
    tilt: Floats
    """All (K, H)."""

    def straighten(self, contrasts: Floats, others: Floats) -> Floats:
        """Return contrasts (..., K, H) as they would be at the others' usual level."""
        away = np.clip(others, self.low, self.high) - self.middle
        return (contrasts - self.slope * away) * np.exp(-self.tilt * away)


def fit(contrasts: Floats, others: Floats, looks: Floats) -> Bend:
    """Return how calm contrasts (n, K, H) depend on the others' level; what their number does not bear out is left at zero."""
    there = ~np.isnan(contrasts)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a key without any contrast has no quantiles
        known = np.where(there, others, np.nan)
        low, middle, high = np.nan_to_num(np.nanquantile(known, [0.05, 0.5, 0.95], axis=0))
        away = np.where(there, np.clip(others, low, high) - middle, 0.0)
        slope = _line(np.where(there, contrasts, 0.0), away, there, looks)
        rest = np.where(there, contrasts - slope * away, 1.0)
        # The logarithm of a normal's magnitude has a fixed spread, so its regression line is that of the logarithm of the spread.
        tilt = _line(np.where(there, np.log(np.abs(rest) + _TINY), 0.0), away, there, looks)
    return Bend(low, high, middle, slope, tilt)


def _line(values: Floats, away: Floats, there: npt.NDArray[np.bool_], looks: Floats) -> Floats:
    """Return the slope (K, H) of values over `away` (n, K, H), shrunk by its own uncertainty (James and Stein 1961)."""
    count = np.maximum(there.sum(axis=0), 1)
    x = np.where(there, away - away.sum(axis=0) / count, 0.0)
    y = np.where(there, values - values.sum(axis=0) / count, 0.0)
    spread = np.maximum(np.square(x).sum(axis=0), _TINY)
    slope = (x * y).sum(axis=0) / spread
    error = np.square(y - slope * x).sum(axis=0) / (np.maximum(looks, 3.0) - 2.0) / spread
    kept: Floats = slope * np.maximum(1.0 - error / np.maximum(np.square(slope), _TINY), 0.0)
    return kept
