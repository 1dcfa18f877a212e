"""The list of metrics keeps Prometheus's and OpenTelemetry's rules."""

from __future__ import annotations

import re

import pytest

from geluwatch import attach, catalog
from geluwatch.catalog import EDGES, FULL_EDGES, METRICS, MODEL_LABELS, Metric
from geluwatch.errors import ConfigError

SET_BY_PROMETHEUS = {"job", "instance", "pod", "namespace", "quantile", "__name__"}


def test_names_are_unique_in_both_worlds() -> None:
    """No two metrics share a family, a series or an OpenTelemetry name."""
    for names in ([m.name for m in METRICS], [m.series for m in METRICS], [m.otel_name for m in METRICS]):
        assert len(names) == len(set(names))


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_follows_the_conventions(metric: Metric) -> None:
    """Prefix, character set, suffixes by kind, base units, help with a full stop, and no label of Prometheus's own."""
    assert re.fullmatch(r"geluwatch(_[a-z]+)+", metric.name)
    assert not metric.name.endswith(("_total", "_count", "_bucket", "_info"))
    assert metric.series.endswith("_total") == (metric.kind == "counter")
    assert metric.name.endswith("_seconds") == (metric.unit == "s")
    assert metric.help.endswith(".")
    assert not set(metric.labels) & (SET_BY_PROMETHEUS | set(MODEL_LABELS))
    assert re.fullmatch(r"geluwatch(\.[a-z_]+)+", metric.otel_name)
    assert not metric.otel_name.endswith(("_total", "_seconds", "_ratio"))


def test_metrics_lists_every_metric_of_the_module() -> None:
    """A metric that is declared is exported."""
    assert [value for value in vars(catalog).values() if isinstance(value, Metric)] == list(METRICS)


@pytest.mark.parametrize("label", sorted({label for metric in METRICS for label in metric.labels} | {"le", *MODEL_LABELS}))
def test_no_user_label_can_take_the_place_of_ours(label: str) -> None:
    """A constant label by the name of any label of the catalogue is refused before the model is looked at."""
    with pytest.raises(ConfigError, match=f"Label name '{label}' is geluwatch's or Prometheus's own"):
        attach(None, name="model", labels={label: "x"})  # type: ignore[arg-type]  # it never gets there


@pytest.mark.parametrize("point", ["pre", "post"])
def test_the_full_edges_are_twice_as_many_and_hold_the_others(point: str) -> None:
    """With +Inf the series double, every standard edge is there, and none is written with an exponent, as each client does its own way."""
    edges, full = EDGES[point], FULL_EDGES[point]
    assert 2 * (len(edges) + 1) == len(full) + 1
    assert sorted(set(full)) == list(full)
    assert set(edges) < set(full)
    assert edges[0] == full[0] if point == "post" else edges[0] > full[0]
    assert [] == [edge for edge in full if edge and not 1e-4 <= abs(edge) < 1e6]


@pytest.mark.parametrize("point", ["pre", "post"])
def test_bucket_edges_ascend_through_zero(point: str) -> None:
    """Edges ascend, hold zero, and keep the number of series per site small."""
    edges = EDGES[point]
    assert sorted(set(edges)) == list(edges)
    assert 0.0 in edges
    assert len(edges) < 32


def test_post_edges_enclose_the_range_of_gelu() -> None:
    """No value of an exact GELU lies below the first edge, whose bucket is therefore an alarm of its own."""
    assert EDGES["post"][0] < -0.16998
