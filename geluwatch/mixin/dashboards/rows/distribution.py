"""Distributions: buckets live and of the baseline, cumulative shares laid over each other, and the moments."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from geluwatch import catalog
from geluwatch.catalog import Metric
from geluwatch.mixin.dashboards.parts import BY_POINT, LAYERS, OF_POINT, ONLY_THIS_LAYER, POINT, RANGE, RATE, Queries, Row
from geluwatch.mixin.panels import BLUE, ORANGE, PURPLE, Bars, Heatmap, TimeSeries, Trend, cells, columns, painted, target
from geluwatch.mixin.queries import mean, number, total
from geluwatch.mixin.rules import fleet

_FINITE = 'le!="+Inf"'
"""Edges that have a place on an axis."""
_FULL_BAR = 0.25
"""Some more than calm activations have in any bucket."""


def buckets_row(ask: Queries) -> Row:
    """Return the row of buckets, which is repeated for the values before and after the GELU: their edges differ."""
    live = _shares("Live", "Share of the sampled values in each bucket, over the shown time range", _live(ask))
    baseline = _shares("Baseline", "Share of the armed baseline in each bucket, to be compared with the live one", _baseline(ask))
    return Row("Distribution $point the GELU, of the chosen layers", (_heatmap(ask), live, baseline, _overlay(ask)), repeat="point")


def canary_row(ask: Queries) -> Row:
    """Return the row that lays the canary's distribution over those of the stable pods and of the baseline."""
    stable, canary = (_shared(ask, side, _FINITE) for side in (ask.stable, ask.canary))
    baseline = mean(ask.gauge(catalog.BASELINE_CDF, LAYERS, POINT, _FINITE), "le")
    overlay = _cumulative(
        "Canary, stable and baseline",
        "Cumulative share of the sampled values of the chosen layers up to each edge, over the shown time range. Where the lines part, "
        "values have moved; the largest gap is the KS distance.",
        {"canary": canary, "stable": stable, "baseline": baseline},
        {"canary": PURPLE, "stable": BLUE, "baseline": ORANGE},
    )
    return Row("Canary $point the GELU", (overlay,), repeat="point", collapsed=True)


def moments_row(ask: Queries) -> Row:
    """Return the row of mean and spread, read from counters, so that each pod weighs what it sampled."""
    positive, negative = (_summed(ask, catalog.ABS_SUM, f'sign="{sign}"') for sign in catalog.SIGNS)
    average = f"({positive} - {negative}) / {_elements(ask)}"
    variance = f"{_summed(ask, catalog.SQUARES)} / {_elements(ask)} - ({average}) ^ 2"
    return Row(
        "Mean and spread",
        (
            _line("Mean by layer", "Mean of the sampled values of all pods.", average),
            _line(
                "Standard deviation by layer",
                "Standard deviation of the sampled values of all pods. A rise before the GELU is the first sign of saturation.",
                f"sqrt(clamp_min({variance}, 0))",
            ),
        ),
    )


def _heatmap(ask: Queries) -> Heatmap:
    grown = total(ask.increase(catalog.VALUES, RATE, LAYERS, POINT), "le")
    return Heatmap(
        "Activation values over time",
        "Sampled values by bucket; a row is named by its upper edge.",
        [target(grown, "{{le}}", form="heatmap")],
        size=(12, 14),
    )


def _overlay(ask: Queries) -> Trend:
    live, baseline = (ask.rule(name, LAYERS, POINT, _FINITE) for name in (fleet.CDF, fleet.BASELINE))
    return _cumulative(
        "Cumulative share, live over baseline",
        f"Share of the values up to each edge, averaged over the chosen layers: the fleet's of the last {ask.settings.rate_window} over "
        "the baseline's. The largest gap of a layer is its KS distance.",
        {"live": mean(live, "le"), "baseline": mean(baseline, "le")},
        {"live": BLUE, "baseline": ORANGE},
    )


def _cumulative(title: str, description: str, shares: Mapping[str, str], colours: Mapping[str, str]) -> Trend:
    """Return cumulative shares by edge, laid over each other: tables joined by `le`, which becomes a number."""
    renamed = {f"Value #{letter}": name for letter, name in zip("ABC", shares, strict=False)}
    return Trend(
        title,
        description,
        [cells(expr) for expr in shares.values()],
        size=(24, 9),
        unit="none",
        # Not as defaults, which would hold for the edges on the other axis as well.
        field={"noValue": "No reading"},
        overrides=[painted(f"^{name}$", colour, unit="percentunit", min=0, max=1) for name, colour in colours.items()],
        options={"xField": "le"},
        transformations=[
            {"id": "filterFieldsByName", "options": {"include": {"pattern": "^(le|Value.*)$"}}},
            {"id": "joinByField", "options": {"byField": "le", "mode": "outer"}},
            {"id": "convertFieldType", "options": {"conversions": [{"targetField": "le", "destinationType": "number"}], "fields": {}}},
            {"id": "sortBy", "options": {"fields": {}, "sort": [{"field": "le"}]}},
            columns(rename=renamed),
        ],
    )


def _live(ask: Queries) -> str:
    return _shared(ask, lambda form, *about: form(*about))


def _shared(ask: Queries, side: Callable[..., str], *edges: str) -> str:
    """Return the share of the sampled values of one side's pods up to each edge, over the shown time range."""
    grown = total(side(ask.increase, catalog.VALUES, RANGE, LAYERS, POINT, *edges), "le")
    everything = total(side(ask.increase, catalog.VALUES, RANGE, LAYERS, POINT, 'le="+Inf"'))
    return f"{grown} / ignoring (le) group_left () ({everything} > 0)"


def _baseline(ask: Queries) -> str:
    # Grafana subtracts neighbours, so the last bucket needs the whole, which the baseline's own edges may lack.
    shares = ask.gauge(catalog.BASELINE_CDF, LAYERS, POINT)
    return f'{mean(shares, "le")} or label_replace({number(shares)} ^ 0, "le", "+Inf", "", "")'


def _shares(title: str, description: str, expr: str) -> Bars:
    return Bars(
        title,
        f"{description}. Live and baseline have one scale, on which a full bar is {_FULL_BAR:.0%} or more.",
        [target(expr, "{{le}}", instant=True, form="heatmap")],
        size=(6, 14),
        unit="percentunit",
        field={"min": 0, "max": _FULL_BAR, "decimals": 1, "noValue": "No reading", "color": {"mode": "fixed", "fixedColor": BLUE}},
    )


def _summed(ask: Queries, metric: Metric, *matchers: str) -> str:
    return total(ask.rate(metric, LAYERS, POINT, *matchers), *BY_POINT)


def _elements(ask: Queries) -> str:
    return f"({_summed(ask, catalog.ELEMENTS)} > 0)"


def _line(title: str, description: str, expr: str) -> TimeSeries:
    return TimeSeries(title, description, [target(expr, OF_POINT)], size=(12, 8), unit="none", field=ONLY_THIS_LAYER)
