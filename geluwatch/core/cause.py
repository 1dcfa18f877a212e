"""What changed, in words a person can act on, from the histograms and channel moments of a baseline and a window.

Each kind has a finger print that can be told from counts: a comb of occupied cells for rounding, channels without spread
for dead ones, a gap between old values and new ones for a new mode, an affine map between quantiles for a shift or a
scale, a gate that closes on some channels for saturation, a bulk that stays for a tail. They are tried from the most
specific to the least, and where none fits, or the difference is too small to be told from chance, nothing is named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from geluwatch.core import comb, lattice, moments, panel
from geluwatch.core.moments import variance
from geluwatch.records import Floats, Ints, Panel, Point, PointWindow

Kind = Literal["shift", "scale", "tail", "saturation", "dead_channels", "new_mode", "precision"]

# Below this Wasserstein distance, in standard deviations, calm windows of a few hundred rows differ as well.
_LEAST_DISTANCE = 0.03

# An affine map has to account for this much of the Wasserstein distance to be the cause.
_AFFINE_SHARE = 0.8

# A channel whose spread falls below this share of its baseline's no longer varies.
_DEAD_SPREAD = 0.01

# What the channels of a layer vary by more or less, and how many of them say so, before it is named.
_LEAST_SCALE = 0.03
_LEAST_CHANNELS = 16

_QUANTILES = np.arange(1, 20) / 20

_WORDS = {"pre": "pre-GELU", "post": "post-GELU"}


@dataclass(frozen=True, slots=True)
class Cause:
    """What changed at one (layer, point)."""

    kind: Kind
    text: str
    """One sentence with the numbers."""
    share: float
    """Part of the Wasserstein distance that a shift or scale accounts for; part of the channels that are dead; else part of
    the values concerned: those in the tails, the closed gate or the new mode, or on the coarser grid."""


@dataclass(frozen=True, slots=True)
class _Sample:
    """One side: the middle of each cell, the share of finite values in it, running shares, and the whole's moments."""

    values: Floats
    shares: Floats
    below: Floats
    mean: float
    std: float


@dataclass(frozen=True, slots=True)
class _Case:
    """Both sides of one point."""

    point: Point
    then: PointWindow
    now: PointWindow
    before: _Sample
    after: _Sample
    panel: Panel

    @property
    def words(self) -> str:
        return _WORDS[self.point]


def diagnose(then: PointWindow, now: PointWindow, point: Point = "pre") -> Cause | None:
    """Return what changed between a baseline and a window of one (layer, point), or None where no kind is certain enough.

    Args:
        then: The baseline, pooled.
        now: The window, or a few merged.
        point: Which side of the GELU; saturation is told before it only.
    """
    sides = (then, now)
    if not all(side.histogram.finite and side.moments.rows for side in sides) or then.moments.mean.shape != now.moments.mean.shape:
        return None
    reference = panel.prepare(then, point)
    case = _Case(point, then, now, _sample(then), _sample(now), panel.measure(reference, now))
    dead = _dead_channels(case)
    if dead is not None and dead.share > 0.5:  # what never varies fills few cells, without having been rounded
        return dead
    if (rounded := _precision(case)) is not None:  # rounding may still the narrowest channels
        return rounded
    tests: tuple[Callable[[_Case], Cause | None], ...] = (_new_mode, _affine, _saturation, _channel_scale, _tail)
    return dead or next((cause for test in tests if (cause := test(case)) is not None), None)


def _sample(side: PointWindow) -> _Sample:
    counted = side.histogram
    values = (lattice.lower_edges if counted.lossless else lattice.midpoints)(counted.cells, counted.bits)
    shares = counted.counts / counted.finite
    mean, std = moments.pooled(side.moments)
    return _Sample(values, shares, np.cumsum(shares), mean, std)


def _quantile(sample: _Sample, levels: Floats | float) -> Floats:
    return sample.values[np.minimum(np.searchsorted(sample.below, levels), sample.values.size - 1)]


def _distance(case: _Case, offset: float = 0.0, factor: float = 1.0) -> float:
    """Return the Wasserstein-1 distance of the window from the baseline mapped to ``offset + factor * value``."""
    values = np.concatenate([offset + factor * case.before.values, case.after.values])
    order = np.argsort(values, kind="stable")
    gap = np.cumsum(np.concatenate([-case.before.shares, case.after.shares])[order])
    return float((np.abs(gap[:-1]) * np.diff(values[order])).sum())


def _precision(case: _Case) -> Cause | None:
    found = comb.coarser_grid(case.then.histogram, case.now.histogram)
    if found is None:
        return None
    if found.significant:
        text = f"{case.words} values keep {found.significant} significant bits{found.like}: {found.share:.0%} lie on that grid"
        return Cause("precision", f"{text}, {found.expected:.0%} of the baseline's do.", found.share)
    text = f"{case.words} values fill {found.expected:.0%} of the cells that as many of the baseline's would"
    return Cause("precision", f"{text}: they lie on a coarser grid, as rounding to integers makes one.", found.share)


def _dead_channels(case: _Case) -> Cause | None:
    then, now = np.sqrt(variance(case.then.moments)), np.sqrt(variance(case.now.moments))
    alive = then > 1e-3 * case.before.std
    dead = np.flatnonzero(alive & (now < _DEAD_SPREAD * then))
    if not dead.size or case.now.moments.rows < 8:
        return None
    text = f"{dead.size} of {then.size} {case.words} channels no longer vary ({_names(dead)})."
    return Cause("dead_channels", text, dead.size / then.size)


def _names(channels: Ints) -> str:
    return "channel " + ", ".join(map(str, channels[:5].tolist())) + (", ..." if channels.size > 5 else "")


def _new_mode(case: _Case) -> Cause | None:
    """Look for values beyond nearly all of the baseline's, with a gap in between: a tail has none."""
    for level in (1e-4, 1e-3):
        for side in (1.0, -1.0):
            if (cause := _beyond(case, side, level)) is not None:
                return cause
    return None


def _beyond(case: _Case, side: float, level: float) -> Cause | None:
    """Look on one side of the baseline's outermost quantile of a level."""
    edge = float(_quantile(case.before, level if side < 0 else 1.0 - level))
    distances = side * (case.after.values - edge)[:: int(side)]
    shares = case.after.shares[:: int(side)][distances > 0.0]
    distances = distances[distances > 0.0]
    share = float(shares.sum())
    if share < max(0.003, 5.0 * level):
        return None
    near, middle, far = distances[np.minimum(np.searchsorted(np.cumsum(shares) / share, [0.15, 0.5, 0.9]), shares.size - 1)].tolist()
    if near < 2.0 * (far - near) or near < 0.5 * case.before.std:
        return None
    had = float(case.before.shares[side * (case.before.values - edge) > 0.5 * near].sum())
    text = f"{share:.2%} of {case.words} values now lie about {edge + side * middle:.4g}, apart from the others"
    return Cause("new_mode", f"{text}; {had:.2%} of the baseline's lie that far out.", share)


def _affine(case: _Case) -> Cause | None:
    """Fit the window's quantiles by the baseline's: moved, stretched about zero, or both; robustly, by medians of slopes."""
    total = _distance(case)
    if not case.before.std or total < _LEAST_DISTANCE * case.before.std:
        return None
    old, new = _quantile(case.before, _QUANTILES), _quantile(case.after, _QUANTILES)
    moved = float(np.median(new - old))
    gain = float(np.dot(old, new) / np.dot(old, old)) if old.any() else 1.0
    slope, offset = _line(old, new)
    left = {
        "shift": _distance(case, moved),
        "scale": _distance(case, 0.0, gain),
        "both": _distance(case, offset, slope),
    }
    best = min(left, key=lambda name: left[name])
    if left[best] > (1.0 - _AFFINE_SHARE) * total:
        return None
    single = min(("shift", "scale"), key=lambda name: left[name])
    return _affine_cause(case, single, 1.0 - left[best] / total)


def _line(old: Floats, new: Floats) -> tuple[float, float]:
    """Return slope and offset of the line through quantiles by medians (Theil, 1950; Sen, 1968)."""
    runs, rises = (np.subtract.outer(side, side) for side in (old, new))
    slopes = rises[runs > 0.0] / runs[runs > 0.0]
    slope = float(np.median(slopes)) if slopes.size else 1.0
    return slope, float(np.median(new - slope * old))


def _affine_cause(case: _Case, kind: str, share: float) -> Cause:
    before, after = case.before, case.after
    moved = (after.mean - before.mean) / before.std
    if kind == "shift":
        text = f"{case.words} values moved by {moved:+.2f} standard deviations (mean {after.mean:.4g}, was {before.mean:.4g})"
        return Cause("shift", f"{text}; their spread is {after.std / before.std:.2f} times the baseline's.", share)
    text = f"{case.words} values are {after.std / before.std:.2f} times as spread out as in the baseline"
    text = f"{text} (standard deviation {after.std:.4g}, was {before.std:.4g})"
    return Cause("scale", f"{text}; the mean moved by {moved:+.2f} standard deviations.", share)


def _channel_scale(case: _Case) -> Cause | None:
    """Look for channels that nearly all vary more, or less, by about as much, though their means hide it in the whole."""
    then, now = variance(case.then.moments), variance(case.now.moments)
    alive = (then > 1e-6 * case.before.std**2) & (now > 0.0)
    if alive.sum() < _LEAST_CHANNELS:
        return None
    ratios = np.sqrt(now[alive] / then[alive])
    low, factor, high = (float(part) for part in np.quantile(ratios, [0.1, 0.5, 0.9]))
    if not (low > 1.0 or high < 1.0) or abs(np.log(factor)) < _LEAST_SCALE or high > 1.5 * low:
        return None
    # A few values far out widen every channel too, but leave the bulk of the whole where it was.
    within = float(then.mean()) / case.before.std**2
    stretched = np.sqrt(1.0 + within * (factor**2 - 1.0)) - 1.0
    if abs(_line(_quantile(case.before, _QUANTILES), _quantile(case.after, _QUANTILES))[0] - 1.0) < 0.5 * abs(stretched):
        return None
    text = f"{case.words} channels vary {factor:.2f} times as much as in the baseline, four in five of them {low:.2f} to {high:.2f} times"
    return Cause("scale", f"{text}.", float(alive.mean()))


def _saturation(case: _Case) -> Cause | None:
    if case.point != "pre":
        return None
    was = panel.measure(panel.prepare(case.then, "pre"), case.then).gate_closed
    closed = case.panel.gate_closed
    then = case.then.moments
    moves = (case.now.moments.mean - then.mean) / np.sqrt(np.maximum(variance(then), 1e-12 * case.before.std**2 + 1e-300))
    down, up = int((moves < -1.0).sum()), int((moves > 1.0).sum())
    if closed < was + 0.02 or down < 0.02 * moves.size or up > 0.25 * down:
        return None
    text = f"{closed:.1%} of pre-GELU values are -3 or less, where the gate is closed (was {was:.1%})"
    return Cause("saturation", f"{text}; {down} of {moves.size} channels moved down by more than their standard deviation.", closed - was)


def _tail(case: _Case) -> Cause | None:
    """Look for more values far out while nine tenths of them stay where they were."""
    old, new = _quantile(case.before, _QUANTILES), _quantile(case.after, _QUANTILES)
    bulk = float(np.abs(new - old).mean())
    total = _distance(case)
    calm = panel.measure(panel.prepare(case.then, case.point), case.then).tails
    still = bulk < max(0.4 * total, _LEAST_DISTANCE * case.before.std)
    if case.panel.tails < 2.0 * max(calm, 0.001) or not still or total < 0.3 * _LEAST_DISTANCE * case.before.std:
        return None
    text = f"{case.panel.tails:.2%} of {case.words} values lie beyond the baseline's 0.1 % and 99.9 % quantiles (was {calm:.2%})"
    return Cause("tail", f"{text}; {_wider(case)}.", case.panel.tails)


def _wider(case: _Case) -> str:
    """Say which channels hold most of what their spread has grown by, where they are few."""
    grown = variance(case.now.moments) - variance(case.then.moments)
    order = np.argsort(-grown)
    running = np.cumsum(np.maximum(grown[order], 0.0))
    few = int(np.searchsorted(running, 0.8 * running[-1])) + 1
    if not running[-1] or few > max(1, grown.size // 50):
        return "the bulk stays, and no few channels account for it"
    return f"the bulk stays, and most of it comes from {few} of {grown.size} channels ({_names(np.sort(order[:few]))})"
