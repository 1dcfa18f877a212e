"""The words and array types that records share."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Point = Literal["pre", "post"]
POINTS: tuple[Point, Point] = ("pre", "post")

STATISTICS = ("score", "shift", "scale", "largest")
"""What is computed of each window at each (layer, point) and horizon, in order (see `geluwatch.core.score`)."""

State = Literal["observed", "blind"]
Verdict = Literal["blind", "warming", "ok", "ticket", "page"]
VERDICTS: tuple[Verdict, ...] = ("blind", "warming", "ok", "ticket", "page")

Alarm = Literal["", "ticket", "page"]
Gross = Literal["", "dead", "impossible"]

PointKey = tuple[str, Point]
"""(layer, point), for example ("encoder.layer.3.intermediate.intermediate_act_fn", "pre")."""

Ints = npt.NDArray[np.int64]
Cells = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
