"""Control charts as a statistician would build them today on the same channel means, with limits from blocks of the baseline.

Each series gives four numbers a window: the mean over its channels of the standardised means and of the standardised log
deviations (signed), and the mean of the squares of either. Each is standardised by the baseline, put through a chart, and the chart
divided by the limit that gives two alarms a month on months made of blocks of the baseline (all series from the same blocks, so what
they share stays). The score is the largest, and 1 the limit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from _speak import Baseline, Scores

MONTH = 43_200
ALARMS_A_MONTH = 2
_MONTHS = 2
_LEAD = 100

Chart = Callable[[np.ndarray], np.ndarray]
"""Maps standardised numbers (n, k) to a statistic (n, k) that grows with lasting change."""


def features(summaries: np.ndarray, mean: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Return four numbers for each series (n, 4S) of summaries (n, S, 2, C)."""
    z = (summaries - mean) / sigma
    both = np.stack([z.mean(axis=-1), np.square(z).mean(axis=-1)], axis=-1)
    return both.reshape(len(summaries), -1)


def block_length(numbers: np.ndarray) -> int:
    """Return four times the largest integrated autocorrelation time of the columns."""
    longest = 1.0
    centred = numbers - numbers.mean(axis=0)
    for column in centred.T:
        power = np.abs(np.fft.rfft(column, 2 * len(column))) ** 2
        correlation = np.fft.irfft(power)[: len(column)]
        correlation /= max(correlation[0], 1e-30)
        quiet = int(np.argmax(correlation < 2.0 / np.sqrt(len(column))))
        longest = max(longest, 1.0 + 2.0 * float(correlation[1 : quiet or len(column)].sum()))
    return int(np.clip(round(4.0 * longest), 8, len(numbers) // 8))


def calibrated(chart: Chart) -> Callable[[Baseline], Scores]:
    """Return a fit that remembers the limits of the baseline that it saw last."""
    kept: dict[int, tuple[np.ndarray, ...]] = {}

    def fit(baseline: Baseline) -> Scores:
        if id(baseline) not in kept:
            kept[id(baseline)] = _learn(baseline.summaries, chart)
        mean, sigma, middle, spread, lead, limit = kept[id(baseline)]

        def scores(windows: np.ndarray) -> np.ndarray:
            numbers = np.concatenate([lead, (features(windows, mean, sigma) - middle) / spread])
            return (chart(numbers)[len(lead) :] / limit).max(axis=1)

        return scores

    return fit


def _learn(summaries: np.ndarray, chart: Chart) -> tuple[np.ndarray, ...]:
    mean, sigma = summaries.mean(axis=0), summaries.std(axis=0, ddof=1)
    numbers = features(summaries, mean, sigma)
    middle, spread = numbers.mean(axis=0), numbers.std(axis=0, ddof=1)
    standard = (numbers - middle) / spread
    length = block_length(standard)
    rng = np.random.default_rng(0)
    starts = rng.integers(0, len(standard) - length + 1, size=_MONTHS * MONTH // length)
    drawn = standard[(starts[:, None] + np.arange(length)).reshape(-1)]
    charted = chart(drawn)
    # All numbers are charted beside each other: each by its own high quantile, then one factor for all of them together.
    own = np.quantile(charted, 1.0 - 1e-3, axis=0)
    worst = (charted / own).max(axis=1)
    blocks = worst[: len(starts) * length].reshape(-1, length).max(axis=1)
    limit = np.sort(blocks)[-ALARMS_A_MONTH * _MONTHS]
    return mean, sigma, middle, spread, standard[-_LEAD:], own * limit
