"""Processes and devices: how busy they are, and how much of their memory is used."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.dashboards.parts import OF_AGENT, PODS, PODS_FROM_ZERO, Queries, Row, amounts
from geluwatch.mixin.panels import LINE_AT_THRESHOLD, NEUTRAL, ORANGE, TimeSeries, dashed, steps, target

_OF_DEVICE = f"{OF_AGENT} {{{{device}}}}"
_NO_DEVICE = "No accelerator"


def row(ask: Queries) -> Row:
    """Return the row of processes and devices."""
    cpu = amounts("Processor", "Cores that each process keeps busy.", target(ask.rate(catalog.CPU_SECONDS), OF_AGENT), unit="short")
    threads = amounts("Threads", "Threads of each process.", target(ask.gauge(catalog.THREADS), OF_AGENT), unit="short")
    panels = (cpu, threads, _busy(ask), pressure(ask), _memory(ask), _device_memory(ask))
    return Row("Threads, processors, devices and memory", panels, collapsed=True)


def pressure(ask: Queries, size: tuple[int, int] = (8, 8)) -> TimeSeries:
    """Return the share of each memory that is used."""
    limit = ask.settings.thresholds.memory_share
    return TimeSeries(
        "Memory used",
        f"Share of what it may use that each process and each device has in use. From the line at {limit:.0%} on it is a ticket: running "
        "out kills the process.",
        [target(ask.rule(ask.recorded.memory, PODS), _OF_DEVICE)],
        size=size,
        unit="percentunit",
        field={**PODS_FROM_ZERO, "max": 1, "noValue": "No limit known", "thresholds": steps(NEUTRAL, (limit, ORANGE))},
        custom=LINE_AT_THRESHOLD,
        links=ask.runbook("MemoryPressure", "OutOfMemory"),
    )


def _memory(ask: Queries) -> TimeSeries:
    return TimeSeries(
        "Memory",
        "Memory of each process that is really there, and what all of its control group use. Dashed: the limit of that group, or what "
        "the machine has.",
        [
            target(ask.gauge(catalog.RESIDENT), OF_AGENT),
            target(ask.gauge(catalog.MEMORY_USED), f"{OF_AGENT} all"),
            target(ask.gauge(catalog.MEMORY_LIMIT), f"{OF_AGENT} limit"),
        ],
        size=(8, 8),
        unit="bytes",
        field=PODS_FROM_ZERO,
        overrides=[dashed(".* limit$")],
        links=ask.runbook("MemoryPressure"),
    )


def _device_memory(ask: Queries) -> TimeSeries:
    return TimeSeries(
        "Device memory",
        "Memory of tensors on each device, and the most there has been. What the allocator keeps in reserve is not in it. Dashed: what the "
        "device has.",
        [
            target(ask.gauge(catalog.DEVICE_MEMORY), f"{_OF_DEVICE} now"),
            target(ask.gauge(catalog.DEVICE_PEAK), f"{_OF_DEVICE} peak"),
            target(ask.gauge(catalog.DEVICE_LIMIT), f"{_OF_DEVICE} limit"),
        ],
        size=(8, 8),
        unit="bytes",
        field={**PODS_FROM_ZERO, "noValue": _NO_DEVICE},
        overrides=[dashed(".* limit$")],
        links=ask.runbook("MemoryPressure"),
    )


def _busy(ask: Queries) -> TimeSeries:
    return TimeSeries(
        "Device utilization",
        "Share of the last moments in which a device was busy, whoever used it.",
        [target(ask.gauge(catalog.DEVICE_BUSY), _OF_DEVICE)],
        size=(8, 7),
        unit="percentunit",
        field={**PODS_FROM_ZERO, "max": 1, "noValue": _NO_DEVICE},
    )
