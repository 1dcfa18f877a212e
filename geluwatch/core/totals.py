"""Counters since attach, folded from drained batches; they only grow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from geluwatch.catalog import FULL_EDGES
from geluwatch.core.application import together
from geluwatch.core.histogram import bucket_counts
from geluwatch.core.window import merge_nonfinite
from geluwatch.records import Drained, PointKey, PointTotals, PointWindow, Totals, Traffic, Training

_Number = TypeVar("_Number", int, float)


def add_point(have: PointTotals, key: PointKey, seen: PointWindow) -> PointTotals:
    """Return a (layer, point)'s counters with newly captured values added."""
    more = bucket_counts(seen.histogram, FULL_EDGES[key[1]])
    return PointTotals(
        have.elements + seen.histogram.finite + seen.histogram.nonfinite,
        add_buckets(have.buckets, more),
        have.abs_sum_pos + seen.abs_sum_pos,
        have.abs_sum_neg + seen.abs_sum_neg,
        have.squares + seen.squares,
    )


def add_drained(have: Totals, drained: Drained) -> Totals:
    """Return the model's counters with a drained batch added."""
    return replace(
        have,
        forwards=have.forwards + drained.forwards,
        sampled_forwards=have.sampled_forwards + drained.sampled_forwards,
        nonfinite_forwards=have.nonfinite_forwards + drained.nonfinite_forwards,
        samples=have.samples + drained.samples,
        dropped_rows=have.dropped_rows + drained.dropped_rows,
        hook_seconds=have.hook_seconds + drained.hook_seconds,
        timed_seconds=have.timed_seconds + drained.timed_seconds,
        op_seconds=add_counts(have.op_seconds, drained.op_seconds),
        errors=add_counts(have.errors, drained.errors),
        nonfinite=merge_nonfinite(have.nonfinite, drained.nonfinite),
        traffic=add_traffic(have.traffic, drained.traffic),
        training=add_training(have.training or Training(), drained.training) if drained.training else have.training,
    )


def merged(parts: Iterable[Totals]) -> Totals:
    """Return the counters of several processes together."""
    total = Totals()
    for part in parts:
        drained = Drained(
            forwards=part.forwards,
            sampled_forwards=part.sampled_forwards,
            nonfinite_forwards=part.nonfinite_forwards,
            samples=part.samples,
            nonfinite=part.nonfinite,
            dropped_rows=part.dropped_rows,
            hook_seconds=part.hook_seconds,
            timed_seconds=part.timed_seconds,
            op_seconds=part.op_seconds,
            errors=part.errors,
            traffic=part.traffic,
            training=part.training,
        )
        both = add_drained(total, drained)
        total = replace(
            both,
            windows=total.windows + part.windows,
            flush_seconds=total.flush_seconds + part.flush_seconds,
            application=together(total.application, part.application),
        )
    return total


def add_traffic(left: Traffic, right: Traffic) -> Traffic:
    """Return the sums of both, and the earlier first pass."""
    return Traffic(
        left.seconds + right.seconds,
        add_buckets(left.latencies, right.latencies),
        add_buckets(left.batches, right.batches),
        left.tokens + right.tokens,
        left.failed + right.failed,
        left.out_of_memory + right.out_of_memory,
        min((first for first in (left.first, right.first) if first is not None), default=None),
    )


def add_training(left: Training, right: Training) -> Training:
    """Return the sums of both, and the latter's state."""
    return Training(
        left.steps + right.steps,
        left.nonfinite_losses + right.nonfinite_losses,
        left.skipped_steps + right.skipped_steps,
        right.skipped_in_a_row,
        right.scale,
    )


def add_buckets(left: tuple[int, ...], right: tuple[int, ...]) -> tuple[int, ...]:
    """Return counts added bucket by bucket; no buckets are as good as empty ones."""
    return tuple(a + b for a, b in zip(left, right, strict=True)) if left and right else left or right


def add_counts(left: Mapping[str, _Number], right: Mapping[str, _Number]) -> dict[str, _Number]:
    """Return counts, or sums, added key by key."""
    return {key: left[key] + right[key] if key in left and key in right else left.get(key, right.get(key, 0)) for key in _keys(left, right)}


def _keys(left: Iterable[str], right: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*left, *right]))
