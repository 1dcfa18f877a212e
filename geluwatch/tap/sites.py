"""Hooks on GELU modules and on the modules that share them."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn

from geluwatch.tap import compiled, look
from geluwatch.tap._compat import note_trace, rerun
from geluwatch.tap.ear import innermost
from geluwatch.tap.hook import Hook
from geluwatch.tap.rows import Formula
from geluwatch.tap.shared import Tap
from geluwatch.tap.state import ThreadState


class CallerBegin(Hook):
    """Forward pre-hook of a module that shares its GELU with others: the GELU's next calls are its."""

    def __init__(self, tap: Tap, group: int, site: int) -> None:
        super().__init__(tap)
        self.group, self.site = group, site
        self.token = compiled.token_of(self, tap.config)

    def __call__(self, _module: nn.Module, _args: tuple[Any, ...]) -> None:
        """Do so, when torch calls the hook."""
        if torch.compiler.is_compiling():
            compiled.say(self.token)
            return
        # The group is a site number, not the GELU's id: replicas of a module have other ids and the same hooks.
        self.tap.enter_caller(self.group, self.site)

    def spoken(self, _first: torch.Tensor | None, _second: torch.Tensor | None) -> None:
        """Do the same from compiled code."""
        if not self.tap.closed and not rerun():
            self.tap.enter_caller(self.group, self.site)


class CallerEnd(Hook):
    """Forward hook of such a module: the GELU's calls are the outer caller's again."""

    def __init__(self, tap: Tap, group: int, site: int) -> None:
        super().__init__(tap)
        self.group, self.site = group, site
        self.token = compiled.token_of(self, tap.config)

    def __call__(self, _module: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
        """Do so, when torch calls the hook."""
        if torch.compiler.is_compiling():
            compiled.say(self.token)
            return
        self.tap.leave_caller(self.group, self.site)

    def spoken(self, _first: torch.Tensor | None, _second: torch.Tensor | None) -> None:
        """Do the same from compiled code."""
        if not self.tap.closed and not rerun():
            self.tap.leave_caller(self.group, self.site)


def caller(tap: Tap, state: ThreadState, group: int) -> int:
    """Return whose call of a shared GELU runs: callers above it have raised, which the model has caught, so no hook told of their end."""
    callers = state.callers.get(group)
    if not callers:
        return group
    # Of calls that compiled code makes there are no frames.
    if len(callers) > 1 and not tap.compiled:
        running = innermost([tap.callers[site] for site in callers], sys._getframe())  # noqa: SLF001
        while running is not None and tap.callers[callers[-1]] != running:
            callers.pop()
    return callers[-1]


class SiteHook(Hook):
    """Forward hook of a GELU module."""

    def __init__(self, tap: Tap, site: int, *, shared: bool = False) -> None:
        super().__init__(tap)
        self.site, self.shared = site, shared
        self.brief = type(self) is SiteHook and not shared and not tap.clips[site]
        """Whether a finite output, or one that is left to its consumer, is all that has to be known of a call in a plain pass."""
        self.token = compiled.token_of(self, tap.config)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Do so, when torch calls the hook."""
        if torch.compiler.is_compiling():
            note_trace()
            if compiled.can_speak(self.token, args, output):
                torch.ops.geluwatch.speak(self.token, args[0], output)
            return
        if self.brief and look.plainly(self.tap, self.site, args, output, training=module.training):
            return
        self.called(args, output, training=module.training, relay=True)

    def spoken(self, first: torch.Tensor | None, second: torch.Tensor | None) -> None:
        """Watch a call in compiled code."""
        if not self.tap.closed and not rerun():
            self.tap.follow_traces()
            self.tap.state().inside = False
            if not (self.brief and look.plainly(self.tap, self.site, (first,), second, training=False, relay=False)):
                self.called((first,), second, training=False, relay=False)

    def called(self, args: tuple[Any, ...], output: Any, *, training: bool, relay: bool) -> None:
        """Watch a call."""
        tap = self.tap
        try:
            state = tap.state()
            site = self.site
            if self.shared:
                site = caller(tap, state, site)
            if tap.gradients is not None:  # in a recomputation too: of a reentrant checkpoint, only that has a graph
                tap.gradients.follow(site, output)
            if not state.depth:
                if rerun():
                    return
                state.note_alone(site)
            if state.timed:
                state.settle_time(site)
            self.watch(site, args, output, training=training, relay=relay)
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            tap.breaker.trip("guard", error)

    def watch(self, site: int, args: tuple[Any, ...], output: Any, *, training: bool, relay: bool) -> None:
        """Watch a call of a site."""
        look.see(self.tap, self.tap.state(), site, args, output, training=training, relay=relay)


class SiteBegin(Hook):
    """Forward pre-hook of a GELU module in a model that calls the function as well: in compiled code its own call is not one of those."""

    def __init__(self, tap: Tap) -> None:
        super().__init__(tap)
        self.token = compiled.token_of(self, tap.config)

    def __call__(self, _module: nn.Module, args: tuple[Any, ...]) -> None:
        """Do so, when torch calls the hook."""
        if torch.compiler.is_compiling() and args and compiled.can_speak(self.token, args[:1], args[0]):
            torch.ops.geluwatch.speak(self.token, args[0], None)

    def spoken(self, _first: torch.Tensor | None, _second: torch.Tensor | None) -> None:
        """Note that the next call is the module's."""
        if not self.tap.closed and not rerun():
            self.tap.state().inside = True


class GatedHook(SiteHook):
    """Forward hook of a module that multiplies the GELU of the first half of its input by the second half."""

    def __init__(self, tap: Tap, site: int, formula: Formula, *, shared: bool = False) -> None:
        super().__init__(tap, site, shared=shared)
        self.formula = formula

    def watch(self, site: int, args: tuple[Any, ...], output: Any, *, training: bool, relay: bool) -> None:  # noqa: ARG002
        """Watch the half that goes through the GELU."""
        if len(args) != 1 or not isinstance(args[0], torch.Tensor) or not args[0].dim():
            look.admit(self.tap, site, args, output)
            return
        gate = args[0][..., : args[0].shape[-1] // 2]
        look.see_gate(self.tap, self.tap.state(), site, gate, self.formula)


class ProducerHook(Hook):
    """Forward hook of the part whose output a spelled-out formula takes: keeps it for `ProductHook`."""

    def __init__(self, tap: Tap, site: int) -> None:
        super().__init__(tap)
        self.site = site

    def __call__(self, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        """Do so, when torch calls the hook."""
        if not torch.compiler.is_compiling() and not rerun():
            self.tap.state().produced[self.site] = output


class ProductHook(SiteHook):
    """Forward hook of the module that returns the formula's result."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:  # noqa: ARG002  # torch gives it
        """Do so, when torch calls the hook."""
        if torch.compiler.is_compiling():
            note_trace()
            return
        produced = self.tap.state().produced.pop(self.site, None)
        if produced is not None:
            self.called((produced,), output, training=module.training, relay=True)
