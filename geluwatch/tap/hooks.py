"""What runs inside the model: hooks on the root, on every GELU, and on the dense layers behind them.

Every hook is an object that knows its `Tap`; a deepcopy or pickle of a watched model carries inert hooks instead,
so copies are unwatched and independent. No hook raises, waits for a device, or takes a lock.

The guard looks at every forward pass. A small GELU output is looked at whole. A large one is left to the dense
layer that consumes it, whose first output column is non-finite in every row in which its input was: reading one
element a row instead of all of them. Where that layer does not come, the output is looked at whole after all.
"""

from __future__ import annotations

import threading
from time import perf_counter
from typing import Any, TypeGuard

import torch
from torch import nn

from geluwatch.config import Config
from geluwatch.ports import Clock
from geluwatch.tap import guard, padding
from geluwatch.tap._compat import in_backward
from geluwatch.tap.breaker import Breaker
from geluwatch.tap.deferred import Choice, DeviceGuard, DeviceRows
from geluwatch.tap.discover import Found
from geluwatch.tap.rows import Captured, Pacer, RowPicker, capture, watchable
from geluwatch.tap.state import Pending, ThreadState

LARGE = 1 << 18
"""Elements from which an output is left to its consumer; below, a second hook costs more than reading it all."""


def inert(*_args: Any, **_kwargs: Any) -> None:
    """Do nothing: what a copied hook becomes."""


class _Hook:
    """A hook whose copies are inert."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (_inert_hook, ())


def _inert_hook() -> Any:
    return inert


class Tap:
    """What the hooks of one model share."""

    def __init__(self, found: tuple[Found, ...], config: Config, clock: Clock) -> None:
        self.found = found
        self.config = config
        self.clock = clock
        self.breaker = Breaker(config.breaker_limit)
        spacing = (config.window_seconds or 0.0) * config.rows_per_forward / config.rows_per_window
        self.pacer = Pacer(spacing, config.cost_budget)
        self.picker = RowPicker(config.rows_per_forward)
        self.device_guard = DeviceGuard(len(found))
        self.device_rows = DeviceRows(config.rows_per_forward)
        self.consumers: dict[int, nn.Linear] = {}
        self.wants_consumer_hook: set[int] = set()
        self.unwatchable: dict[int, str] = {}
        self.called: set[int] = set()
        self.learning = True
        self.pending_bytes = 0
        self.states: list[ThreadState] = []
        self._local = threading.local()

    def state(self) -> ThreadState:
        """Return this thread's state, made on its first call."""
        try:
            return self._local.state  # type: ignore[no-any-return]  # threading.local is untyped
        except AttributeError:
            state = self._local.state = ThreadState(len(self.found))
            self.states.append(state)
            return state

    def mask(self, state: ThreadState, shape: torch.Size) -> torch.Tensor | None:
        """Return the valid rows (rows,) of a tensor (..., C) in the forward pass under way, or None if all are."""
        try:
            if not state.mask_read:
                state.mask_read = True
                state.mask = padding.from_call(*state.call, self.config.padding) if self.breaker.allows("mask") else None
            return padding.for_rows(state.mask, shape)
        except Exception as error:  # noqa: BLE001  # a user's mask function may raise anything
            state.mask = None
            self.breaker.trip("mask", error)
            return None

    def check(self, state: ThreadState, site: int, pre: torch.Tensor, post: torch.Tensor) -> None:
        """Confirm a suspicion and note the hit."""
        hit = guard.confirm(pre, post, lambda: self.mask(state, post.shape))
        if hit is None:
            return
        state.hits[site] = state.hits.get(site, False) or bool(hit.elements)
        elements = state.sites[site].elements
        for key, count in hit.elements.items():
            elements[key] = elements.get(key, 0) + count
        if not state.depth:  # a part of the model was called by itself: no root will count the hit
            state._count_hits()  # noqa: SLF001  # the same package's own record

    def keep(self, state: ThreadState, captured: Captured) -> None:
        """Queue captured rows for the next drain, or drop and count them where too many wait."""
        if self.pending_bytes > self.config.pending_bytes:
            state.counters.dropped_rows += len(captured.pre)
            return
        self.pending_bytes += captured.nbytes
        state.rows.append(captured)

    def settle(self, state: ThreadState) -> None:
        """Look whole at an output whose consumer did not come."""
        pending, state.pending = state.pending, None
        if pending is not None and guard.suspicious(pending.post):
            self.check(state, pending.site, pending.pre, pending.post)


class RootBegin(_Hook):
    """Forward pre-hook of the root: a forward pass begins."""

    def __init__(self, tap: Tap) -> None:
        self.tap = tap

    def __call__(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling():
            return
        tap = self.tap
        try:
            if not tap.breaker.allows("root"):
                return
            state = tap.state()
            state.depth += 1
            if state.depth == 1:
                state.begin(args, kwargs, sampled=tap.pacer.take(perf_counter()))
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            tap.breaker.trip("root", error)


class RootEnd(_Hook):
    """Forward hook of the root, called also when the forward raised: the pass ends."""

    def __init__(self, tap: Tap) -> None:
        self.tap = tap

    def __call__(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], _output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        tap = self.tap
        try:
            state = tap.state()
            if state.depth > 1:
                state.depth -= 1
            elif state.depth == 1:
                self._end(tap, state, args, kwargs)
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            tap.breaker.trip("root", error)

    @staticmethod
    def _end(tap: Tap, state: ThreadState, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            if state.pending is not None:
                tap.settle(state)
            tap.device_guard.end_pass()
            for captured in tap.device_rows.arrived():
                tap.keep(state, captured)
            state.counters.samples += padding.batch_size(args, kwargs)
            if state.sampled:
                tap.pacer.spent(perf_counter(), state.spent)
        finally:
            state.depth = 0
            state.end(tap.clock.time())
            tap.learning = False


class CallerBegin(_Hook):
    """Forward pre-hook of a module that shares its GELU with others: says whose call the next one is."""

    def __init__(self, tap: Tap, module_id: int, site: int) -> None:
        self.tap, self.module_id, self.site = tap, module_id, site

    def __call__(self, _module: nn.Module, _args: tuple[Any, ...]) -> None:
        if not torch.compiler.is_compiling():
            self.tap.state().callers[self.module_id] = self.site


class SiteHook(_Hook):
    """Forward hook of a GELU: guards it, and on sampled forwards captures rows."""

    def __init__(self, tap: Tap, site: int, *, clips: bool, shared: bool) -> None:
        self.tap, self.site, self.clips, self.shared = tap, site, clips, shared

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        tap = self.tap
        try:
            state = tap.state()
            if not state.depth and in_backward():
                return  # recomputed for a backward pass: seen before
            site = state.callers.get(id(module), self.site) if self.shared else self.site
            if site not in tap.called and not self._first_call(site, args, output):
                return
            pre = args[0]
            if tap.breaker.allows("guard"):
                self._guard(tap, state, site, pre, output)
            if state.sampled and tap.breaker.allows("rows"):
                self._capture(tap, state, site, pre, output)
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            tap.breaker.trip("guard", error)

    def _first_call(self, site: int, args: tuple[Any, ...], output: Any) -> bool:
        """Note that a site runs, or why it cannot be watched; return whether it can."""
        tensors = len(args) == 1 and isinstance(args[0], torch.Tensor) and isinstance(output, torch.Tensor)
        reason = watchable(args[0], output) if tensors else "called without a single tensor, or returned none"
        if reason:
            self.tap.unwatchable[site] = reason
            return False
        self.tap.unwatchable.pop(site, None)
        self.tap.called.add(site)
        return True

    def _guard(self, tap: Tap, state: ThreadState, site: int, pre: torch.Tensor, post: torch.Tensor) -> None:
        if state.pending is not None:
            tap.settle(state)
        if tap.learning:
            state.latest = (site, post)
        if not post.is_cpu:
            tap.device_guard.look(site, (post, pre) if self.clips else (post,), tap.mask(state, post.shape))
        elif post.numel() < LARGE or self.clips or site not in tap.consumers or not state.depth:
            if post.numel() >= LARGE:
                tap.wants_consumer_hook.add(site)
            if guard.suspicious(post) or (self.clips and guard.suspicious(pre)):
                tap.check(state, site, pre, post)
        else:
            state.pending = Pending(site, pre, post)

    def _capture(self, tap: Tap, state: ThreadState, site: int, pre: torch.Tensor, post: torch.Tensor) -> None:
        began = perf_counter()
        try:
            if pre.dim() < 2 or not pre.numel():
                return
            if pre.is_cpu:
                self._capture_here(tap, state, site, pre, post)
            else:
                self._capture_there(tap, state, site, pre, post)
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            tap.breaker.trip("rows", error)
        finally:
            state.spent += perf_counter() - began

    @staticmethod
    def _capture_here(tap: Tap, state: ThreadState, site: int, pre: torch.Tensor, post: torch.Tensor) -> None:
        indices = state.indices.get(pre.shape[:-1])
        if not isinstance(indices, torch.Tensor):
            indices = tap.picker.pick(pre.shape[:-1].numel(), tap.mask(state, pre.shape))
            state.indices[pre.shape[:-1]] = indices
        tap.keep(state, capture(tap.found[site].site.layer, pre, post, indices))

    @staticmethod
    def _capture_there(tap: Tap, state: ThreadState, site: int, pre: torch.Tensor, post: torch.Tensor) -> None:
        choice = state.indices.get(pre.shape[:-1])
        if not isinstance(choice, Choice):
            choice = tap.device_rows.pick(pre.shape[:-1].numel(), tap.mask(state, pre.shape), pre.device)
            state.indices[pre.shape[:-1]] = choice
        tap.device_rows.capture(tap.found[site].site.layer, pre, post, choice)


class ConsumerHook(_Hook):
    """Forward hook of the dense layer behind a GELU: one column of its output stands for the GELU's whole output."""

    def __init__(self, tap: Tap) -> None:
        self.tap = tap

    def __call__(self, _module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        tap = self.tap
        try:
            state = tap.state()
            pending = state.pending
            if pending is None or not args or args[0] is not pending.post:
                return
            state.pending = None
            if guard.suspicious_column(output):
                tap.check(state, pending.site, pending.pre, pending.post)
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            tap.breaker.trip("guard", error)


class LearnConsumer(_Hook):
    """Forward pre-hook of every dense layer during the first pass: whose output does it take?"""

    def __init__(self, tap: Tap) -> None:
        self.tap = tap

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if torch.compiler.is_compiling():
            return
        tap = self.tap
        try:
            latest = tap.state().latest
            if latest is not None and args and args[0] is latest[1] and dense(module):
                tap.consumers[latest[0]] = module
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            tap.breaker.trip("guard", error)


def dense(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Return whether a module is a plain floating-point dense layer, in which a non-finite input cannot get lost."""
    return type(module) is nn.Linear and type(module.weight) is nn.Parameter and module.weight.is_floating_point()
