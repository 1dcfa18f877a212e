"""What an application says of its own work: checked when it comes, added up over time and over processes."""

from __future__ import annotations

import math
import sys
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from numbers import Integral, Real

from geluwatch.errors import ConfigError
from geluwatch.records import Application

_LARGEST = sys.float_info.max
_MOST_AT_ONCE = 2**53
"""Up to here every count has a float of its own, which is what exporters send."""


def said(
    predictions: object = None,
    wrong: object = None,
    accuracy: object = None,
    quantized_accuracy_delta: object = None,
    cost_per_hour: object = None,
) -> Application:
    """Return what was said once, all of it checked.

    Only numbers are taken: a tensor may lie on a device, and to read it would wait for the model.

    Raises:
        ConfigError: A value is no number or out of its range.
    """
    application = Application(
        _count("predictions", predictions),
        _count("wrong", wrong),
        _between("accuracy", accuracy, 0.0, 1.0),
        _between("quantized_accuracy_delta", quantized_accuracy_delta, -1.0, 1.0),
        _between("cost_per_hour", cost_per_hour, 0.0, _LARGEST),
    )
    if (application.wrong or 0) > (application.predictions or 0):
        raise ConfigError(
            f"wrong must be at most predictions, got {wrong!r} of {predictions!r}; give both in one call, wrong ones counting in both."
        )
    return application


def added(have: Application, more: Application) -> Application:
    """Return what one process has said up to now: counts add up, of the rest the last holds."""
    return Application(
        _sum(have.predictions, more.predictions),
        _sum(have.wrong, more.wrong),
        have.accuracy if more.accuracy is None else more.accuracy,
        have.quantized_accuracy_delta if more.quantized_accuracy_delta is None else more.quantized_accuracy_delta,
        have.cost_per_hour if more.cost_per_hour is None else more.cost_per_hour,
    )


def together(left: Application, right: Application) -> Application:
    """Return what two processes have said: their costs add up as well."""
    costs = [each.cost_per_hour for each in (left, right) if each.cost_per_hour is not None]
    return replace(added(left, right), cost_per_hour=sum(costs) if costs else None)


def _sum(have: int | None, more: int | None) -> int | None:
    return have if more is None else (have or 0) + more


def _count(name: str, value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Integral) or not 0 <= int(value) <= _MOST_AT_ONCE:
        raise ConfigError(f"{name} must be a whole number from 0 to 2**53, got {_shown(value)}.")
    return int(value)


def _between(name: str, value: object, least: float, most: float) -> float | None:
    if value is None:
        return None
    number = math.nan
    if not isinstance(value, bool) and isinstance(value, (Real, Decimal)):
        with suppress(OverflowError):  # a whole number beyond all floats
            number = float(value)
    if not least <= number <= most:
        span = f"from {least:g} to {most:g}" if most < _LARGEST else f"of at least {least:g}"
        raise ConfigError(f"{name} must be a finite number {span}, got {_shown(value)}.")
    return number


def _shown(value: object) -> str:
    """Return a value for a message; of what is no plain number only the type, for to print a tensor would wait for its device."""
    return repr(value) if isinstance(value, (Real, Decimal, str)) else f"a {type(value).__name__}"
