"""Puts the hooks of a watch on a model and takes them off: at attach, after the first pass, and for calls found later."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as torch_functional
from torch.utils.hooks import RemovableHandle

from geluwatch.records import Site
from geluwatch.tap import dispatch
from geluwatch.tap.calls import Chain
from geluwatch.tap.consumers import CHANNELS_FIRST, ConsumerHook, LearnChannels, LearnConsumer
from geluwatch.tap.discover import Found, fused_parts
from geluwatch.tap.ear import Ear
from geluwatch.tap.functional import CallMode, OwnerBegin, OwnerEnd
from geluwatch.tap.hook import Hook, inert
from geluwatch.tap.hooks import RootBegin, RootEnd
from geluwatch.tap.look import dense
from geluwatch.tap.names import stable
from geluwatch.tap.owner import Owner, identity, owner_of, place_of
from geluwatch.tap.ranges import RangeBegin, RangeEnd
from geluwatch.tap.rows import Formula
from geluwatch.tap.shared import MOST_STRAYS, Tap
from geluwatch.tap.sites import CallerBegin, CallerEnd, GatedHook, ProducerHook, ProductHook, SiteBegin, SiteHook

_TOO_MANY = "found when it ran, as one too many: the census takes in {} at most"
_INSIDE_FUSED = "found when it ran, inside nn.TransformerEncoderLayer, whose fused path a hook would switch off"

FORMULAS: dict[str, Formula] = {
    "erf": torch_functional.gelu,
    "tanh": lambda values: torch_functional.gelu(values, approximate="tanh"),
    "quick": lambda values: values * torch.sigmoid(1.702 * values),
}
"""The known formulas, as torch computes them."""


class Wiring:
    """The hooks of one watch.

    Args:
        tap: What the hooks share.
        model: What is watched.
        found: Its call sites; hooks go only where one is observed, for a hook that can see nothing could cost a fused kernel.
    """

    def __init__(self, tap: Tap, model: nn.Module, found: tuple[Found, ...]) -> None:
        self._tap = tap
        self._handles: list[RemovableHandle] = []
        self._learning: list[RemovableHandle] = []
        self._owners: weakref.WeakKeyDictionary[nn.Module, Owner] = weakref.WeakKeyDictionary()
        self._replaced: frozenset[int] = frozenset()
        """Sites whose module the model did not hold when it was last looked for."""
        self._modules = {item.site.position: weakref.ref(item.module) for item in found if item.module is not None}
        tap.hears = dispatch.available()
        tap.names = {identity(module): name for name, module in model.named_modules(remove_duplicate=False)}
        observed = [item for item in found if item.site.state == "observed"]
        calls = _by_caller(item for item in observed if item.site.form == "functional")
        self._calls = bool(calls)
        fused = {identity(item.caller): item.site.position for item in observed if item.site.form == "fused"}
        hooked = _identities(observed)
        self.ear = Ear(tap, fused, hooked, _identities(found) - hooked)
        if observed:
            self._put_on(model, observed, calls)

    def _put_on(self, model: nn.Module, observed: list[Found], calls: dict[nn.Module, list[Found]]) -> None:
        tap, keep = self._tap, self._handles.append
        _drop(model, inert)
        # Replicas of DataParallel carry the hooks of what it wraps, and each makes a pass of its own.
        root = model.module if isinstance(model, nn.DataParallel) else model
        keep(root.register_forward_pre_hook(RootBegin(tap, self.ear), with_kwargs=True, prepend=True))
        by_module: dict[nn.Module, list[Found]] = {}
        for item in observed:
            if item.module is not None:
                by_module.setdefault(item.module, []).append(item)
        for module, items in by_module.items():
            self._put_on_module(module, items)
        # Only with `SiteBegin` on every module: in compiled code a module's own call would be taken for its owner's.
        self.ear.mode = CallMode(tap) if calls else None
        for module, items in calls.items():
            self._put_on_owner(module, owner_of(module, items))
        # After all others, for the model may be the GELU itself.
        keep(root.register_forward_hook(RootEnd(tap, self.ear), with_kwargs=True, always_call=True))
        fused = fused_parts(model)
        for module in model.modules():
            if dense(module) and module not in fused:
                self._learning.append(module.register_forward_pre_hook(LearnConsumer(tap)))
            elif isinstance(module, CHANNELS_FIRST):
                self._learning.append(module.register_forward_hook(LearnChannels(tap)))

    def _put_on_module(self, module: nn.Module, items: list[Found]) -> None:
        tap, keep, first = self._tap, self._handles.append, items[0]
        group, shared = first.site.position, len(items) > 1
        if first.producer is not None:
            keep(first.producer.register_forward_hook(ProducerHook(tap, group)))
            keep(module.register_forward_hook(ProductHook(tap, group)))
        elif first.site.form == "gated":
            keep(module.register_forward_hook(GatedHook(tap, group, FORMULAS[first.site.variant], shared=shared)))
        else:
            keep(module.register_forward_hook(SiteHook(tap, group, shared=shared)))
        if self._calls:
            keep(module.register_forward_pre_hook(SiteBegin(tap)))
        for item in items if shared else ():
            # Not called where the forward raises: hooks that are would be guarded by their numbers in compiled code.
            tap.callers[item.site.position] = identity(item.caller)
            keep(item.caller.register_forward_pre_hook(CallerBegin(tap, group, item.site.position)))
            keep(item.caller.register_forward_hook(CallerEnd(tap, group, item.site.position)))
        if tap.config.ranges:
            keep(module.register_forward_pre_hook(RangeBegin(tap, group)))
            keep(module.register_forward_hook(RangeEnd(tap, group), prepend=True, always_call=True))

    def _put_on_owner(self, module: nn.Module, owner: Owner) -> None:
        self._owners[module] = owner
        self._handles.append(module.register_forward_pre_hook(OwnerBegin(self._tap, self.ear, owner)))
        self._handles.append(module.register_forward_hook(OwnerEnd(self._tap, self.ear, owner)))

    def settle_learning(self) -> None:
        """After the first pass, take the learning hooks off and look at large outputs through their consumers."""
        tap = self._tap
        # Compiled code guards the number of hooks that it was compiled with: to take one off is to have it compiled again.
        if not tap.compiled:
            for handle in self._learning:
                handle.remove()
            self._learning = []
        for site in tuple(tap.large - tap.relayed):
            consumer = tap.consumers.get(site)
            if consumer is not None and dense(consumer):
                # First in line, so that no other hook has changed the output before it is looked at.
                self._handles.append(consumer.register_forward_hook(ConsumerHook(tap), prepend=True))
                tap.relayed |= {site}

    def take_in_strays(self, model: nn.Module) -> None:
        """Take calls that were heard but not known into the census, with the hooks that tell whose they are."""
        strays = self._tap.strays
        for stray in [stray for stray, taken in tuple(strays.items()) if not taken]:
            strays[stray] = True
            name, chain = stray
            owner = dict(model.named_modules(remove_duplicate=False)).get(name)
            if owner is not None:
                self._take_in(owner, stable(name), chain)

    def _take_in(self, owner: nn.Module, layer: str, chain: Chain) -> None:
        tap = self._tap
        known = self._owners.get(owner)
        if known is not None and known.find(place_of(known.within(chain))) is not None:
            return  # met where its module's hooks had not told of it
        position = len(tap.sites)
        site = Site(_free(layer, {site.layer for site in tap.sites}), position, "functional", type(owner).__name__, "erf")
        if isinstance(owner, nn.TransformerEncoderLayer):
            site = replace(site, state="blind", reason=_INSIDE_FUSED)
        elif sum(tap.strays.values()) > MOST_STRAYS:
            site = replace(site, state="blind", reason=_TOO_MANY.format(MOST_STRAYS))
        tap.clips = (*tap.clips, False)
        tap.sites = (*tap.sites, site)
        if site.state == "blind":
            return
        if owner in self._owners:
            self._owners[owner].take_in(chain, position)
        else:
            self._put_on_owner(owner, owner_of(owner, [Found(site, owner, chain=chain)]))

    def find_replaced(self, model: nn.Module) -> None:
        """Note which sites' modules the model no longer holds; somebody else may."""
        held = _held(model)
        self._replaced = frozenset(site for site, module in self._modules.items() if id(module()) not in held)

    def replaced(self, site: int) -> bool:
        """Return whether the module of a site is no more, or no more in the model, which has another in its place."""
        module = self._modules.get(site)
        return module is not None and (module() is None or site in self._replaced)

    def _is_ours(self, hook: object) -> bool:
        return isinstance(hook, Hook) and hook.tap is self._tap

    def remove(self, model: nn.Module | None) -> None:
        """Take every hook off, those among them that other modules have taken over, as quantised ones do."""
        self._tap.closed = True
        for handle in (*self._handles, *self._learning):
            handle.remove()
        if model is not None:
            _drop(model, lambda hook: self._is_ours(hook) or inert(hook))


def _drop(model: nn.Module, unwanted: Callable[[object], bool]) -> None:
    """Take hooks off a model for which there are no handles: handles know only the modules that they were made for."""
    for module in model.modules():
        _drop_of(module._forward_hooks, unwanted, module._forward_hooks_with_kwargs, module._forward_hooks_always_called)  # noqa: SLF001
        _drop_of(module._forward_pre_hooks, unwanted, module._forward_pre_hooks_with_kwargs)  # noqa: SLF001


def _drop_of(hooks: dict[int, Any], unwanted: Callable[[object], bool], *flags: dict[int, bool]) -> None:
    for key in [key for key, hook in tuple(hooks.items()) if unwanted(hook)]:
        for each in (hooks, *flags):
            each.pop(key, None)


def _held(model: nn.Module) -> set[int]:
    """Return the ids of a model's modules, in a fraction of the time of `modules()`; another thread may be changing them."""
    held: set[int] = set()
    waiting: list[nn.Module | None] = [model]
    while waiting:
        module = waiting.pop()
        if module is not None and id(module) not in held:
            held.add(id(module))
            waiting.extend(module._modules.values())  # noqa: SLF001  # at once, where a generator would see it change
    return held


def _identities(found: Iterable[Found]) -> frozenset[int]:
    return frozenset(identity(item.module) for item in found if item.module is not None)


def _by_caller(found: Iterable[Found]) -> dict[nn.Module, list[Found]]:
    callers: dict[nn.Module, list[Found]] = {}
    for item in found:
        callers.setdefault(item.caller, []).append(item)
    return callers


def _free(layer: str, known: set[str]) -> str:
    """Return a layer's name, numbered where it is taken."""
    return next(name for name in (layer, *(f"{layer}#{k}" for k in range(1, len(known) + 2))) if name not in known)
