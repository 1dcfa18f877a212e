"""Non-finite gradients at GELU outputs: a tensor hook on each output that is part of a graph, put on only when asked for.

The hook sits on the tensor, not on the module: module backward hooks wrap outputs in views, which in-place layers behind
a GELU do not survive. It returns nothing, so that gradients stay what they are to the bit, and holds no tensor. It counts
backward passes by site; the first site in a backward pass is the one nearest to the loss.

A checkpoint that runs its forward again inside the backward pass does so in a graph task of its own; what is recomputed
there belongs to the backward pass that asked for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch

from geluwatch.tap import guard
from geluwatch.tap._compat import rerun, task_id, transformed, unseen, vectorised
from geluwatch.tap.breaker import Breaker
from geluwatch.tap.places import Places
from geluwatch.tap.state import ThreadState

_COPY_EVERY = 16
_OPEN = 4
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
            if type(gradient) is not torch.Tensor or gradient.is_sparse or vectorised(gradient) or not self._breaker.allows("gradients"):
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


class _Backward:
    """One backward pass under way: 0 for each site, NaN where its gradient was not finite, and the sites as they came."""

    def __init__(self, sites: int, device: torch.device) -> None:
        self.odd = torch.zeros(sites, dtype=torch.float32, device=device)
        self.order: dict[int, None] = {}


class DeviceGradients:
    """Counts on one accelerator, without a wait: a vector for each backward pass, folded into counters when later ones have begun.

    Nothing tells that a backward pass is over, and those of several threads are met in turn: a few are held open, and the
    one met longest ago is the next to be folded. A model on several accelerators has a first site on each of them.
    """

    def __init__(self, sites: int, device: torch.device) -> None:
        pinned = device.type == "cuda"
        self._places = Places(sites, device)
        self._open: dict[int, _Backward] = {}
        """By task, the one met last behind the others."""
        self._free = [_Backward(sites, device) for _ in range(_OPEN)]
        self._totals = torch.zeros(2, sites, dtype=torch.int64, device=device)
        self._host = torch.zeros(2, sites, dtype=torch.int64, device="cpu", pin_memory=pinned)
        self._event = torch.cuda.Event() if pinned else None  # type: ignore[no-untyped-call]  # torch's own
        self._in_flight = False
        self._passes = 0
        self._seen: list[list[int]] = [[0] * sites] * 2

    def look(self, site: int, task: int, gradient: torch.Tensor) -> None:
        """Note whether a gradient of a backward pass holds a non-finite value."""
        if not gradient.numel():
            return
        backward = self._backward(task)
        backward.order.setdefault(site)
        # No sum: of finite values it may overflow. A number minus itself is 0, and NaN where it is not finite.
        largest = torch.linalg.vector_norm(gradient, math.inf)
        backward.odd[site].add_(largest - largest)

    def counts(self, *, final: bool) -> tuple[list[int], list[int]]:
        """Return passes with a hit by site, and with the first hit by site."""
        if final:
            for task in tuple(self._open):
                self._fold(task)
            self._seen = self._totals.tolist()
        hits, firsts = self._seen
        return hits, firsts

    def _backward(self, task: int) -> _Backward:
        """Return what is held of a backward pass, which is the one met last from now on."""
        backward = self._open.pop(task, None)
        if backward is None:
            if not self._free:
                self._fold(next(iter(self._open)))
            backward = self._free.pop()
        self._open[task] = backward
        return backward

    def _fold(self, task: int) -> None:
        """Count a backward pass that is over, and start or pick up a copy of the counters."""
        backward = self._open.pop(task, None)
        if backward is None:  # another thread was quicker
            return
        bad = torch.isnan(backward.odd)
        self._totals += torch.stack([bad, self._places.first(bad, tuple(backward.order))])
        backward.odd.zero_()
        backward.order.clear()
        self._free.append(backward)
        self._passes += 1
        if self._in_flight and (self._event is None or self._event.query()):  # type: ignore[no-untyped-call]  # torch's own
            self._seen, self._in_flight = self._host.tolist(), False
        if not self._in_flight and self._passes % _COPY_EVERY == 0:
            self._host.copy_(self._totals, non_blocking=True)
            if self._event is not None:
                self._event.record(torch.cuda.current_stream(self._totals.device))
            self._in_flight = True
