"""The row of arithmetic: the room below what the dtype can hold, how long it lasts, and what the kernels computed."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.overview.parts import BY_LAYER, BY_POINT, LAYERS, LAYERS_FROM_ZERO, OF_LAYER, OF_POINT, POINT, Queries, Row
from geluwatch.mixin.panels import Table, TimeSeries, columns, target
from geluwatch.mixin.queries import largest, smallest


def row(ask: Queries) -> Row:
    """Return the row of arithmetic."""
    return Row("Arithmetic", (_headroom(ask), _time_left(ask), _error(ask), _kernels(ask)))


def _headroom(ask: Queries) -> TimeSeries:
    return TimeSeries(
        "Headroom",
        "Doublings left between the largest magnitude and the dtype's largest value, on the pod with fewest. Float16 starts with 16.",
        [target(smallest(ask.gauge(catalog.HEADROOM, LAYERS, POINT), *BY_POINT), OF_POINT)],
        size=(8, 7),
        unit="none",
        field=LAYERS_FROM_ZERO,
        links=ask.runbook("GeluwatchOverflowAhead"),
    )


def _time_left(ask: Queries) -> TimeSeries:
    return TimeSeries(
        "Time to overflow",
        "How long the headroom lasts at the rate of the last windows. Without a sure trend there is no line.",
        [target(smallest(ask.gauge(catalog.OVERFLOW_TIME, LAYERS, POINT), *BY_POINT), OF_POINT)],
        size=(8, 7),
        unit="s",
        field=LAYERS_FROM_ZERO,
        links=ask.runbook("GeluwatchOverflowAhead"),
    )


def _error(ask: Queries) -> TimeSeries:
    return TimeSeries(
        "Kernel error",
        "Error against the declared formula that 99 % of the values keep to, in units of last place. A few in float32; a formula that "
        "is spelled out in 16 bits has hundreds.",
        [target(largest(ask.gauge(catalog.KERNEL_ERROR, LAYERS), *BY_LAYER), OF_LAYER)],
        size=(8, 7),
        unit="none",
        field=LAYERS_FROM_ZERO,
        links=ask.runbook("GeluwatchKernelMismatch"),
    )


def _kernels(ask: Queries) -> Table:
    found = largest(ask.gauge(catalog.KERNEL_MISMATCH, LAYERS), *BY_LAYER, "instance", "declared", "measured")
    return Table(
        "Kernels",
        "What each GELU declares and what its values say; a value of 1 is a mismatch.",
        [target(f"sort_desc({found})", "", instant=True, form="table")],
        size=(24, 6),
        unit="none",
        field={"noValue": "Not measured yet", "decimals": 0},
        transformations=[columns(hide=("Time", "cluster", "namespace", "job"), rename={"Value": "mismatch"})],
    )
