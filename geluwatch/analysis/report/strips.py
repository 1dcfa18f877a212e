"""The whole period at a look: traffic, alarms, and the evidence of all layers, each over the same axis of time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from markupsafe import Markup

from geluwatch.analysis.report import words
from geluwatch.analysis.report.findings import Episode, Findings, Kind, LayerFinding
from geluwatch.analysis.report.opening import KINDS, still
from geluwatch.analysis.report.svg import HEIGHT, Plot, box, lines, path, steps, times

LEVELS = (0.5, 1.0, 2.0, 4.0)
"""Evidence from which a cell takes the next shade."""

_NAN, _MUTE, _UNJUDGED, _NOTHING = 7, 6, 5, -1
_SHADES = {0: "e0", 1: "e1", 2: "e2", 3: "e3", 4: "e4", _UNJUDGED: "unjudged", _MUTE: "mute", _NAN: "nan"}

_LEAST = 0.4
"""Least width of an episode in percent, so that a short one is seen."""


def traffic(found: Findings) -> Plot:
    """Return forward passes by bin, with gaps."""
    most = float(np.nanmax(found.traffic, initial=0.0))
    heights = HEIGHT * (1.0 - found.traffic / (1.08 * most or 1.0))
    gaps = [_stretch(found, gap.started, gap.ended, f"gap {gap.kind}", _gap_told(gap.kind, gap.started, gap.ended)) for gap in found.gaps]
    width = found.grid.bins
    drawn = lines(times(found.grid), width) + Markup("").join(gaps) + path("passes", steps(heights, HEIGHT))
    heard = f"Forward passes over time: {words.count(found.forwards)} in all, {words.plural(len(found.gaps), 'gap')}."
    return Plot(width, drawn, heard, y=f"most: {words.count(most)} in {words.lasting(found.grid.width)}")


def _gap_told(kind: str, started: float, ended: float) -> str:
    what = "nothing kept" if kind == "silent" else "no traffic"
    return f"{what}, {words.moment(started)} to {words.moment(ended)} ({words.lasting(ended - started)})"


def _stretch(found: Findings, started: float, ended: float, name: str, title: str) -> Markup:
    left, right = (found.grid.share(time) * found.grid.bins for time in (started, ended))
    least = _LEAST * found.grid.bins / 100.0
    return box(name, min(left, found.grid.bins - least), 0.0, max(right - left, least), HEIGHT, title)


def lanes(found: Findings) -> Iterator[tuple[Kind, Plot]]:
    """Yield a lane for each kind of episode that there was."""
    for kind in KINDS:
        episodes = [each for each in found.episodes if each.kind == kind]
        if episodes:
            drawn = [_stretch(found, each.started, each.ended, each.alarm, episode_told(each, found)) for each in episodes]
            heard = f"{KINDS[kind]}: " + "; ".join(episode_told(each, found) for each in episodes) + "."
            yield kind, Plot(found.grid.bins, lines(times(found.grid), found.grid.bins) + Markup("").join(drawn), heard)


def episode_told(episode: Episode, found: Findings) -> str:
    """Return an episode in a line without marks."""
    first = f", first at {episode.layers[0]}" if episode.layers else ""
    until = still(found) if episode.ongoing else f"to {words.moment(episode.ended)}"
    return f"{episode.alarm}, {words.moment(episode.started)} {until}{first}"


def heat(found: Findings) -> Plot:
    """Return a row for each layer, a cell for each bin, shaded by evidence; neighbours that look alike are one."""
    rows = len(found.layers)
    drawn = [_row(found, layer, HEIGHT * at / rows, HEIGHT / rows) for at, layer in enumerate(found.layers)]
    over = sum(layer.most >= 1.0 for layer in found.layers)
    heard = f"Evidence by layer over time: {over} of {words.plural(rows, 'layer')} reached the limit for a ticket."
    return Plot(found.grid.bins, Markup("").join(drawn), heard)


def _row(found: Findings, layer: LayerFinding, top: float, height: float) -> Markup:
    codes = shades(layer, found)
    gap = min(0.12 * height, 0.35)
    turns = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), codes.size]
    drawn = [
        _cell(found, layer, int(codes[start]), slice(start, stop), top + gap, height - 2 * gap)
        for start, stop in pairwise(turns)
        if codes[start] != _NOTHING
    ]
    return Markup("").join(drawn)


def shades(layer: LayerFinding, found: Findings) -> np.ndarray:
    """Return (bins,) which shade each cell of a layer has."""
    codes = np.where(layer.seen, _UNJUDGED, _NOTHING)
    if layer.blind:
        codes[np.nan_to_num(found.traffic) > 0.0] = _MUTE
    judged = ~np.isnan(layer.evidence)
    codes[judged] = np.searchsorted(LEVELS, layer.evidence[judged], side="right")
    codes[layer.mute & ~judged] = _MUTE
    codes[layer.nonfinite > 0] = _NAN
    return codes


def _cell(found: Findings, layer: LayerFinding, code: int, cells: slice, top: float, height: float) -> Markup:
    started, ended = (found.grid.start + at * found.grid.width for at in (cells.start, cells.stop))
    title = ""
    if code != 0 and code != _UNJUDGED:
        title = f"{layer.layer}, {words.moment(started)} to {words.moment(ended)}: {_cell_told(layer, code, cells)}"
    if code == _MUTE:
        top, height = top + 0.36 * height, 0.28 * height
    drawn = box(_SHADES[code], cells.start, top, cells.stop - cells.start, height, title)
    if code == _NAN:
        drawn += path("slit", f"M{cells.start} {top + 0.5 * height:.2f}H{cells.stop}")
    return drawn


def _cell_told(layer: LayerFinding, code: int, cells: slice) -> str:
    if code == _MUTE:
        return layer.blind or "no rows although the model ran"
    if code == _NAN:
        return f"{words.plural(int(layer.nonfinite[cells].sum()), 'non-finite value')}"
    return f"evidence up to {words.number(float(np.nanmax(layer.evidence[cells])))}"
