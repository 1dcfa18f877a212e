"""What Prometheus scrapes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import Metric as Family
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from geluwatch.catalog import COLLECT_SECONDS, EXPORTED_SERIES, EXPOSITION_METRICS, METRICS, SUMMED
from geluwatch.export.prometheus import ReportCollector, render
from geluwatch.export.samples import Sample, samples
from geluwatch.profiles import Profile
from geluwatch.records import VERDICTS, Report, Verdict

ReportBuilder = Callable[..., Report]
Parser = Callable[[str], Iterable[Family]]

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
FORMATS = [pytest.param(TEXT, parse_text, id="text"), pytest.param(OPENMETRICS, parse_openmetrics, id="openmetrics")]
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
GOLDEN = Path(__file__).parent / "golden" / "two_layers.prom"

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def ticking() -> Callable[[], float]:
    """A timer on which every reading is an eighth of a second after the last."""
    readings = count()
    return lambda: next(readings) / 8


def expected(report: Report) -> Series:
    """The samples of a report, keyed as Prometheus keys them."""
    return {(series_of(sample), frozenset(sample.labels.items())): sample.value for sample in samples(report)}


def series_of(sample: Sample) -> str:
    """The name of a sample's series."""
    return sample.metric.series if sample.metric not in SUMMED or "le" in sample.labels else f"{sample.metric.name}_sum"


def parsed(exposition: bytes, parser: Parser) -> Series:
    """The samples that a parser finds, without those about the exposition itself."""
    about = {metric.series for metric in EXPOSITION_METRICS} | {f"{metric.name}_count" for metric in SUMMED}
    found = [sample for family in parser(exposition.decode()) for sample in family.samples if sample.name not in about]
    series = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in found}
    assert len(series) == len(found)
    return series


def test_the_exposition_of_two_layers_is_the_golden_text(make_report: ReportBuilder) -> None:
    """The text as a whole is what was last read and approved; GELUWATCH_UPDATE_GOLDEN=1 writes it anew."""
    exposition = render(make_report("page", 2, blind=1), None, ticking())[0].decode()
    exposition = re.sub(r',version="[^"]*"', ',version="X"', exposition)
    if os.environ.get("GELUWATCH_UPDATE_GOLDEN"):
        GOLDEN.write_text(exposition, "utf-8")

    assert GOLDEN.read_text("utf-8") == exposition
    assert 'geluwatch_verdict{model="minilm",model_version="1",region="eu",verdict="page"} 1.0\n' in exposition


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize(("accept", "parser"), FORMATS)
def test_parsers_read_back_every_sample(make_report: ReportBuilder, accept: str, parser: Parser, verdict: Verdict) -> None:
    """Rendered and parsed, a report's samples are the same, in both formats and in every state."""
    report = make_report(verdict, 3)

    assert expected(report) == parsed(render(report, accept)[0], parser)


@pytest.mark.parametrize("profile", ["lean", "standard", "full"])
@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize(("accept", "encoder"), [(TEXT, generate_latest), (OPENMETRICS, generate_openmetrics)])
def test_the_text_is_prometheus_clients(
    make_report: ReportBuilder, accept: str, encoder: Callable[..., bytes], verdict: Verdict, profile: Profile
) -> None:
    """Byte for byte, in every state and profile, with labels of any sort, ours is what prometheus_client writes of the same report."""
    report = replace(make_report(verdict, 3, labels={"note": 'a "b"\\ 100 %s\n–', "zone": ""}, model="%d{}"), profile=profile)
    theirs = encoder(ReportCollector(lambda: report, timer=ticking()))

    assert theirs == render(report, accept, ticking())[0]


@settings(max_examples=60, deadline=None)
@given(value=st.text(max_size=12))
@pytest.mark.parametrize(("accept", "parser"), FORMATS)
def test_any_label_value_survives(make_report: ReportBuilder, accept: str, parser: Parser, value: str) -> None:
    """Quotes, backslashes, line ends and the rest of Unicode come back as they went in."""
    report = make_report("warming", 1, labels={"note": value}, model=value)

    assert expected(report) == parsed(render(report, accept)[0], parser)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_each_metric_of_the_catalogue_is_one_family(make_report: ReportBuilder, verdict: Verdict) -> None:
    """The families are the catalogue's, each once and in its order, whether they have samples or not."""
    families = list(ReportCollector(lambda: make_report(verdict)).collect())

    assert [(metric.name, metric.kind, metric.help) for metric in METRICS] == [
        (family.name, family.type, family.documentation) for family in families
    ]


def test_the_histogram_has_neither_sum_nor_count(make_report: ReportBuilder) -> None:
    """OpenMetrics forbids a sum below a negative edge; the catalogue's counters stand in for both."""
    names = {line.partition("{")[0] for line in render(make_report("ok"))[0].decode().splitlines() if not line.startswith("#")}

    assert {"geluwatch_activation_value_bucket"} == {name for name in names if name.startswith("geluwatch_activation_value")}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize(("verdict", "profile"), [*((verdict, "standard") for verdict in VERDICTS), ("ok", "lean"), ("ok", "full")])
def test_promtool_has_one_thing_to_say(make_report: ReportBuilder, verdict: Verdict, profile: Profile) -> None:
    """`promtool check metrics` can parse the text and faults no name or help, save that the baseline's gauge has `le`.

    That one is meant: the gauge carries the label so that a query can hold it against the histogram, edge by edge.
    """
    report = make_report(verdict, 2, blind=1, profile=profile)
    meant = {'geluwatch_baseline_cdf_ratio non-histogram metrics should not have "le" label'} if report.baseline else set()

    done = subprocess.run(["promtool", "check", "metrics"], input=render(report)[0], capture_output=True, timeout=30, check=False)

    assert (3 if meant else 0, meant) == (done.returncode, set((done.stdout + done.stderr).decode().splitlines()))


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, TEXT),
        ("", TEXT),
        ("*/*", TEXT),
        ("text/plain;version=1.0.0;escaping=allow-utf-8", TEXT),
        ("application/openmetrics-text;version=0.0.1", TEXT),
        ("application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text;version=2.0.0", OPENMETRICS),
        ("application/openmetrics-text;version=1.0.0;escaping=values", OPENMETRICS),
        ("application/openmetrics-text;version=1.x", TEXT),
        (PROMETHEUS_3, OPENMETRICS),
    ],
)
def test_only_two_content_types_are_answered(make_report: ReportBuilder, accept: str | None, content_type: str) -> None:
    """Whatever a client asks for, it gets text 0.0.4 or OpenMetrics 1.0.0, and nothing of its own words back."""
    assert content_type == render(make_report("ok", 1), accept)[1]


def test_the_exposition_describes_itself(make_report: ReportBuilder) -> None:
    """EXPORTED_SERIES counts every line of the text, and COLLECT_SECONDS is the time between first and last."""
    exposition = render(make_report("ok"), None, ticking())[0].decode()
    lines = [line for line in exposition.splitlines() if not line.startswith("#")]
    values = {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in lines[-2:]}

    assert {COLLECT_SECONDS.series: 0.125, EXPORTED_SERIES.series: float(len(lines))} == values


def test_units_are_given_where_the_name_ends_in_one(make_report: ReportBuilder) -> None:
    """OpenMetrics gets seconds, bytes and ratio, and no unit that would change a name."""
    exposition = render(make_report("ok"), OPENMETRICS)[0].decode()

    units = dict(re.findall(r"^# UNIT (\S+) (\S+)$", exposition, re.MULTILINE))
    assert {metric.name: unit for metric in METRICS for unit in ("seconds", "bytes", "ratio") if metric.name.endswith(f"_{unit}")} == units


def test_registering_does_not_collect(make_report: ReportBuilder) -> None:
    """A registry that asks for names learns them without a report being read; the names are then taken."""
    reads: list[int] = []
    report = make_report("ok")

    def read() -> Report:
        reads.append(1)
        return report

    registry = CollectorRegistry(auto_describe=True)
    collector = ReportCollector(read)
    registry.register(collector)

    assert [] == reads
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(ReportCollector(read))
    assert expected(report) == parsed(generate_latest(registry), parse_text)
    registry.unregister(collector)
    assert b"" == generate_latest(registry)


def test_a_failing_report_leaves_the_hosts_metrics_alone() -> None:
    """The error goes to the callback, and the rest of the registry is served."""
    errors: list[Exception] = []

    def read() -> Report:
        raise RuntimeError("no report")

    registry = CollectorRegistry()
    registry.register(ReportCollector(read, on_error=errors.append))
    Gauge("host_temperature_celsius", "The host's own.", registry=registry).set(21)

    assert b"host_temperature_celsius 21.0" in generate_latest(registry)
    assert b"geluwatch" not in generate_latest(registry)
    assert ["no report", "no report"] == [str(error) for error in errors]


def test_our_own_listener_lets_the_failure_through(make_report: ReportBuilder) -> None:
    """A report that cannot be rendered raises, so that the scrape fails and is seen."""
    report = make_report("ok", 1)
    (key, seen), *rest = report.sites.items()
    broken = replace(report, sites={key: replace(seen, totals=replace(seen.totals, buckets=(1, 2))), **dict(rest)})

    with pytest.raises(ValueError, match="zip"):
        render(broken)
