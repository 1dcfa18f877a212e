"""What captured values tell of the arithmetic behind them: the kernel that made them, and the room that is left above them."""

from __future__ import annotations

from dataclasses import dataclass

from geluwatch.records.names import Alarm


@dataclass(frozen=True, slots=True)
class Parity:
    """How the values after one GELU compare with the formula that the model declares (see `geluwatch.core.parity`)."""

    declared: str
    """The site's formula: "erf", "tanh", "quick", or "other", which declares none."""
    dtype: str
    """Dtype of the values."""
    variant: str
    """The formula measured: "erf", "tanh", "quick", "other", or "" where the values cannot tell them apart."""
    precision: str
    """Dtype whose rounding explains the errors: the values' own, or a narrower one; "" where none does."""
    typical: float
    """Median error against the declared formula (the nearest one where none is declared), in units of last place."""
    most: float
    """Error that 99 % of the values keep to, in the same units."""
    largest: float
    """Largest error, in the same units."""
    absolute: float
    """Largest error as a plain difference."""
    values: int
    """Distinct inputs compared."""
    fault: str = ""
    """What was declared, what was measured and by how much it is off, in one sentence; empty where they agree."""


@dataclass(frozen=True, slots=True)
class Headroom:
    """How far the largest magnitude of a window at one (layer, point) lies below what its dtype can hold."""

    bits: float = float("nan")
    """Logarithm to base 2 of the dtype's largest value over the window's; NaN before a window with values."""
    windows: float = float("nan")
    """Windows until the values, or their squares where these come first, reach the limit at the rate of the last ones; NaN without a
    sure trend."""
    seconds: float = float("nan")
    """The same in seconds."""
    alarm: Alarm = ""
    """"ticket" where an overflow lies ahead, "page" where it is near."""
