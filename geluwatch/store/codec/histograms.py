"""The stored form of histograms: of a window's, which travel in its payload, and of the baseline's pooled ones.

The pooled histograms' payload (see `geluwatch.store.codec.archive` for the container):

==============  ===============  ============================================================================================
entry           kind             content
==============  ===============  ============================================================================================
`header.json`                    `points`: one row for each (layer, point), with `layer`, `point`, `bits`, `nan`, `posinf`,
                                 `neginf`, `lossless`, and how many `cells` it takes from the columns
`cells.npy`     column of int32  lattice cells of all points end to end, each as its difference from the one before
`counts.npy`    column of int64  their counts
==============  ===============  ============================================================================================

Differences wrap around in 32 bits, so any cells come back exactly.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from geluwatch.records import Histogram, PointKey
from geluwatch.store.codec.archive import Array, Arrays, Format, Header, check_lengths, check_pair, joined

COLUMNS = {"cells": "<i4", "counts": "<i8"}
"""The columns that histograms make, wherever they are stored."""

FORMAT = Format("geluwatch-histograms", 1, COLUMNS)


def encode_histograms(histograms: Mapping[PointKey, Histogram]) -> bytes:
    """Return pooled histograms as bytes, in the format of this module's docstring.

    Raises:
        BaselineError: Cells and counts of one point do not belong together.
    """
    points = [{"layer": key[0], "point": key[1], **entry("pooled histograms", key, histogram)} for key, histogram in histograms.items()]
    return FORMAT.write({"points": points}, columns(histograms.values()))


def decode_histograms(payload: bytes, name: str = "The pooled histograms") -> dict[PointKey, Histogram]:
    """Return the histograms that `encode_histograms` wrote.

    Raises:
        StoreError: The bytes are damaged, are no pooled histograms, or were written by a newer release.
    """
    return FORMAT.read(payload, name, _histograms)


def _histograms(header: Header, arrays: Arrays) -> dict[PointKey, Histogram]:
    points = header["points"]
    return {(point["layer"], point["point"]): histogram for point, histogram in zip(points, split(points, arrays), strict=True)}


def entry(part: str, key: PointKey, histogram: Histogram) -> dict[str, Any]:
    """Return what a header holds of one histogram; `part` names what is stored in an error.

    Raises:
        BaselineError: Cells and counts do not belong together.
    """
    check_pair(part, key, cells=histogram.cells, counts=histogram.counts)
    return {
        "bits": int(histogram.bits),
        "nan": int(histogram.nan),
        "posinf": int(histogram.posinf),
        "neginf": int(histogram.neginf),
        "lossless": bool(histogram.lossless),
        "cells": len(histogram.cells),
    }


def columns(histograms: Collection[Histogram]) -> dict[str, Array]:
    """Return histograms as columns."""
    cells = joined((histogram.cells for histogram in histograms), "<i4")
    return {
        "cells": np.diff(cells, prepend=np.int32(0)),
        "counts": joined((histogram.counts for histogram in histograms), "<i8"),
    }


def split(entries: list[dict[str, Any]], arrays: Arrays) -> Iterator[Histogram]:
    """Yield the histogram of each header entry from the columns of all.

    Raises:
        ValueError: The columns hold another number of cells than the entries promise.
    """
    check_lengths(arrays, dict.fromkeys(COLUMNS, sum(each["cells"] for each in entries)))
    cells, counts = np.cumsum(arrays["cells"], dtype=np.int32), arrays["counts"]
    end = 0
    for each in entries:
        start, end = end, end + each["cells"]
        kept = {name: each[name] for name in ("bits", "nan", "posinf", "neginf", "lossless")}
        yield Histogram(cells=cells[start:end], counts=counts[start:end], **kept)
