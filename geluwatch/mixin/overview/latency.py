"""The rows of service: how long passes take, how much they carry, how they fail, and what the process uses for it."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.overview.parts import BY_LAYER, LAYERS, LAYERS_FROM_ZERO, OF_AGENT, OF_LAYER, OF_MODEL, Queries, Row, amounts
from geluwatch.mixin.panels import RED, TimeSeries, target
from geluwatch.mixin.queries import GROUP, largest, quantile, total

_QUANTILES = (0.5, 0.95, 0.99)
_OF_DEVICE = f"{OF_AGENT} {{{{device}}}}"


def row(ask: Queries) -> Row:
    """Return the row of latency and load."""
    return Row("Latency and load", (_latency(ask), _tokens(ask), _batches(ask), _failures(ask), _first(ask), _share(ask)))


def process_row(ask: Queries) -> Row:
    """Return the row of the process and its devices."""
    cpu = amounts("Processor", "Cores that each process keeps busy.", target(ask.rate(catalog.CPU_SECONDS), OF_AGENT), unit="short")
    threads = amounts("Threads", "Threads of each process.", target(ask.gauge(catalog.THREADS), OF_AGENT), unit="short")
    return Row("Process and devices", (cpu, _memory(ask), threads, _device_memory(ask), _busy(ask)))


def _latency(ask: Queries) -> TimeSeries:
    buckets = total(ask.rate(catalog.FORWARD_SECONDS), "le", *GROUP)
    return amounts(
        "Forward latency",
        "Quantiles of the time a forward pass takes, over all pods, exact to a bucket. On an accelerator: until the call returned.",
        *(target(quantile(share, buckets), f"{OF_MODEL} p{share * 100:g}") for share in _QUANTILES),
        unit="s",
        size=(12, 8),
    )


def _tokens(ask: Queries) -> TimeSeries:
    tokens = target(total(ask.rate(catalog.TOKENS), *GROUP), OF_MODEL)
    return amounts("Tokens", "Valid tokens a second, padding left out where the mask can be read.", tokens, unit="cps", size=(12, 8))


def _batches(ask: Queries) -> TimeSeries:
    buckets = total(ask.rate(catalog.BATCH_SIZE), "le", *GROUP)
    return amounts(
        "Batch size",
        "Median and largest batch, as bounds that are powers of two.",
        *(target(quantile(share, buckets), f"{OF_MODEL} p{share * 100:g}") for share in (0.5, 1.0)),
        unit="short",
    )


def _failures(ask: Queries) -> TimeSeries:
    failed, memory = (total(ask.rate(metric), *GROUP) for metric in (catalog.FAILED_FORWARDS, catalog.OUT_OF_MEMORY))
    return TimeSeries(
        "Failed passes",
        "Forward passes that raised, and those of them that ran out of memory, which page.",
        [target(failed, f"{OF_MODEL} failed"), target(memory, f"{OF_MODEL} out of memory")],
        size=(8, 7),
        unit="cps",
        field={"min": 0, "color": {"mode": "fixed", "fixedColor": RED}},
        links=ask.runbook("GeluwatchOutOfMemory"),
    )


def _first(ask: Queries) -> TimeSeries:
    return amounts(
        "Cold start",
        "From attaching to the end of the first pass, and what that pass took.",
        target(largest(ask.gauge(catalog.COLD_START), *GROUP, "instance"), f"{OF_AGENT} ready after"),
        target(largest(ask.gauge(catalog.FIRST_FORWARD), *GROUP, "instance"), f"{OF_AGENT} first pass"),
        unit="s",
    )


def _share(ask: Queries) -> TimeSeries:
    spent, passes = total(ask.rate(catalog.GELU_SECONDS, LAYERS), *BY_LAYER), total(ask.rate(catalog.TIMED_SECONDS), *GROUP)
    return TimeSeries(
        "GELU's share of a pass",
        "Time of each GELU itself over that of the passes it was taken in: sampled ones, in processes without torch.compile.",
        [target(f"{spent} / on ({', '.join(GROUP)}) group_left () ({passes} > 0)", OF_LAYER)],
        size=(8, 7),
        unit="percentunit",
        field=LAYERS_FROM_ZERO,
    )


def _memory(ask: Queries) -> TimeSeries:
    resident = target(ask.gauge(catalog.RESIDENT), OF_AGENT)
    return amounts("Memory", "Memory of each process that is really there.", resident, unit="bytes")


def _device_memory(ask: Queries) -> TimeSeries:
    return amounts(
        "Device memory",
        "Memory of tensors on each device, and the most there has been. What the allocator keeps in reserve is not in it.",
        target(ask.gauge(catalog.DEVICE_MEMORY), f"{_OF_DEVICE} now"),
        target(ask.gauge(catalog.DEVICE_PEAK), f"{_OF_DEVICE} peak"),
        unit="bytes",
        size=(12, 7),
    )


def _busy(ask: Queries) -> TimeSeries:
    return TimeSeries(
        "Device utilization",
        "Share of the last moments in which a device was busy, whoever used it.",
        [target(ask.gauge(catalog.DEVICE_BUSY), _OF_DEVICE)],
        size=(12, 7),
        unit="percentunit",
        field={"min": 0, "max": 1},
    )
