"""Hooks on modules that call GELU as a function: whose calls are heard now, in eager code and in compiled code.

Eager calls are heard where torch dispatches them (see `ear`). In compiled code there are neither frames nor dispatch;
there a mode, traced with the forward, leaves a call behind.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from geluwatch.tap import compiled, dispatch, look
from geluwatch.tap._compat import (
    called_by_compiler,
    compiled_in_place,
    enter_function_mode,
    leave_function_mode,
    note_trace,
    recorded_anew,
    rerun,
)
from geluwatch.tap.calls import is_gelu
from geluwatch.tap.ear import Ear
from geluwatch.tap.hook import Hook
from geluwatch.tap.owner import Owner
from geluwatch.tap.shared import Tap
from geluwatch.tap.state import ThreadState, wait_for

_UNHEARD = "called in compiled code where its calls do not show: in a checkpoint, say, or compiled from elsewhere than the watched model"
_ORDER = "the calls of its forward cannot be told apart in compiled code: it made {} where {} were known"


class CallMode(TorchFunctionMode):
    """While a forward is compiled, it leaves a call behind each GELU in the compiled code; otherwise it does nothing.

    It is entered outside of what is compiled, for entering it inside would be a side effect, which checkpoints refuse.
    """

    def __init__(self, tap: Tap) -> None:
        super().__init__()
        self._tap = tap
        self.token = compiled.token_of(self, tap.config)

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Call a function of torch, and speak where it is a GELU in code that is being compiled."""
        result = func(*args, **(kwargs or {}))
        if torch.compiler.is_compiling() and is_gelu(func):
            values = args[:1] or (kwargs or {}).get("input")
            values = values if isinstance(values, tuple) else (values,)
            if compiled.can_speak(self.token, values, result):
                torch.ops.geluwatch.speak(self.token, values[0], result)
        return result

    def spoken(self, first: torch.Tensor | None, second: torch.Tensor | None) -> None:
        """Watch a call in compiled code. Calls come in the order in which the code makes them, and that is all that tells them apart."""
        tap = self._tap
        state = tap.state()
        # A module's own call is the module's to tell. What is looked at is looked at now: its memory is used again right after.
        if tap.closed or rerun() or state.inside or not state.made or first is None or second is None:
            return
        tap.follow_traces()
        sites, made = state.owners[-1].ordered, state.made[-1]
        state.made[-1] += 1
        if len(sites) == 1 or made < len(sites):
            look.see(tap, state, sites[made if len(sites) > 1 else 0], (first,), second, training=False, relay=False)

    def failed(self, error: Exception) -> None:
        """Count a failure."""
        self._tap.breaker.trip("guard", error)


class OwnerBegin(Hook):
    """Forward pre-hook of a module with own calls: what is heard from now on is its."""

    def __init__(self, tap: Tap, ear: Ear, owner: Owner) -> None:
        super().__init__(tap)
        self.ear, self.owner = ear, owner
        self.token = compiled.token_of(self, tap.config)

    def __call__(self, module: nn.Module, _args: tuple[Any, ...]) -> None:
        """Do so, when torch calls the hook."""
        if torch.compiler.is_compiling():
            note_trace()
            compiled.say(self.token)
            return
        try:
            if _deaf(self.tap):
                return
            state = self.tap.state()
            if not state.depth and self.owner in state.owners:  # left by a part that was called by itself, and raised
                del state.owners[state.owners.index(self.owner) :]
                state.listening = len(state.owners)
            state.owners.append(self.owner)
            begin(state, self.ear)
            if (self.tap.compiled or compiled_in_place(module)) and not rerun() and called_by_compiler():
                self._enter(state)
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            self.tap.breaker.trip("guard", error)

    def _enter(self, state: ThreadState) -> None:
        """Enter the mode in a pass, whose end leaves it though the forward raise; a part called by itself is blind, for nothing would."""
        if state.depth and not state.spoken:
            enter_mode(state, self.ear)
            return
        for site in self.owner.ordered:
            self.tap.unwatchable[site] = _UNHEARD
            self.tap.called.discard(site)

    def spoken(self, _first: torch.Tensor | None, _second: torch.Tensor | None) -> None:
        """Begin to count the calls of one forward in compiled code."""
        if not self.tap.closed and not rerun():
            state = self.tap.state()
            state.owners.append(self.owner)
            state.made.append(0)


class OwnerEnd(Hook):
    """Forward hook of such a module. Not called when it raised: hooks that are would be guarded by their numbers in compiled code."""

    def __init__(self, tap: Tap, ear: Ear, owner: Owner) -> None:
        super().__init__(tap)
        self.ear, self.owner = ear, owner
        self.token = compiled.token_of(self, tap.config)

    def __call__(self, _module: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
        """Do so, when torch calls the hook."""
        if torch.compiler.is_compiling():
            compiled.say(self.token)
            return
        try:
            if _deaf(self.tap):
                return
            state = self.tap.state()
            # Put on in the middle of a forward, it ends what it has not begun.
            if self.owner in state.owners and (state.owners[-1] is self.owner or not state.made):
                self._leave(state)
                if state.mode is not None and len(state.owners) < state.entered:
                    leave_mode(state)
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            self.tap.breaker.trip("guard", error)

    def _leave(self, state: ThreadState) -> None:
        """Leave the owner, and those of its parts that raised, which it has caught."""
        left = None
        while left is not self.owner:
            left = state.owners.pop()
            end(state, self.ear)

    def spoken(self, _first: torch.Tensor | None, _second: torch.Tensor | None) -> None:
        """Check that the calls of one forward in compiled code were those that were known."""
        tap = self.tap
        state = tap.state()
        if tap.closed or rerun() or not state.made or state.owners[-1] is not self.owner:
            return
        state.owners.pop()
        made, sites = state.made.pop(), self.owner.ordered
        if not made or (len(sites) > 1 and made != len(sites)):
            for site in sites:
                tap.unwatchable[site] = _ORDER.format(made, len(sites)) if made else _UNHEARD
                tap.called.discard(site)


def _deaf(tap: Tap) -> bool:
    """Return whether a forward is not listened to: a recomputation, unless gradients are wanted of its graph, which is the only one."""
    return rerun() and (tap.gradients is None or not recorded_anew())


def begin(state: ThreadState, ear: Ear) -> None:
    """Listen in this thread, once however often it is asked."""
    state.listening += 1
    if state.listening == 1:
        dispatch.listen(ear)


def end(state: ThreadState, ear: Ear, *, wholly: bool = False) -> None:
    """Listen no more, once it has been said as often as `begin`, or `wholly`."""
    state.listening = 0 if wholly else max(state.listening - 1, 0)
    if not state.listening:
        dispatch.leave(ear)
    if wholly:
        leave_mode(state)


def enter_mode(state: ThreadState, ear: Ear) -> None:
    """Enter the mode in this thread, until the pass, or the outermost module that entered it, ends."""
    mode = ear.mode
    if mode is not None and state.mode is None and mode.token is not None:
        state.mode, state.entered = mode, len(state.owners)
        enter_function_mode(mode)


def leave_mode(state: ThreadState) -> None:
    """Leave the mode, where it was entered; this thread's alone can be left."""
    if state.mode is not None:
        # Noted last: an interrupt in between must not make it forgotten.
        leave_function_mode(state.mode)
        state.mode = None


def close(ear: Ear, own: ThreadState | None, others: Iterable[ThreadState]) -> None:
    """Have no pass enter the mode any more; the hooks leave it in their own thread only, so passes under way are waited for."""
    ear.mode = None
    if own is not None:
        leave_mode(own)
    wait_for(others, lambda state: state.mode is not None)
