"""What the hooks of one model share: settings, counters by thread, and what has been learnt about its sites.

Nothing in here holds a module strongly: a watch must not keep alive a model that its user has let go.
"""

from __future__ import annotations

import threading
from weakref import WeakValueDictionary

import torch
from torch import nn

from geluwatch.config import Config
from geluwatch.ports import Clock
from geluwatch.records import Site
from geluwatch.tap import guard, padding
from geluwatch.tap._compat import Traces
from geluwatch.tap.breaker import Breaker
from geluwatch.tap.deferred import DeviceGuard, DeviceRows
from geluwatch.tap.rows import Captured, Pacer, RowPicker
from geluwatch.tap.state import ThreadState, Token


class Tap:
    """What the hooks of one model share."""

    def __init__(self, sites: tuple[Site, ...], config: Config, clock: Clock, mask_position: int | None = None) -> None:
        self.sites = sites
        self.config = config
        self.clock = clock
        self.breaker = Breaker(config.breaker_limit)
        spacing = (config.window_seconds or 0.0) * config.rows_per_forward / config.rows_per_window
        self.pacer = Pacer(spacing, config.cost_budget)
        self.picker = RowPicker(config.rows_per_forward)
        self.device_guard = DeviceGuard(len(sites))
        self.device_rows = DeviceRows(config.rows_per_forward)
        self.learning = True
        self.consumers: WeakValueDictionary[int, nn.Linear] = WeakValueDictionary()
        """The dense layer that takes a site's output as it is, by site."""
        self.large: set[int] = set()
        """Sites with outputs large enough to be left to that layer."""
        self.relayed: frozenset[int] = frozenset()
        """Sites whose large outputs are left to that layer: its hook is on."""
        self.missed: set[tuple[int, bool]] = set()
        """(site, training) where the layer did not take the output after all."""
        self.unwatchable: dict[int, str] = {}
        """Why a site's last call could not be watched."""
        self.rowless: dict[int, str] = {}
        """Why a site gives no rows, though its guard works."""
        self.widths: dict[int, int] = {}
        self.called: set[int] = set()
        """Sites seen to run, since code with hooks in it was last compiled."""
        self.compiled = False
        self._traces = Traces.count
        self.states: list[ThreadState] = []
        self._mask_position = mask_position
        self._local = threading.local()

    def state(self) -> ThreadState:
        """Return this thread's state, made on its first call."""
        try:
            return self._local.state  # type: ignore[no-any-return]  # threading.local is untyped
        except AttributeError:
            token = self._local.token = Token()
            state = self._local.state = ThreadState(len(self.sites), token)
            self.states.append(state)
            return state

    def mask(self, state: ThreadState, shape: torch.Size) -> torch.Tensor | None:
        """Return the valid rows (rows,) of a tensor (..., C) in the forward pass under way, or None if all are."""
        if not state.depth:
            return None
        try:
            if not state.mask_read:
                state.mask_read = True
                on = self.breaker.allows("mask")
                state.mask = padding.from_call(*state.call, self.config.padding, self._mask_position) if on else None
            return padding.for_rows(state.mask, shape)
        except Exception as error:  # noqa: BLE001  # a user's mask function may raise anything
            state.mask = None
            self.breaker.trip("mask", error)
            return None

    def enter_caller(self, group: int, site: int) -> None:
        """Note that the next calls of a shared GELU belong to a site."""
        try:
            self.state().callers.setdefault(group, []).append(site)
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            self.breaker.trip("guard", error)

    def leave_caller(self, group: int) -> None:
        """Note that they no longer do."""
        try:
            if callers := self.state().callers.get(group):
                callers.pop()
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            self.breaker.trip("guard", error)

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
            state.count_hits()

    def keep(self, state: ThreadState, captured: Captured) -> None:
        """Queue captured rows for the next drain, or drop and count them where too many wait."""
        if sum(each.bytes_in - each.bytes_out for each in tuple(self.states)) > self.config.pending_bytes:
            state.counters.dropped_rows += len(captured.pre)
            return
        state.bytes_in += captured.nbytes
        state.rows.append(captured)

    def settle(self, state: ThreadState, *, missed: bool) -> None:
        """Look whole at an output whose consumer did not come.

        Args:
            state: This thread's state.
            missed: Whether the pass went on without the consumer, so that the next outputs are not left to it again.
        """
        pending, state.pending = state.pending, None
        if pending is None:
            return
        if missed:
            self.missed.add((pending.site, pending.training))
        if guard.suspicious(pending.post):
            self.check(state, pending.site, pending.pre, pending.post)

    def follow_traces(self) -> None:
        """Where code with hooks in it was compiled since the last call, have every site prove again that it runs."""
        if self._traces != Traces.count:
            self._traces = Traces.count
            self.compiled = True
            self.called.clear()
