"""The row of drift: which layers, how far, against which threshold, on which pods."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.catalog import Metric
from geluwatch.mixin.overview.parts import BY_POINT, LAYERS, OF_POINT, ONLY_THIS_LAYER, POINT, Queries, Row
from geluwatch.mixin.panels import GREEN, RED, TimeSeries, override, steps, target
from geluwatch.mixin.queries import largest, mean, smallest

_FIELD = {"min": 0, **ONLY_THIS_LAYER}
_DASHED = override("byRegexp", ".* (upper|threshold)$", custom__lineStyle={"fill": "dash", "dash": [6, 6]})


def row(ask: Queries) -> Row:
    """Return the row of drift."""
    return Row("Drift", (_evidence(ask), _distance(ask), _score(ask), _pods_apart(ask)))


def _of_pods(ask: Queries, metric: Metric) -> str:
    return mean(ask.known(metric, LAYERS, POINT), *BY_POINT)


def _evidence(ask: Queries) -> TimeSeries:
    return TimeSeries(
        "Drift evidence by layer",
        "Score over calibrated threshold, averaged over pods: drift from the line at 1 on. Look at the earliest layer first.",
        [target(_of_pods(ask, catalog.EVIDENCE), OF_POINT)],
        size=(12, 9),
        unit="none",
        field={**_FIELD, "thresholds": steps(GREEN, (1, RED))},
        custom={"thresholdsStyle": {"mode": "line"}},
        links=ask.runbook("GeluwatchActivationDrift"),
    )


def _distance(ask: Queries) -> TimeSeries:
    lower, upper = _of_pods(ask, catalog.KS), _of_pods(ask, catalog.KS_UPPER)
    return TimeSeries(
        "KS distance from the baseline",
        "The Kolmogorov-Smirnov distance lies between the two lines of a layer. It explains a drift and does not decide it.",
        [target(lower, f"{OF_POINT} lower"), target(upper, f"{OF_POINT} upper")],
        size=(12, 9),
        unit="none",
        field=_FIELD,
        overrides=[_DASHED],
    )


def _score(ask: Queries) -> TimeSeries:
    score, threshold = _of_pods(ask, catalog.SCORE), _of_pods(ask, catalog.THRESHOLD)
    return TimeSeries(
        "Drift score and threshold",
        "Typical squared channel z against the baseline, about 1 when calm, with the threshold its noise was calibrated to.",
        [target(score, OF_POINT), target(threshold, f"{OF_POINT} threshold")],
        size=(12, 7),
        unit="none",
        field=_FIELD,
        overrides=[_DASHED],
    )


def _pods_apart(ask: Queries) -> TimeSeries:
    means = ask.known(catalog.WINDOW_MEAN, LAYERS, POINT)
    spread = f"({largest(means, *BY_POINT)} - {smallest(means, *BY_POINT)})"
    return TimeSeries(
        "Pods apart",
        "Range of the pods' window means, in standard deviations: high where one pod strays from the others.",
        [target(f"{spread} / ({_of_pods(ask, catalog.WINDOW_STD)} > 0)", OF_POINT)],
        size=(12, 7),
        unit="none",
        field=_FIELD,
    )
