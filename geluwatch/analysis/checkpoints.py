"""Weights from a file into a model, without running code that the file brings."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geluwatch.errors import AttachError, ConfigError, MissingPartError

if TYPE_CHECKING:
    from torch import nn

_INSIDE = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts keep the weights beside other things."""

_NAMED = 3
"""Names of tensors that a message has room for."""


def load_into(model: nn.Module, path: str | Path) -> nn.Module:
    """Return a copy of a model with the weights of a checkpoint: .safetensors, or what `torch.save` wrote of a state dictionary.

    Raises:
        ConfigError: The file cannot be read, holds no weights, or those of another model.
        AttachError: The model cannot be copied.
        MissingPartError: It is a .safetensors file and the package is not installed.
    """
    import copy

    state = _state(Path(path))
    try:
        loaded = copy.deepcopy(model)
    except Exception as failure:
        raise AttachError(f"This {type(model).__name__} cannot be copied: {type(failure).__name__}: {failure}.") from failure
    own = loaded.state_dict()
    state = {**state, **_tied(own, state)}
    for what, names in (("lacks", own.keys() - state.keys()), ("has, and the model lacks,", state.keys() - own.keys())):
        if names:
            raise ConfigError(f"{path} {what} {_listed(sorted(names))}; it belongs to another model than {type(model).__name__}.")
    for name, tensor in state.items():
        if tensor.shape != own[name].shape:
            raise ConfigError(
                f"{path} has {name} of shape {tuple(tensor.shape)}, the model {tuple(own[name].shape)}; it belongs to another."
            )
    # Assigned, not copied: the dtype of a checkpoint is part of what is compared.
    loaded.load_state_dict(dict(state), assign=True)
    return loaded


def _tied(own: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tensors that a checkpoint has by one of their names only, by the others: files of safetensors hold each once."""
    known = {(tensor.data_ptr(), tensor.shape): name for name, tensor in own.items() if name in state and tensor.numel()}
    same = {name: known.get((tensor.data_ptr(), tensor.shape)) for name, tensor in own.items() if name not in state}
    return {name: state[other] for name, other in same.items() if other is not None}


def _state(path: Path) -> Mapping[str, Any]:
    """Return the tensors of a file by name."""
    import torch

    if not path.is_file():
        raise ConfigError(f"{path} is no file; give a checkpoint.")
    try:
        found: Any = _safetensors(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except MissingPartError:
        raise
    except pickle.UnpicklingError:
        raise ConfigError(f"{path} holds more than tensors, and would have to run code to be read; save a state dictionary.") from None
    except Exception as failure:
        raise ConfigError(f"{path} is neither a file of safetensors nor a state dictionary of torch.save; give one of these.") from failure
    for key in _INSIDE:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not found or not all(isinstance(each, torch.Tensor) for each in found.values()):
        raise ConfigError(f"{path} holds {type(found).__name__}, and no tensors by name; save a state dictionary.")
    return found


def _safetensors(path: Path) -> Mapping[str, Any]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise MissingPartError(f"{path} takes the package safetensors, which is not installed; run: pip install safetensors") from None
    loaded: Mapping[str, Any] = load_file(path)
    return loaded


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
