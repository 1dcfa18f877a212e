"""How many rows a window gets at every rate and size of traffic, and that every part of the traffic is as likely to be among them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from geluwatch.config import Config
from geluwatch.records import Drained
from geluwatch.tap.pacer import Pacer
from geluwatch.tap.source import TorchSource
from geluwatch.testing import FakeClock

WINDOW, TARGET, MOST = 60.0, 2048, 256


class Traffic:
    """Passes of given sizes through a pacer alone, on a clock of its own; keeps what was taken of each."""

    def __init__(self, *, cost: float = 0.0, budget: float | None = None, window: float | None = WINDOW) -> None:
        self.pacer = Pacer(TARGET, window, budget, MOST)
        self.cost = cost
        self.now = 0.0
        self.taken: list[int] = []

    def serve(self, size: int) -> int:
        """Run one pass at the present moment; return the rows taken from it."""
        rows = 0
        if self.pacer.take(self.now):
            rows = self.pacer.whole(min(min(self.pacer.share(0, size), 1.0) * size, MOST))
            self.pacer.spent(self.now, self.cost, size, rows)
        self.taken.append(rows)
        return rows

    def minutes(self, count: int, rate: float, size: int) -> list[int]:
        """Serve at an even rate of passes a second; return the rows of each minute."""
        passes = max(round(rate * WINDOW), 1)
        rows = []
        for _ in range(count):
            begun = self.now
            rows.append(0)
            for turn in range(passes):
                self.now = begun + turn * WINDOW / passes
                rows[-1] += self.serve(size)
            self.now = begun + WINDOW
        return rows


@pytest.mark.parametrize("size", [1, 50, 4096])
@pytest.mark.parametrize("rate", [0.1, 1.0, 10.0, 100.0, 1000.0])
def test_a_minute_gets_the_target_or_all_there_is(rate: float, size: int) -> None:
    """From 6 passes a minute to 60,000, of 1 token to 4,096: the target, or all rows that passes may give where that is less."""
    rows = Traffic().minutes(6, rate, size)[1:]
    there = round(rate * WINDOW) * min(size, MOST)
    if there <= TARGET:
        assert [there] * 5 == rows
    else:
        assert abs(np.mean(rows) / TARGET - 1.0) < 0.05
        assert all(0.85 * TARGET < each < 1.15 * TARGET for each in rows)


def test_a_first_minute_is_no_burst() -> None:
    """The minute after attach gets about as much as any other, and so does each quarter of it: nothing is spent at once."""
    traffic = Traffic()
    for turn in range(6000):
        traffic.now = turn * 0.01
        traffic.serve(50)
    quarters = np.array(traffic.taken).reshape(4, -1).sum(1)
    assert quarters.min() > 0.8 * TARGET / 4
    assert quarters.max() < 1.5 * TARGET / 4


@pytest.mark.parametrize("factor", [0.1, 10.0])
def test_a_change_of_pace_is_learnt_within_two_minutes(factor: float) -> None:
    """After traffic changes tenfold a minute gets from a fifth of the target to half as much again, the third one 70 to 130 %."""
    traffic = Traffic()
    traffic.minutes(4, 20.0, 50)
    first, _, third = traffic.minutes(3, 20.0 * factor, 50)
    assert TARGET / 5 < first < 1.5 * TARGET
    assert 0.7 * TARGET < third < 1.3 * TARGET


def test_traffic_that_stops_and_comes_back_is_taken_at_once() -> None:
    """After a burst and an hour of silence, a single pass a minute is taken whole from the first on."""
    traffic = Traffic()
    traffic.minutes(2, 1000.0, 50)
    traffic.now += 3600.0
    assert [50] * 5 == traffic.minutes(5, 1 / 60, 50)


def test_long_and_short_requests_weigh_what_they_weigh_in_the_traffic() -> None:
    """With requests of 20 to 4,000 tokens in a row drawn at random, each size's share of rows is its share of tokens."""
    traffic, sizes = Traffic(), (20, 200, 4000)
    order = random.Random(5)
    rows: Counter[int] = Counter()
    tokens: Counter[int] = Counter()
    for turn in range(400_000):
        traffic.now = turn * 0.01
        size = order.choices(sizes, (20, 5, 1))[0]
        rows[size] += traffic.serve(size)
        tokens[size] += size
    for size in sizes:
        assert abs(rows[size] / rows.total() / (tokens[size] / tokens.total()) - 1.0) < 0.1


@pytest.mark.parametrize("batch", [1, 8, 32])
def test_the_batch_size_changes_nothing(batch: int) -> None:
    """The same texts in batches of 1, 8 and 32 give as many rows a minute, and long texts keep their share of them."""
    traffic = Traffic()
    order = random.Random(8)
    long, total, tokens, long_tokens = 0.0, 0, 0, 0
    for turn in range(12_800 // batch):
        traffic.now = turn * batch / 10.0
        lengths = [order.choice((20, 100)) for _ in range(batch)]
        taken = traffic.serve(sum(lengths))
        total += taken
        tokens += sum(lengths)
        long += taken * sum(length for length in lengths if length == 100) / sum(lengths)
        long_tokens += sum(length for length in lengths if length == 100)
    assert abs(total / (12_800 / 600) / TARGET - 1.0) < 0.1
    assert abs(long / total / (long_tokens / tokens) - 1.0) < 0.05


def uniform(counts: Iterator[int] | list[int]) -> float:
    """Return the p-value of counts being draws from equal chances."""
    return float(stats.chisquare(list(counts)).pvalue)


@pytest.mark.parametrize("kinds", [2, 7, 10])
def test_kinds_of_requests_that_take_turns_are_sampled_evenly(kinds: int) -> None:
    """Requests that alternate, also in step with the planned gap, or close behind one another, are as likely each."""
    for rate in (2.0, 4.3, 100.0):  # gaps of 1, 2 and 47 passes
        traffic = Traffic()
        taken: Counter[int] = Counter()
        for turn in range(60_000):
            kind = turn % kinds
            # The first of each round comes after a long gap, the others right behind it.
            traffic.now = ((turn - kind) + 0.02 * kind) / rate
            taken[kind] += traffic.serve(1000) > 0
        mean = taken.total() / kinds
        assert max(abs(count - mean) for count in taken.values()) < 0.05 * mean + 3.0 * mean**0.5


def test_a_busy_window_is_covered_from_beginning_to_end() -> None:
    """At 100 passes a second the rows of each tenth of the minutes differ by no more than chance: none is preferred."""
    traffic = Traffic()
    traffic.minutes(1, 100.0, 64)
    traffic.taken.clear()
    traffic.minutes(50, 100.0, 64)
    captures = (np.array(traffic.taken).reshape(50, 10, -1) > 0).sum((0, 2))
    assert uniform(captures.tolist()) > 0.01


def test_quiet_batches_larger_than_the_cap_keep_their_share() -> None:
    """Of four quiet batches a minute, some above the cap, each gives the same share of its rows: long texts are not cut."""
    traffic, sizes = Traffic(), (200, 320, 420, 500)
    rows = np.zeros(4)
    for turn in range(400):
        traffic.now = 15.0 * turn
        taken = traffic.serve(sizes[turn % 4])
        rows[turn % 4] += taken if turn >= 80 else 0
    share = rows / np.array(sizes)
    assert share.min() > 0.9 * share.max()


def test_another_batch_size_is_learnt_within_a_window() -> None:
    """After quiet batches of 240 tokens the same traffic in single texts is still taken nearly whole, and the other way round."""
    traffic = Traffic()
    traffic.minutes(5, 4 / 60, 240)
    single = traffic.minutes(3, 32 / 60, 30)
    assert single[0] > 0.7 * 960
    assert [960] == single[2:]
    assert [960] * 3 == traffic.minutes(3, 4 / 60, 240)


def test_quiet_bursts_are_sampled_evenly() -> None:
    """Of twenty requests that come at once each minute, and are more than the target, each gives about as many rows."""
    traffic = Traffic()
    rows = np.zeros(20)
    for minute in range(200):
        for turn in range(20):
            traffic.now = 60.0 * minute + 0.05 * turn
            taken = traffic.serve(500)
            rows[turn] += taken if minute >= 5 else 0
    assert rows.min() > 0.85 * rows.mean()
    assert rows.max() < 1.15 * rows.mean()


@pytest.mark.parametrize("window", [WINDOW, None])
@pytest.mark.parametrize("rate", [10.0, 1000.0])
def test_captures_cost_no_more_than_the_budget(window: float | None, rate: float) -> None:
    """Where each capture costs 20 ms, a budget of a percent holds over ten minutes, with or without timed windows."""
    traffic = Traffic(cost=0.02, budget=0.01, window=window)
    traffic.minutes(10, rate, 4096)
    captures = sum(rows > 0 for rows in traffic.taken)
    assert 0.007 < captures * 0.02 / 600.0 < 0.0103


def test_without_windows_every_pass_is_taken_whole() -> None:
    """With windows closed by hand and no budget, every pass gives all its rows up to the most of one pass."""
    traffic = Traffic(window=None)
    for turn in range(2000):
        traffic.now = 0.001 * turn
        assert min((turn % 1000) + 1, MOST) == traffic.serve((turn % 1000) + 1)


class Halves(nn.Module):
    """A first GELU over all tokens, a second over a quarter of them: as in vision models that pool on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.whole, self.pooled = nn.GELU(), nn.GELU()

    def forward(self, x: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:  # noqa: ARG002  # for the hooks
        """Apply both."""
        y: torch.Tensor = self.pooled(self.whole(x)[:, ::4])
        return y


def drained(batches: Callable[[int], torch.Tensor], count: int, seconds: float, pending: int = 2**26) -> Iterator[Drained]:
    """Send batches through a watched `Halves`, so many seconds apart, and yield what each pass left behind."""
    clock, model = FakeClock(), Halves()
    source = TorchSource(model, Config(pending_bytes=pending, rows_per_window=TARGET), clock)
    try:
        for turn in range(count):
            batch = batches(turn)
            mask = torch.arange(batch.shape[1]) < torch.arange(1, len(batch) + 1).unsqueeze(1) * batch.shape[1] // len(batch)
            model(batch, attention_mask=mask)
            yield source.drain()
            clock.advance(seconds)
    finally:
        source.close()


def test_every_place_and_request_of_a_batch_is_as_likely() -> None:
    """Over thinned passes with padding, valid places are drawn evenly over positions and requests, and padding never."""
    numbers = torch.arange(8 * 32.0).reshape(8, 32, 1)
    seen = np.zeros(8 * 32)
    for batch in drained(lambda _: numbers, 3000, 0.1):
        for rows in batch.rows:
            if rows.layer == "whole":
                seen[rows.pre[:, 0].astype(int)] += 1
    valid = (np.arange(32) < np.arange(1, 9)[:, None] * 4).reshape(-1)
    assert 0 == seen[~valid].sum()
    assert uniform(seen[valid].tolist()) > 0.01


def test_a_site_with_fewer_rows_has_a_target_of_its_own() -> None:
    """A site behind pooling, with a quarter of the rows, gets as many a minute as the first: its share is larger."""
    rows: Counter[str] = Counter()
    for turn, batch in enumerate(drained(lambda _: torch.randn(4, 64, 2), 3600, 0.1)):
        rows.update({item.layer: len(item.pre) for item in batch.rows if turn >= 600})
    assert 0.9 < rows["pooled"] / rows["whole"] < 1.1
    assert 0.9 < rows["whole"] / (5 * TARGET) < 1.1


def test_wide_models_are_thinned_and_not_dropped() -> None:
    """Where the memory for waiting rows holds few of them, passes give fewer, and nothing counts as dropped."""
    dropped, rows = 0, 0
    for batch in drained(lambda _: torch.randn(2, 200, 64), 60, 1.0, 64 * 1024):
        dropped += batch.dropped_rows
        rows += sum(len(item.pre) for item in batch.rows if item.layer == "whole")
    assert 0 == dropped
    assert rows > 60 * 16


def test_a_pass_drawn_no_row_is_not_called_sampled() -> None:
    """A small request amid large ones may give nothing; it does not count as sampled, so no site is blamed for silence."""
    sampled = empty = 0
    for turn, batch in enumerate(drained(lambda turn: torch.randn(1, 2 if turn % 2 else 3000, 1), 4000, 0.02)):
        sampled += batch.sampled_forwards
        empty += batch.sampled_forwards and not batch.rows
        assert batch.sampled_forwards <= 1, turn
    assert sampled > 50
    assert 0 == empty


def test_choosing_leaves_the_generator_of_torch_alone() -> None:
    """What the model's dropout would draw is the same after sampled passes as without them."""
    torch.manual_seed(4)
    batch = torch.randn(4, 100, 2)
    expected = torch.rand(3)
    torch.manual_seed(4)
    torch.randn(4, 100, 2)
    list(drained(lambda _: batch, 50, 0.1))
    assert torch.equal(expected, torch.rand(3))
