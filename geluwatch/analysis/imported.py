"""Functions of the user's, named on the command line as `package.module:function`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from geluwatch.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

FORM = "package.module:function"


def function(name: str) -> Callable[..., Any]:
    """Return a function by its name; modules are found in the working directory as well.

    Raises:
        ConfigError: The name is none, the module cannot be imported, or has no such function.
    """
    module, colon, path = name.partition(":")
    if not (colon and module and path):
        raise ConfigError(f"{name!r} does not name a function; give it as {FORM}.")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does, and a script that pip made does not
    try:
        found: Any = importlib.import_module(module)
    except Exception as failure:
        raise ConfigError(f"{module} of {name} cannot be imported: {_told(failure)}.") from failure
    for part in path.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise ConfigError(f"{module} has no {path}; give a function of it as {FORM}.")
    if not callable(found):
        raise ConfigError(f"{name} is no function, but {type(found).__name__}; give one that returns it.")
    return found  # type: ignore[no-any-return]  # whatever it is


def result(name: str) -> Any:
    """Return what a function returns when it is called without arguments.

    Raises:
        ConfigError: There is no such function, or it raises.
    """
    called = function(name)
    try:
        return called()
    except Exception as failure:
        raise ConfigError(f"{name} failed when it was called without arguments: {_told(failure)}.") from failure


def model(name: str) -> nn.Module:
    """Return the model that a function returns.

    Raises:
        ConfigError: There is no such function, or it returns none.
    """
    from torch import nn

    found = result(name)
    if not isinstance(found, nn.Module):
        raise ConfigError(f"{name} returned {type(found).__name__}; it has to return a torch.nn.Module.")
    return found


def passes(name: str) -> list[Any]:
    """Return the inputs, or labels, that a function returns or yields, one for each forward pass.

    Raises:
        ConfigError: There is no such function, or what it returns cannot be gone through.
    """
    found = result(name)
    if not isinstance(found, Iterable):
        raise ConfigError(f"{name} returned {type(found).__name__}; it has to return something to go through, an entry for each pass.")
    try:
        return list(found)
    except Exception as failure:
        raise ConfigError(f"{name} failed on the way: {_told(failure)}.") from failure


def run(what: str, made: Callable[[], Any]) -> Any:
    """Run something that calls the user's code, and say in a sentence what failed in it.

    Raises:
        ConfigError: Something that is no error of ours was raised.
    """
    from geluwatch.errors import GeluwatchError

    try:
        return made()
    except GeluwatchError:
        raise
    except Exception as failure:
        raise ConfigError(f"{what} failed: {_told(failure)}.") from failure


def _told(failure: Exception) -> str:
    """Return an exception in one line."""
    text = " ".join(str(failure).split()).rstrip(".")
    return f"{type(failure).__name__}: {text}" if text else type(failure).__name__
