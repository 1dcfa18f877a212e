"""Calls of GELU seen where torch dispatches them, whoever makes them: early-bound functions and fused layers alike.

A Python kernel stands in front of `aten::gelu` under a dispatch key that nothing else uses. It runs only in threads
that listen, hands on to the very kernel that would have run, and costs other operations nothing at all. A mode
(`TorchFunctionMode`) would see the same calls, but every other operation as well, and switch torch's fast paths off.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from types import FrameType
from typing import Any, Protocol

import torch

from geluwatch.tap._compat import tap_kernels, tapped, untapped


class Listener(Protocol):
    """Hears every call of GELU in a thread while it listens; nothing may be raised."""

    def before(self, frame: FrameType, values: torch.Tensor) -> Any:
        """Take what is needed of values that will be overwritten; what is returned comes back as `kept`."""
        ...

    def heard(self, frame: FrameType, pre: torch.Tensor | None, post: torch.Tensor, approximate: str, seconds: float, kept: Any) -> None:
        """Take note of a call: `pre` is None where it was overwritten, `frame` is the Python code that made it."""
        ...


Substitution = Callable[[torch.Tensor, str], torch.Tensor]
"""Computes something of the values that GELU was called with, and of its `approximate`."""


def own_kernel(values: torch.Tensor, approximate: str) -> torch.Tensor:
    """Return what torch's own kernel gives."""
    result: torch.Tensor = torch.ops.aten.gelu.default(values, approximate=approximate)
    return result


class _Ears(threading.local):
    """Who listens in this thread, the latest last, and what computes the values."""

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self.compute: Substitution = own_kernel
        self.held = 0
        """How many `substituted` this thread is in."""


_ears = _Ears()


def available() -> bool:
    """Return whether this torch lets calls be seen."""
    return tap_kernels({"gelu": _gelu, "gelu_": _gelu_})


def listen(listener: Listener) -> None:
    """Have a listener hear the calls of this thread from now on."""
    if listener not in _ears.listeners:
        _ears.listeners.append(listener)
    tapped(True)


def leave(listener: Listener) -> None:
    """Have it hear them no more; it may have stopped already."""
    if listener in _ears.listeners:
        _ears.listeners.remove(listener)
    if not _ears.listeners and not _ears.held:
        tapped(False)


@contextmanager
def substituted(compute: Substitution) -> Iterator[None]:
    """Have another function compute what this thread calls GELU for; listeners hear its values.

    Calls of GELU that the function makes itself are torch's own. With `own_kernel` nothing changes but the way that calls take.
    """
    before, _ears.compute = _ears.compute, compute
    _ears.held += 1
    tapped(True)
    try:
        yield
    finally:
        _ears.compute = before
        _ears.held -= 1
        tapped(_ears.held > 0 or bool(_ears.listeners))


def _gelu(values: torch.Tensor, *, approximate: str = "none") -> torch.Tensor:
    with untapped():
        if not _ears.listeners:  # a thread of torch's own, which inherits the key but not its listeners
            return _ears.compute(values, approximate)
        began = perf_counter()
        result = _ears.compute(values, approximate)
        seconds = perf_counter() - began
        frame = sys._getframe(1)  # noqa: SLF001
        for listener in tuple(_ears.listeners):
            listener.heard(frame, values, result, approximate, seconds, None)
        return result


def _gelu_(values: torch.Tensor, *, approximate: str = "none") -> torch.Tensor:
    with untapped():
        if not _ears.listeners:
            return _hand_on_in_place(values, approximate)
        frame = sys._getframe(1)  # noqa: SLF001
        listeners = tuple(_ears.listeners)
        kept = [listener.before(frame, values) for listener in listeners]
        began = perf_counter()
        result = _hand_on_in_place(values, approximate)
        seconds = perf_counter() - began
        for listener, mine in zip(listeners, kept, strict=True):
            listener.heard(frame, None, result, approximate, seconds, mine)
        return result


def _hand_on_in_place(values: torch.Tensor, approximate: str) -> torch.Tensor:
    if _ears.compute is not own_kernel:
        return values.copy_(_ears.compute(values, approximate))
    result: torch.Tensor = torch.ops.aten.gelu_.default(values, approximate=approximate)
    return result
