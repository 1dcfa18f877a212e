"""Histograms as shares of equal bins."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geluwatch.analysis.report import density
from geluwatch.core import histogram

values = hnp.arrays(np.float32, st.integers(1, 200), elements=st.floats(-100, 100, width=32))
dtypes = st.sampled_from(["float32", "float16", "bfloat16"])


@given(one=values, other=values, dtype=dtypes)
def test_shares_add_up_and_merge(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32], dtype: str) -> None:
    """Bins over all values hold all of them, and those of two samples together are the weighted mean of both."""
    left, right = (histogram.from_values(each, dtype) for each in (one, other))
    edges = np.linspace(-128.0, 128.0, 65)
    shares = [density.shares(each, edges) for each in (left, right)]
    assert all(np.isclose(1.0, each.sum()) for each in shares)
    assert all((each >= 0.0).all() for each in shares)
    together = (one.size * shares[0] + other.size * shares[1]) / (one.size + other.size)
    assert np.allclose(together, density.shares(histogram.merge([left, right]), edges), atol=1e-9)


@given(sample=values)
def test_edges_hold_nearly_all_values(sample: npt.NDArray[np.float32]) -> None:
    """Edges are equal and ascending, and leave out no more than the outermost twentieth of a percent on each side."""
    counted = histogram.from_values(sample)
    edges = density.edges([counted], 16)
    assert 17 == edges.size
    assert np.allclose(np.diff(edges), edges[1] - edges[0])
    assert 0.998 <= density.shares(counted, edges).sum() <= 1.0 + 1e-9


def test_bins_of_a_smooth_sample_follow_its_density() -> None:
    """Many normal values give each bin its probability, without a comb from the lattice."""
    edges = np.linspace(-3.0, 3.0, 61)
    sample = np.random.default_rng(1).normal(size=200_000).astype(np.float32)
    shares = density.shares(histogram.from_values(sample), edges)
    middles = 0.5 * (edges[1:] + edges[:-1])
    assert np.abs(shares - 0.1 * np.exp(-0.5 * middles**2) / np.sqrt(2 * np.pi)).max() < 0.001
