"""The stored form of a span: exact, compact, and sure of what it reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geluwatch.core.history import without_moments
from geluwatch.core.window import observe
from geluwatch.errors import StoreError
from geluwatch.records import Histogram, Moments, PointSummary, PointWindow, Summary, Window
from geluwatch.store import codec

COUNTS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30)


@given(COUNTS)
def test_any_counts_come_back(counts: list[int]) -> None:
    """Whatever 64-bit counts there are, zigzagged differences give them back exactly."""
    values = np.array(counts, np.int64)
    seen = Histogram(16, np.arange(values.size, dtype=np.int32), values)
    window = Window(0.0, 1.0, 1, 1, {("act", "pre"): PointWindow(seen, Moments(0, np.zeros(0), np.zeros(0)))})
    found = codec.decode_span(codec.encode_span(window)).points["act", "pre"].histogram
    assert found.counts.dtype == np.int64
    assert values.tolist() == found.counts.tolist()


def test_a_span_is_smaller_than_the_same_window_of_a_baseline(same: Callable[[Any, Any], bool]) -> None:
    """Without moments a seventh is saved at least, and some 1.1 bytes a cell are left of 12 in memory."""
    random = np.random.default_rng(0)
    points = {(f"layer.{layer}", "pre"): observe(random.normal(size=(512, 768)).astype(np.float32), "float32") for layer in range(4)}
    window = without_moments(Window(0.0, 60.0, 8, 8, points))  # type: ignore[arg-type]  # the keys' literal
    payload = codec.encode_span(window)
    assert same(window, codec.decode_span(payload))
    assert len(payload) < 6 / 7 * len(codec.encode_window(window))
    assert len(payload) < 1.2 * sum(point.histogram.cells.size for point in window.points.values())


def test_bytes_that_are_no_span_are_refused() -> None:
    """A window of a baseline, and anything damaged, are refused by name."""
    window = Window(0.0, 60.0, 8, 8, {})
    with pytest.raises(StoreError, match=r"^This one cannot be read, it is stored as geluwatch-window version 1 where"):
        codec.decode_span(codec.encode_window(window), "This one")
    with pytest.raises(StoreError, match=r"^This one cannot be read, the bytes are damaged"):
        codec.decode_span(codec.encode_span(window)[:-40], "This one")


def test_summaries_that_are_none_are_refused() -> None:
    """Values of a later release, and those that are no summary, are refused by name."""
    stored = codec.encode_summary(Summary({"ok": 1}, {("act", "pre"): PointSummary(1.5)}))
    with pytest.raises(
        StoreError, match=r"^That one cannot be read, it is stored as version 2 where this release knows version 1; upgrade"
    ):
        codec.decode_summary({**stored, "version": 2}, "That one")
    for damaged in ({}, {**stored, "points": [["act"]]}, {**stored, "other": 1}):
        with pytest.raises(StoreError, match=r"^That one cannot be read"):
            codec.decode_summary(damaged, "That one")
