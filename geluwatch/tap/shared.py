"""What the hooks of one model share: settings, counters by thread, and what has been learnt about its sites.

Nothing in here holds a module strongly: a watch must not keep alive a model that its user has let go.
"""

from __future__ import annotations

import math
import threading
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import nn

from geluwatch.config import Config
from geluwatch.ports import Clock
from geluwatch.records import Site
from geluwatch.tap import guard, padding
from geluwatch.tap._compat import Traces, unseen
from geluwatch.tap.breaker import Breaker
from geluwatch.tap.calls import Chain
from geluwatch.tap.deferred import Choice, DeviceGuard, DeviceRows
from geluwatch.tap.evidence import Waiting
from geluwatch.tap.gradients import Gradients
from geluwatch.tap.inputs import Reservoir
from geluwatch.tap.pacer import LEAST_ROWS, Pacer
from geluwatch.tap.profiling import Profiling
from geluwatch.tap.rows import Captured, RowPicker
from geluwatch.tap.state import Pending, ThreadState
from geluwatch.tap.token import Token

MOST_STRAYS = 64
"""Call sites taken into the census after attach, at most; beyond it they are named as blind."""

_SHARE_OF_ROOM = 2 / 3
"""Share of the memory still free for waiting rows that one pass may take."""

_of_parents: list[object] = []
"""What forked children have come along with, which is never let go: to free pinned memory takes CUDA, which fails there."""


class Tap:
    """What the hooks of one model share."""

    def __init__(self, sites: tuple[Site, ...], clips: tuple[bool, ...], config: Config, clock: Clock, mask_position: int | None) -> None:
        self.sites = sites
        self.clips = clips
        """Whether a site's output can be finite where its input is not."""
        self.closed = False
        """Whether the hooks have been taken off; compiled code may still call them."""
        self.config = config
        self.clock = clock
        self._attached = clock.monotonic()
        self.breaker = Breaker(config.breaker_limit)
        self.pacer = Pacer(config.rows_per_window, config.window_seconds, config.cost_budget, config.rows_per_forward)
        self.picker = RowPicker()
        self.device_guard = DeviceGuard(len(sites) + MOST_STRAYS)
        self.device_rows = DeviceRows()
        self.gradients = Gradients(len(sites) + MOST_STRAYS, self.state, self.breaker) if config.gradients else None
        self.evidence = Waiting()
        self.profiling = Profiling(self.breaker)
        self.inputs = Reservoir(config.capture_inputs) if config.capture_inputs else None
        self.learning = True
        self.consumers: WeakValueDictionary[int, nn.Module] = WeakValueDictionary()
        """The dense layer that takes a site's output as it is, by site."""
        self.large: set[int] = set()
        """Sites with outputs large enough to be left to that layer."""
        self.relayed: frozenset[int] = frozenset()
        """Sites whose large outputs are left to that layer: its hook is on."""
        self.missed: set[tuple[int, bool]] = set()
        """(site, training) where the layer did not take the output after all."""
        self.unwatchable: dict[int, str] = {}
        """Why a site's last call could not be watched."""
        self.captured: set[int] = set()
        """Sites whose last call was recorded into a CUDA graph."""
        self.rowless: dict[int, str] = {}
        """Why a site gives no rows, though its guard works."""
        self.channels: dict[int, int] = {}
        """Which dimension is the channels, from the last, by site; the last where nothing is noted."""
        self.gates: dict[int, str] = {}
        """Which half of a wider tensor a site's input is, where it is one."""
        self.widths: dict[int, int] = {}
        self.called: set[int] = set()
        """Sites seen to run, since code with hooks in it was last compiled."""
        self.compiled = False
        self.hears = False
        """Whether this torch lets calls of GELU be heard wherever they are made."""
        self.names: dict[int, str] = {}
        """Qualified names of the model's modules by `owner.identity`."""
        self.callers: dict[int, int] = {}
        """`owner.identity` of the modules that share their GELU, by site."""
        self.strays: dict[tuple[str, Chain], bool] = {}
        """Calls heard that the census lacked, (qualified name of the module that makes them, the call), and whether it has them now."""
        self.variants: dict[int, str] = {}
        """The formula that a call asked for, where it is an argument, by site."""
        self.traces = Traces.count
        self.states: list[ThreadState] = []
        self.mask_position = mask_position
        self.local = threading.local()

    def state(self) -> ThreadState:
        """Return this thread's state, made on its first call."""
        try:
            return self.local.state  # type: ignore[no-any-return]  # threading.local is untyped
        except AttributeError:
            token = self.local.token = Token()
            state = self.local.state = ThreadState(len(self.sites), token)
            state.board = self.device_guard.board()
            self.states.append(state)
            return state

    def mask(self, state: ThreadState, values: torch.Tensor) -> torch.Tensor | None:
        """Return the valid rows (rows,) of a tensor (..., C) in the forward pass under way, on its device, or None if all are."""
        if not state.depth:
            return None
        try:
            if not state.mask_read:
                state.mask_read = True
                on = self.breaker.allows("mask")
                given = padding.from_call(*state.call, self.config.padding, self.mask_position) if on else None
                state.mask = None if given is None else padding.Mask(given)
            return None if state.mask is None else padding.for_rows(state.mask.on(values.device), values.shape)
        except Exception as error:  # noqa: BLE001  # a user's mask function may raise anything
            state.mask = None
            self.breaker.trip("mask", error)
            return None

    def measure(self, state: ThreadState, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note what the pass that ends took and carried, or that it failed."""
        try:
            if self.breaker.allows("meter"):
                with unseen():
                    state.counters.samples += state.meter.end(args, kwargs, self.mask_position, self.clock.monotonic() - self._attached)
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            self.breaker.trip("meter", error)

    def offer(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Offer the inputs of a pass that begins to the sample of them."""
        try:
            if self.inputs is not None and self.breaker.allows("probe"):
                self.inputs.offer(args, kwargs)
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            self.breaker.trip("probe", error)

    def enter_caller(self, group: int, site: int) -> None:
        """Note that the next calls of a shared GELU belong to a site."""
        try:
            callers = self.state().callers.setdefault(group, [])
            if site in callers:  # left by a forward that raised
                del callers[callers.index(site) :]
            callers.append(site)
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            self.breaker.trip("guard", error)

    def leave_caller(self, group: int, site: int) -> None:
        """Note that they no longer do, nor those of its parts that raised, which it has caught."""
        try:
            callers = self.state().callers.get(group, [])
            if site in callers:
                del callers[callers.index(site) :]
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            self.breaker.trip("guard", error)

    def host(self, state: ThreadState) -> ThreadState | None:
        """Return the thread whose pass a thread without one works for, as parallel branches do: the only one that has a pass open."""
        open_ = [each for each in tuple(self.states) if each.depth and each is not state]
        return open_[0] if len(open_) == 1 else None

    def forget(self, *others: object) -> None:
        """Drop every count and row of this process: in a forked child they are the parent's.

        Args:
            others: What else may hold pinned memory of the parent's.
        """
        _of_parents.append((self.device_guard, self.device_rows, self.gradients, *others))
        self.local = threading.local()
        self.states = []
        self.breaker.failures = {}  # what they have switched off stays off: it would fail here as it did there
        self.evidence, self.profiling = Waiting(), Profiling(self.breaker)
        self.inputs = Reservoir(self.config.capture_inputs) if self.config.capture_inputs else None
        self.device_guard, self.device_rows = DeviceGuard(self.device_guard.sites), DeviceRows()
        self.gradients = Gradients(self.device_guard.sites, self.state, self.breaker) if self.config.gradients else None

    def check(self, state: ThreadState, site: int, pre: torch.Tensor, post: torch.Tensor) -> None:
        """Confirm a suspicion and note the hit."""
        hit = guard.confirm(pre, post, lambda: self.mask(state, post))
        if hit is None:
            return
        host = None if state.depth else self.host(state)
        first = bool(hit.elements) and not _hit_before(state, host)
        if host is not None:
            host.foreign.append((site, bool(hit.elements)))
        else:
            state.hits[site] = state.hits.get(site, False) or bool(hit.elements)
        elements = state.site(site).elements
        for key, count in hit.elements.items():
            elements[key] = elements.get(key, 0) + count
        if not state.depth and state.hits:  # a part of the model was called by itself: no root will count the hit
            state.count_hits(alone=True)
        if first and self.breaker.allows("incident"):
            self.evidence.keep(self, state, site, pre, post)

    def rows_wanted(self, state: ThreadState, site: int, pre: torch.Tensor, valid: int) -> int:
        """Return how many of a site's `valid` rows, of the chosen pass under way, are to be captured."""
        taken = self._grant(state, pre, min(self.pacer.share(site, valid), 1.0) * valid)
        state.note_draw(valid, taken)
        return taken

    def choose_there(self, state: ThreadState, site: int, pre: torch.Tensor) -> Choice:
        """Return the rows of a site on an accelerator to be captured; how many are valid is estimated, not asked."""
        rows, mask = pre.shape[:-1].numel(), self.mask(state, pre)
        valid = rows if mask is None else rows * self.device_rows.valid_share
        share = min(self.pacer.share(site, valid), 1.0)
        most = self._grant(state, pre, share * rows if mask is None else math.ceil(share * rows))
        state.note_draw(valid, min(most, share * valid))
        return self.device_rows.pick(rows, mask, pre.device, share, most)

    def _grant(self, state: ThreadState, pre: torch.Tensor, wanted: float) -> int:
        """Return the whole number of rows for which there is leave and room; without any room they count as dropped."""
        wanted = min(wanted, self.config.rows_per_forward)
        row = 2 * pre.shape[-1] * pre.element_size() * len(self.sites)
        # Not all of what is left, for there may be more passes before the drain.
        room = _SHARE_OF_ROOM * max(self.config.pending_bytes - self._waiting(), 0) / row
        state.cramped |= room < min(LEAST_ROWS, self.config.rows_per_forward)
        if room < 1.0 <= wanted:
            state.counters.dropped_rows += int(wanted)
            return 0
        return self.pacer.whole(min(wanted, room))

    def _waiting(self) -> int:
        return sum(each.bytes_in - each.bytes_out for each in tuple(self.states))

    def keep(self, state: ThreadState, captured: Captured) -> None:
        """Queue captured rows for the next drain, or drop and count them where too many wait."""
        if self._waiting() > self.config.pending_bytes:
            state.counters.dropped_rows += len(captured.pre)
            return
        state.bytes_in += captured.nbytes
        state.rows.append(captured)
        state.kept = captured if state.sampled else None

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
            self.check_late(state, pending)

    def check_late(self, state: ThreadState, pending: Pending) -> None:
        """Confirm a suspicion after the model has gone on, and may have written over the input.

        A GELU of finite values is finite, so what is non-finite in the output was so in the input.
        """
        known = pending.pre_version is not None
        # The version is the only name it has.
        untouched = pending.pre._version == pending.pre_version if known else guard.belong(pending.pre, pending.post)  # noqa: SLF001
        self.check(state, pending.site, pending.pre if untouched else pending.post, pending.post)

    def follow_traces(self) -> None:
        """Where code with hooks in it was compiled since the last call, have every site prove again that it runs."""
        if self.traces != Traces.count:
            self.traces = Traces.count
            self.compiled = True
            self.called.clear()


def _hit_before(state: ThreadState, host: ThreadState | None) -> bool:
    """Return whether the pass under way, or what is taken for one outside of any, has had a hit."""
    if host is not None:
        return any(host.hits.values()) or any(counts for _, counts in tuple(host.foreign))
    return any(state.hits.values()) if state.depth else state.round_told
