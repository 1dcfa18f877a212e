"""The rows of the distribution: buckets live and of the baseline, and the moments of the sampled values."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.catalog import Metric
from geluwatch.mixin.overview.parts import BY_POINT, LAYERS, OF_POINT, ONLY_THIS_LAYER, POINT, RANGE, RATE, Queries, Row
from geluwatch.mixin.panels import BLUE, Bars, Heatmap, TimeSeries, target
from geluwatch.mixin.queries import mean, number, total


def buckets_row(ask: Queries) -> Row:
    """Return the row of buckets, which is repeated for the values before and after the GELU: their edges differ."""
    live = _shares("Live", "Share of the sampled values in each bucket, over the shown time range.", _live(ask))
    baseline = _shares("Baseline", "Share of the armed baseline in each bucket, to be compared with the live one.", _baseline(ask))
    return Row("Distribution $point the GELU, of the chosen layers", (_heatmap(ask), live, baseline), repeat="point")


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
        size=(12, 15),
    )


def _live(ask: Queries) -> str:
    grown = total(ask.increase(catalog.VALUES, RANGE, LAYERS, POINT), "le")
    everything = total(ask.increase(catalog.VALUES, RANGE, LAYERS, POINT, 'le="+Inf"'))
    return f"{grown} / ignoring (le) group_left () ({everything} > 0)"


def _baseline(ask: Queries) -> str:
    # Grafana subtracts neighbours, so the last bucket needs the whole, which the baseline's own edges may lack.
    shares = ask.gauge(catalog.BASELINE_CDF, LAYERS, POINT)
    return f'{mean(shares, "le")} or label_replace({number(shares)} ^ 0, "le", "+Inf", "", "")'


def _shares(title: str, description: str, expr: str) -> Bars:
    return Bars(
        title,
        description,
        [target(expr, "{{le}}", instant=True, form="heatmap")],
        size=(6, 15),
        unit="percentunit",
        field={"min": 0, "decimals": 1, "noValue": "No reading", "color": {"mode": "fixed", "fixedColor": BLUE}},
    )


def _summed(ask: Queries, metric: Metric, *matchers: str) -> str:
    return total(ask.rate(metric, LAYERS, POINT, *matchers), *BY_POINT)


def _elements(ask: Queries) -> str:
    return f"({_summed(ask, catalog.ELEMENTS)} > 0)"


def _line(title: str, description: str, expr: str) -> TimeSeries:
    return TimeSeries(title, description, [target(expr, OF_POINT)], size=(12, 8), unit="none", field=ONLY_THIS_LAYER)
