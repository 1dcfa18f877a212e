"""Two models on the same inputs, as an experiment: what their accuracies and times say, and how many inputs it takes to see it.

Right and wrong answers to the same inputs are paired, so only the inputs count that one gets right and the other does not. In an
A/B test each input goes to one of the two, nothing is paired, and it takes far more of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from geluwatch.errors import ConfigError

SIGNIFICANCE = 0.05
"""Two-sided."""

POWER = 0.8

LEVEL = 0.95
"""Of every interval."""

FEWEST_ROUNDS = 6
"""Fewer have no interval of 95 % for their median: its widest, from the least to the greatest, holds 1 - 2^(1 - n)."""


class Span(NamedTuple):
    """An interval."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Return whether a value lies in it, ends included."""
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How often a variant is right on inputs whose answers are known, beside the model as it is."""

    inputs: int
    known: float
    """Share of them that the model as it is gets right."""
    other: float
    """Share that the variant gets right."""
    lost: int
    """Inputs that only the model as it is gets right."""
    won: int
    """Inputs that only the variant gets right."""

    @property
    def change(self) -> float:
        """Accuracy of the variant less that of the model as it is."""
        return (self.won - self.lost) / self.inputs

    @property
    def interval(self) -> Span:
        """95 % interval of the change, for paired answers."""
        return paired_interval(self.inputs, self.lost, self.won)

    @property
    def probability(self) -> float:
        """Two-sided probability of a split as uneven as `lost` against `won` where neither is better; 1 where none changed."""
        return mcnemar(self.lost, self.won)

    @property
    def per_arm(self) -> int | None:
        """Inputs that each arm of an A/B test needs to see this change; None where there is none to see."""
        return samples_unpaired(self.known, self.other) if self.change else None

    @property
    def pairs(self) -> int | None:
        """Inputs to be sent through both to see this change; None where there is none to see."""
        return samples_paired(self.change, (self.lost + self.won) / self.inputs) if self.change else None


def paired_interval(inputs: int, lost: int, won: int) -> Span:
    """Return the 95 % interval of a difference of two shares of the same inputs.

    Agresti and Min, "Simple improved confidence intervals for comparing matched proportions", Statistics in Medicine 24 (2005): Wald's
    interval after half an input is added to each of the four cells, which keeps its coverage where few or no answers differ.
    """
    total, one, two = inputs + 2.0, won + 0.5, lost + 0.5
    middle = (one - two) / total
    half = float(stats.norm.ppf((1 + LEVEL) / 2)) * math.sqrt((one + two) / total - middle**2) / math.sqrt(total)
    return Span(max(-1.0, middle - half), min(1.0, middle + half))


def mcnemar(lost: int, won: int) -> float:
    """Return the two-sided mid-p value of McNemar's test, from the answers that only one of two models gets right.

    Fagerland, Lydersen and Laake, "The McNemar test for binary matched-pairs data: mid-p and asymptotic are better than exact conditional",
    BMC Medical Research Methodology 13 (2013). It has the power for which `samples_paired` is made, which the exact test falls short of.
    """
    changed, fewer = lost + won, min(lost, won)
    at = float(stats.binom.pmf(fewer, changed, 0.5))
    if lost == won:
        return 1.0 - at / 2 if changed else 1.0
    return 2 * float(stats.binom.cdf(fewer, changed, 0.5)) - at


def samples_unpaired(known: float, other: float) -> int:
    """Return how many inputs each arm of an A/B test needs to tell two accuracies apart, at alpha .05 (two-sided) and power .8.

    Fleiss, Levin and Paik, "Statistical Methods for Rates and Proportions" (2003), section 4.2, without correction for continuity: for the
    test of two independent shares with their pooled variance.

    Raises:
        ConfigError: An accuracy is no share, or both are the same.
    """
    for share in (known, other):
        if not 0 <= share <= 1:
            raise ConfigError(f"An accuracy must be between 0 and 1, got {share:g}; give a share, not percent.")
    if known == other:
        raise ConfigError("Two accuracies that are the same cannot be told apart; give a difference that is not 0.")
    mean = (known + other) / 2
    apart = _critical() * math.sqrt(2 * mean * (1 - mean)) + _beyond() * math.sqrt(known * (1 - known) + other * (1 - other))
    return math.ceil((apart / (known - other)) ** 2)


def samples_paired(change: float, disagreement: float) -> int:
    """Return how many inputs have to go through both models to see a change of accuracy, at alpha .05 (two-sided) and power .8.

    Connor, "Sample size for testing differences in proportions for the paired-sample design", Biometrics 43 (1987): for McNemar's test.
    In simulations of the test of `mcnemar` the power is .80 where a hundred answers or more change, and up to .89 where ten do.

    Args:
        change: Difference of the accuracies.
        disagreement: Share of inputs that one gets right and the other does not; at least the change.

    Raises:
        ConfigError: The change is 0, or the disagreement is less than it or more than 1.
    """
    if not change:
        raise ConfigError("Two accuracies that are the same cannot be told apart; give a difference that is not 0.")
    if not abs(change) <= disagreement <= 1:
        raise ConfigError(
            f"The share of inputs that only one gets right must be between the difference of the accuracies, {abs(change):g}, and 1, "
            f"got {disagreement:g}."
        )
    apart = _critical() * math.sqrt(disagreement) + _beyond() * math.sqrt(disagreement - change**2)
    return math.ceil((apart / change) ** 2)


def independent_disagreement(known: float, other: float) -> float:
    """Return the share of inputs that one of two models gets right and the other does not, where their errors are unrelated."""
    return known * (1 - other) + other * (1 - known)


def median_interval(values: Sequence[float]) -> tuple[float, Span]:
    """Return the median of values and its 95 % interval, from one order statistic to another.

    It needs nothing of their distribution: the number of values below the true median is binomial (David and Nagaraja, "Order Statistics",
    2003, section 7.1).

    Raises:
        ConfigError: There are fewer than six.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if ordered.size < FEWEST_ROUNDS:
        raise ConfigError(f"An interval of 95 % takes {FEWEST_ROUNDS} values or more, got {ordered.size}; take more.")
    cut = int(stats.binom.ppf((1 - LEVEL) / 2, ordered.size, 0.5))
    # Fewer than `cut` values lie below the true median with a probability under 2.5 %, so it lies above the value of that rank.
    return float(np.median(ordered)), Span(float(ordered[cut - 1]), float(ordered[ordered.size - cut]))


def _critical() -> float:
    return float(stats.norm.ppf(1 - SIGNIFICANCE / 2))


def _beyond() -> float:
    return float(stats.norm.ppf(POWER))
