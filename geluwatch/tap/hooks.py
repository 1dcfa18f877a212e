"""Hooks on the root of a model: a forward pass begins and ends."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from geluwatch.tap import compiled, functional, padding
from geluwatch.tap._compat import Traces, called_by_compiler, calls_under_way, compiled_before, compiler_loaded, note_trace, rerun, unseen
from geluwatch.tap.ear import Ear
from geluwatch.tap.hook import Hook
from geluwatch.tap.shared import Tap
from geluwatch.tap.state import ThreadState

_LEARNING_PASSES = 3
"""Learning ends with the first pass that returns something, at the latest with this one."""


class RootBegin(Hook):
    """Forward pre-hook of the root: a forward pass begins."""

    def __init__(self, tap: Tap, ear: Ear) -> None:
        super().__init__(tap)
        self.ear = ear
        self.mask_position = tap.mask_position
        self.token = compiled.token_of(self, tap.config)

    # Hooks with a flag (kwargs) are put on and taken off in two steps, and a pass between them calls without the flag's argument.
    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
        """Do so, when torch calls the hook."""
        if torch.compiler.is_compiling():
            note_trace()
            first = padding.first_tensor(args, kwargs or {})
            if first is not None and compiled.can_speak(self.token, (first,), first):
                torch.ops.geluwatch.speak(self.token, first, padding.mask_argument(args, kwargs or {}, self.mask_position))
            return
        tap = self.tap
        try:
            if rerun() or not tap.breaker.allows("root"):
                return
            if tap.traces != Traces.count:
                tap.follow_traces()
            state = tap.state()
            if state.depth:
                self._mend(state, module)
            self._begin(state, module, args, kwargs or {}, sampled=None)
            state.whole = called_by_compiler() if tap.compiled or self.ear.mode is not None else False
            if state.whole and self.ear.mode is not None:
                functional.enter_mode(state, self.ear)
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            tap.breaker.trip("root", error)

    def spoken(self, first: torch.Tensor | None, mask: torch.Tensor | None) -> None:
        """Begin a pass of compiled code, which knows its first tensor and its mask; the user's own mask function it cannot call."""
        tap = self.tap
        try:
            if tap.closed or rerun() or not tap.breaker.allows("root"):
                return
            state = tap.state()
            if state.depth == 1 and state.spoken:  # cut off without its end
                state.depth = 0
                functional.end(state, self.ear, wholly=True)
                state.end()
            self._begin(state, None, (first,), {padding.ARGUMENT: mask}, sampled=False if tap.config.padding else None)
            state.spoken = state.whole = state.depth == 1
        except Exception as error:  # noqa: BLE001  # nothing may reach the model
            tap.breaker.trip("root", error)

    def _begin(
        self, state: ThreadState, module: nn.Module | None, args: tuple[Any, ...], kwargs: dict[str, Any], *, sampled: bool | None
    ) -> None:
        tap = self.tap
        state.depth += 1
        if state.depth > 1:
            return
        if state.replay is not None:
            sampled = True
        elif tap.inputs is not None and module is not None:
            tap.offer(args, kwargs)
        state.begin(args, kwargs, sampled=tap.pacer.take(tap.clock.monotonic()) if sampled is None else sampled)
        if tap.profiling.wanted:
            tap.profiling.begin(state)
        state.meter.begin()
        # Asked in the order of what they cost: most passes end with the first two.
        if self.ear.has_fused or ((state.sampled or tap.learning) and tap.hears and self._may_listen(state, module)):
            functional.begin(state, self.ear)
            state.timed = state.sampled
        state.plain = not (state.sampled or state.listening or tap.learning or tap.gradients or tap.breaker.disabled)

    def _may_listen(self, state: ThreadState, module: nn.Module | None) -> bool:
        """Return whether this pass may be listened to although others are not.

        Compiled code guards the dispatch keys of the thread that it was compiled in: where they come and go, it is
        compiled again. So passes are picked out only where there is no compiler, or to learn, where nothing is compiled.
        """
        if state.sampled and not compiler_loaded():
            return True
        return self.tap.learning and module is not None and not (called_by_compiler() or compiled_before(module))

    def _mend(self, state: ThreadState, module: nn.Module) -> None:
        """Finish a pass that was cut off without its end hook: torch runs none on KeyboardInterrupt and its like."""
        outer = max(calls_under_way(module) - 1, 0)
        if outer < state.depth:
            state.depth = outer
            if not outer:
                functional.end(state, self.ear, wholly=True)
                state.end()


class RootEnd(Hook):
    """Forward hook of the root, called also when the forward raised: the pass ends."""

    def __init__(self, tap: Tap, ear: Ear) -> None:
        super().__init__(tap)
        self.ear = ear
        self.token = compiled.token_of(self, tap.config)

    def __call__(self, _module: nn.Module, args: tuple[Any, ...], *rest: Any) -> None:
        """Do so, when torch calls the hook."""
        if torch.compiler.is_compiling():
            note_trace()
            first = padding.first_tensor(args, rest[0] if len(rest) > 1 else {})
            if first is not None and compiled.can_speak(self.token, (first,), first):
                torch.ops.geluwatch.speak(self.token, None, None)
            return
        self._ended(raised=rest[-1] is None)

    def spoken(self, _first: torch.Tensor | None, _second: torch.Tensor | None) -> None:
        """End a pass of compiled code."""
        self._ended(raised=False)

    def _ended(self, *, raised: bool) -> None:
        tap = self.tap
        try:
            if rerun():
                return
            state = tap.state()
            if state.depth > 1:
                state.depth -= 1
            elif state.depth == 1:
                self._end(tap, state, raised=raised)
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            tap.breaker.trip("root", error)

    def _end(self, tap: Tap, state: ThreadState, *, raised: bool) -> None:
        if state.replay is not None:
            functional.end(state, self.ear, wholly=True)
            state.end()
            return
        tap.measure(state, *state.call)
        if state.profile is not None:
            tap.profiling.end(state)
        try:
            if state.listening or state.mode is not None:
                functional.end(state, self.ear, wholly=True)
            if state.pending is not None:
                with unseen():
                    tap.settle(state, missed=not raised)
            if state.away:
                with unseen():
                    tap.device_guard.end_pass()
                    for captured in tap.device_rows.arrived():
                        tap.keep(state, captured)
            if tap.compiled and not raised:
                state.count_met()
            if state.sampled:
                hold = min(tap.config.flush_seconds, 1.0) if state.cramped else 0.0
                tap.pacer.spent(tap.clock.monotonic(), state.spent, state.had, state.taken, hold)
        finally:
            state.end()
            tap.learning = tap.learning and raised and state.counters.forwards < _LEARNING_PASSES
            state.counters.last_forward = tap.clock.time()
