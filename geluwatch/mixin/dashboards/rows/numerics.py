"""Arithmetic: layers that are grossly wrong, the room below what the dtype can hold, and what the kernels computed."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.dashboards.parts import (
    BY_LAYER,
    BY_POINT,
    LAYERS,
    LAYERS_FROM_ZERO,
    OF_LAYER,
    OF_POINT,
    POINT,
    Queries,
    Row,
    drill_down,
)
from geluwatch.mixin.panels import GREEN, LOWEST_FIRST, RED, Json, Table, TimeSeries, cells, columns, override, target, texts
from geluwatch.mixin.queries import largest, smallest

_CLUTTER = ("Time", "cluster", "namespace", "job", "region")
_LAYER_LINK = override("byName", "layer", links=[drill_down("Debug this layer", layer="${__value.text}")])


def row(ask: Queries) -> Row:
    """Return the row of arithmetic."""
    return Row("Arithmetic", (_headroom(ask), _time_left(ask), _error(ask), kernels(ask, size=(24, 6))), collapsed=True)


def faults(ask: Queries) -> Table:
    """Return the table of layers that are grossly wrong now."""
    found = largest(ask.gauge(catalog.GROSS), *BY_LAYER, "fault")
    return _table(
        "Gross faults",
        "Layers that are dead (always the same, or every gate closed) or impossible (values that no GELU gives), baseline or not. A layer "
        "opens in the debug dashboard.",
        f"{found} == 1",
        "No gross fault",
        ask.runbook("GrossFault"),
    )


def overflows(ask: Queries) -> Table:
    """Return the table of layers on their way to an overflow."""
    found = f"{largest(ask.gauge(catalog.OVERFLOW), *BY_LAYER, 'point', 'tier')} == 1"
    return _table(
        "Overflow ahead",
        "Layers whose values grow towards what their dtype can hold; tier page is close. The debug dashboard has headroom and time left.",
        found,
        "None ahead",
        ask.runbook("OverflowAhead"),
    )


def mismatches(ask: Queries) -> Table:
    """Return the table of kernels that compute something else than they declare."""
    found = f"{largest(ask.gauge(catalog.KERNEL_MISMATCH), *BY_LAYER, 'declared', 'measured')} == 1"
    return _table(
        "Kernel mismatches",
        "GELUs whose values are not those of the formula and precision that they declare.",
        found,
        "None",
        ask.runbook("KernelMismatch"),
    )


def _table(title: str, description: str, expr: str, none: str, links: list[Json]) -> Table:
    return Table(
        title,
        description,
        [cells(expr)],
        size=(8, 6),
        unit="string",
        field={"noValue": none},
        overrides=[_LAYER_LINK],
        transformations=[columns(hide=(*_CLUTTER, "Value"), order=("layer", "point", "fault", "tier", "declared", "measured", "model"))],
        links=links,
    )


def _headroom(ask: Queries) -> TimeSeries:
    return TimeSeries(
        "Headroom",
        "Doublings left between the largest magnitude and the dtype's largest value, on the pod with fewest. Float16 starts with 16.",
        [target(smallest(ask.gauge(catalog.HEADROOM, LAYERS, POINT), *BY_POINT), OF_POINT)],
        size=(8, 7),
        unit="none",
        field=LAYERS_FROM_ZERO,
        options=LOWEST_FIRST,
        links=ask.runbook("OverflowAhead"),
    )


def _time_left(ask: Queries) -> TimeSeries:
    return TimeSeries(
        "Time to overflow",
        "How long the headroom lasts at the rate of the last windows. Without a sure trend there is no line.",
        [target(smallest(ask.gauge(catalog.OVERFLOW_TIME, LAYERS, POINT), *BY_POINT), OF_POINT)],
        size=(8, 7),
        unit="s",
        field={**LAYERS_FROM_ZERO, "noValue": "No trend"},
        options=LOWEST_FIRST,
        links=ask.runbook("OverflowAhead"),
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
        links=ask.runbook("KernelMismatch"),
    )


def kernels(ask: Queries, size: tuple[int, int]) -> Table:
    """Return the table of what each GELU declares and was measured to compute."""
    found = largest(ask.gauge(catalog.KERNEL_MISMATCH, LAYERS), *BY_LAYER, "instance", "declared", "measured")
    words = texts({0: ("as declared", GREEN), 1: ("mismatch", RED)})
    return Table(
        "Kernels",
        "What each GELU declares and what its values say.",
        [cells(f"sort_desc({found})")],
        size=size,
        unit="none",
        field={"noValue": "Not measured yet", "decimals": 0},
        overrides=[
            override("byName", "State", mappings=words, custom__cellOptions={"type": "color-text"}),
            _LAYER_LINK,
        ],
        transformations=[columns(hide=_CLUTTER, rename={"Value": "State"}, order=("Value", "layer", "declared", "measured", "instance"))],
        links=ask.runbook("KernelMismatch"),
    )
