"""The page of metrics: everything that is exported is on it, nothing else is, and what it says of readers is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest

from geluwatch import catalog
from geluwatch.catalog import EDGES, EXPOSITION_METRICS, FULL_EDGES, METRICS, MODEL_LABELS, SUMMED
from geluwatch.export.prometheus import ReportCollector
from geluwatch.export.samples import REPORT_METRICS
from geluwatch.mixin.build import check, write
from geluwatch.mixin.cardinality import most_series, sample_limit
from geluwatch.mixin.metrics_page import metrics_page
from geluwatch.mixin.rules import alerts, recordings
from geluwatch.mixin.settings import MixinSettings
from geluwatch.profiles import PROFILES
from geluwatch.records import Report

SETTINGS = MixinSettings()
COMPARE_DISTRIBUTIONS = {"GeluwatchCanaryDivergence", "GeluwatchPodDrift", "GeluwatchSaturation", "GeluwatchBaselineMixed"}
"""Alerts that the lean profile may do without, as the page says; of the last it lacks the part about edges that differ."""


@pytest.fixture(scope="module")
def page(rendered: dict[str, bytes]) -> str:
    """The page at the default settings."""
    return rendered["docs/metrics.md"].decode()


def entries(page: str) -> dict[str, str]:
    """What the page says of each metric, by its series."""
    return dict(re.findall(r"^### `(geluwatch_\w+)`\n(.*?)(?=^##|^<!--|\Z)", page, re.MULTILINE | re.DOTALL))


def test_catalogue_exporters_and_page_name_the_same_metrics(page: str) -> None:
    """The families of Prometheus, those read for OpenTelemetry and the page's headings are the catalogue's, each once, in its order."""
    families = list(ReportCollector(lambda: Report("m", "1", 0.0, "blind", {})).collect())
    assert [metric.name for metric in METRICS] == [family.name for family in families]
    assert set(METRICS) == {*REPORT_METRICS, *EXPOSITION_METRICS}
    assert [metric.series for metric in METRICS] == re.findall(r"^### `(geluwatch_\w+)`$", page, re.MULTILINE)


def test_an_entry_has_what_the_catalogue_says(page: str) -> None:
    """Help, kind, unit, labels, OpenTelemetry's name and profile of each metric stand below its heading."""
    found = entries(page)
    for metric in METRICS:
        text = found[metric.series]
        said = [
            metric.help,
            f"- {metric.kind}",
            f"from the profile {metric.profile} on" if metric.profile != "lean" else "in every profile",
        ]
        said += [f"unit `{metric.unit}`"] if metric.unit else []
        said += ["not in OpenTelemetry" if metric in EXPOSITION_METRICS else f"`{metric.otel_name}`"]
        said += ["with `_sum` and `_count`"] if metric in SUMMED else []
        said += [f"`{label}`" for label in (*metric.labels, *(("le",) if metric.kind == "histogram" else ()))]
        assert [] == [part for part in said if part not in text], metric.name


def test_every_name_of_a_metric_on_the_page_exists(page: str) -> None:
    """No series is spelt that is not exported, save the two of which it says that they do not exist."""
    absent = {f"{catalog.VALUES.name}_sum", f"{catalog.VALUES.name}_count"}
    assert absent == set(re.findall(r"\bgeluwatch_\w+", page)) - {name for metric in METRICS for name in (metric.name, metric.series)}


def test_sections_hold_every_metric(page: str) -> None:
    """Each section has metrics, and no metric comes before the first section."""
    sections = re.split(r"^## ", page, flags=re.MULTILINE)
    assert [True] * 10 == ["### `geluwatch_" in section for section in sections[3:]]
    assert "### `" not in "".join(sections[:3])


def test_readers_are_those_that_read(page: str) -> None:
    """A metric that an alert's expression, text or recorded series names has the alert, one that none names has none."""
    found = entries(page)
    for metric, alert in (
        (catalog.NONFINITE_FORWARDS, "GeluwatchNonFiniteActivations"),
        (catalog.OUT_OF_MEMORY, "GeluwatchOutOfMemory"),
        (catalog.KERNEL_ERROR, "GeluwatchKernelMismatch"),
    ):
        assert f"[{alert}](../runbooks/{alert}.md)" in found[metric.series]
    assert "alerts:" not in found[catalog.PSI.series]
    assert "dashboards: " in found[catalog.EVIDENCE.series]


def test_readers_know_whole_names_alone() -> None:
    """A dashboard that asks for one series is no reader of another whose name begins alike."""
    board = b'{"title": "Own", "expr": "geluwatch_ks_distance_ratio > 0"}'
    found = entries(metrics_page(SETTINGS, [board]).decode())
    assert [catalog.KS.series] == [series for series, text in found.items() if "dashboards: Own" in text]


def test_links_to_runbooks_lead_somewhere(page: str, rendered: dict[str, bytes]) -> None:
    """Every runbook that the page links to is rendered beside it."""
    linked = set(re.findall(r"\]\(\.\./(runbooks/\w+\.md)\)", page))
    assert linked
    assert set() == linked - rendered.keys()


def test_queries_of_the_page_parse_and_name_labels_that_exist(page: str) -> None:
    """What is to be pasted is PromQL, about series and labels of the catalogue."""
    fences = re.findall(r"```promql\n(.*?)```", page, re.DOTALL)
    assert 2 == len(fences)
    labels = {metric.series: {*MODEL_LABELS, *metric.labels, "le"} for metric in METRICS}
    for fence in fences:
        nodes: list[Any] = []
        promql_parser.walk(promql_parser.parse(fence), nodes.append)
        selectors = [node for node in nodes if isinstance(node, promql_parser.VectorSelector)]
        assert selectors
        assert [] == [node for node in selectors if not {matcher.name for matcher in node.matchers.matchers} <= labels[str(node.name)]]


@pytest.mark.parametrize("profile", PROFILES)
def test_numbers_of_series_are_those_of_the_function(page: str, profile: str) -> None:
    """The row of each profile has what the function says, and per model and per layer add up to its examples."""
    (row,) = re.findall(rf"^\| `{profile}` \| (.*) \|$", page, re.MULTILINE)
    model, layer, *examples = (int(cell.replace(",", "")) for cell in row.split(" | "))
    counts = [most_series(profile, layers) for layers in (6, 48)]  # type: ignore[arg-type]  # it is one of them
    assert counts == [model + layers * layer for layers in (6, 48)] == examples[:2]
    assert [sample_limit(profile, layers) for layers in (6, 48)] == examples[2:]  # type: ignore[arg-type]


def test_every_edge_is_on_the_page(page: str) -> None:
    """Both points have all edges, in bold those that only the full profile has."""
    for point, edges in FULL_EDGES.items():
        (row,) = re.findall(rf'^- `point="{point}"`: (.*), \+Inf$', page, re.MULTILINE)
        assert [f"{edge:g}" if edge in EDGES[point] else f"**{edge:g}**" for edge in edges] == row.split(", ")


def test_lean_has_all_that_its_alerts_read() -> None:
    """No alert but those that compare whole distributions, or look at gates, reads a metric that the lean profile lacks."""
    recorded = {recording.name: recording.expr for recording in recordings(SETTINGS)}
    rich = {metric.series for metric in METRICS if metric.profile != "lean"}

    def read(text: str) -> set[str]:
        names = set(re.findall(r"[a-zA-Z_:][\w:]*", text))
        return names.union(*(read(recorded[name]) for name in names & recorded.keys()))

    lacking = {alert.name: rich & read(f"{alert.expr} {alert.description}") for alert in alerts(SETTINGS)}
    assert {} == {name: missing for name, missing in lacking.items() if missing and name not in COMPARE_DISTRIBUTIONS}


def test_other_pages_of_the_folder_are_left_alone(tmp_path: Path) -> None:
    """Prose that lies beside the page is neither stale nor removed."""
    prose = tmp_path / "docs/statistics.md"
    prose.parent.mkdir()
    prose.write_text("# Statistics\n")
    write(tmp_path, SETTINGS)
    assert [] == check(tmp_path, SETTINGS)
    assert "# Statistics\n" == prose.read_text()
    (tmp_path / "docs/metrics.md").write_text("edited")
    assert ["docs/metrics.md"] == check(tmp_path, SETTINGS)
