"""The stored form of a baseline's calm scores (see `geluwatch.store.codec.archive` for the container).

==============  =================  ==========================================================================================
entry           kind               content
==============  =================  ==========================================================================================
`header.json`                      `statistics`, `keys`, a list of [layer, point], `horizons` and `every` where it is not 1
`ended.npy`     column of float64  when each window ended
`scores.npy`    column of float32  by statistic, then point, then horizon, then window: one of these series after the other
==============  =================  ==========================================================================================
"""

from __future__ import annotations

import numpy as np

from geluwatch.errors import BaselineError
from geluwatch.records import STATISTICS, Calm
from geluwatch.store.codec.archive import Arrays, Format, Header

# Statistics that this release computes, and those that earlier ones did.
_KNOWN = (len(STATISTICS), 3)

FORMAT = Format("geluwatch-calm", 1, {"ended": "<f8", "scores": "<f4"})


def encode_calm(calm: Calm) -> bytes:
    """Return calm scores as bytes, in the format of this module's docstring.

    Raises:
        BaselineError: There is not one value for each window, statistic, point and horizon.
    """
    count = calm.scores.shape[1] if calm.scores.ndim == 4 and calm.scores.shape[1] in _KNOWN else len(STATISTICS)
    expected = (calm.ended.size, count, len(calm.keys), len(calm.horizons))
    if calm.ended.ndim != 1 or calm.scores.shape != expected:
        raise BaselineError(
            f"The calm scores cannot be stored: scores of shape {calm.scores.shape} do not belong to {expected[0]} windows, "
            f"{expected[1]} statistics, {expected[2]} points and {expected[3]} horizons."
        )
    header = {
        "statistics": list(STATISTICS[:count]),
        "keys": [list(key) for key in calm.keys],
        "horizons": [int(horizon) for horizon in calm.horizons],
        **({} if calm.every == 1 else {"every": int(calm.every)}),
    }
    # One series lies together, since its neighbours resemble each other: smaller by a tenth.
    return FORMAT.write(header, {"ended": calm.ended, "scores": np.moveaxis(calm.scores, 0, -1).ravel()})


def decode_calm(payload: bytes, name: str = "The calm scores") -> Calm:
    """Return the scores that `encode_calm` wrote.

    Raises:
        StoreError: The bytes are damaged, are no calm scores, or were written by a newer release.
    """
    return FORMAT.read(payload, name, _calm)


def _calm(header: Header, arrays: Arrays) -> Calm:
    keys = tuple((layer, point) for layer, point in header["keys"])
    horizons, ended = tuple(header["horizons"]), arrays["ended"]
    series = arrays["scores"].reshape(len(header["statistics"]), len(keys), len(horizons), len(ended))
    return Calm(keys, horizons, ended, np.ascontiguousarray(np.moveaxis(series, -1, 0)), header.get("every", 1))
