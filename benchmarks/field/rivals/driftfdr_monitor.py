"""driftfdr's StreamingMonitor: e-CUSUM in sequential mode with the common part split off, as its documentation recommends.

It watches errors, which only rise; so each quantity is given with both signs: the series' means, and their log deviations, four fleets
of all series. Each collects its reference, up to 900 windows, from the baseline's last ones. An alarm would start a new reference, so the
level that resets is put out of reach and the p-values are read instead. The score is -log10 of the smallest p times the tests of a
step; its default level is .05 for a hundred steps. Calibrated monitors are kept in a file, for it takes most of a minute.
"""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
from _speak import Baseline, Scores, serve
from driftfdr import ECUSUM, StreamingMonitor

REFERENCE, WINDOW = 900, 100
kept: dict[int, list[StreamingMonitor]] = {}


def fleets(summaries: np.ndarray) -> list[np.ndarray]:
    """Return four fleets of series (n, S): means and log deviations, upwards and downwards."""
    found = summaries.mean(axis=-1, dtype=np.float64)
    return [side * found[:, :, which] for which in (0, 1) for side in (1.0, -1.0)]


def calibrated(known: np.ndarray) -> StreamingMonitor:
    """Return a monitor that has its reference, and the first step after it, at which it calibrates."""
    reference = min(REFERENCE, len(known) // WINDOW * WINDOW)
    monitor = StreamingMonitor(known.shape[1], ECUSUM, alpha=1e-290, n_ref=reference, window=WINDOW, split_common=True, sequential=True)
    for row in known[-reference - 1 :]:
        monitor.update(row)
    return monitor


def learn(baseline: Baseline) -> list[StreamingMonitor]:
    """Return the monitors of a baseline, from the file if they are there."""
    file = baseline.file.with_suffix(".driftfdr.pickle")
    if not file.exists():
        made = [calibrated(known) for known in fleets(baseline.summaries)]
        file.write_bytes(pickle.dumps(made))
    return pickle.loads(file.read_bytes())  # noqa: S301  # written by the line above


def fit(baseline: Baseline) -> Scores:
    """Return scores of one stream."""
    if id(baseline) not in kept:
        kept[id(baseline)] = learn(baseline)

    def scores(windows: np.ndarray) -> np.ndarray:
        worst = np.ones(len(windows))
        monitors = copy.deepcopy(kept[id(baseline)])
        for monitor, series in zip(monitors, fleets(windows), strict=True):
            for at, row in enumerate(series):
                monitor.update(row)
                worst[at] = min([worst[at], *monitor.last_pvalues.values()])
        tests = len(monitors) * (baseline.summaries.shape[1] + 1)
        return -np.log10(np.maximum(worst * tests, 1e-300))

    return scores


if __name__ == "__main__":
    serve(fit, -math.log10(0.05))
