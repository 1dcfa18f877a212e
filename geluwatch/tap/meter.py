"""What a forward pass took, carried and failed at: a few additions at its two ends, nothing on a device.

A pass is timed from its outermost call to the return of that call. Where the model runs on an accelerator its work may
go on after that: to wait for it would cost more than knowing it is worth.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from time import perf_counter
from typing import Any

import torch

from geluwatch.catalog import BATCH_EDGES, LATENCY_EDGES
from geluwatch.core.totals import add_traffic
from geluwatch.records import FirstPass, Traffic
from geluwatch.tap import padding
from geluwatch.tap._compat import transformed

_OUT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)
# How torch's host allocators, and libraries that report a device's exhaustion as a plain RuntimeError, word it.
_WORDS = ("can't allocate memory", "not enough memory", "out of memory", "alloc_failed")


class Meter:
    """Counters of one thread since attach: written by that thread alone, read by the drain."""

    __slots__ = ("_began", "_handled", "batches", "failed", "first", "latencies", "out_of_memory", "seconds", "tokens")

    def __init__(self) -> None:
        self._began = 0.0
        self._handled = 0
        self.seconds = 0.0
        self.latencies = [0] * (len(LATENCY_EDGES) + 1)
        self.batches = [0] * (len(BATCH_EDGES) + 1)
        self.tokens = self.failed = self.out_of_memory = 0
        self.first: FirstPass | None = None

    def begin(self) -> None:
        """Note that a pass begins."""
        # A model may be called while an earlier error is being handled, after an out-of-memory error above all.
        self._handled = id(sys.exc_info()[1])
        self._began = perf_counter()

    def end(self, args: tuple[Any, ...], kwargs: dict[str, Any], position: int | None, since_attach: float) -> int:
        """Note that the pass ends, and return its batch size; called where an error of the pass, if there is one, is being handled.

        Args:
            args: Positional arguments of the root call.
            kwargs: Its keyword arguments.
            position: Where among `args` an attention mask may stand.
            since_attach: Seconds since the watch was attached.
        """
        took = perf_counter() - self._began
        error = sys.exc_info()[1]
        first = padding.first_tensor(args, kwargs)
        if size := padding.batch_size(first):
            self.batches[bisect_left(BATCH_EDGES, size)] += 1
        if error is not None and id(error) != self._handled:
            self.failed += 1
            self.out_of_memory += out_of_memory(error)
            return size
        self.seconds += took
        self.latencies[bisect_left(LATENCY_EDGES, took)] += 1
        if self.first is None:
            self.first = FirstPass(since_attach, took)
        self.tokens += tokens(first, padding.mask_argument(args, kwargs, position))
        return size

    def traffic(self) -> Traffic:
        """Return what was counted so far."""
        buckets = tuple(self.latencies), tuple(self.batches)
        return Traffic(self.seconds, *buckets, self.tokens, self.failed, self.out_of_memory, self.first)


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on the host or on a device."""
    return isinstance(error, _OUT_OF_MEMORY) or (isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS))


def tokens(first: torch.Tensor | None, mask: object) -> int:
    """Return the valid tokens of a call: its attention mask's, else all of its first tensor if that is (batch, tokens) of integers.

    A mask on an accelerator is not read, for that would be a wait; its padding counts. 0 where the call has neither.
    """
    if type(mask) is torch.Tensor and mask.is_cpu and not transformed(mask) and mask.dim() == 2 and not mask.is_floating_point():
        return int(torch.count_nonzero(mask))
    if first is None or first.dim() != 2 or first.is_floating_point() or first.dtype is torch.bool:
        return 0
    return first.numel()


def increase(before: Traffic, after: Traffic) -> Traffic:
    """Return by how much counters have grown; the first pass is told each time."""
    return add_traffic(
        after,
        Traffic(
            -before.seconds,
            tuple(-count for count in before.latencies),
            tuple(-count for count in before.batches),
            -before.tokens,
            -before.failed,
            -before.out_of_memory,
        ),
    )
