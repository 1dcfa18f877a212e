"""When drift began at each layer, and so where: the first layer, and whether the traffic or the model changed."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from geluwatch.core.contrast import Layers, shared
from geluwatch.records import Floats, PointKey

REMEMBERED = 64
"""Windows looked back over."""

# A window speaks for drift when it lies further out than this many standard deviations, and than this share of the last ones.
_ALLOWED = 0.75
_ALLOWED_SHARE = 0.25
# Windows by which a later layer must lead an earlier one to count as first: downstream of a fault noise may run ahead of it.
_LEAD = 3
COMMON = 2.0
"""Standard deviations that the median of the layers asked must lie above calm for the traffic to be named."""

# And at least this share of what the layer that moved most does.
_ALIKE = 0.25
# Share of the layers that must lie before the front, calm, for them to tell the model from traffic that reaches deep layers only.
_TELLING = 0.25


class Onset(NamedTuple):
    """Where drift began."""

    layers: tuple[str, ...]
    """Layers in drift, the first one first."""
    times: dict[PointKey, float]
    """When it began at each point in drift, seconds since the epoch."""
    scope: str
    """"traffic" when the layers before it, or all, moved as well, "model" when it enters at the first layer, "unknown" when there
    is only one layer, or when all but the first few moved, "" without drift."""


class History:
    """The last windows' deviations, for the search of where drift began."""

    def __init__(self, keys: tuple[PointKey, ...], layers: Layers) -> None:
        self._keys = keys
        self._layers = layers
        self._windows: deque[tuple[float, Floats]] = deque(maxlen=REMEMBERED)

    def add(self, started: float, deviations: Floats) -> None:
        """Take a window: when it started, and its deviations (F, K, H)."""
        self._windows.append((started, deviations))

    def levels(self, most: int) -> Floats:
        """Return the levels (n, K, H) of the last windows, oldest first."""
        return np.array([deviations[0] for _, deviations in list(self._windows)[-most:]])

    def onset(self, alarmed: dict[PointKey, tuple[int, int]], strongest: PointKey | None, positions: dict[str, int]) -> Onset:
        """Return where the drift of the alarmed points began.

        Args:
            alarmed: By point, the family and horizon (as indices) that surprise most.
            strongest: The one of them that surprises most.
            positions: Each layer's place in the model.
        """
        if strongest is None:
            return Onset((), {}, "")
        begins = {key: self._begin(self._keys.index(key), *place) for key, place in alarmed.items()}
        by_layer: dict[str, int] = {}
        for (layer, _), window in begins.items():
            by_layer[layer] = min(window, by_layer.get(layer, window))
        front = min(by_layer, key=lambda layer: positions.get(layer, 0))
        scope = self._scope(front, strongest, alarmed[strongest][1], positions)
        # Drifting traffic comes in at the front, whichever layer shows it first.
        earliest = max(by_layer.values()) if scope == "traffic" else min(by_layer.values())
        order = sorted(by_layer, key=lambda layer: (max(by_layer[layer] - earliest - _LEAD, 0), positions.get(layer, 0)))
        return Onset(tuple(order), {key: self._windows[window][0] for key, window in begins.items()}, scope)

    def _begin(self, key: int, family: int, horizon: int) -> int:
        """Return the window from which the deviations of one point, summed to now, speak most for drift (a changepoint)."""
        side = -1.0 if self._windows[-1][1][family, key, horizon] < 0 else 1.0  # of a shift or scale
        series = side * np.nan_to_num(np.array([deviations[family, key, 0] for _, deviations in self._windows]))
        allowed = max(_ALLOWED, _ALLOWED_SHARE * float(np.median(series[-3:])))
        return int(np.argmax(np.cumsum((series - allowed)[::-1])[::-1]))

    def _scope(self, front: str, strongest: PointKey, horizon: int, positions: dict[str, int]) -> str:
        """Return whether the traffic moved or the model: what enters at a layer leaves those before it calm.

        Where the front is the first layer there are none before it, and the others are asked: traffic moves them all. Where few are
        before it and all behind it moved, either may be: some traffic leaves the first layers as they were.
        """
        latest = self._windows[-1][1][0, :, horizon]
        at = np.array([positions.get(layer, 0) for layer, _ in self._keys])
        place, entered = self._keys.index(strongest), positions.get(front, 0)
        moved = max(COMMON, _ALIKE * float(latest[place]))
        before, behind = (_median(latest[which]) for which in (at < entered, at > entered))
        if np.isnan(before):
            others = float(shared(latest[:, None], self._layers)[place, 0])
            return "unknown" if np.isnan(others) else "traffic" if others >= moved else "model"
        if before >= moved:
            return "traffic"
        few = np.mean(at < entered) < _TELLING
        return "unknown" if few and behind >= moved else "model"


def _median(levels: Floats) -> float:
    """Return the median of the levels that there are; NaN where there is none."""
    known = levels[~np.isnan(levels)]
    return float(np.median(known)) if known.size else float("nan")
