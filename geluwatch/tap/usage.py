"""What the process and its devices use: read by whoever drains, never by a thread that runs the model.

Nothing here talks to a device. The allocator's statistics and what a device is are numbers in this process's memory, so that neither a
synchronisation nor a graph capture in another thread is disturbed; how busy a device is, the driver's monitoring
library says, where its Python binding (pynvml) is installed.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import torch

from geluwatch.records import DeviceUsage, Usage

_SELF = Path("/proc/self")
_GROUPS = Path("/sys/fs/cgroup")


class _Files(NamedTuple):
    """What a version of control groups calls its numbers."""

    limit: str
    used: str
    cached: str


_FIRST = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_SECOND = _Files("memory.max", "memory.current", "inactive_file")


def read() -> Usage:
    """Return what this process uses now; what the system does not tell is left out."""
    devices: tuple[DeviceUsage, ...] = ()
    with suppress(Exception):  # a device that has failed is the model's to report
        devices = tuple(_devices())
    limit, used = memory()
    resident = _resident()
    return Usage(time.process_time(), resident, _threads(), devices, limit, resident if used is None else used)


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


class Memory(NamedTuple):
    """Memory that this process may use."""

    limit: int | None
    """Bytes; None where the system does not tell."""
    used: int | None
    """By all processes of the control group that sets the limit; None where it is the machine's, which serves others as well."""


def memory() -> Memory:
    """Return the memory that this process may use: the least that its control groups allow and the machine has.

    Read anew each time, because the limit of a container that runs may be changed.
    """
    found = [*_of_groups()]
    with suppress(AttributeError, OSError, ValueError):  # a system that has no such number
        found.append(Memory(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), None))
    return min(found, key=lambda each: each.limit or math.inf, default=Memory(None, None))


def _of_groups() -> Iterator[Memory]:
    """Yield the memory of the process's control groups, of version 2 or 1, and of the groups around them as far as they are seen."""
    try:
        lines = (_SELF / "cgroup").read_text().splitlines()
    except OSError:
        return
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers and "memory" not in controllers.split(","):
            continue
        root, names = (_GROUPS / "memory", _FIRST) if controllers else (_GROUPS, _SECOND)
        group = PurePosixPath(path.lstrip("/"))
        for each in (group, *group.parents):
            with suppress(OSError, ValueError):  # a group that is not seen from within a container, or "max"
                yield Memory(int((root / each / names.limit).read_text()), _of_group(root / each, names))


def _of_group(folder: Path, names: _Files) -> int | None:
    """Return what is used as the kubelet counts it: without cached files that nobody has touched for long."""
    try:
        cached = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())[names.cached]
        return max(0, int((folder / names.used).read_text()) - int(cached))
    except (OSError, ValueError, KeyError):
        return None


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
