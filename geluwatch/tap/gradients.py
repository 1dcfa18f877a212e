"""Non-finite gradients at GELU outputs: a tensor hook on each output that is part of a graph, put on only when asked for.

The hook sits on the tensor, not on the module: module backward hooks wrap outputs in views, which in-place layers behind
a GELU do not survive. It returns nothing, so that gradients stay what they are to the bit, and holds no tensor. It counts
backward passes by site; the first site in a backward pass is the one nearest to the loss.

A checkpoint that runs its forward again inside the backward pass does so in a graph task of its own; what is recomputed
there belongs to the backward pass that asked for it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from geluwatch.tap import guard
from geluwatch.tap._compat import rerun, task_id, transformed, unseen
from geluwatch.tap.breaker import Breaker
from geluwatch.tap.state import ThreadState

_COPY_EVERY = 16
_ORDERS = 16
_NO_TASK = -1


class Gradients:
    """Counts backward passes with non-finite gradients, by site.

    Args:
        sites: How many there are.
        state: Returns the calling thread's state.
        breaker: Told of failures.
    """

    def __init__(self, sites: int, state: Callable[[], ThreadState], breaker: Breaker) -> None:
        self._state, self._breaker = state, breaker
        self._sites = sites
        self._devices: dict[torch.device, DeviceGradients] = {}

    def follow(self, site: int, output: object) -> None:
        """Have the gradient of a site's output looked at when there is one."""
        try:
            if type(output) is not torch.Tensor or not output.requires_grad or not self._breaker.allows("gradients"):
                return
            task = task_id()
            if (task == _NO_TASK and rerun()) or transformed(output):  # a trace that is recorded, or a transform
                return
            output.register_hook(partial(self._arrived, site, task))  # type: ignore[no-untyped-call]  # torch's own
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            self._breaker.trip("gradients", error)

    def counts(self, *, final: bool = False) -> tuple[list[int], list[int]]:
        """Return the backward passes with a hit by site, and those with the first hit by site, of accelerators; since attach.

        Args:
            final: Wait for the devices; only once the model has been detached.
        """
        zeros = [0] * self._sites
        counted = [device.counts(final=final) for device in tuple(self._devices.values())]
        hits, firsts = ([sum(column) for column in zip(zeros, *(pair[side] for pair in counted), strict=True)] for side in (0, 1))
        return hits, firsts

    def _arrived(self, site: int, outer: int, gradient: torch.Tensor) -> None:
        """Look at a gradient; `outer` is the backward pass in which its forward was run again, if it was."""
        try:
            if type(gradient) is not torch.Tensor or gradient.is_sparse or not self._breaker.allows("gradients"):
                return
            with unseen():
                self._look(site, task_id() if outer == _NO_TASK else outer, gradient.detach())
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            self._breaker.trip("gradients", error)

    def _look(self, site: int, task: int, gradient: torch.Tensor) -> None:
        if not gradient.is_cpu:
            self._look_there(site, task, gradient)
        elif guard.suspicious(gradient) and not bool(torch.isfinite(gradient).all()):
            self._state().count_gradient(task, site)

    def _look_there(self, site: int, task: int, gradient: torch.Tensor) -> None:
        # In a graph that is being captured, what is prepared here on the host would not be there when it is replayed.
        if gradient.is_meta or (gradient.is_cuda and torch.cuda.is_current_stream_capturing()):
            return
        device = self._devices.get(gradient.device)
        if device is None:
            device = self._devices.setdefault(gradient.device, DeviceGradients(self._sites, gradient.device))
        device.look(site, task, gradient)


class DeviceGradients:
    """Counts on one accelerator, without a wait: sums by site, folded into counters when the next backward pass begins.

    A model on several accelerators has a first site on each of them. A sum in float32 is non-finite whenever one of its terms is.
    """

    def __init__(self, sites: int, device: torch.device) -> None:
        pinned = device.type == "cuda"
        self._sums = torch.zeros(sites, dtype=torch.float32, device=device)
        self._totals = torch.zeros(2 * sites, dtype=torch.int64, device=device)
        self._host = torch.zeros(2 * sites, dtype=torch.int64, device="cpu", pin_memory=pinned)
        self._event = torch.cuda.Event() if pinned else None  # type: ignore[no-untyped-call]  # torch's own
        self._in_flight = False
        self._passes = 0
        self._task = _NO_TASK
        self._order: list[int] = []
        self._orders: dict[tuple[int, ...], torch.Tensor] = {}
        self._seen = [0] * (2 * sites)

    def look(self, site: int, task: int, gradient: torch.Tensor) -> None:
        """Note whether a gradient of a backward pass holds a non-finite value."""
        if task != self._task:
            self._fold()
            self._task = task
        self._sums[site] += gradient.sum(dtype=torch.float32)
        if site not in self._order:
            self._order.append(site)

    def counts(self, *, final: bool) -> tuple[list[int], list[int]]:
        """Return passes with a hit by site, and with the first hit by site."""
        if final:
            self._fold()
            self._seen = self._totals.tolist()
        half = len(self._seen) // 2
        return self._seen[:half], self._seen[half:]

    def _fold(self) -> None:
        """Count the backward pass that is over, and start or pick up a copy of the counters."""
        if not self._order:
            return
        bad = ~torch.isfinite(self._sums)
        place = self._place(tuple(self._order))
        # The earliest arrival among those hit; sites that did not take part stand behind all that did.
        arrived = torch.where(bad, place, len(self._sums))
        first = bad & (arrived == arrived.min())
        self._totals += torch.cat([bad, first]).to(torch.int64)
        self._sums.zero_()
        self._order = []
        self._passes += 1
        if self._in_flight and (self._event is None or self._event.query()):  # type: ignore[no-untyped-call]  # torch's own
            self._seen, self._in_flight = self._host.tolist(), False
        if not self._in_flight and self._passes % _COPY_EVERY == 0:
            self._host.copy_(self._totals, non_blocking=True)
            if self._event is not None:
                self._event.record(torch.cuda.current_stream(self._totals.device))
            self._in_flight = True

    def _place(self, order: tuple[int, ...]) -> torch.Tensor:
        """Return when each site's gradient arrived, on the device; the order hardly ever changes, so it is kept there."""
        if order not in self._orders:
            if len(self._orders) >= _ORDERS:
                self._orders.clear()
            arrival = {site: when for when, site in enumerate(order)}
            values = torch.tensor([arrival.get(site, len(self._sums)) for site in range(len(self._sums))])
            pinned = values.pin_memory() if self._event is not None else values
            self._orders[order] = pinned.to(self._sums.device, non_blocking=True)
        return self._orders[order]
