"""Gathers pairs of values of each GELU until they tell which kernel made them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from geluwatch.core import parity
from geluwatch.core.parity import Singles
from geluwatch.records import Parity, Rows, Site

# Pairs kept at a (layer, dtype), and taken from one batch of its rows.
_MOST, _MOST_A_BATCH = 4096, 1024


class Kernels:
    """The pairs gathered since a layer's kernel was last measured, and what was measured then."""

    def __init__(self) -> None:
        self._pairs: dict[tuple[str, str], tuple[Singles, Singles]] = {}
        self._measured: dict[str, Parity] = {}

    def add(self, rows: Iterable[Rows]) -> None:
        """Take some pairs of each batch of rows; rows whose output was computed anew tell nothing of a kernel."""
        for item in rows:
            if item.derived:
                continue
            pre, post = parity.choose(item.pre, item.post, _MOST_A_BATCH)
            if not pre.size:
                continue
            key = (item.layer, item.dtype)
            if key in self._pairs:
                pre, post = (np.concatenate(sides) for sides in zip(self._pairs[key], (pre, post), strict=True))
            # Halved as a whole, so that neither the first nor the last batches are all there is.
            thinner = 1 + (pre.size > _MOST)
            self._pairs[key] = (pre[::thinner], post[::thinner])

    def measure(self, sites: tuple[Site, ...]) -> Mapping[str, Parity]:
        """Return by layer what its pairs tell, or what they told last; a layer that runs in two dtypes shows the faulty one."""
        declared = {site.layer: site.variant for site in sites}
        fresh: dict[str, Parity] = {}
        for (layer, dtype), (pre, post) in list(self._pairs.items()):
            found = parity.compare(pre, post, dtype, declared[layer]) if layer in declared else None
            if found is not None:
                del self._pairs[layer, dtype]
                if layer not in fresh or not fresh[layer].fault:
                    fresh[layer] = found
        self._measured |= fresh
        return self._measured
