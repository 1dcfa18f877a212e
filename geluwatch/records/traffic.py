"""What forward passes took, carried and failed at, and what the process and its devices use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class FirstPass(NamedTuple):
    """The first forward pass that returned."""

    since_attach: float
    """Seconds from attaching to its end."""
    seconds: float
    """What it took."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Sums over forward passes: adding those of threads, batches or pods gives that of all together."""

    seconds: float = 0.0
    """Time in forward passes that returned."""
    latencies: tuple[int, ...] = ()
    """Passes that returned, by the catalogue's edge of latency that they did not exceed; last those above all edges."""
    batches: tuple[int, ...] = ()
    """Passes whose batch size could be read, by edge of batch size in the same way."""
    tokens: int = 0
    """Valid tokens, where they could be counted without waiting for a device."""
    failed: int = 0
    """Passes that raised."""
    out_of_memory: int = 0
    """Of those, passes that raised for want of memory."""
    first: FirstPass | None = None


class DeviceUsage(NamedTuple):
    """One accelerator as this process uses it."""

    device: str
    """For example "cuda:0"."""
    allocated: int
    """Bytes of tensors, as the framework's allocator counts them."""
    peak: int
    """The most of that so far."""
    utilization: float | None = None
    """Share of the last moments in which the device was busy, with any process; None where nobody tells."""
    limit: int | None = None
    """Bytes of memory that the device has."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What the process and its devices use at one moment."""

    cpu_seconds: float
    """Processor time of all threads since the process began."""
    resident: int | None = None
    """Bytes of memory that are really there; None where the system does not tell."""
    threads: int | None = None
    """Threads of the process, those of libraries included; None where the system does not tell."""
    devices: tuple[DeviceUsage, ...] = ()
    limit: int | None = None
    """Bytes of memory that the process may use; None where the system does not tell."""
    used: int | None = None
    """Bytes in use of that limit, by all processes that share it, files that are only cached left out; None where nothing tells."""
