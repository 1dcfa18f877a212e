"""What one thread that runs the model has seen: written by that thread alone, read by the drain.

Counters only grow and have a single writer, queues are deques whose ends are atomic: the hot path needs no lock.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from time import monotonic, perf_counter, sleep
from typing import TYPE_CHECKING, Any

import torch

from geluwatch.records import Point, Traffic
from geluwatch.tap.deferred import Board, Choice
from geluwatch.tap.meter import Meter
from geluwatch.tap.padding import Mask
from geluwatch.tap.rows import Captured
from geluwatch.tap.token import Token

if TYPE_CHECKING:
    from geluwatch.tap.replay import Listener

_PATIENCE = 10.0
"""Seconds for which coming off waits for what a pass has begun."""


@dataclass(slots=True)
class SiteCounters:
    """Non-finite counters of one site in one thread."""

    forwards: int = 0
    first: int = 0
    padding_forwards: int = 0
    elements: dict[tuple[Point, str], int] = field(default_factory=dict)
    op_seconds: float = 0.0
    """Time of the GELU itself in sampled passes that were listened to."""
    passes: int = 0
    """Passes in which the site was met, counted only once code of the model has been compiled."""
    alone: int = 0
    """Calls outside of any pass, as of parts of the model that are called by themselves."""
    backwards: int = 0
    first_backward: int = 0


@dataclass(slots=True)
class Counters:
    """Counters of one thread since attach."""

    forwards: int = 0
    sampled_forwards: int = 0
    nonfinite_forwards: int = 0
    samples: int = 0
    dropped_rows: int = 0
    hook_seconds: float = 0.0
    timed_seconds: float = 0.0
    """Duration of the passes that `op_seconds` of the sites are a share of."""
    completed: int = 0
    """Passes that returned, and were begun by no compiler; counted only once code of the model has been compiled."""
    whole: int = 0
    """The same of passes that a compiler began, in which every site of its graph is met."""
    last_forward: float | None = None
    traffic: Traffic = field(default_factory=Traffic)


@dataclass(slots=True, eq=False)
class Pending:
    """A GELU's input and output, waiting for the dense layer behind it to be looked at instead."""

    site: int
    training: bool
    pre_version: int | None
    version: int | None
    """How often input and output had been written to, or None where that is not tracked (inference mode)."""
    pre: torch.Tensor
    post: torch.Tensor


@dataclass(slots=True, eq=False)
class Latest:
    """The last GELU output of the first pass; `total` is its sum, to see whether it was changed in place."""

    site: int
    post: torch.Tensor
    total: float


class ThreadState:
    """State of one thread; the fields up to `hits` describe the forward pass under way."""

    def __init__(self, sites: int, token: Token, replay: Listener | None = None) -> None:
        self._token = weakref.ref(token)
        self.replay = replay
        """What sees the passes in place of all else, where they are those of a replay."""
        self.away = False
        """Whether passes of this thread have met tensors on an accelerator."""
        self.board: Board | None = None
        """What it has on accelerators; threads that work for its pass write there as well."""
        self.depth = 0
        self.call: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
        self.mask: Mask | None = None
        self.mask_read = False
        self.sampled = False
        self.plain = False
        """Whether all there is to do in the pass under way is to look whether what a GELU gave is finite, now or behind its consumer."""
        self.indices: dict[torch.Size, torch.Tensor] = {}
        """Rows drawn in the pass under way, by the shape that they were drawn from."""
        self.choices: dict[tuple[torch.Size, torch.device], Choice] = {}
        """The same on accelerators, each of which draws its own."""
        self.turns: dict[int, int] = {}
        """Calls of each site that have given rows in it."""
        self.turns_before: dict[int, int] = {}
        """The same of the sampled pass before it: how often a loop goes round is known in advance from there only."""
        self.spent = 0.0
        self.had = self.taken = 0.0
        """Rows at the largest site of the pass, and those captured there."""
        self.drawn = False
        """Whether a number of rows was drawn."""
        self.cramped = False
        """Whether the captured rows that wait leave next to no room for more."""
        self.pending: Pending | None = None
        self.latest: Latest | None = None
        self.channels: tuple[torch.Tensor, int] | None = None
        """What the last layer whose channels are not the last dimension gave in the first pass, and that dimension from the last."""
        self.hits: dict[int, bool] = {}
        self.round: set[int] = set()
        """Sites called, outside of any pass, since one of them came again: there, that is what is taken for a pass."""
        self.round_after = 0
        """How many passes there had been when it began."""
        self.round_told = False
        """Whether a hit has been counted in it."""
        self.foreign: deque[tuple[int, bool]] = deque()
        """Hits of the pass under way in threads that work for it, which write them here."""
        self.callers: dict[int, list[int]] = {}
        self.owners: list[Any] = []
        """Modules with own calls of GELU that this thread is in, the innermost last."""
        self.listening = 0
        """How often this thread was asked to listen to calls of GELU."""
        self.made: list[int] = []
        """Calls in compiled code so far of each of them that runs there, the innermost last."""
        self.inside = False
        """Whether compiled code is in a GELU module, whose own call is not one of its owner's."""
        self.mode: Any = None
        """The mode that this thread has entered around compiled code."""
        self.entered = 0
        """How many owners this thread was in when it entered the mode, that which did so among them; 0 where the root did."""
        self.produced: dict[int, Any] = {}
        """What parts in front of spelled-out formulas have given, by site."""
        self.op_seconds = 0.0
        """Time of calls heard since a site took it as its own."""
        self.spoken = False
        """Whether the pass under way was begun by compiled code."""
        self.began = 0.0
        self.timed = False
        """Whether the pass under way is sampled and listened to from its beginning, so that the time of every GELU is taken."""
        self.met: set[int] = set()
        """Sites met in the pass under way, noted only once code of the model has been compiled."""
        self.whole = False
        """Whether a compiler began the pass under way."""
        self.ranges: dict[int, Any] = {}
        """Open profiler ranges by site."""
        self.counters = Counters()
        self.meter = Meter()
        self.sites = [SiteCounters() for _ in range(sites)]
        self.rows: deque[Captured] = deque()
        self.kept: Captured | None = None
        """What was captured last in the pass under way."""
        self.profile: Any = None
        """The profiler that runs in the pass under way, where one was asked for."""
        self._backward: tuple[int, set[int]] = (-1, set())
        """The last backward pass with a non-finite gradient, and the sites counted in it."""
        self.bytes_in = 0
        self.bytes_out = 0
        """Bytes of rows ever queued, and of those ever drained; the drain alone writes the second."""
        self.bytes_begun = 0
        """Bytes of rows ever queued when the pass under way began."""
        self.firsts: deque[tuple[float, int]] = deque(maxlen=64)
        """(moment, site) of the first hit of a pass."""

    @property
    def ended(self) -> bool:
        """Whether the thread is gone, so that nothing more will be written."""
        return self._token() is None

    def counted(self) -> Counters:
        """Return a copy of the counters, the meter's among them."""
        return replace(self.counters, traffic=self.meter.traffic())

    def whole_bytes(self) -> int:
        """Return the bytes of rows ever queued by passes that have ended: of one that is cut in two, a window would call layers silent."""
        return self.bytes_begun if self.sampled and not self.ended else self.bytes_in

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, sampled: bool) -> None:
        """Start a forward pass."""
        self.bytes_begun = self.bytes_in
        self.call = (args, kwargs)
        self.mask_read = False
        self.sampled = sampled
        self.spent = self.had = self.taken = self.op_seconds = 0.0
        self.drawn = self.cramped = False
        self.listening = 0
        self.timed = False
        if sampled:
            self.began = perf_counter()

    def count_met(self) -> None:
        """Count the pass that ends, and the sites that were met in it, at one time."""
        self.counters.completed += not self.whole
        self.counters.whole += self.whole
        for site in self.met:
            self.site(site).passes += 1

    def note_time(self, site: int, seconds: float) -> None:
        """Note how long a site's GELU took."""
        self.site(site).op_seconds += seconds

    def settle_time(self, site: int) -> None:
        """Give a site the time of the calls heard since the last one."""
        if self.op_seconds:
            self.site(site).op_seconds += self.op_seconds
            self.op_seconds = 0.0

    def site(self, position: int) -> SiteCounters:
        """Return the counters of a site; sites may be found when they run."""
        while len(self.sites) <= position:
            self.sites.append(SiteCounters())
        return self.sites[position]

    def note_draw(self, had: float, taken: float) -> None:
        """Note how many rows a site of the pass had, and how many were drawn."""
        self.drawn = True
        self.had, self.taken = max(self.had, had), max(self.taken, taken)

    def end(self) -> None:
        """Finish a forward pass: count it, and let go of every tensor that was held for it."""
        counters = self.counters
        counters.forwards += 1
        if self.sampled:
            # A small pass may have been drawn no row; it tells nothing of its sites, and least that they are silent.
            counters.sampled_forwards += not self.drawn or self.taken > 0
            counters.hook_seconds += self.spent
            counters.timed_seconds += (perf_counter() - self.began) * self.timed
            self.indices, self.choices = {}, {}
            self.turns_before, self.turns = self.turns, {}
            self.kept = None
            self.sampled = False
        while self.foreign:
            site, counts = self.foreign.popleft()
            self.hits[site] = self.hits.get(site, False) or counts
        if self.hits:
            self.count_hits()
        self.depth = 0
        self.plain = self.spoken = False
        self.callers.clear()
        self.owners.clear()
        self.made.clear()
        self.met.clear()
        self.inside = False
        self.produced.clear()
        self.call = ((), {})
        self.mask = self.pending = self.latest = self.channels = None

    def count_gradient(self, task: int, site: int) -> None:
        """Count a site's non-finite gradient once for a backward pass, and the first site of the pass."""
        if self._backward[0] != task:
            self._backward = (task, set())
            self.site(site).first_backward += 1
        if site not in self._backward[1]:
            self._backward[1].add(site)
            self.site(site).backwards += 1

    def note_alone(self, site: int) -> None:
        """Note a call outside of any pass."""
        self.site(site).alone += 1
        if site in self.round or self.round_after != self.counters.forwards:
            self.round.clear()
            self.round_after, self.round_told = self.counters.forwards, False
        self.round.add(site)

    def count_hits(self, *, alone: bool = False) -> None:
        """Count the sites that were hit, and the pass with its first site; padding apart.

        Args:
            alone: Outside of any pass, where hits are counted as they come, and those that follow in a round are of the same pass.
        """
        hits, self.hits = self.hits, {}
        valid = [position for position, counts in hits.items() if counts]
        for position, counts in hits.items():
            if counts:
                self.site(position).forwards += 1
            else:
                self.site(position).padding_forwards += 1
        if valid and not (alone and self.round_told):
            self.round_told = alone
            self.counters.nonfinite_forwards += 1
            self.site(valid[0]).first += 1
            self.firsts.append((perf_counter(), valid[0]))


def wait_for(states: Iterable[ThreadState], begun: Callable[[ThreadState], bool]) -> None:
    """Wait for threads to end what each of them can only end itself, where its pass ends; not for ever."""
    until = monotonic() + _PATIENCE
    while any(begun(state) and not state.ended for state in states) and monotonic() < until:
        sleep(0.01)
