"""Hears the calls of GELU that torch dispatches, and finds out which call site each is.

The module that makes a call is known by the hooks on the module's own call, the place in its code by the frames on the
stack: the same place in twelve blocks is twelve sites. A call that the census lacks is noted, for it to take in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from geluwatch.tap import dispatch, look
from geluwatch.tap._compat import FUSED_CODE, between, local_of, of_torchs_modules, offset_of, rerun, runs_module
from geluwatch.tap.owner import Owner, Place, identity
from geluwatch.tap.rows import Kept
from geluwatch.tap.shared import MOST_STRAYS, Tap
from geluwatch.tap.state import ThreadState

if TYPE_CHECKING:
    from geluwatch.tap.functional import CallMode

_FAR = 48
"""Frames looked at around a call: helper functions, and torch's own between a layer and its activation."""

_OWN = str(Path(__file__).parent)
"""Where the tap's own calls come from."""

_GENERATED = "<eval_with_key>"
"""How the file names of graphs' code begin."""


class Ear:
    """Hears the calls of one model in threads that run it."""

    def __init__(self, tap: Tap, fused: dict[int, int], hooked: frozenset[int], blind: frozenset[int]) -> None:
        """Make the ear of a model.

        Args:
            tap: What the hooks share.
            fused: Sites of fused layers by `identity`.
            hooked: GELU modules by `identity`, whose hooks see to their calls.
            blind: Those that the census has as blind; in a fused layer their calls are the layer's.
        """
        self._tap = tap
        self.mode: CallMode | None = None
        """Entered around compiled code, where the model has own calls."""
        self._fused = fused
        self.has_fused = bool(fused)
        self._hooked, self._blind = hooked, blind
        self._offsets: dict[tuple[int, int], tuple[int, CodeType]] = {}
        """Where calls begin, by (id of code, last instruction), and the code, so that its id stays its."""

    def before(self, frame: FrameType, values: torch.Tensor) -> Kept | None:
        """Take the rows of an input that will be overwritten."""
        try:
            if self._tap.closed:
                dispatch.leave(self)
                return None
            state = self._tap.state()
            site = None if rerun() or not state.sampled else self._site(state, frame)
            return None if site is None else look.rows_before(self._tap, state, site, values)
        except Exception as error:  # noqa: BLE001  # nothing may reach the model
            self._tap.breaker.trip("guard", error)
            return None

    def heard(self, frame: FrameType, pre: torch.Tensor | None, post: torch.Tensor, approximate: str, seconds: float, kept: Any) -> None:
        """Watch a call that has been made."""
        tap = self._tap
        try:
            if tap.closed:
                dispatch.leave(self)
            if tap.closed or torch.compiler.is_compiling():
                return
            state = tap.state()
            site = self._site(state, frame)
            if site is not None and tap.gradients is not None:
                tap.gradients.follow(site, post)
            if rerun():
                return
            if site is None:
                state.op_seconds += seconds
                return
            if not state.depth:
                state.note_alone(site)
            if site not in tap.variants:
                tap.variants[site] = "tanh" if approximate == "tanh" else "erf"
            if state.timed:
                state.note_time(site, seconds)
            if pre is None:
                look.see_overwritten(tap, state, site, post, kept)
            else:
                look.see(tap, state, site, (pre,), post, training=torch.is_grad_enabled())
        except Exception as error:  # noqa: BLE001  # nothing may reach the model
            tap.breaker.trip("guard", error)

    def _site(self, state: ThreadState, frame: FrameType) -> int | None:
        """Return the site of a call; None where it is a module's, which has a hook, or nobody's yet."""
        if frame.f_code.co_filename.startswith(_OWN) and frame.f_code.co_name != "__torch_function__":
            return None
        owner = _under_way(state, frame)
        links: list[tuple[int, int]] = []
        known = False
        at: FrameType | None = frame
        for _ in range(_FAR):
            if at is None:
                break
            code = at.f_code
            if self._fused and code in FUSED_CODE:
                layer = local_of(at, "self")
                return self._fused.get(identity(layer)) if isinstance(layer, nn.Module) else None
            if (module := runs_module(at)) is not None:
                if identity(module) in self._hooked:
                    return None
                known = known or identity(module) in self._blind
            if owner is not None and not between(code):
                links.append((id(code), self._offset(at)))
                if id(code) in owner.codes:
                    return None if _again(at) else self._own(owner, tuple(links), frame)
            at = at.f_back
        if not known:
            self._stray(frame)
        return None

    def _own(self, owner: Owner, place: Place, frame: FrameType) -> int | None:
        """Return the site of an owner's call; one that the code does not show takes a site that is without a place."""
        site = owner.find(place)
        if site is None and owner.unplaced:
            site = owner.sites[place] = owner.unplaced.pop(0)
            owner.kept.extend(_codes(frame))
        if site is None:
            self._stray(frame)
        return site

    def _offset(self, frame: FrameType) -> int:
        """Return where the call begins that a frame is in."""
        code, last = frame.f_code, frame.f_lasti
        known = self._offsets.get((id(code), last))
        if known is None:
            known = self._offsets[id(code), last] = (offset_of(code, last), code)
        return known[0]

    def _stray(self, frame: FrameType) -> None:
        """Note a call that the census lacks, with the module that makes it, for the census to take in."""
        tap = self._tap
        links: list[tuple[CodeType, int]] = []
        at: FrameType | None = frame
        for _ in range(_FAR):
            if at is None or at.f_code.co_filename.startswith(_GENERATED):
                return  # a graph's code no longer says whose call it was
            # Only torch's own frame is asked for the module: to ask the user's would empty what `locals()` gave them.
            module = runs_module(at)
            if module is not None and identity(module) in self._hooked:
                return
            if module is not None and identity(module) in tap.names:
                if len(tap.strays) <= MOST_STRAYS:
                    tap.strays.setdefault((tap.names[identity(module)], tuple(links)), False)
                return
            if not between(at.f_code):
                links.append((at.f_code, self._offset(at)))
            at = at.f_back


def innermost(known: Collection[int], frame: FrameType) -> int | None:
    """Return which of some modules, by `identity`, makes the innermost call of all on the stack; None where none of them is near."""
    at: FrameType | None = frame
    for _ in range(_FAR):
        if at is None:
            return None
        module = runs_module(at)
        if module is not None and identity(module) in known:
            return identity(module)
        at = at.f_back
    return None


def _under_way(state: ThreadState, frame: FrameType) -> Owner | None:
    """Return the owner whose forward runs: those above it have raised, which the model has caught, so no hook told of their end."""
    owners: list[Owner] = state.owners
    # Of forwards that compiled code makes there are no frames.
    if len(owners) > 1 and not state.made:
        places = {owner.identity: place for place, owner in enumerate(owners, 1)}
        running = innermost(places, frame)
        if running is not None:
            state.listening -= len(owners) - places[running]
            del owners[places[running] :]
    return owners[-1] if owners else None


def _codes(frame: FrameType) -> Iterator[CodeType]:
    """Yield the code of a frame and of those around it."""
    at: FrameType | None = frame
    for _ in range(_FAR):
        if at is None:
            return
        yield at.f_code
        at = at.f_back


def _again(frame: FrameType) -> bool:
    """Return whether a forward was called by the same code, not by torch: another instance's, of which no hook told."""
    outer = frame.f_back if frame.f_code.co_name == "forward" else None
    while outer is not None and not of_torchs_modules(outer.f_code):
        if outer.f_code is frame.f_code:
            return True
        outer = outer.f_back
    return False
