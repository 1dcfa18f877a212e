"""What is put in the place of a model's GELUs, and of the model itself."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from geluwatch.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from geluwatch.tap.substitute import Activation

REACH = 6.0
"""A lookup table reaches from minus this to this; beyond, GELU is 0 or its input, to 6e-9."""

STEEPEST = 2.0 / math.sqrt(2.0 * math.pi)
"""Largest second derivative of GELU, 2 phi(0), at 0."""

_FEWEST_ENTRIES, _MOST_ENTRIES = 16, 65536


def table_error(entries: int) -> float:
    """Return the bound on the error of a lookup table with linear interpolation, in exact arithmetic.

    Between nodes h apart a chord is at most h^2 / 8 of the largest second derivative away from its function (any text on numerical
    analysis); beyond the table the error is at most x Phi(-x) at its end.
    """
    step = 2 * REACH / (entries - 1)
    return max(step**2 / 8 * STEEPEST, REACH * 0.5 * math.erfc(REACH / math.sqrt(2.0)))


def check_entries(entries: int) -> int:
    """Return a number of entries that a table can have.

    Raises:
        ConfigError: It is none.
    """
    if isinstance(entries, bool) or not isinstance(entries, int) or not _FEWEST_ENTRIES <= entries <= _MOST_ENTRIES:
        raise ConfigError(f"table_entries must be a whole number from {_FEWEST_ENTRIES} to {_MOST_ENTRIES}, got {entries!r}.")
    return entries


def activations(entries: int) -> Mapping[str, tuple[str, Activation]]:
    """Return by name what stands in place of each GELU: what it is, and the function."""
    import torch
    from torch.nn import functional

    def tanh(values: torch.Tensor) -> torch.Tensor:
        return functional.gelu(values, approximate="tanh")

    def quick(values: torch.Tensor) -> torch.Tensor:
        return values * torch.sigmoid(1.702 * values)

    about = f"a table of {entries} entries from {-REACH:g} to {REACH:g}, linear in between, error at most {table_error(entries):.1e}"
    return {
        "tanh": ("the tanh form of GELU, torch's own kernel", tanh),
        "quick": ("the sigmoid form, x sigmoid(1.702 x)", quick),
        "relu": ("max(x, 0)", functional.relu),
        "table": (about, _table(entries)),
    }


def exact() -> tuple[str, Activation]:
    """Return the erf form, for models whose own is another."""
    from torch.nn import functional

    return "the erf form of GELU, torch's own kernel", functional.gelu


def _table(entries: int) -> Activation:
    """Return GELU from a table in float32, read in whatever dtype values come in; it is put on their device once."""
    import torch
    from torch.nn import functional

    nodes = torch.linspace(-REACH, REACH, entries, dtype=torch.float64)
    heights = functional.gelu(nodes)
    slopes = torch.cat([heights.diff(), heights.new_zeros(1)])
    held: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = {}
    scale = (entries - 1) / (2 * REACH)

    def look_up(values: torch.Tensor) -> torch.Tensor:
        if values.device not in held:
            held[values.device] = heights.to(values.device, torch.float32), slopes.to(values.device, torch.float32)
        height, slope = held[values.device]
        # A NaN has no place in the table: it takes the first, and comes out as what it is, by its distance from it.
        place = ((values.float() + REACH) * scale).clamp(0, entries - 1)
        index = place.nan_to_num(0.0).long()
        inside = height[index] + slope[index] * (place - index)
        return torch.where(values > REACH, values, inside.to(values.dtype))

    return look_up


def quantised(model: nn.Module) -> tuple[str, nn.Module]:
    """Return a copy of a model with the weights of its linear layers in int8, and what it is.

    Raises:
        ConfigError: This torch, this device or this model has no such copy.
    """
    import torch
    from torch import nn

    device = next((each.device for each in model.parameters()), torch.device("cpu"))
    if device.type != "cpu":
        raise ConfigError(f"torch's dynamic int8 quantisation runs on CPUs, and the model is on {device}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces that its quantisation moves to a package of its own
        try:
            made = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)  # type: ignore[no-untyped-call]
        except Exception as failure:
            raise ConfigError(f"this torch does not quantise the model: {type(failure).__name__}: {failure}") from failure
    for each in made.modules():
        if isinstance(each, nn.TransformerEncoderLayer):
            each.activation_relu_or_gelu = 0  # its fused path reads weights, which a quantised layer gives only when called
    dense = sum(type(each) is nn.Linear for each in model.modules())
    packed = sum(type(each).__module__.startswith("torch.ao.nn.quantized") for each in made.modules() if hasattr(each, "weight"))
    if not packed:
        raise ConfigError("the model has no nn.Linear that torch quantises")
    return f"weights of {packed} of {dense} linear layers in int8, their inputs quantised pass by pass", made


def check_variant(name: object, given: object) -> Callable[..., Any]:
    """Return a variant of the user's own.

    Raises:
        ConfigError: It has no name, or cannot be called.
    """
    if not isinstance(name, str) or not name:
        raise ConfigError(f"A variant's name must be a text that is not empty, got {name!r}.")
    if not callable(given):
        raise ConfigError(f"Variant {name!r} must be a function in place of GELU or a module, got {type(given).__name__}.")
    return given
