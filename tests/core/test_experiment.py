"""Figures of an experiment: against published examples, against simulation, and at their edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from geluwatch.core.experiment import (
    LEVEL,
    POWER,
    Accuracy,
    independent_disagreement,
    mcnemar,
    median_interval,
    paired_interval,
    samples_paired,
    samples_unpaired,
)
from geluwatch.errors import ConfigError

CASES = [(0.95, 0.93, 0.10), (0.75, 0.70, 0.25), (0.60, 0.66, 0.40)]
"""Accuracy of the model as it is, of the variant, and the share of inputs that only one gets right."""


def power_paired(known: float, other: float, disagreement: float, inputs: int, experiments: int) -> float:
    """Return how often the test sees the difference, in simulated experiments."""
    change = other - known
    shares = [(disagreement - change) / 2, (disagreement + change) / 2, 1 - disagreement]
    drawn = np.random.default_rng(1).multinomial(inputs, shares, size=experiments)[:, :2]
    splits, often = np.unique(drawn, axis=0, return_counts=True)
    seen = [mcnemar(int(lost), int(won)) <= 0.05 for lost, won in splits]
    return float((often * seen).sum() / experiments)


def power_unpaired(known: float, other: float, inputs: int, experiments: int) -> float:
    """Return how often the test of two shares with a pooled variance sees the difference, in simulated A/B tests."""
    chance = np.random.default_rng(2)
    one, two = (chance.binomial(inputs, share, size=experiments) / inputs for share in (known, other))
    pooled = (one + two) / 2
    statistic = np.abs(two - one) / np.sqrt(2 * pooled * (1 - pooled) / inputs)
    return float((statistic > stats.norm.ppf(0.975)).mean())


@pytest.mark.parametrize(("known", "other", "disagreement"), CASES)
def test_the_samples_have_the_power_that_they_promise(known: float, other: float, disagreement: float) -> None:
    """Of four thousand simulated experiments of the sizes given, four in five see the difference, paired and in two arms."""
    paired = power_paired(known, other, disagreement, samples_paired(other - known, disagreement), 4000)
    unpaired = power_unpaired(known, other, samples_unpaired(known, other), 4000)
    assert paired == pytest.approx(POWER, abs=0.02)
    assert unpaired == pytest.approx(POWER, abs=0.02)


@pytest.mark.full
@pytest.mark.parametrize("known", [0.6, 0.8, 0.95, 0.99])
@pytest.mark.parametrize("delta", [-0.05, -0.02, -0.005, 0.005])
@pytest.mark.parametrize("more", [1.2, 2.0, 5.0])
def test_the_samples_have_that_power_everywhere(known: float, delta: float, more: float) -> None:
    """The same over a grid of accuracies, differences and disagreements: never less, and more only where few answers decide."""
    other, disagreement = known + delta, min(abs(delta) * more, 0.9)
    paired, unpaired = samples_paired(delta, disagreement), samples_unpaired(known, other)
    few = min(paired * disagreement, unpaired * (1 - max(known, other)) * 2) < 100
    for power in (power_paired(known, other, disagreement, paired, 40_000), power_unpaired(known, other, unpaired, 40_000)):
        assert POWER - 0.01 < power < (0.9 if few else POWER + 0.015)


def test_pairs_are_fewer_the_more_errors_agree() -> None:
    """Fewest where all that changes changes one way, more where answers go both ways, and fewer than each arm takes either way."""
    assert samples_paired(0.15, 0.15) < samples_paired(0.15, 0.3) < samples_unpaired(0.25, 0.40)


@given(st.floats(0.02, 0.98), st.floats(0.02, 0.98))
def test_pairing_unrelated_errors_gains_nothing(known: float, other: float) -> None:
    """Where errors are unrelated, pairs are about as many as inputs of one arm; the formulas agree with each other."""
    if abs(known - other) < 0.01:
        return
    paired = samples_paired(other - known, independent_disagreement(known, other))
    assert paired == pytest.approx(samples_unpaired(known, other), rel=0.05, abs=3)


@pytest.mark.parametrize("share", [0.0005, 0.02, 0.2])
def test_the_interval_of_a_paired_change_covers_it(share: float) -> None:
    """In simulated experiments of 400 answers, 93 % or more of the intervals hold the change, be few or many answers different."""
    lost, won, _ = np.random.default_rng(3).multinomial(400, [share, share / 2, 1 - 1.5 * share], size=1500).T
    held = [paired_interval(400, int(one), int(two)).holds(-share / 2) for one, two in zip(lost, won, strict=True)]
    assert np.mean(held) > LEVEL - 0.02


def test_an_accuracy_tells_what_changed() -> None:
    """Change, interval, probability and samples belong together; without a change there is none to look for."""
    found = Accuracy(500, 0.96, 0.94, lost=14, won=4)
    assert -0.02 == pytest.approx(found.change)
    assert found.interval.low < -0.02 < found.interval.high < 0
    assert found.probability == pytest.approx(2 * stats.binom.cdf(4, 18, 0.5) - stats.binom.pmf(4, 18, 0.5))
    assert (samples_unpaired(0.96, 0.94), samples_paired(-0.02, 18 / 500)) == (found.per_arm, found.pairs)
    same = Accuracy(500, 0.96, 0.96, lost=3, won=3)
    assert (0.0, None, None) == (same.change, same.per_arm, same.pairs)
    assert same.probability == pytest.approx(1 - 20 / 64 / 2)
    assert 1.0 == Accuracy(500, 0.96, 0.96, lost=0, won=0).probability


@pytest.mark.parametrize("rounds", [6, 9, 30, 41])
def test_the_interval_of_a_median_covers_it(rounds: int) -> None:
    """In simulated rounds with a long tail, 95 % or more of the intervals hold the true median."""
    drawn = np.random.default_rng(4).lognormal(sigma=1.0, size=(2000, rounds))
    assert np.mean([median_interval(list(values))[1].holds(1.0) for values in drawn]) > LEVEL - 0.01


@given(st.lists(st.floats(0.1, 10), min_size=6, max_size=60))
def test_a_median_lies_in_its_interval(values: list[float]) -> None:
    """Whatever the values, the interval holds their median and ends at two of them."""
    middle, span = median_interval(values)
    assert span.holds(middle)
    assert {span.low, span.high} <= set(values)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: samples_unpaired(95, 94), "An accuracy must be between 0 and 1, got 95; give a share"),
        (lambda: samples_unpaired(0.9, 0.9), "Two accuracies that are the same"),
        (lambda: samples_paired(0.0, 0.1), "Two accuracies that are the same"),
        (lambda: samples_paired(0.1, 0.05), "must be between the difference of the accuracies, 0.1, and 1, got 0.05"),
        (lambda: median_interval([1.0] * 5), "An interval of 95 % takes 6 values or more, got 5"),
    ],
)
def test_what_makes_no_sense_is_refused(call: object, sentence: str) -> None:
    """Shares that are none, no difference, and too few rounds are one sentence each."""
    assert callable(call)
    with pytest.raises(ConfigError, match=sentence):
        call()


def test_a_disagreement_of_the_change_itself_is_enough() -> None:
    """Where all that changes changes one way, the formula has its smallest answer and no root of a negative number."""
    assert not math.isnan(samples_paired(-0.005, 0.005))
