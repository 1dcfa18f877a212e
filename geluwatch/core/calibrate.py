"""Thresholds from the baseline's own windows, and the certificate that says what they can promise.

Each run of windows is scored with its own block left out. The logarithms of those calm scores are taken as normal,
and the threshold is the upper prediction bound of one more of them (Student's t), at the error that the budget of
false tickets leaves to a single look: budget / (windows a month x sites x points x horizons). The bound prices in
how few windows there are: with a dozen it lies far out, with a hundred close by. The number of independent runs
at horizon h is taken as windows / h, because runs overlap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from geluwatch.core import histogram, score
from geluwatch.errors import BaselineError
from geluwatch.records import Baseline, Certificate, Floats, Histogram, Point, PointKey, Window

MINIMUM_RUNS = 12
"""Independent runs a horizon needs before it gets a threshold."""

MOST_LEFT_OUT = 0.10
"""Share of unclean windows above which a baseline is refused."""

_MONTH = 30 * 24 * 3600.0
_GAP = 1
# Calm scores of very wide layers vary little; below this spread of their logarithm the estimate itself is doubtful.
_LEAST_LOG_SPREAD = 0.05


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
    """Return the certificate of usable windows: thresholds by (layer, point, horizon), and the replay's outcome."""
    ready = tuple(horizon for horizon in horizons if len(windows) // horizon >= MINIMUM_RUNS)
    keys = common_points(windows)
    if not ready or not keys:
        missing = max(MINIMUM_RUNS * min(horizons) - len(windows), 0)
        reason = f"{len(windows)} usable windows are too few to calibrate: {missing} more are needed." if keys else "No site gave rows."
        return Certificate(len(windows), left_out, {}, (), tickets_per_month, 0, 0, False, reason)
    error = tickets_per_month / (_windows_a_month(windows) * len(keys) * len(ready))
    thresholds: dict[tuple[str, Point, int], float] = {}
    replayed = exceeded = 0
    for key in keys:
        vectors, rows = series(windows, key)
        for horizon in ready:
            calm = score.replay(vectors, rows, horizon, _GAP)
            limit = threshold(calm, len(windows) // horizon, error)
            thresholds[(*key, horizon)] = limit
            replayed += len(calm)
            exceeded += int((calm > limit).sum())
    return Certificate(len(windows), left_out, thresholds, ready, tickets_per_month, replayed, exceeded, True)


def threshold(calm: Floats, runs: int, error: float) -> float:
    """Return the score that one more calm run exceeds with probability `error`, from scores worth `runs` independent ones."""
    logs = np.log(calm)
    spread = max(float(logs.std(ddof=1)), _LEAST_LOG_SPREAD)
    quantile = -float(special.stdtrit(runs - 1, error))  # by symmetry; 1 - error would round away
    return float(np.exp(logs.mean() + quantile * spread * np.sqrt(1.0 + 1.0 / runs)))


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
    """Return the vectors (m, 2C) and rows (m,) of consecutive windows at one (layer, point)."""
    seen = [window.points[key].moments for window in windows]
    return np.stack([score.vector(moments) for moments in seen]), np.array([moments.rows for moments in seen], dtype=np.float64)


def _windows_a_month(windows: tuple[Window, ...]) -> float:
    """Return how many windows of typical length follow each other in thirty days; at most one a second."""
    return _MONTH / max(float(np.median([window.ended - window.started for window in windows])), 1.0)
