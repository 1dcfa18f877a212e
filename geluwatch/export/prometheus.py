"""Prometheus: a collector for a registry of the caller's, and the text that our own listener serves.

A collector only reads a frozen report, so a scrape waits for neither the model nor its device. Nothing is registered
here, and `describe` is there so that registering does not collect.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from geluwatch.catalog import COLLECT_SECONDS, EXPORTED_SERIES, METRICS, Metric
from geluwatch.export import exposition
from geluwatch.export.samples import REPORT_METRICS, Sample, constant_labels, samples_of
from geluwatch.records import Report

_OPENMETRICS = "application/openmetrics-text"


class ReportCollector(Collector):
    """Yields every family of the catalogue from the newest report.

    A report that cannot be read or turned into samples must not take the host's own metrics down with it: it is given
    to `on_error`, and that collection holds no geluwatch family.

    Args:
        read: Returns the newest report; called once a collection.
        on_error: Told of a failed collection; must not raise, unless the caller wants that to reach the registry.
        timer: Seconds on a clock that never goes back.
    """

    def __init__(
        self,
        read: Callable[[], Report],
        *,
        on_error: Callable[[Exception], None] = lambda _: None,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._read = read
        self._on_error = on_error
        self._timer = timer

    def describe(self) -> Iterable[Family]:
        """Return every family without samples, so that a registry learns the names and collects nothing."""
        return [_family(metric, ()) for metric in METRICS]

    def collect(self) -> Iterator[Family]:
        """Yield every family of the catalogue, each once, those that describe the exposition last."""
        started = self._timer()
        try:
            report = self._read()
            families = [_family(metric, list(samples_of(report, metric))) for metric in REPORT_METRICS]
        except Exception as error:  # noqa: BLE001 - whatever it was, the host's other collectors must go on
            self._on_error(error)
            return
        yield from families
        labels = constant_labels(report)
        # An encoder has written the families above by the time it asks for these, so the time covers its work too.
        yield _family(COLLECT_SECONDS, [Sample(COLLECT_SECONDS, labels, self._timer() - started)])
        series = sum(len(family.samples) for family in families) + 2
        yield _family(EXPORTED_SERIES, [Sample(EXPORTED_SERIES, labels, series)])


def negotiate(accept: str | None) -> str:
    """Return the content type for an Accept header: text 0.0.4 or OpenMetrics 1.0.0.

    prometheus_client makes the choice. Only these two are ever answered, because it repeats the client's own version
    and escaping in the content type, and ours would be the same text under any of them.
    """
    try:
        chosen = choose_encoder(accept or "")[1]
    except TypeError:  # it cannot compare a version such as "1.x"
        chosen = ""
    return choose_encoder(_OPENMETRICS if chosen.startswith(_OPENMETRICS) else "")[1]


def render(report: Report, accept: str | None = None, timer: Callable[[], float] = time.perf_counter) -> tuple[bytes, str]:
    """Return a report's whole exposition and its content type.

    Args:
        report: What to render.
        accept: The client's Accept header, if it sent one.
        timer: Seconds on a clock that never goes back.

    Raises:
        Exception: The report cannot be rendered; the listener answers 500, so that the scrape fails and is seen.
    """
    content_type = negotiate(accept)
    return exposition.write(report, openmetrics=content_type.startswith(_OPENMETRICS), timer=timer), content_type


def _family(metric: Metric, found: Sequence[Sample]) -> Family:
    return _FAMILIES[metric.kind](metric, found)


def _counter(metric: Metric, found: Sequence[Sample]) -> Family:
    family = CounterMetricFamily(metric.name, metric.help, labels=_names(found), unit=exposition.unit_of(metric))
    for sample in found:
        family.add_metric(list(sample.labels.values()), sample.value)
    return family


def _gauge(metric: Metric, found: Sequence[Sample]) -> Family:
    family = GaugeMetricFamily(metric.name, metric.help, labels=_names(found), unit=exposition.unit_of(metric))
    for sample in found:
        family.add_metric(list(sample.labels.values()), sample.value)
    return family


def _histogram(metric: Metric, found: Sequence[Sample]) -> Family:
    # Below a negative edge OpenMetrics forbids a sum, and prometheus_client then drops the count as well; the
    # catalogue has counters for both.
    names = [name for name in _names(found) if name != "le"]
    family = HistogramMetricFamily(metric.name, metric.help, labels=names, unit=exposition.unit_of(metric))
    for labels, each in groupby(found, key=lambda sample: [sample.labels[name] for name in names]):
        parts = list(each)
        total = next((sample.value for sample in parts if "le" not in sample.labels), None)
        buckets = [(sample.labels["le"], sample.value) for sample in parts if "le" in sample.labels]
        family.add_metric(labels, buckets, sum_value=total)
    return family


def _info(metric: Metric, found: Sequence[Sample]) -> Family:
    family = InfoMetricFamily(metric.name, metric.help, labels=())
    for sample in found:
        family.add_metric((), dict(sample.labels))
    return family


def _names(found: Sequence[Sample]) -> tuple[str, ...]:
    """Return the label names of a metric's samples, which are the same for all of them."""
    return tuple(found[0].labels) if found else ()


_FAMILIES: dict[str, Callable[[Metric, Sequence[Sample]], Family]] = {
    "counter": _counter,
    "gauge": _gauge,
    "histogram": _histogram,
    "info": _info,
}
