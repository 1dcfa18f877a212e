"""GELU called as a function, and in fused layers: which call site is it, and what is done with it.

A call is heard where torch dispatches it (see `dispatch`). The module that makes it is known by the hooks on the
module's own call, the place in its code by the frames on the stack: the same place in twelve blocks is twelve sites.
In compiled code there are neither frames nor dispatch; there a mode, traced with the forward, leaves a call behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from geluwatch.tap import compiled, dispatch, look
from geluwatch.tap._compat import between, called_by_compiler, local_of, note_trace, of_torchs_modules, offset_of, rerun, runs_module
from geluwatch.tap.calls import Chain, is_gelu, methods_of
from geluwatch.tap.discover import Found
from geluwatch.tap.hook import Hook
from geluwatch.tap.shared import MOST_STRAYS, Tap
from geluwatch.tap.state import ThreadState

_FAR = 48
"""Frames looked at around a call: helper functions, and torch's own between a layer and its activation."""

_FUSED = frozenset({nn.TransformerEncoderLayer.forward.__code__, nn.TransformerEncoderLayer._ff_block.__code__})  # noqa: SLF001
_UNHEARD = "called in compiled code where its calls do not show: in a checkpoint, say, or compiled from elsewhere than the watched model"
_ORDER = "the calls of its forward cannot be told apart in compiled code: it made {} where {} were known"

_OWN = str(Path(__file__).parent)
"""Where the tap's own calls come from."""

_GENERATED = "<eval_with_key>"
"""How the file names of graphs' code begin."""

Place = tuple[tuple[int, int], ...]
"""A chain of calls as (id of code, offset): comparing code objects compares their contents."""


@dataclass(frozen=True, slots=True, eq=False)
class Owner:
    """A module that calls GELU as a function; nothing in here holds the module."""

    codes: frozenset[int]
    """Ids of the code of its own methods, where a chain of calls ends."""
    sites: dict[Place, int]
    """Call sites by place, in textual order."""
    unplaced: list[int]
    """Sites whose place the code does not tell; the first call that is not known is theirs."""
    kept: list[CodeType]
    """The code objects, so that their ids stay theirs."""

    @property
    def ordered(self) -> tuple[int, ...]:
        """Its sites in the order in which its code calls them."""
        return tuple(sorted(self.sites.values()))

    def find(self, place: Place) -> int | None:
        """Return the site of a place; where tools stand in between, of the innermost link, if it is but one site's."""
        site = self.sites.get(place)
        if site is None:
            same = [known for chain, known in self.sites.items() if chain[-1] == place[-1]]
            site = same[0] if len(same) == 1 and len(place) > 1 else None
        return site

    def take_in(self, chain: Chain, site: int) -> None:
        """Add a call that was found when it ran."""
        self.kept.extend(code for code, _ in chain)
        self.sites[place_of(self.within(chain))] = site

    def within(self, chain: Chain) -> Chain:
        """Return a chain of calls up to the owner's first own code."""
        ends = [place for place, (code, _) in enumerate(chain) if id(code) in self.codes]
        return chain[: ends[0] + 1] if ends else chain


def owner_of(module: nn.Module, found: Iterable[Found]) -> Owner:
    """Return what there is to know of a module's own calls."""
    own = methods_of(module)
    owner = Owner(frozenset(map(id, own)), {}, [], list(own))
    for item in found:
        if item.chain:
            owner.take_in(item.chain, item.site.position)
        else:
            owner.unplaced.append(item.site.position)
    return owner


def place_of(chain: Chain) -> Place:
    """Return a chain of calls as what can be compared quickly."""
    return tuple((id(code), offset) for code, offset in chain)


def identity(module: nn.Module) -> int:
    """Return what a module and its DataParallel replicas have in common and no copy has: its dictionary of hooks."""
    return id(module._forward_hooks)  # noqa: SLF001


class Ear:
    """Hears the calls of one model in threads that run it."""

    def __init__(self, tap: Tap, fused: dict[int, int], hooked: frozenset[int]) -> None:
        """Make the ear of a model.

        Args:
            tap: What the hooks share.
            fused: Sites of fused layers by `identity`.
            hooked: GELU modules by `identity`, whose hooks see to their calls.
        """
        self._tap = tap
        self.mode: CallMode | None = None
        """Entered around compiled code, where the model has own calls."""
        self._fused = fused
        self.has_fused = bool(fused)
        self._hooked = hooked
        self._offsets: dict[tuple[int, int], tuple[int, CodeType]] = {}
        """Where calls begin, by (id of code, last instruction), and the code, so that its id stays its."""

    def before(self, frame: FrameType, values: torch.Tensor) -> look.Kept | None:
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
        owner = state.owners[-1] if state.owners else None
        links: list[tuple[int, int]] = []
        at: FrameType | None = frame
        for _ in range(_FAR):
            if at is None:
                break
            code = at.f_code
            if self._fused and code in _FUSED:
                layer = local_of(at, "self")
                return self._fused.get(identity(layer)) if isinstance(layer, nn.Module) else None
            if (module := runs_module(at)) is not None and identity(module) in self._hooked:
                if not self._fused:
                    return None
            elif not between(code):
                links.append((id(code), self._offset(at)))
            if owner is not None and id(code) in owner.codes:
                return None if _again(at) else self._own(owner, tuple(links), frame)
            at = at.f_back
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
            if compiled.may_speak(self.token):
                torch.ops.geluwatch.speak(self.token, None, None)
            return
        try:
            if rerun():
                return
            state = self.tap.state()
            if not state.depth and self.owner in state.owners:  # left by a part that was called by itself, and raised
                del state.owners[state.owners.index(self.owner) :]
                state.listening = len(state.owners)
            state.owners.append(self.owner)
            begin(state, self.ear)
            if (self.tap.compiled or module._compiled_call_impl is not None) and called_by_compiler():  # noqa: SLF001  # its only name
                enter_mode(state, self.ear)
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            self.tap.breaker.trip("guard", error)

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
            if compiled.may_speak(self.token):
                torch.ops.geluwatch.speak(self.token, None, None)
            return
        try:
            if rerun():
                return
            state = self.tap.state()
            # Put on in the middle of a forward, it ends what it has not begun.
            if state.owners and state.owners[-1] is self.owner:
                state.owners.pop()
                end(state, self.ear)
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            self.tap.breaker.trip("guard", error)

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
    if ear.mode is not None and state.mode is None and ear.mode.token is not None:
        state.mode = ear.mode
        torch._C._push_on_torch_function_stack(ear.mode)  # noqa: SLF001


def leave_mode(state: ThreadState) -> None:
    """Leave the mode, where it was entered."""
    if state.mode is not None:
        state.mode = None
        torch._C._pop_torch_function_stack()  # noqa: SLF001
