"""Kernel parity: does what came out of a GELU agree with the formula that the model declares, in the precision of its dtype?

Paired values are compared with each formula in float64. An error is counted in units of

    ulp_d(f(x)) + ulp_float32(x)

for a dtype d: the spacing of the values that the result is stored in, and what a float32 kernel loses where 1 + erf(x)
cancels, which is a share of x and not of f(x). Work in a narrower dtype than the declared one rounds x as well, which moves
the result by |f'(x)| ulp(x). A formula spelled out operation by operation in 16 bits loses shares of x, since it rounds
1 + tanh to that dtype before it multiplies; its unit is ulp_d(x).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, ndtr

from geluwatch.records import Floats, Parity

Singles = npt.NDArray[np.float32]

LEAST_VALUES = 64
"""Fewer distinct inputs than this tell nothing."""

# Magnitudes looked at: those that tell the formulas apart, and none whose result a float16 kernel may flush to zero.
_SMALLEST, _LARGEST = 2.0**-6, 4.0

# Bits of the significand, the hidden one included, and exponent of the smallest normal number; rows are float32 at best.
_FORMATS = {"float64": (24, -126), "float32": (24, -126), "float16": (11, -14), "bfloat16": (8, -126)}
_NARROWER = {"float64": ("float16", "bfloat16"), "float32": ("float16", "bfloat16"), "float16": ("bfloat16",), "bfloat16": ()}

# Rounding errors are bounded, so nearly all values have to keep to the bound. Kernels in use stay below 2.5 units in their own
# dtype and 0.9 of the coarser units; the nearest wrong formula that is not told otherwise needs 2.3 of those.
_SHARE = 0.98
_BOUND, _COARSE_BOUND = 8.0, 1.25
# Where two formulas lie a unit apart, one is ruled out if its mean square error is four times the other's and the other's is that
# of a result rounded once. A formula spelled out in 16 bits has larger ones, and they lean one way.
_APART, _LEAST_APART, _RATIO, _ONCE = 1.0, 32, 4.0, 1.0

_FORMULAS: Mapping[str, Callable[[Floats], Floats]] = {
    "erf": lambda x: x * ndtr(x),
    "tanh": lambda x: 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3))),
    "quick": lambda x: x * expit(1.702 * x),
}


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Distinct inputs, their outputs, and for each formula its values and the errors against it; all (n,)."""

    x: Floats
    post: Floats
    exact: Mapping[str, Floats]
    errors: Mapping[str, Floats]


def choose(pre: Singles, post: Singles, most: int) -> tuple[Singles, Singles]:
    """Return at most so many pairs of values that can tell something, spread evenly over the rows and channels of (n, C) arrays."""
    flat, after = pre.reshape(-1), post.reshape(-1)
    # A step that shares no factor with the number of channels visits all of them in turn.
    step = max(1, flat.size // (4 * most))
    while step > 1 and np.gcd(step, pre.shape[-1]) > 1:
        step += 1
    flat, after = flat[::step], after[::step]
    magnitude = np.abs(flat)
    kept = np.flatnonzero((magnitude >= _SMALLEST) & (magnitude <= _LARGEST) & np.isfinite(after))
    kept = kept[:: max(1, -(-kept.size // most))]
    return flat[kept], after[kept]


def compare(pre: Singles, post: Singles, dtype: str, declared: str) -> Parity | None:
    """Say which formula a kernel computed, in which precision, and how far off it was.

    Args:
        pre: Inputs (n,), as `choose` gives them.
        post: The outputs that the model gave for them.
        dtype: The tensors' own dtype.
        declared: The site's formula: "erf", "tanh", "quick", or "other".

    Returns:
        What was measured, or None where the values tell nothing: too few of them differ, or they were changed in place.
    """
    found = _distinct(pre, post)
    if found is None:
        return None
    units = _ulp(found.x, "float32")
    variant, precision, agrees = _measure(found, dtype, declared)
    against = declared if declared in _FORMULAS else min(_FORMULAS, key=lambda name: _square(found.errors[name] / units))
    errors = found.errors[against] / (_ulp(found.exact[against], dtype) + units)
    typical, most = (float(value) for value in np.quantile(errors, [0.5, 0.99]))
    absolute = float(found.errors[against].max())
    fault = ""
    if not agrees and declared in _FORMULAS:
        fault = _sentence(declared, dtype, variant, precision, most, absolute)
    return Parity(declared, dtype, variant, precision, typical, most, float(errors.max()), absolute, found.x.size, fault)


def _sentence(declared: str, dtype: str, variant: str, precision: str, most: float, absolute: float) -> str:
    if variant == "other":
        measured = "none of the known formulas, in whatever precision"
    elif precision != dtype:
        measured = f"{f'{variant} with ' if variant else ''}errors of the size of {precision}'s"
    else:
        measured = variant
    return f"declared {declared} in {dtype}, measured {measured}: off by up to {absolute:.2g}, {most:.3g} units of last place"


def _distinct(pre: Singles, post: Singles) -> _Pairs | None:
    """Return the pairs to compare, one for each input, without outputs that are held at a bound or were changed afterwards."""
    if pre.size < LEAST_VALUES or (pre == post).all():
        return None  # equal: the input was overwritten
    zero = post == 0
    if min(zero[pre < 0].mean() if (pre < 0).any() else 0.0, zero[pre > 0].mean() if (pre > 0).any() else 0.0) > 0.01:
        return None  # dropped out: zeros on both sides of zero, where no GELU has any, and the rest scaled
    inputs, places = np.unique(pre, return_index=True)
    x, after = inputs.astype(np.float64), post[places].astype(np.float64)
    low, high = after.min(), after.max()
    erf = _FORMULAS["erf"](x)
    clipped = ((after == high) & (erf > high) & ((after == high).sum() > 1)) | ((after == low) & (erf < low) & ((after == low).sum() > 1))
    x, after = x[~clipped], after[~clipped]
    if x.size < LEAST_VALUES:
        return None
    exact = {name: formula(x) for name, formula in _FORMULAS.items()}
    return _Pairs(x, after, exact, {name: np.abs(after - values) for name, values in exact.items()})


def _measure(found: _Pairs, dtype: str, declared: str) -> tuple[str, str, bool]:
    """Return the formula and the precision that explain the values, and whether that is what was declared."""
    once = _once(found, dtype)
    fits = _fits(found, once, _BOUND)
    spelled_out = _fits(found, _shares(found, dtype), _COARSE_BOUND)
    # Errors too large for one rounding may be the declared formula's, spelled out, though another happens to lie closer.
    if fits and (declared not in set(spelled_out) - set(fits) or min(_square(found.errors[name] / once[name]) for name in fits) < _ONCE):
        left = _not_ruled_out(found, fits, once)
        return _named(found, left, declared), dtype, declared in left
    if spelled_out:
        return _named(found, spelled_out, declared), dtype, declared in spelled_out
    slope = np.abs(ndtr(found.x) + found.x * np.exp(-0.5 * found.x**2) / np.sqrt(2.0 * np.pi))
    for narrower in _NARROWER[dtype]:
        moved = slope * _ulp(found.x, narrower)
        units = {name: unit + moved for name, unit in _once(found, narrower).items()}
        left = _not_ruled_out(found, _fits(found, units, _COARSE_BOUND), units)
        left = left or _fits(found, _shares(found, narrower), _COARSE_BOUND)
        if left:
            return _named(found, left, declared), narrower, False
    return "other", "", False


def _once(found: _Pairs, dtype: str) -> Mapping[str, Floats]:
    """Return the unit of each formula's errors where the result is rounded once, to a dtype."""
    single = _ulp(found.x, "float32")
    return {name: _ulp(values, dtype) + single for name, values in found.exact.items()}


def _shares(found: _Pairs, dtype: str) -> Mapping[str, Floats]:
    """Return the unit of each formula's errors where every operation is rounded to a dtype."""
    return dict.fromkeys(found.exact, _ulp(found.x, dtype))


def _fits(found: _Pairs, units: Mapping[str, Floats], bound: float) -> list[str]:
    """Return the formulas against which nearly all errors keep to a bound, in their units."""
    return [name for name, errors in found.errors.items() if (errors <= bound * units[name]).mean() >= _SHARE]


def _not_ruled_out(found: _Pairs, fits: list[str], units: Mapping[str, Floats]) -> list[str]:
    """Return the formulas that no other one beats clearly at the inputs where the two differ."""
    return [name for name in fits if not any(_beaten(found, name, other, units) for other in fits)]


def _beaten(found: _Pairs, name: str, other: str, units: Mapping[str, Floats]) -> bool:
    apart = np.abs(found.exact[name] - found.exact[other]) >= _APART * units[other]
    if apart.sum() < _LEAST_APART:
        return False
    own, theirs = (_square(found.errors[each][apart] / units[each][apart]) for each in (name, other))
    return own > _RATIO * theirs and theirs < _ONCE


def _named(found: _Pairs, left: list[str], declared: str) -> str:
    """Return the one formula left, nothing where it may be the declared one or another, else the nearest."""
    if len(left) > 1 and declared in (*left, "other"):
        return ""
    return min(left, key=lambda name: _square(found.errors[name]))


def _square(errors: Floats) -> float:
    return float(np.mean(errors**2))


def _ulp(values: Floats, dtype: str) -> Floats:
    """Return the spacing of a dtype's values at some magnitudes."""
    bits, smallest = _FORMATS[dtype]
    exponents = np.frexp(values)[1] - 1
    spacing: Floats = np.ldexp(1.0, np.maximum(exponents, smallest) - bits + 1)
    return spacing
