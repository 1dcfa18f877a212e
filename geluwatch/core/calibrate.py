"""Thresholds from the baseline's own windows, and the certificate that says what they can promise.

Each run of windows is scored with its own block left out, and an eighth of the baseline on either side, for traffic
resembles what came just before. The logarithms of those calm scores are taken as normal, and the threshold is the
upper prediction bound of one more of them (Student's t), at the error that the budget of false tickets leaves to a
single look: budget / (windows a month x points x horizons). The bound prices in how few independent scores there are:
with a dozen it lies far out, with a hundred close by. Scores depend on each other because runs overlap and because
traffic has a memory; both are counted.

What no baseline can price in is what it never saw: a rhythm longer than itself, such as day and night.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from geluwatch.core import histogram, score
from geluwatch.errors import BaselineError
from geluwatch.records import Baseline, Certificate, Floats, Histogram, Point, PointKey, Window

MINIMUM_RUNS = 12
"""Independent runs a horizon needs before it gets a threshold: 12 windows at horizon 1, 33 at 4, 129 at 16."""

MOST_LEFT_OUT = 0.10
"""Share of unclean windows above which a baseline is refused."""

_MONTH = 30 * 24 * 3600.0
# A bound from fewer independent scores than this lies so far out that it would never be reached.
_LEAST_INDEPENDENT = 6
# A budget of more alarms than a tenth of all looks would put thresholds into the middle of calm.
_MOST_ERROR = 0.1
# Calm scores of very wide layers vary little; below this spread of their logarithm the estimate itself is doubtful.
_LEAST_LOG_SPREAD = 0.05
# Calm lies near 1. Far below it lies only a layer that never varied, whose noise is the floor that `score` assumes.
_LEAST_CALM = 0.5
# Exponents beyond it mean "never", and e to their power would overflow.
_NEVER = 100.0


@dataclass(frozen=True, slots=True)
class Armed:
    """What a baseline gives to the judging of windows at one (layer, point)."""

    reference: score.Reference
    histogram: Histogram


def usable(windows: Iterable[Window], layers: tuple[str, ...], minimum_rows: int) -> tuple[Window, ...]:
    """Return the windows fit for a baseline: clean, and with enough rows at each layer.

    Raises:
        BaselineError: No window was closed, or more than a tenth of them is unfit.
    """
    seen = tuple(windows)
    fit = tuple(window for window in seen if window.clean and _full(window, layers, minimum_rows))
    if not seen:
        raise BaselineError("No window has been closed yet, so there is nothing to record; let traffic run, then record again.")
    if len(seen) - len(fit) > MOST_LEFT_OUT * len(seen):
        raise BaselineError(
            f"{len(seen) - len(fit)} of {len(seen)} windows held non-finite values, silent sites, dropped rows or fewer than "
            f"{minimum_rows} rows, more than the tenth that may be left out; mend that and record on calm traffic."
        )
    return fit


def _full(window: Window, layers: tuple[str, ...], minimum_rows: int) -> bool:
    return all((layer, "pre") in window.points and window.points[layer, "pre"].moments.rows >= minimum_rows for layer in layers)


def certify(windows: tuple[Window, ...], left_out: int, horizons: tuple[int, ...], tickets_per_month: float) -> Certificate:
    """Return the certificate of usable windows: thresholds by (layer, point, horizon), and the replay's outcome.

    Raises:
        BaselineError: A layer had different widths in different windows.
    """
    ready = tuple(horizon for horizon in horizons if len(windows) >= windows_needed(horizon))
    keys = common_points(windows)
    if not keys or not ready:
        return _unarmed(windows, left_out, horizons, tickets_per_month)
    error = min(tickets_per_month / (_windows_a_month(windows) * len(keys) * len(ready)), _MOST_ERROR)
    thresholds: dict[tuple[str, Point, int], float] = {}
    replayed = exceeded = 0
    for key in keys:
        vectors, rows = series(windows, key)
        for horizon in ready:
            calm = score.replay(vectors, rows, horizon, max(1, len(windows) // 8))
            runs = independent(calm, horizon)
            if runs >= _LEAST_INDEPENDENT:
                thresholds[(*key, horizon)] = threshold(calm, runs, error)
                replayed += len(calm)
                exceeded += _exceeded(calm, runs, error)
    if not thresholds:
        return _unarmed(windows, left_out, horizons, tickets_per_month)
    found = tuple(horizon for horizon in ready if any(key[2] == horizon for key in thresholds))
    return Certificate(len(windows), left_out, thresholds, found, tickets_per_month, replayed, exceeded, True)


def _unarmed(windows: tuple[Window, ...], left_out: int, horizons: tuple[int, ...], tickets_per_month: float) -> Certificate:
    """Return the certificate of windows that give no threshold, with the reason."""
    have, need = len(windows), windows_needed(min(horizons))
    if have < need:
        reason = f"{have} usable windows are too few to calibrate: {need - have} more are needed."
    elif not common_points(windows):
        reason = "No site gave rows in every window, so there is nothing to calibrate; see the sites' states for why."
    else:
        reason = (
            f"The {have} usable windows resemble their neighbours so much that they are worth fewer than {_LEAST_INDEPENDENT} "
            f"independent ones: about {have} more are needed, or traffic that is better mixed."
        )
    return Certificate(have, left_out, {}, (), tickets_per_month, 0, 0, False, reason)


def windows_needed(horizon: int) -> int:
    """Return how many windows give a horizon its minimum of independent runs, if the windows themselves are independent."""
    return math.ceil(MINIMUM_RUNS * _overlap(horizon))


def _overlap(horizon: int) -> float:
    """Return the autocorrelation time of scores of successive runs: two that share k of h windows correlate by (k / h)^2."""
    return 1.0 + 2.0 * sum((shared / horizon) ** 2 for shared in range(1, horizon))


def independent(calm: Floats, horizon: int) -> int:
    """Return how many independent scores the calm scores of successive, overlapping runs are worth.

    Their number is divided by the integrated autocorrelation time of their logarithms, measured up to the first lag
    that is not significant, but by no less than what overlap alone makes it.
    """
    logs = _logs(calm)
    centred = logs - logs.mean()
    power = float(np.square(centred).sum())
    measured = 1.0
    for lag in range(1, len(calm) // 2) if power else ():
        correlation = float(centred[:-lag] @ centred[lag:]) / power
        if correlation < 2.0 / math.sqrt(len(calm)):
            break
        measured += 2.0 * correlation
    windows = len(calm) + horizon - 1
    return int(windows / max(_overlap(horizon), measured))


def threshold(calm: Floats, runs: int, error: float) -> float:
    """Return the score that one more calm run exceeds with probability `error`, from scores worth `runs` independent ones."""
    logs = _logs(calm)
    spread = max(float(logs.std(ddof=1)), _LEAST_LOG_SPREAD)
    quantile = -float(special.stdtrit(runs - 1, error))  # by symmetry; 1 - error would round away
    return math.exp(min(float(logs.mean()) + quantile * spread * math.sqrt(1.0 + 1.0 / runs), _NEVER))


def _exceeded(calm: Floats, runs: int, error: float) -> int:
    """Return how many scores of each half of the baseline lie above the threshold that the other half gives."""
    halves = np.array_split(calm, 2)
    limits = [threshold(half, runs // 2, error) for half in halves]
    return int((halves[0] > limits[1]).sum() + (halves[1] > limits[0]).sum())


def _logs(calm: Floats) -> Floats:
    return np.log(np.maximum(calm, _LEAST_CALM))


def arm(baseline: Baseline) -> Mapping[PointKey, Armed]:
    """Return what is needed to judge windows against a baseline."""
    armed: dict[PointKey, Armed] = {}
    for key in common_points(baseline.windows):
        vectors, rows = series(baseline.windows, key)
        pooled = histogram.merge(window.points[key].histogram for window in baseline.windows)
        armed[key] = Armed(score.reference(vectors, rows), pooled)
    return armed


def common_points(windows: tuple[Window, ...]) -> tuple[PointKey, ...]:
    """Return the (layer, point) keys that every window holds, in the first window's order."""
    return tuple(key for key in (windows[0].points if windows else ()) if all(key in window.points for window in windows))


def series(windows: Iterable[Window], key: PointKey) -> tuple[Floats, Floats]:
    """Return the vectors (m, 2C) and rows (m,) of consecutive windows at one (layer, point).

    Raises:
        BaselineError: The layer had different widths in different windows.
    """
    seen = [window.points[key].moments for window in windows]
    widths = sorted({moments.mean.size for moments in seen})
    if len(widths) > 1:
        raise BaselineError(
            f"{key[0]} had {' and '.join(map(str, widths[:2]))} channels in different windows, which cannot be compared; "
            "record on traffic of one width."
        )
    return np.stack([score.vector(moments) for moments in seen]), np.array([moments.rows for moments in seen], dtype=np.float64)


def _windows_a_month(windows: tuple[Window, ...]) -> float:
    """Return how many windows of typical length follow each other in thirty days; at most one a second."""
    return _MONTH / max(float(np.median([window.ended - window.started for window in windows])), 1.0)
