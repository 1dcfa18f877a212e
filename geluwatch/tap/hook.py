"""What all hooks share: they know their tap, and their copies do nothing.

No hook raises, waits for a device, or takes a lock. In a recomputation for a backward pass it stands aside; in code
that is being compiled it leaves a call of itself behind (see `compiled`).
"""

from __future__ import annotations

from contextlib import nullcontext
from types import MethodType
from typing import Any

from geluwatch.tap._compat import never_compiled_alone
from geluwatch.tap.shared import Tap


class Hook:
    """A hook whose copies do nothing: a deepcopy or pickle of a watched model is unwatched and independent."""

    def __init__(self, tap: Tap) -> None:
        self.tap = tap

    def __init_subclass__(cls) -> None:
        if "__call__" in vars(cls):
            never_compiled_alone(vars(cls)["__call__"].__code__)

    def failed(self, error: Exception) -> None:
        """Count a failure of the hook in compiled code."""
        self.tap.breaker.trip("guard", error)

    @property
    def __name__(self) -> str:
        """Have none: torch.jit.script asks for it, of functions that it is to compile, and shows its user what is raised."""
        raise AttributeError("torch.jit.script cannot compile the hooks of geluwatch: detach, script the model, and attach to it again")

    def __reduce__(self) -> tuple[Any, ...]:
        # Takes anything and returns None, and is the standard library's: a model saved while it was watched loads without geluwatch.
        # `inert` knows it again.
        return (getattr, (nullcontext(), "__exit__"))


def inert(hook: object) -> bool:
    """Return whether a hook is what a copy of a watched model has in place of ours."""
    return isinstance(hook, MethodType) and hook.__func__ is nullcontext.__exit__
