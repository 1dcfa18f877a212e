"""What each profile exports, counted in the exposition itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import View
from prometheus_client.core import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from geluwatch import catalog
from geluwatch.catalog import EXPORTED_SERIES, EXPOSITION_METRICS, METRICS, SUMMED
from geluwatch.export.otel import instrument
from geluwatch.export.prometheus import render
from geluwatch.mixin.cardinality import most_series, sample_limit, series
from geluwatch.profiles import PROFILES, Profile, within
from geluwatch.records import VERDICTS, DeviceUsage, Report, Usage, Verdict

ReportBuilder = Callable[..., Report]
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def worst(make_report: ReportBuilder, profile: Profile, layers: int, devices: int = 1) -> Report:
    """A report in which everything that can have a series has one: all layers in drift, all about to overflow."""
    one = make_report("ticket", 1, profile=profile)
    names = [f"layer{position}" for position in range(layers)]
    sites = {
        (name, point): replace(seen, layer=name, position=position)
        for position, name in enumerate(names)
        for (_, point), seen in one.sites.items()
    }
    assert one.probe is not None
    probe = replace(one.probe, layers=tuple(replace(one.probe.layers[0], layer=name) for name in names))
    used = tuple(DeviceUsage(f"cuda:{index}", 1, 2, 0.5, 3) for index in range(devices))
    return replace(one, sites=sites, drifting=tuple(names), probe=probe, usage=Usage(1.0, 2, 3, used, 4, 5))


def exposed(report: Report, accept: str | None = None, parse: Callable[[str], Iterable[Family]] = parse_text) -> Series:
    """What a server stores of a report's exposition."""
    found = [sample for family in parse(render(report, accept)[0].decode()) for sample in family.samples]
    return {(sample.name, frozenset(sample.labels.items())): sample.value for sample in found}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("layers", "devices"), [(1, 1), (6, 1), (48, 2)])
def test_the_number_of_series_is_the_one_that_is_stated(make_report: ReportBuilder, profile: Profile, layers: int, devices: int) -> None:
    """In every profile, metric by metric and in all, there are as many series as the docs' own function says."""
    found = exposed(worst(make_report, profile, layers, devices))
    for metric in METRICS:
        names = {metric.series, *([f"{metric.name}_sum", f"{metric.name}_count"] if metric in SUMMED else [])}
        assert series(metric, profile, layers, devices) == sum(name in names for name, _ in found), metric.name
    assert most_series(profile, layers, devices) == len(found)
    assert sample_limit(profile, layers, devices) >= 2 * len(found)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_exported_number_is_exact(make_report: ReportBuilder, profile: Profile, verdict: Verdict) -> None:
    """EXPORTED_SERIES counts every series of the exposition, in both formats, and never more than are stated."""
    report = make_report(verdict, 3, blind=1, profile=profile)
    for found in (exposed(report), exposed(report, "application/openmetrics-text", parse_openmetrics)):
        assert [float(len(found))] == [value for (name, _), value in found.items() if name == EXPORTED_SERIES.series]
        assert len(found) <= most_series(profile, 3)


def test_each_profile_holds_all_of_the_one_before(make_report: ReportBuilder) -> None:
    """Lean's series are in standard and standard's in full, with the very same values."""
    about = {metric.series for metric in EXPOSITION_METRICS} | {catalog.PROFILE_INFO.series}
    lean, standard, full = (
        {key: value for key, value in exposed(worst(make_report, profile, 4)).items() if key[0] not in about} for profile in PROFILES
    )
    assert lean.items() < standard.items() < full.items()


def test_lean_has_plain_numbers_of_layers_alone(make_report: ReportBuilder) -> None:
    """No edge at any layer, nothing that only explains; of the baseline only that it has the layer, before and after the GELU."""
    found = exposed(worst(make_report, "lean", 4))
    at_edges = [key for key in found if {"le", "layer"} <= {name for name, _ in key[1]}]
    assert [("geluwatch_baseline_cdf_ratio", "+Inf", 1.0)] * 8 == [(key[0], dict(key[1])["le"], found[key]) for key in at_edges]
    left_out = {metric.series for metric in METRICS if metric.profile != "lean"}
    assert {"geluwatch_activation_value_bucket", "geluwatch_wasserstein_distance_ratio", "geluwatch_nonfinite_elements_total"} < left_out
    assert set() == left_out & {name for name, _ in found}
    assert {"geluwatch_drift_evidence_ratio", "geluwatch_gross_fault", "geluwatch_forward_seconds_bucket"} < {name for name, _ in found}


@pytest.mark.parametrize("profile", PROFILES)
def test_the_exposition_says_which_profile_it_has(make_report: ReportBuilder, profile: Profile) -> None:
    """PROFILE_INFO is 1 at the profile's name, so that a fleet's mixture can be seen."""
    labels = frozenset({("model", "minilm"), ("model_version", "1"), ("region", "eu"), ("profile", profile)})
    assert [((catalog.PROFILE_INFO.series, labels), 1.0)] == [
        item for item in exposed(make_report("ok", profile=profile)).items() if item[0][0] == catalog.PROFILE_INFO.series
    ]


@pytest.mark.parametrize("profile", PROFILES)
def test_opentelemetry_keeps_to_the_profile(make_report: ReportBuilder, profile: Profile) -> None:
    """It gets as many points of each metric as Prometheus has series, counts aside, which its buckets hold."""
    report = worst(make_report, profile, 6)
    reader = InMemoryMetricReader()
    views = [View(instrument_name="geluwatch.*", aggregation_cardinality_limit=10_000)]
    provider = MeterProvider(metric_readers=[reader], views=views, shutdown_on_exit=False)
    instrument(lambda: report, provider.get_meter("host"))
    data = reader.get_metrics_data()
    assert data is not None
    found = {metric.name: len(metric.data.data_points) for metric in data.resource_metrics[0].scope_metrics[0].metrics}
    provider.shutdown()
    for metric in set(METRICS) - set(EXPOSITION_METRICS):
        expected = series(metric, profile, 6) - (2 if metric in SUMMED else 0)
        assert expected == found.get(metric.otel_name, 0), metric.name
        assert (expected > 0) == within(metric.profile, profile)


def test_a_lean_exposition_is_quicker_to_make(make_report: ReportBuilder) -> None:
    """Of a deep model the lean text takes less than half the time and a third of the bytes of the standard one."""
    taken: dict[Profile, float] = {}
    size: dict[Profile, int] = {}
    for profile in ("lean", "standard"):
        report = worst(make_report, profile, 48)
        times = []
        for _ in range(3):
            began = time.thread_time()
            size[profile] = len(render(report)[0])
            times.append(time.thread_time() - began)
        taken[profile] = min(times)
    assert 2 * taken["lean"] < taken["standard"]
    assert 3 * size["lean"] < size["standard"]
