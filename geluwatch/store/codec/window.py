"""The stored form of a window (see `geluwatch.store.codec.archive` for the container).

==============  =================  ==========================================================================================
entry           kind               content
==============  =================  ==========================================================================================
`header.json`                      the window's counters, and `points`: one row for each (layer, point), with its counters and
                                   how many `cells` and `channels` it takes from the columns
`times.npy`     plain (2,)         `started` and `ended`
`sums.npy`      plain (points, 3)  `abs_sum_pos`, `abs_sum_neg`, `squares`
`cells.npy`     column of int32    lattice cells, as in `geluwatch.store.codec.histograms`; none where values are pooled
`counts.npy`    column of int64    their counts
`mean.npy`      column of float64  channel means of all points end to end
`m2.npy`        column of float64  sums of squared deviations, likewise
==============  =================  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from geluwatch.records import Moments, Nonfinite, PointKey, PointWindow, Window
from geluwatch.store.codec import histograms
from geluwatch.store.codec.archive import Array, Arrays, Format, Header, check_lengths, check_pair, joined

FORMAT = Format("geluwatch-window", 1, {**histograms.COLUMNS, "mean": "<f8", "m2": "<f8"}, plain=("times", "sums"))


def encode_window(window: Window) -> bytes:
    """Return a window as bytes, in the format of this module's docstring.

    Raises:
        BaselineError: Arrays of one point do not belong together.
    """
    return FORMAT.write(*parts(window))


def decode_window(payload: bytes, name: str = "The window") -> Window:
    """Return the window that `encode_window` wrote.

    Args:
        payload: The bytes.
        name: What to call the window in an error.

    Raises:
        StoreError: The bytes are damaged, are no window, or were written by a newer release.
    """
    return FORMAT.read(payload, name, build)


def parts(window: Window) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return what a window is stored as, header and arrays.

    Raises:
        BaselineError: Arrays of one point do not belong together.
    """
    header, points = _header(window), window.points.values()
    arrays = {
        "times": np.array([window.started, window.ended], np.float64),
        "sums": np.array([(p.abs_sum_pos, p.abs_sum_neg, p.squares) for p in points], np.float64).reshape(-1, 3),
        "mean": joined((p.moments.mean for p in points), "<f8"),
        "m2": joined((p.moments.m2 for p in points), "<f8"),
    }
    return header, arrays | histograms.columns([p.histogram for p in points])


def _header(window: Window) -> dict[str, Any]:
    return {
        "forwards": int(window.forwards),
        "sampled_forwards": int(window.sampled_forwards),
        "samples": int(window.samples),
        "thinned": bool(window.thinned),
        "first_nonfinite": window.first_nonfinite,
        "blind": list(window.blind),
        "nonfinite": [_nonfinite_entry(layer, counted) for layer, counted in window.nonfinite.items()],
        "points": [_point_entry(key, point) for key, point in window.points.items()],
    }


def _nonfinite_entry(layer: str, counted: Nonfinite) -> dict[str, Any]:
    return {
        "layer": layer,
        "forwards": int(counted.forwards),
        "first": int(counted.first),
        "padding_forwards": int(counted.padding_forwards),
        "elements": [[point, kind, int(count)] for (point, kind), count in counted.elements.items()],
        # Left out where gradients were not watched, so that those windows are written as they always were.
        **({"backwards": [int(counted.backwards), int(counted.first_backward)]} if counted.backwards or counted.first_backward else {}),
    }


def _point_entry(key: PointKey, point: PointWindow) -> dict[str, Any]:
    moments = point.moments
    check_pair("window", key, mean=moments.mean, m2=moments.m2)
    return {
        "layer": key[0],
        "point": key[1],
        "rows": int(moments.rows),
        "channels": len(moments.mean),
        **histograms.entry("window", key, point.histogram),
    }


def build(header: Header, arrays: Arrays) -> Window:
    """Return the window of a header and arrays; what they lack or do not fit is raised as one of `archive.DAMAGE`."""
    started, ended = arrays["times"].tolist()
    return Window(
        started=started,
        ended=ended,
        forwards=header["forwards"],
        sampled_forwards=header["sampled_forwards"],
        samples=header.get("samples", 0),  # the first release did not know them
        points=dict(_points(header["points"], arrays)),
        nonfinite={entry["layer"]: _nonfinite(entry) for entry in header["nonfinite"]},
        first_nonfinite=header["first_nonfinite"],
        blind=tuple(header["blind"]),
        thinned=header["thinned"],
    )


def _nonfinite(entry: Mapping[str, Any]) -> Nonfinite:
    backwards, first_backward = entry.get("backwards", (0, 0))
    return Nonfinite(
        forwards=entry["forwards"],
        first=entry["first"],
        padding_forwards=entry["padding_forwards"],
        elements={(point, kind): count for point, kind, count in entry["elements"]},
        backwards=backwards,
        first_backward=first_backward,
    )


def _points(entries: list[dict[str, Any]], arrays: Arrays) -> Iterator[tuple[PointKey, PointWindow]]:
    check_lengths(arrays, dict.fromkeys(("mean", "m2"), sum(entry["channels"] for entry in entries)))
    if arrays["sums"].shape != (len(entries), 3):
        raise ValueError(f"sums for {len(entries)} points expected, got shape {arrays['sums'].shape}")
    end = 0
    for entry, histogram, sums in zip(entries, histograms.split(entries, arrays), arrays["sums"].tolist(), strict=True):
        start, end = end, end + entry["channels"]
        moments = Moments(entry["rows"], arrays["mean"][start:end], arrays["m2"][start:end])
        yield (entry["layer"], entry["point"]), PointWindow(histogram, moments, *sums)
