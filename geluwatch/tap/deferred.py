"""Guard and row capture where looking would stall a device: results stay there, and come over when they are ready.

Each site's largest magnitude, which shows NaN and Inf and which no finite values overflow, goes into its own slot of a
vector on the device, in one operation; at the end of the pass a few operations on that vector count hits and first
hits, of which each pass with a hit has one, without a branch on the host. Every so often a copy is started into pinned
memory; a later pass, in the same thread, picks it up once its event has fired. Nothing here waits, and no other thread
touches the device, so that graph capture elsewhere is not disturbed; in a pass that is itself being captured nothing is
copied. Counts are of forward passes; elements and kinds are not counted here.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain

import torch

from geluwatch.tap._compat import capturing
from geluwatch.tap.places import Places
from geluwatch.tap.rows import Captured, Formula, capture
from geluwatch.tap.token import Token

_COPY_EVERY = 16
_graphed: set[_DeviceState] = set()
"""What passes that were captured write to: a graph goes on writing there when it is replayed, watched or not, so it is never let go."""
_WEIGHT = 1.0 / 32.0  # of the newest capture in the running share of valid rows


class _DeviceState:
    """Vectors of one thread on one device; int64 counters (2, sites) of hits and of first hits."""

    def __init__(self, sites: int, device: torch.device) -> None:
        with torch.inference_mode(mode=False):  # an accumulator made in inference mode could not be used outside it
            self.largest = torch.zeros(sites, dtype=torch.float32, device=device)
            self.bad = torch.zeros(sites, dtype=torch.bool, device=device)
            self.counts = torch.zeros(2, sites, dtype=torch.int64, device=device)
            pinned = device.type == "cuda"
            self.host = torch.zeros(2, sites, dtype=torch.int64, device="cpu", pin_memory=pinned)
        self.zero = torch.zeros((), device=device)
        self.slots = self.largest.unbind()
        self.places = Places(sites, device)
        self.looked: dict[int, bool] = {}
        """Whether its slot has been written to, for each site of the pass under way, in the order in which they came."""
        self.event = torch.cuda.Event() if pinned else None  # type: ignore[no-untyped-call]  # torch's own
        self.in_flight = False
        self.passes = 0
        self.seen: list[list[int]] = [[0] * sites] * 2


class Board:
    """What one thread has on each device, and what of it the pass under way has come to, in that order."""

    def __init__(self, token: Token) -> None:
        self.token = weakref.ref(token)
        self.states: dict[torch.device, _DeviceState] = {}
        self.reached: list[_DeviceState] = []


class DeviceGuard:
    """Guards sites whose tensors live on an accelerator."""

    def __init__(self, sites: int) -> None:
        self.sites = sites
        self._local = threading.local()
        self._all: list[_DeviceState] = []
        self._spare: dict[torch.device, deque[_DeviceState]] = {}

    def board(self) -> Board:
        """Return what this thread has on devices."""
        try:
            return self._local.board  # type: ignore[no-any-return]  # threading.local is untyped
        except AttributeError:
            token = self._local.token = Token()
            board = self._local.board = Board(token)
            return board

    def look(
        self,
        site: int,
        sides: tuple[torch.Tensor, ...],
        mask: torch.Tensor | None,
        *,
        captured: bool = False,
        board: Board | None = None,
    ) -> None:
        """Note on the device whether a site's tensors (..., C) hold a non-finite value in a valid row.

        Args:
            site: Where.
            sides: What the site gave, and was given where that is looked at as well.
            mask: (rows,), true where a row is valid; None where all are.
            captured: Whether the pass is being captured into a graph.
            board: That of the thread whose pass it is, where this one works for it.
        """
        board = self.board() if board is None else board
        state = self._state(board, sides[0].device)
        if captured:
            _graphed.add(state)
        for side in sides:
            if not side.numel():
                continue
            if not state.looked:
                board.reached.append(state)
            values = side.detach()
            if mask is not None:
                rows = torch.linalg.vector_norm(values.reshape(mask.numel(), -1), math.inf, dim=1)
                values = torch.where(mask, rows, state.zero)
            if state.looked.setdefault(site, False) or values.dtype is torch.float64:  # whose largest values a float32 does not hold
                state.bad[site] |= ~torch.isfinite(torch.linalg.vector_norm(values, math.inf))
            else:
                torch.linalg.vector_norm(values, math.inf, dtype=torch.float32, out=state.slots[site])
                state.looked[site] = True

    def look_alone(self, site: int, sides: tuple[torch.Tensor, ...]) -> None:
        """Count a call outside of any pass, as of a part of the model that is called by itself: a hit there stands alone."""
        state = self._state(self.board(), sides[0].device)
        largest = [torch.linalg.vector_norm(side.detach(), math.inf) for side in sides if side.numel()]
        if largest:
            odd = sum(each - each for each in largest)  # 0, or NaN where one of them is not finite
            state.counts[:, site].add_(odd != 0)
            self._fetch(state)

    def end_pass(self) -> None:
        """Count the pass of this thread that ends, and start or pick up a copy of the counters."""
        board = self.board()
        reached, board.reached = board.reached, []
        earlier: torch.Tensor | None = None
        for state in reached:
            earlier = self._count(state, earlier)

    def _count(self, state: _DeviceState, earlier: torch.Tensor | None) -> torch.Tensor:
        """Count the pass on one device, and return whether it was hit there or on those before it, whose pass it is as well."""
        bad = state.bad | ~torch.isfinite(state.largest)
        first, told = state.places.first(bad, tuple(state.looked)), bad.any()
        if earlier is not None:
            earlier = earlier.to(bad.device, non_blocking=True)
            first, told = first & ~earlier, told | earlier
        state.counts += torch.stack([bad, first])
        state.bad.zero_()
        state.largest.zero_()
        state.looked.clear()
        self._fetch(state)
        return told

    def _fetch(self, state: _DeviceState) -> None:
        """Start or pick up a copy of the counters, every so often."""
        if capturing(state.bad.device):
            _graphed.add(state)
            return  # what the host does now would not be done again when the graph is replayed
        state.passes += 1
        if state.in_flight and _fired(state.event):
            state.seen, state.in_flight = state.host.tolist(), False
        if not state.in_flight and state.passes % _COPY_EVERY == 0:
            state.host.copy_(state.counts, non_blocking=True)
            if state.event is not None:
                state.event.record(torch.cuda.current_stream(state.counts.device))
            state.in_flight = True

    def counts(self, *, final: bool = False) -> tuple[list[int], list[int], int]:
        """Return passes with a hit by site, passes with the first hit by site, and passes with any, since attach.

        Args:
            final: Wait for the device; only once the model has been detached.
        """
        if final:
            for state in self._all:
                state.seen = state.counts.tolist()
        seen = [state.seen for state in self._all]
        zeros = [0] * self.sites
        hits, firsts = ([sum(column) for column in zip(zeros, *(each[side] for each in seen), strict=True)] for side in (0, 1))
        return hits, firsts, sum(firsts)

    def _state(self, board: Board, device: torch.device) -> _DeviceState:
        state = board.states.get(device)
        if state is None:
            spare = self._spare.setdefault(device, deque())
            with suppress(IndexError):  # of a thread that has ended, if there is one: counts only grow
                state = spare.popleft()
            if state is None:
                state = _DeviceState(self.sites, device)
                self._all.append(state)
            elif state.looked:  # in a pass that was cut off
                board.reached.append(state)
            board.states[device] = state
            token = board.token()
            if token is not None:
                weakref.finalize(token, spare.append, state)
        return state


@dataclass(frozen=True, slots=True)
class _Flight:
    """Rows on their way to the host; `valid` (k,) is false where padding had to fill up."""

    captured: Captured
    valid: torch.Tensor
    masked: bool
    device: torch.device
    event: torch.cuda.Event | None


@dataclass(frozen=True, slots=True)
class Choice:
    """Rows drawn on a device: `indices` (k,) int64, `valid` (k,) bool; `masked` where some may be padding."""

    indices: torch.Tensor
    valid: torch.Tensor
    masked: bool


class DeviceRows:
    """Captures rows on an accelerator: draws, gathers and copies them without a wait, all in the model's own thread."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._left: deque[_Flight] = deque()
        """Of threads that have ended."""
        self.valid_share = 1.0
        """Share of valid rows among those of masked passes, learnt from what arrived."""

    def pick(self, rows: int, mask: torch.Tensor | None, device: torch.device, share: float, most: int) -> Choice:
        """Draw rows evenly from the valid ones; how many are valid is known on the device only, so the rest is flagged.

        Args:
            rows: Rows that there are.
            mask: (rows,), true where a row is valid; None where all are.
            device: Where the rows are.
            share: Share of the valid rows to be drawn.
            most: Rows gathered, valid or not.
        """
        generator = self._generator(device)
        keys = torch.rand(rows, device=device, generator=generator)
        if mask is None:
            return Choice(keys.topk(most).indices, torch.ones(most, dtype=torch.bool, device=device), masked=False)
        best = keys.masked_fill(~mask, -1.0).topk(most)
        # Valid rows come first; the rest of the share, a fraction of a row, is one row as often as it says.
        wanted = mask.sum() * share + torch.rand((), device=device, generator=generator)
        return Choice(best.indices, (best.values >= 0.0) & (torch.arange(1, most + 1, device=device) <= wanted), masked=True)

    def capture(self, layer: str, pre: torch.Tensor, post: torch.Tensor | Formula, choice: Choice) -> None:
        """Gather the chosen rows on the device and start their copy to the host."""
        taken = capture(layer, pre, post, choice.indices)
        landed = replace(taken, pre=_start_copy(taken.pre), post=_start_copy(taken.post))
        valid = _start_copy(choice.valid)
        event = torch.cuda.Event() if pre.is_cuda else None  # type: ignore[no-untyped-call]  # torch's own
        if event is not None:
            event.record(torch.cuda.current_stream(pre.device))
        self._flights().append(_Flight(landed, valid, choice.masked, pre.device, event))

    def arrived(self) -> Iterator[Captured]:
        """Yield what has arrived for this thread and those that have ended, without padding rows; the rest stays for a later pass."""
        for flight in chain(_landed(self._flights()), _landed(self._left)):
            captured = flight.captured
            if flight.masked and len(flight.valid):
                self.valid_share += (float(flight.valid.float().mean()) - self.valid_share) * _WEIGHT
            yield replace(captured, pre=captured.pre[flight.valid], post=captured.post[flight.valid])

    def _flights(self) -> deque[_Flight]:
        try:
            return self._local.flights  # type: ignore[no-any-return]  # threading.local is untyped
        except AttributeError:
            flights = self._local.flights = deque()
            token = self._local.token = Token()
            weakref.finalize(token, self._left.extend, flights).atexit = False
            return flights

    def _generator(self, device: torch.device) -> torch.Generator:
        generators: dict[torch.device, torch.Generator] | None = getattr(self._local, "generators", None)
        if generators is None:
            generators = self._local.generators = {}
        if device not in generators:
            # Its own, for drawing from the device's default generator would change the model's dropout.
            generators[device] = torch.Generator(device).manual_seed(0x6E1)
        return generators[device]


def _landed(flights: deque[_Flight]) -> Iterator[_Flight]:
    """Yield flights from the front as far as they have arrived; other threads may do so at the same time."""
    while flights:
        try:
            flight = flights.popleft()
        except IndexError:
            return
        if capturing(flight.device) or not _fired(flight.event):
            flights.appendleft(flight)
            return
        yield flight


def _fired(event: torch.cuda.Event | None) -> bool:
    """Return whether a copy has arrived; without an event it was made on the spot."""
    return event is None or bool(event.query())  # type: ignore[no-untyped-call]  # torch's own


def _start_copy(values: torch.Tensor) -> torch.Tensor:
    landing = torch.empty(values.shape, dtype=values.dtype, device="cpu", pin_memory=values.is_cuda)
    return landing.copy_(values, non_blocking=True)
