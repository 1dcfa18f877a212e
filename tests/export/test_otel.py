"""What OpenTelemetry gets."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Callable, Iterator

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Gauge, InMemoryMetricReader, Metric, Sum
from opentelemetry.sdk.metrics.view import View

from geluwatch.catalog import EXPOSITION_METRICS, SUMMED
from geluwatch.catalog import Metric as CatalogMetric
from geluwatch.config import Config
from geluwatch.errors import DetachedError
from geluwatch.export.otel import instrument
from geluwatch.export.prometheus import ReportCollector
from geluwatch.export.samples import REPORT_METRICS
from geluwatch.records import VERDICTS, Report, Site, Verdict
from geluwatch.testing import FakeClock, ListSource, MemoryBaselines
from geluwatch.watch import Watch

ReportBuilder = Callable[..., Report]
Series = dict[tuple[str, frozenset[tuple[str, object]]], float]


class Host:
    """A host's own OpenTelemetry, kept in memory."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        views = [View(instrument_name="geluwatch.*", aggregation_cardinality_limit=10_000)]
        self.provider = MeterProvider(metric_readers=[self.reader], views=views, shutdown_on_exit=False)
        self.meter = self.provider.get_meter("host")

    def metrics(self) -> dict[str, Metric]:
        """What one collection yields, by name."""
        data = self.reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def series(self) -> Series:
        """What one collection yields, by name and attributes."""
        return {
            (name, frozenset((point.attributes or {}).items())): point.value  # type: ignore[union-attr]
            for name, metric in self.metrics().items()
            for point in metric.data.data_points
        }


@pytest.fixture
def host() -> Iterator[Host]:
    """A host that is shut down at the end."""
    made = Host()
    yield made
    made.provider.shutdown()


def of_prometheus(report: Report) -> Series:
    """What Prometheus gets of the same report, under OpenTelemetry's names."""
    names: dict[str, CatalogMetric] = {metric.name: metric for metric in REPORT_METRICS}
    return {
        (names[family.name].otel_name + ("_sum" if sample.name.endswith("_sum") else ""), frozenset(sample.labels.items())): sample.value
        for family in ReportCollector(lambda: report).collect()
        if family.name in names
        for sample in family.samples
        if not sample.name.endswith("_count")  # the bucket at +Inf says the same
    }


@pytest.mark.parametrize("verdict", VERDICTS)
def test_values_equal_those_of_prometheus(host: Host, make_report: ReportBuilder, verdict: Verdict) -> None:
    """Sample by sample, name, labels and value are the same in both, in every state."""
    report = make_report(verdict, 3, blind=1)
    instrument(lambda: report, host.meter)

    assert of_prometheus(report) == host.series()


def test_a_deep_model_needs_the_wider_limit_and_then_loses_nothing(host: Host, make_report: ReportBuilder) -> None:
    """Fifty layers have more bucket series than the SDK keeps unasked; with the view that the module names all arrive."""
    report = make_report("ok", 50)
    instrument(lambda: report, host.meter)

    buckets = [key for key in host.series() if key[0] == "geluwatch.activation_value"]
    assert 50 * 46 == len(buckets)
    assert len(buckets) > 2000


def test_kinds_and_units_are_the_catalogues(host: Host, make_report: ReportBuilder) -> None:
    """Counters and histograms are monotonic cumulative sums, gauges and infos are gauges; units are UCUM."""
    report = make_report("ticket")
    instrument(lambda: report, host.meter)
    found = host.metrics()

    assert {metric.otel_name for metric in REPORT_METRICS} | {f"{metric.otel_name}_sum" for metric in SUMMED} == set(found)
    for metric in REPORT_METRICS:
        seen = found[metric.otel_name]
        assert (metric.unit, metric.help) == (seen.unit, seen.description)
        if metric.kind in ("counter", "histogram"):
            assert isinstance(seen.data, Sum)
            assert seen.data.is_monotonic
        else:
            assert isinstance(seen.data, Gauge)


def test_names_are_distinct_and_in_opentelemetrys_style() -> None:
    """Names are lower case with dots and underscores, no two are the same, and none ends in its unit or `total`."""
    names = [metric.otel_name for metric in REPORT_METRICS]

    assert len(names) == len(set(names))
    assert [] == [name for name in names if not re.fullmatch(r"geluwatch\.[a-z]+(_[a-z]+)*", name)]
    assert [] == [name for name in names if name.endswith(("_total", "_seconds", "_ratio"))]
    assert {"geluwatch.collect_duration", "geluwatch.exported_series"} == {metric.otel_name for metric in EXPOSITION_METRICS}


def test_each_collection_reads_anew(host: Host, make_report: ReportBuilder) -> None:
    """What is observed is the newest report, and a gauge that has lost its value is no longer there."""
    reports = iter([make_report("ok")] * len(REPORT_METRICS) + [make_report("warming")] * len(REPORT_METRICS))
    instrument(lambda: next(reports), host.meter)

    assert "geluwatch.drift_score" in host.metrics()
    assert "geluwatch.drift_score" not in host.metrics()


def test_closed_instruments_are_silent_and_let_the_watch_go(host: Host, make_report: ReportBuilder) -> None:
    """After close nothing is observed, and what was read from can be freed; closing again does nothing."""

    class Watch:
        def read(self) -> Report:
            return make_report("ok")

    watch = Watch()
    gone = weakref.ref(watch)
    instruments = instrument(watch.read, host.meter)
    assert host.metrics()

    instruments.close()
    instruments.close()
    del watch
    gc.collect()

    assert {} == host.metrics()
    assert gone() is None


def test_a_failing_report_never_raises(host: Host) -> None:
    """The host's collection goes on, and each instrument's failure is told."""
    errors: list[Exception] = []

    def read() -> Report:
        raise RuntimeError("no report")

    instrument(read, host.meter, on_error=errors.append)
    host.meter.create_observable_gauge("host.gauge", [lambda _: []])
    host.meter.create_counter("host.counter").add(3)

    assert {("host.counter", frozenset()): 3} == host.series()
    assert len(REPORT_METRICS) + len(SUMMED) == len(errors)


def watched(name: str) -> Watch:
    """A watch of a source without traffic."""
    source = ListSource((Site("act", 0, "module", "GELU", "erf"),))
    return Watch(source, MemoryBaselines(), FakeClock(), Config(), name=name, version="1", labels={})


def models(host: Host) -> set[object]:
    """The models that a collection tells of."""
    return {dict(attributes)["model"] for _, attributes in host.series()}


def test_watches_share_a_meter(host: Host) -> None:
    """A second watch on the same meter is exported beside the first, whole, and each falls silent by itself."""
    first, second = watched("first"), watched("second")
    handle, _ = (instrument(each.live_report, host.meter) for each in (first, second))
    assert of_prometheus(first.report) | of_prometheus(second.report) == host.series()
    handle.close()
    assert of_prometheus(second.report) == host.series()


def test_a_reloaded_model_is_exported(host: Host) -> None:
    """After close, detach and attach, what is instrumented anew on the same meter is there, also where the meter is got anew."""
    before, after = watched("model"), watched("reloaded")
    instrument(before.live_report, host.meter).close()
    before.detach()
    instrument(after.live_report, host.provider.get_meter("host"))
    assert of_prometheus(after.report) == host.series()


def test_a_watch_that_came_off_is_silent(host: Host) -> None:
    """Without a close, neither a detached watch nor one whose model is no more is exported, and no failure is told of them."""
    errors: list[Exception] = []
    detached, gone, left = (watched(name) for name in ("detached", "gone", "left"))
    for each in (detached, gone, left):
        instrument(each.live_report, host.meter, on_error=errors.append)
    assert {"detached", "gone", "left"} == models(host)
    detached.detach()
    gone._let_go()
    assert ({"left"}, []) == (models(host), errors)
    for each in (detached, gone):
        with pytest.raises(DetachedError):
            each.live_report()


def test_a_watch_is_observed_once(host: Host) -> None:
    """Instrumenting a watch again on a meter that observes it already adds nothing up twice, and gives the same handle."""
    watch = watched("model")
    assert instrument(watch.live_report, host.meter) is instrument(watch.live_report, host.meter)
    assert of_prometheus(watch.report) == host.series()
