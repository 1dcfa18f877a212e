"""What a replay calls the model with: the inputs of a bundle, or a user's own, from a file or a function."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geluwatch.analysis import imported
from geluwatch.bundles.bundle import Bundle
from geluwatch.bundles.contents import REDACTED
from geluwatch.errors import IncidentError

if TYPE_CHECKING:
    from torch import nn

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments."""


def given(bundle: Bundle, model: nn.Module) -> Inputs:
    """Return the inputs of the failing pass, on the device of the model.

    Raises:
        IncidentError: The bundle does not hold them.
    """
    called = next((kept.called for kept in bundle.evidence if kept.called is not None and kept.called.whole), None)
    if called is None:
        raise IncidentError(wanting(bundle))
    device = next((parameter.device for parameter in model.parameters()), "cpu")
    args, kwargs = called.tree["args"], called.tree["kwargs"]
    return (
        tuple(_value(value, called.arrays, device) for value in args),
        {name: _value(value, called.arrays, device) for name, value in kwargs.items()},
    )


def wanting(bundle: Bundle) -> str:
    """Return what to say where a bundle does not hold the inputs of the failing pass."""
    if bundle.manifest["inputs"] == REDACTED:
        return (
            f"The inputs of the pass are not in {bundle.path}; give them with --inputs, or set Config(incident_inputs=True) and wait for "
            "the next bundle."
        )
    return f"The inputs of the pass are not in {bundle.path} ({bundle.manifest['inputs']}); give them with --inputs."


def _value(told: Mapping[str, Any], arrays: Mapping[str, Any], device: Any) -> Any:
    import torch

    if told["type"] == "tensor":
        return torch.from_numpy(arrays[told["array"]].copy()).to(device, getattr(torch, told["dtype"]))
    if told["type"] == "dict":
        return {name: _value(item, arrays, device) for name, item in told["items"].items()}
    if told["type"] in {"list", "tuple"}:
        items = [_value(item, arrays, device) for item in told["items"]]
        return tuple(items) if told["type"] == "tuple" else items
    return float(told["value"]) if told["type"] == "float" else told["value"]


def from_text(text: str) -> Inputs:
    """Return inputs named on a command line: an `.npz` file, or `package.module:function`.

    Arrays of a file are keyword arguments by their names, and positional ones where a name is a number. A function returns
    (args, kwargs), a mapping of keyword arguments, or the only argument.

    Raises:
        ConfigError: There is no such function, or it raises.
        IncidentError: The file cannot be read.
    """
    return from_file(Path(text)) if text.endswith(".npz") else from_value(imported.result(text))


def from_file(path: Path) -> Inputs:
    """Return the inputs in an `.npz` file.

    Raises:
        IncidentError: It cannot be read.
    """
    import torch

    try:
        # numpy leaves a file that it opened itself open where it is damaged.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
            tensors = {name: torch.from_numpy(found[name]) for name in found.files}
    except Exception as failure:  # noqa: BLE001  # of a damaged file zip, zlib, tokenize and numpy each raise something of their own
        raise IncidentError(f"{path} holds no inputs ({failure}); write one array for each argument with numpy.savez.") from None
    numbered = sorted((name for name in tensors if name.isdigit()), key=int)
    return tuple(tensors[name] for name in numbered), {name: value for name, value in tensors.items() if not name.isdigit()}


def from_value(value: Any) -> Inputs:
    """Return what a user's function gave as positional and keyword arguments."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], (tuple, list)) and isinstance(value[1], Mapping):
        return tuple(value[0]), dict(value[1])
    return ((), dict(value)) if isinstance(value, Mapping) else ((value,), {})
