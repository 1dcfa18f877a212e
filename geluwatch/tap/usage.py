"""What the process and its devices use: read by whoever drains, never by a thread that runs the model.

Nothing here talks to a device. The allocator's statistics and what a device is are numbers in this process's memory, so that neither a
synchronisation nor a graph capture in another thread is disturbed; how busy a device is, the driver's monitoring
library says, where its Python binding (pynvml) is installed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

import torch

from geluwatch.records import DeviceUsage, Usage

_SELF = Path("/proc/self")
_GROUPS = Path("/sys/fs/cgroup")


def read() -> Usage:
    """Return what this process uses now; what the system does not tell is left out."""
    devices: tuple[DeviceUsage, ...] = ()
    with suppress(Exception):  # a device that has failed is the model's to report
        devices = tuple(_devices())
    return Usage(time.process_time(), _resident(), _threads(), devices, memory_limit())


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


def memory_limit() -> int | None:
    """Return the memory that this process may use: the least that its control groups allow and the machine has.

    Read anew each time, because the limit of a container that runs may be changed.
    """
    limits = [*_group_limits()]
    with suppress(AttributeError, OSError, ValueError):  # a system that has no such number
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(limits, default=None)


def _group_limits() -> Iterator[int]:
    """Yield the limits of the process's control groups, of version 2 or 1, and of the groups around them as far as they are seen."""
    try:
        lines = (_SELF / "cgroup").read_text().splitlines()
    except OSError:
        return
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers and "memory" not in controllers.split(","):
            continue
        root, name = (_GROUPS / "memory", "memory.limit_in_bytes") if controllers else (_GROUPS, "memory.max")
        group = PurePosixPath(path.lstrip("/"))
        for each in (group, *group.parents):
            with suppress(OSError, ValueError):  # a group that is not seen from within a container, or "max"
                yield int((root / each / name).read_text())


def _devices() -> Iterator[DeviceUsage]:
    """Yield the devices on which this process has ever held a tensor; asks nothing before the framework has begun to use them."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's own
        return
    for index in range(torch.cuda.device_count()):
        peak = torch.cuda.max_memory_allocated(index)
        if peak:
            limit = torch.cuda.get_device_properties(index).total_memory
            yield DeviceUsage(f"cuda:{index}", torch.cuda.memory_allocated(index), peak, _busy(index), limit)


def _busy(index: int) -> float | None:
    """Return how busy a device is; None without the driver's library, which may be missing, fail, or refuse."""
    with suppress(Exception):
        return torch.cuda.utilization(index) / 100.0
    return None
