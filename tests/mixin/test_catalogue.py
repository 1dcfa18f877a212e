"""Every metric and label that any expression names is one of the catalogue's."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import promql_parser
import pytest

from geluwatch.catalog import METRICS, MODEL_LABELS
from geluwatch.mixin.rules import recordings
from geluwatch.mixin.rules.agents import memory_step
from geluwatch.mixin.settings import MixinSettings

Nodes = Callable[[str], list[Any]]

TARGET_LABELS = {"cluster", "namespace", "job", "instance", "region", "shard", "track"}
KNOWN: dict[str, set[str]] = {
    **{metric.series: {*MODEL_LABELS, *metric.labels} | ({"le"} if metric.kind == "histogram" else set()) for metric in METRICS},
    **{recording.name: {*MODEL_LABELS, "layer", "point", "le", "slo"} for recording in recordings(MixinSettings())},
    "up": set(),
    "ALERTS": {"alertname", "alertstate", "severity", *MODEL_LABELS},
    "ALERTS_FOR_STATE": {"alertname", "severity", *MODEL_LABELS},
}
LABELS = TARGET_LABELS.union(*KNOWN.values())


def unknown(nodes: list[Any]) -> list[str]:
    """Return the metrics, matched labels and grouped labels that do not exist."""
    found: list[str] = []
    calls = [node for node in nodes if isinstance(node, promql_parser.Call) and node.func.name == "label_replace"]
    labels = LABELS.union(call.args[1].val for call in calls)
    for node in nodes:
        if isinstance(node, promql_parser.VectorSelector):
            if node.name not in KNOWN:
                found.append(str(node.name))
            else:
                matched = {matcher.name for matcher in node.matchers.matchers}
                found += [f"{node.name}{{{label}}}" for label in matched - KNOWN[node.name] - TARGET_LABELS]
        elif isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            found += [f"by {label}" for label in set(node.modifier.labels) - labels]
        elif isinstance(node, promql_parser.BinaryExpr) and node.modifier is not None and node.modifier.matching is not None:
            found += [f"on {label}" for label in set(node.modifier.matching.labels) - labels]
    return found


def test_every_expression_parses_and_names_only_what_is_exported(queries: list[Any], nodes: Nodes) -> None:
    """Rules, annotations, dashboard and runbooks name no metric, matcher or grouping label that the catalogue lacks."""
    assert {} == {query: found for query in queries if (found := unknown(nodes(query.expr)))}


def test_expressions_of_every_kind_were_looked_at(queries: list[Any]) -> None:
    """The test above has not passed for want of expressions."""
    kinds = [query.source.split()[0] for query in queries]
    assert all(kinds.count(kind) > 5 for kind in ("rule", "annotation", "panel", "runbook")), kinds
    assert 10 == kinds.count("variable")


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        ("rate(geluwatch_forwards_total[5m])", ["geluwatch_forwards_total"]),
        ('geluwatch_verdict{layer="a"}', ["geluwatch_verdict{layer}"]),
        ("sum by (layr) (geluwatch_layer_index)", ["by layr"]),
        ("geluwatch_verdict / on (modell) geluwatch_verdict", ["on modell"]),
        ("sum by (layer) (geluwatch_layer_index)", []),
    ],
)
def test_the_look_itself_finds_what_is_wrong(expr: str, expected: list[str], nodes: Nodes) -> None:
    """A misspelt metric, a label that a metric lacks, and a misspelt grouping are each found."""
    assert expected == unknown(nodes(expr))


def test_every_metric_is_shown_somewhere(queries: list[Any], nodes: Nodes) -> None:
    """No metric is exported that neither the dashboard nor a rule nor a runbook reads."""
    used = {node.name for query in queries for node in nodes(query.expr) if isinstance(node, promql_parser.VectorSelector)}
    assert set() == {metric.series for metric in METRICS} - used


def test_buckets_are_never_summed_over_their_edges(queries: list[Any], nodes: Nodes) -> None:
    """Every aggregation over buckets or shares keeps `le`, picks one edge, only counts series, or is the maximum over kept edges."""
    cumulative = {metric.series for metric in METRICS if metric.kind == "histogram" or "le" in metric.labels}
    for query in queries:
        for node in nodes(query.expr):
            if isinstance(node, promql_parser.AggregateExpr) and str(node.op) != "count":
                inner = nodes(node.expr.prettify())
                apart = str(node.op) == "max" and any(keeps_edges(n) for n in inner)
                inside = [n for n in inner if isinstance(n, promql_parser.VectorSelector) and n.name in cumulative]
                picked = all(any(m.name == "le" and m.op == promql_parser.MatchOp.Equal for m in n.matchers.matchers) for n in inside)
                assert keeps_edges(node) or picked or apart, query


def keeps_edges(node: Any) -> bool:
    """Return whether a node is an aggregation that keeps the edges apart."""
    return isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None and "le" in node.modifier.labels


def test_sum_and_count_of_the_histogram_are_never_asked_for(queries: list[Any]) -> None:
    """With negative edges the client exports neither `_sum` nor `_count`, so nothing may rely on them."""
    assert [] == [query for query in queries if re.search(r"geluwatch_activation_value_(?:sum|count)", query.expr)]


def test_recordings_are_named_level_metric_operation() -> None:
    """A recorded name says what it is by, of which metric, and how; only such names hold colons."""
    names = [recording.name for recording in recordings(MixinSettings())]
    assert all(re.fullmatch(r"[a-z_]+:geluwatch_[a-z_]+:[a-z0-9_]+", name) for name in names), names
    assert all(":" not in metric.name for metric in METRICS)


def test_the_memory_of_agents_costs_the_same_however_long_it_is() -> None:
    """Agents are looked up at a few hundred moments, not at every scrape of a day."""
    assert 300 == memory_step(MixinSettings())
    assert 1 == memory_step(MixinSettings(agent_memory="30s"))
