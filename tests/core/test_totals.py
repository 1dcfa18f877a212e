"""Counters since attach only grow, by exactly what was seen."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from geluwatch.catalog import FULL_EDGES
from geluwatch.core import totals
from geluwatch.core.window import observe
from geluwatch.records import Drained, Nonfinite, PointKey, PointTotals, Totals

KEY: PointKey = ("a", "pre")

counts = st.integers(0, 50)
batches = st.lists(
    st.builds(
        Drained,
        forwards=counts,
        sampled_forwards=counts,
        nonfinite_forwards=counts,
        samples=counts,
        dropped_rows=counts,
        hook_seconds=st.floats(0, 1),
        errors=st.dictionaries(st.sampled_from(["rows", "mask"]), counts),
        nonfinite=st.dictionaries(st.sampled_from(["a", "b"]), st.builds(Nonfinite, counts, counts, counts)),
    ),
    max_size=8,
)

FIELDS = ("forwards", "sampled_forwards", "nonfinite_forwards", "samples", "dropped_rows", "hook_seconds")


@given(drained=batches)
def test_drained_batches_add_up(drained: list[Drained]) -> None:
    """Every counter is the sum over batches, and none ever falls; what others count is kept."""
    seen = Totals(windows=3, flush_seconds=1.5)
    for batch in drained:
        before, seen = seen, totals.add_drained(seen, batch)
        assert all(getattr(seen, name) >= getattr(before, name) for name in FIELDS)
    assert {name: sum(getattr(batch, name) for batch in drained) for name in FIELDS[:-1]} == {
        name: getattr(seen, name) for name in FIELDS[:-1]
    }
    assert {part: sum(batch.errors.get(part, 0) for batch in drained) for part in seen.errors} == seen.errors
    assert (
        sum(batch.nonfinite["a"].forwards for batch in drained if "a" in batch.nonfinite) == seen.nonfinite.get("a", Nonfinite()).forwards
    )
    assert (3, 1.5) == (seen.windows, seen.flush_seconds)


def test_point_counters_are_those_of_all_values() -> None:
    """Elements, buckets and sums of several captures equal those of all values at once, and only grow."""
    rng = np.random.default_rng(0)
    parts = [rng.normal(0, 3, (20, 4)).astype(np.float32) for _ in range(5)]
    parts[1][0, 0], parts[2][1, 1], parts[3][2, 2] = np.nan, np.inf, -np.inf
    have = PointTotals()
    for part in parts:
        before, have = have, totals.add_point(have, KEY, observe(part, "float32"))
        assert all(new >= old for new, old in zip(have.buckets, before.buckets or have.buckets, strict=True))
        assert min(have.abs_sum_pos - before.abs_sum_pos, have.abs_sum_neg - before.abs_sum_neg, have.squares - before.squares) >= 0
    values = np.concatenate(parts)
    assert values.size == have.elements
    assert [*(int((values <= edge).sum()) for edge in FULL_EDGES["pre"]), values.size - 1] == list(have.buckets)


def test_counts_are_added_key_by_key() -> None:
    """Keys of either side are kept, in the order they came."""
    assert {"rows": 3, "mask": 1, "sink": 4} == totals.add_counts({"rows": 1, "mask": 1}, {"sink": 4, "rows": 2})
