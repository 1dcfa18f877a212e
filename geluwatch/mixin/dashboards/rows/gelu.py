"""What the GELUs themselves cost: their time by layer, and their share of the passes."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.dashboards.parts import BY_LAYER, LAYERS, LAYERS_FROM_ZERO, OF_LAYER, RANGE, Queries, Row, amounts
from geluwatch.mixin.panels import BLUE, Bars, TimeSeries, target
from geluwatch.mixin.queries import GROUP, total

_WHOLE = f"/ on ({', '.join(GROUP)}) group_left ()"
_TAKEN = "In passes that were timed: sampled ones, in processes without torch.compile."
_UNTIMED = "Not timed"
_RANKED = 15


def row(ask: Queries) -> Row:
    """Return the row of what GELUs cost."""
    return Row("Cost of the GELUs", (_ranking(ask), _share(ask), _seconds(ask)), collapsed=True)


def _ranking(ask: Queries) -> Bars:
    spent, passes = (
        ask.increase(metric, RANGE, *more) for metric, more in ((catalog.GELU_SECONDS, (LAYERS,)), (catalog.TIMED_SECONDS, ()))
    )
    shares = f"{total(spent, *BY_LAYER)} {_WHOLE} ({total(passes, *GROUP)} > 0)"
    return Bars(
        "Hottest GELUs",
        f"The {_RANKED} GELUs that take the largest share of the time of a pass, over the shown time range. {_TAKEN}",
        [target(f"sort_desc(topk({_RANKED}, {shares}))", OF_LAYER, instant=True)],
        size=(8, 9),
        unit="percentunit",
        field={**LAYERS_FROM_ZERO, "decimals": 2, "noValue": _UNTIMED, "color": {"mode": "fixed", "fixedColor": BLUE}},
    )


def _share(ask: Queries) -> TimeSeries:
    spent, passes = total(ask.rate(catalog.GELU_SECONDS, LAYERS), *BY_LAYER), total(ask.rate(catalog.TIMED_SECONDS), *GROUP)
    return TimeSeries(
        "GELU's share of a pass",
        f"Time of each GELU itself over that of the passes it was taken in. {_TAKEN} A rise without a new model is another kernel.",
        [target(f"{spent} {_WHOLE} ({passes} > 0)", OF_LAYER)],
        size=(8, 9),
        unit="percentunit",
        field={**LAYERS_FROM_ZERO, "noValue": _UNTIMED},
        links=ask.runbook("LatencySpike"),
    )


def _seconds(ask: Queries) -> TimeSeries:
    return amounts(
        "Time in GELUs",
        f"Seconds a second that the timed passes of all pods spent in each GELU. {_TAKEN}",
        target(total(ask.rate(catalog.GELU_SECONDS, LAYERS), *BY_LAYER), OF_LAYER),
        unit="s",
        size=(8, 9),
        field={**LAYERS_FROM_ZERO, "noValue": _UNTIMED},
    )
