"""The stored form of a span of the history: its window as a payload, its summary as JSON.

The payload is that of a window (see `geluwatch.store.codec.window`), but for `counts`: here, each count is its difference from the
one before, zigzagged (0, -1, 1, -2, ... become 0, 1, 2, 3, ...). Neighbouring cells hold about as many values, so that of a window
without moments a fifth less is left to store. Differences wrap around in 64 bits, so any counts come back exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from geluwatch.errors import StoreError
from geluwatch.records import PointSummary, Summary, Window
from geluwatch.store.codec import window as windows
from geluwatch.store.codec.archive import DAMAGE, Arrays, Format, Header, json_number

ADVICE = "it is left out, and goes when its time has come or `geluwatch history forget` is told so"
"""What becomes of a span that is damaged."""

FORMAT = Format("geluwatch-span", 1, windows.FORMAT.columns, windows.FORMAT.plain, advice=ADVICE, level=6)

SUMMARY_VERSION = 1

_SIGN = np.int64(63)


def encode_span(window: Window) -> bytes:
    """Return a span's window as bytes, in the format of this module's docstring.

    Raises:
        BaselineError: Arrays of one point do not belong together.
    """
    header, arrays = windows.parts(window)
    steps = np.diff(arrays["counts"], prepend=np.int64(0))
    return FORMAT.write(header, arrays | {"counts": (steps << 1) ^ (steps >> _SIGN)})


def decode_span(payload: bytes, name: str = "The span") -> Window:
    """Return the window that `encode_span` wrote.

    Raises:
        StoreError: The bytes are damaged, are no span, or were written by a newer release.
    """
    return FORMAT.read(payload, name, _build)


def _build(header: Header, arrays: Arrays) -> Window:
    zigzag = arrays["counts"].view(np.uint64)
    steps = (zigzag >> np.uint64(1)).view(np.int64) ^ -(zigzag & np.uint64(1)).view(np.int64)
    return windows.build(header, {**arrays, "counts": np.cumsum(steps)})


def encode_summary(summary: Summary) -> dict[str, Any]:
    """Return a summary as JSON values; points are rows of layer, point, evidence, ks, alarm and nonfinite."""
    points = [[*key, json_number(said.evidence), json_number(said.ks), said.alarm, said.nonfinite] for key, said in summary.points.items()]
    rest = {field.name: getattr(summary, field.name) for field in fields(summary)}
    return {"version": SUMMARY_VERSION, **rest, "points": points}


def decode_summary(stored: Mapping[str, Any], name: str = "The summary") -> Summary:
    """Return the summary that `encode_summary` wrote.

    Raises:
        StoreError: The values are no summary, or were written by a newer release.
    """
    try:
        version = stored["version"]
        if version == SUMMARY_VERSION:
            return _summary(**{field: value for field, value in stored.items() if field != "version"})
    except DAMAGE as failure:
        raise StoreError(f"{name} cannot be read ({type(failure).__name__}: {failure}); {ADVICE}.") from None
    found = f"stored as version {version} where this release knows version {SUMMARY_VERSION}"
    raise StoreError(f"{name} cannot be read, it is {found}; upgrade geluwatch.")


def _summary(points: list[Any], drifting: list[str], **rest: Any) -> Summary:
    said = {(layer, point): PointSummary(float(evidence), float(ks), *others) for layer, point, evidence, ks, *others in points}
    return Summary(points=said, drifting=tuple(drifting), **rest)
