"""Charts of one layer: evidence over time, small and large, and its distribution in calm, at its worst and last."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from markupsafe import Markup

from geluwatch.analysis.report import density, words
from geluwatch.analysis.report.findings import Findings, LayerFinding, Portrait
from geluwatch.analysis.report.svg import HEIGHT, Plot, Tick, level, lines, numbers, path, steps, times
from geluwatch.records import Floats

_BINS = 88
_DECADES = 4
"""Powers of ten that a logarithmic axis shows."""

_Axis = tuple[Callable[[Floats], Floats], tuple[Tick, ...]]
"""How shares become heights, and the ticks of the axis."""

_WORDS = {"pre": "before the GELU", "post": "after the GELU"}


class Scale:
    """Where evidence lies on an axis that all charts of a report share: log2(1 + evidence), so that calm and collapse both show."""

    def __init__(self, found: Findings) -> None:
        most = [each.most for each in found.layers if not math.isnan(each.most)]
        self._top = math.log2(1.0 + 1.08 * max([2.0, *most]))

    def heights(self, evidence: Floats) -> Floats:
        """Return heights from the top, in a drawing's units."""
        return HEIGHT * (1.0 - np.log2(1.0 + evidence) / self._top)

    def height(self, evidence: float) -> float:
        """Return one height from the top."""
        return float(self.heights(np.array([evidence]))[0])

    @property
    def ticks(self) -> tuple[Tick, ...]:
        """Return ticks at evidence of 0, .5, 1 and its doubles, not more than seven."""
        highest = math.floor(self._top)
        powers = range(0, highest + 1, max(1, math.ceil(highest / 5)))
        marks = [0.0, *([0.5] if highest < 4 else []), *(2.0**power for power in powers)]
        return tuple(Tick(self.height(mark), f"{mark:g}") for mark in marks if self.height(mark) >= 0.0)


def sparkline(layer: LayerFinding, scale: Scale) -> Plot:
    """Return a layer's evidence over the period, with the limit for a ticket."""
    width = layer.evidence.size
    return Plot(width, level(scale.height(1.0), width, "limit") + _evidence(layer, scale), _heard(layer))


def trend(layer: LayerFinding, found: Findings, scale: Scale) -> Plot:
    """Return the same large, with axes and both limits."""
    width, across = layer.evidence.size, times(found.grid)
    limits = level(scale.height(1.0), width, "limit")
    if math.isfinite(found.page_evidence):
        limits += level(scale.height(found.page_evidence), width, "limit pages")
    return Plot(width, lines(across, width) + _evidence(layer, scale) + limits, _heard(layer), across, scale.ticks, "time, UTC", "evidence")


def _evidence(layer: LayerFinding, scale: Scale) -> Markup:
    """Return the area under the evidence, and above it what lies over the limit for a ticket."""
    over = np.where(layer.evidence >= 1.0, layer.evidence, np.nan)
    areas = path("calm", steps(scale.heights(layer.evidence), HEIGHT)) + path("over", steps(scale.heights(over), scale.height(1.0)))
    return areas + path("nan", "".join(f"M{at} 0h1v{HEIGHT}h-1z" for at in np.flatnonzero(layer.nonfinite)), "NaN or Inf")


def _heard(layer: LayerFinding) -> str:
    if math.isnan(layer.most):
        return f"Evidence of {layer.layer}: never judged."
    over = int((np.nan_to_num(layer.evidence) >= 1.0).sum())
    return (
        f"Evidence of {layer.layer} over time: most {words.number(layer.most)} on {words.moment(layer.when)}, "
        f"at or over the limit for a ticket in {over} of {layer.evidence.size} bins."
    )


def distribution(portrait: Portrait) -> Plot:
    """Return a layer's distributions at one point over equal bins.

    The axis of shares is linear before the GELU and logarithmic after it, where most values pile up.
    """
    shown = [portrait.worst.histogram, portrait.last.histogram, *([portrait.calm] if portrait.calm else [])]
    edges = density.edges(shown, _BINS)
    shares = [density.shares(each, edges) for each in shown]
    highest = max(float(each.max()) for each in shares) or 1.0
    upright, up = (_logarithmic if portrait.point == "post" else _linear)(highest)
    across = numbers(float(edges[0]), float(edges[-1]))
    worst, last, *calm = [upright(each) for each in shares]
    drawn = lines(across, _BINS) + (path("baseline", steps(calm[0], HEIGHT)) if calm else Markup(""))
    drawn += path("last", steps(last)) + path("worst", steps(worst))
    where = _WORDS[portrait.point]
    heard = f"Distribution {where} at {portrait.layer}: baseline, most evidence, and last. {described(portrait)}"
    return Plot(_BINS, drawn, heard, across, up, f"value {where}", f"share of values in each {words.number(float(edges[1] - edges[0]), 3)}")


def _linear(highest: float) -> _Axis:
    top = 1.06 * highest
    return (lambda shares: HEIGHT * (1.0 - shares / top)), tuple(
        Tick(100.0 - tick.at, f"{tick.at * top:.3g} %") for tick in numbers(0.0, top, 4)
    )


def _logarithmic(highest: float) -> _Axis:
    top = math.log10(1.3 * highest)
    low = math.floor(top) - _DECADES + 1

    def upright(shares: Floats) -> Floats:
        logs = np.log10(np.maximum(shares, 10.0**low))
        return HEIGHT * (1.0 - (logs - low) / (top - low))

    marks = range(low, math.floor(top) + 1)
    return upright, tuple(Tick(100.0 * (1.0 - (mark - low) / (top - low)), f"{100 * 10.0**mark:g} %") for mark in marks)


def described(portrait: Portrait) -> str:
    """Return in a sentence how the worst distribution differs from the baseline's, with what cannot be drawn."""
    told = portrait.panel
    counted = portrait.worst.histogram
    lost = f" Not drawn: {words.plural(counted.nonfinite, 'NaN or infinite value')}." if counted.nonfinite else ""
    if told is None:
        return f"There is no baseline to hold it against.{lost}"
    low, high = words.number(told.ks.lower, 4), words.number(told.ks.upper, 4)
    ks = low if low == high else f"{low} to {high}"
    mean = "+" * (told.mean_shift >= 0) + words.number(told.mean_shift)
    spread = words.number(math.exp(told.log_spread))
    return f"KS distance {ks}; mean moved by {mean} standard deviations, spread {spread} times the baseline's.{lost}"
