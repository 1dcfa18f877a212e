"""What the process and its devices use: read by whoever drains, never by a thread that runs the model.

Nothing here talks to a device. The allocator's statistics are numbers in this process's memory, so that neither a
synchronisation nor a graph capture in another thread is disturbed; how busy a device is, the driver's monitoring
library says, where its Python binding (pynvml) is installed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

from geluwatch.records import DeviceUsage, Usage

_SELF = Path("/proc/self")


def read() -> Usage:
    """Return what this process uses now; what the system does not tell is left out."""
    devices: tuple[DeviceUsage, ...] = ()
    with suppress(Exception):  # a device that has failed is the model's to report
        devices = tuple(_devices())
    return Usage(time.process_time(), _resident(), _threads(), devices)


def _resident() -> int | None:
    try:
        return int((_SELF / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def _threads() -> int | None:
    try:
        return sum(1 for _ in (_SELF / "task").iterdir())
    except OSError:
        return None


def _devices() -> Iterator[DeviceUsage]:
    """Yield the devices on which this process has ever held a tensor; asks nothing before the framework has begun to use them."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's own
        return
    for index in range(torch.cuda.device_count()):
        peak = torch.cuda.max_memory_allocated(index)
        if peak:
            yield DeviceUsage(f"cuda:{index}", torch.cuda.memory_allocated(index), peak, _busy(index))


def _busy(index: int) -> float | None:
    """Return how busy a device is; None without the driver's library, which may be missing, fail, or refuse."""
    with suppress(Exception):
        return torch.cuda.utilization(index) / 100.0
    return None
