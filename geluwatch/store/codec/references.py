"""The stored form of a baseline's references (see `geluwatch.store.codec.archive` for the container).

==============  =================  ==========================================================================================
entry           kind               content
==============  =================  ==========================================================================================
`header.json`                      `points`: one row for each (layer, point), with `layer`, `point`, `windows`, and how many
                                   `values` it takes from the columns
`rows.npy`      plain (points,)    typical rows in a window
`requests.npy`  plain (points,)    typical batch entries behind them, 0 where unknown
`mean.npy`      column of float32  means of all points end to end
`variance.npy`  column of float32  variances, likewise
==============  =================  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from geluwatch.records import PointKey, Reference
from geluwatch.store.codec.archive import Arrays, Format, Header, check_lengths, check_pair, joined

FORMAT = Format("geluwatch-references", 1, {"mean": "<f4", "variance": "<f4"}, plain=("rows", "requests"))


def encode_references(references: Mapping[PointKey, Reference]) -> bytes:
    """Return references as bytes, in the format of this module's docstring.

    Raises:
        BaselineError: Mean and variance of one point do not belong together.
    """
    for key, reference in references.items():
        check_pair("references", key, mean=reference.mean, variance=reference.variance)
    points = [
        {"layer": key[0], "point": key[1], "windows": int(reference.windows), "values": len(reference.mean)}
        for key, reference in references.items()
    ]
    arrays = {
        "rows": np.array([reference.rows for reference in references.values()], np.float64),
        "requests": np.array([reference.requests for reference in references.values()], np.float64),
        "mean": joined((reference.mean for reference in references.values()), "<f4"),
        "variance": joined((reference.variance for reference in references.values()), "<f4"),
    }
    return FORMAT.write({"points": points}, arrays)


def decode_references(payload: bytes, name: str = "The references") -> dict[PointKey, Reference]:
    """Return the references that `encode_references` wrote.

    Raises:
        StoreError: The bytes are damaged, are no references, or were written by a newer release.
    """
    return FORMAT.read(payload, name, lambda header, arrays: dict(_references(header, arrays)))


def _references(header: Header, arrays: Arrays) -> Iterator[tuple[PointKey, Reference]]:
    points = header["points"]
    check_lengths(arrays, dict.fromkeys(FORMAT.columns, sum(point["values"] for point in points)))
    end = 0
    for point, rows, requests in zip(points, arrays["rows"].tolist(), arrays["requests"].tolist(), strict=True):
        start, end = end, end + point["values"]
        mean, variance = (arrays[name][start:end] for name in ("mean", "variance"))
        yield (point["layer"], point["point"]), Reference(mean, variance, rows, point["windows"], requests)
