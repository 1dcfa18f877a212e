"""The one place where a report becomes samples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geluwatch import catalog
from geluwatch.catalog import EDGES, EXPOSITION_METRICS, KINDS, METRICS, MODEL_LABELS, PARTS, SIGNS, SUMMED, Metric
from geluwatch.export.samples import REPORT_METRICS, Sample, samples, samples_of
from geluwatch.records import POINTS, VERDICTS, BaselineOrigin, Headroom, Interval, Nonfinite, Panel, Report, Totals, Training, Verdict

ReportBuilder = Callable[..., Report]

WAITING = {
    catalog.KS,
    catalog.KS_UPPER,
    catalog.WASSERSTEIN,
    catalog.MEAN_SHIFT,
    catalog.SPREAD_SHIFT,
    catalog.TAIL,
    catalog.GATE_CLOSED,
    catalog.GATE_OPEN,
    catalog.ZERO,
    catalog.PSI,
    catalog.SCORE,
    catalog.SURPRISE,
    catalog.LIMIT,
    catalog.EVIDENCE,
    catalog.ALARM,
    catalog.FIRST_DRIFT,
    catalog.ONSET,
    catalog.KERNEL_MISMATCH,
    catalog.KERNEL_ERROR,
    catalog.HEADROOM,
    catalog.OVERFLOW_TIME,
    catalog.OVERFLOW,
    catalog.PROBE_MOVED,
    catalog.PROBE_FIRST,
    catalog.PROBE_DIFFERENCE,
    catalog.PROBE_TIME,
    catalog.BASELINE_CDF,
    catalog.BASELINE_WINDOWS,
    catalog.BASELINE_LOOKS,
    catalog.BASELINE_INFO,
    catalog.BASELINE_ORIGIN,
    catalog.BASELINE_TIME,
    catalog.WINDOW_MEAN,
    catalog.WINDOW_STD,
    catalog.WINDOW_ROWS,
    catalog.WINDOW_END,
}


def one(report: Report, metric: Metric, **labels: str) -> float:
    """The value of the only sample that carries these labels."""
    (found,) = [sample.value for sample in samples_of(report, metric) if labels.items() <= sample.labels.items()]
    return found


def by_labels(report: Report, metric: Metric, *names: str) -> dict[tuple[str, ...], float]:
    """A metric's values by some of its labels."""
    return {tuple(sample.labels[name] for name in names): sample.value for sample in samples_of(report, metric)}


def test_every_metric_of_a_report_is_sampled(make_report: ReportBuilder) -> None:
    """A report of drift yields all of the catalogue but what describes the exposition, in its order."""
    found = dict.fromkeys(sample.metric for sample in samples(make_report("ticket")))

    assert [metric for metric in METRICS if metric not in EXPOSITION_METRICS] == list(found)
    assert EXPOSITION_METRICS == (catalog.COLLECT_SECONDS, catalog.EXPORTED_SERIES)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_labels_are_the_catalogues_and_the_users(make_report: ReportBuilder, verdict: Verdict) -> None:
    """A sample carries the model's labels, its metric's and the user's, a bucket also `le`, and nothing else."""
    for sample in samples(make_report(verdict)):
        bucket = {"le"} if sample.metric.kind == "histogram" else set()
        total = sample.metric in SUMMED and "le" not in sample.labels
        assert {*MODEL_LABELS, *sample.metric.labels, "region", *(set() if total else bucket)} == set(sample.labels)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_no_series_comes_twice(make_report: ReportBuilder, verdict: Verdict) -> None:
    """Metric and labels name a series uniquely."""
    seen = Counter((sample.metric.name, *sorted(sample.labels.items())) for sample in samples(make_report(verdict, 5)))

    assert {1} == set(seen.values())


def test_gauges_without_a_value_are_left_out(make_report: ReportBuilder) -> None:
    """Before the first window, and without a baseline, what they would have given is absent rather than NaN."""
    found = {sample.metric for sample in samples(make_report("warming"))}

    assert set(REPORT_METRICS) - WAITING == found


@pytest.mark.parametrize("verdict", VERDICTS)
def test_no_sample_is_nan(make_report: ReportBuilder, verdict: Verdict) -> None:
    """NaN never stands for "no value"."""
    assert [] == [sample for sample in samples(make_report(verdict)) if math.isnan(sample.value)]


def test_window_rows_are_there_once_a_window_closed(make_report: ReportBuilder) -> None:
    """A closed window without rows says 0, which is not the same as no window."""
    report = replace(make_report("ok"), window_ended=1.0)
    empty = replace(report, sites={key: replace(seen, rows=0) for key, seen in report.sites.items()})

    assert {0.0} == {sample.value for sample in samples_of(empty, catalog.WINDOW_ROWS)}


def test_counters_start_at_zero_for_everything_known(make_report: ReportBuilder) -> None:
    """A fresh report has a 0 for each layer, point, kind, sign and part, so that a first increase is seen."""
    report = replace(make_report("warming", 2), totals=Totals())
    layers = [layer for layer, point in report.sites if point == "pre"]

    elements = by_labels(report, catalog.NONFINITE_ELEMENTS, "layer", "point", "kind")
    assert {(layer, point, kind): 0.0 for layer in layers for point in EDGES for kind in KINDS} == elements
    assert {(layer,): 0.0 for layer in layers} == by_labels(report, catalog.SITE_NONFINITE, "layer")
    assert {(layer,): 0.0 for layer in layers} == by_labels(report, catalog.SITE_FIRST_NONFINITE, "layer")
    assert {(layer,): 0.0 for layer in layers} == by_labels(report, catalog.SITE_PADDING_NONFINITE, "layer")
    assert {(part,): 0.0 for part in PARTS} == by_labels(report, catalog.ERRORS, "part")
    assert {(point, sign) for point in EDGES for sign in SIGNS} == set(by_labels(report, catalog.ABS_SUM, "point", "sign"))


def test_a_blind_site_says_so_and_keeps_its_counters(make_report: ReportBuilder) -> None:
    """SITE_OBSERVED is 0 there, and the guard's counters and the histogram stand at 0."""
    report = make_report("ok", 2, blind=1)
    observed = by_labels(report, catalog.SITE_OBSERVED, "layer")
    (blind,) = [layer for (layer,), value in observed.items() if value == 0]

    assert [1.0, 0.0] == list(observed.values())
    assert 0.0 == one(report, catalog.SITE_NONFINITE, layer=blind)
    assert {0.0} == {sample.value for sample in samples_of(report, catalog.VALUES) if sample.labels["layer"] == blind}


def test_nonfinite_counts_are_read_by_layer_point_and_kind(make_report: ReportBuilder) -> None:
    """Each count of the guard reaches its own series."""
    report = make_report("ok", 1)
    layer = next(iter(report.sites))[0]
    report = replace(report, totals=replace(report.totals, nonfinite={layer: Nonfinite(5, 3, 2, {("post", "nan"): 7})}))

    assert 5.0 == one(report, catalog.SITE_NONFINITE)
    assert 3.0 == one(report, catalog.SITE_FIRST_NONFINITE)
    assert 2.0 == one(report, catalog.SITE_PADDING_NONFINITE)
    assert 7.0 == one(report, catalog.NONFINITE_ELEMENTS, point="post", kind="nan")
    assert 7.0 == sum(sample.value for sample in samples_of(report, catalog.NONFINITE_ELEMENTS))


def test_the_baseline_has_the_histograms_own_edges(make_report: ReportBuilder) -> None:
    """`le` is the same text in both, since Prometheus joins on it."""

    def edges(metric: Metric) -> list[tuple[str, ...]]:
        return list(by_labels(make_report("ok"), metric, "layer", "point", "le"))

    found = edges(catalog.VALUES)
    assert found == edges(catalog.BASELINE_CDF)
    before, after = ([le for _, point, le in found if point == wanted] for wanted in POINTS)
    assert ("-8.0", "-0.171875", "0.0", "+Inf") == (before[0], after[0], after[7], before[-1])


def test_buckets_are_cumulative_and_end_at_infinity(make_report: ReportBuilder) -> None:
    """Within a (layer, point) `le` ascends, counts never fall, and +Inf comes last."""
    report = make_report("ok", 1)
    for point in EDGES:
        buckets = [sample for sample in samples_of(report, catalog.VALUES) if sample.labels["point"] == point]
        assert [*EDGES[point], math.inf] == [float(sample.labels["le"]) for sample in buckets]
        assert sorted(sample.value for sample in buckets) == [sample.value for sample in buckets]


def test_latencies_and_batches_are_cumulative_with_sum(make_report: ReportBuilder) -> None:
    """Their last bucket holds every pass, and the sample without `le` is the sum."""
    report = make_report("ok", 1)
    for metric, edges, total in (
        (catalog.FORWARD_SECONDS, catalog.LATENCY_EDGES, 8_100.0),
        (catalog.BATCH_SIZE, catalog.BATCH_EDGES, 720_000.0),
    ):
        *buckets, last = samples_of(report, metric)
        assert [*edges, math.inf] == [float(sample.labels["le"]) for sample in buckets]
        assert sorted(sample.value for sample in buckets) == [sample.value for sample in buckets]
        assert (90_000.0, total) == (buckets[-1].value, last.value)


def test_passes_process_and_devices_are_read(make_report: ReportBuilder) -> None:
    """Each number of the traffic and of the usage reaches its own series."""
    report = make_report("ok", 1)
    read = (catalog.TOKENS, catalog.FAILED_FORWARDS, catalog.OUT_OF_MEMORY, catalog.FIRST_FORWARD, catalog.COLD_START)
    assert [46_080_000.0, 5.0, 2.0, 1.25, 3.5] == [one(report, metric) for metric in read]
    assert [812.5, 1.4e9, 37.0] == [one(report, metric) for metric in (catalog.CPU_SECONDS, catalog.RESIDENT, catalog.THREADS)]
    steps = (catalog.TRAINING_STEPS, catalog.NONFINITE_LOSSES, catalog.SKIPPED_STEPS, catalog.SKIPPED_IN_A_ROW, catalog.LOSS_SCALE)
    assert [1000.0, 2.0, 12.0, 3.0, 4096.0] == [one(report, metric) for metric in steps]
    assert [1.5e9, 8e9, 0.01] == [one(report, metric) for metric in (catalog.MEMORY_USED, catalog.MEMORY_LIMIT, catalog.COST_BUDGET)]
    devices = (catalog.DEVICE_MEMORY, catalog.DEVICE_PEAK, catalog.DEVICE_BUSY, catalog.DEVICE_LIMIT)
    assert [2e9, 2.5e9, 0.81, 8e10] == [one(report, metric, device="cuda:0") for metric in devices]


def test_before_the_first_pass_there_is_no_cold_start(make_report: ReportBuilder) -> None:
    """Counters and buckets stand at zero; what has not happened, or is not told, is absent."""
    report = replace(make_report("ok", 1), totals=Totals(), usage=None, cost_budget=None)
    process = (
        catalog.CPU_SECONDS,
        catalog.RESIDENT,
        catalog.MEMORY_USED,
        catalog.MEMORY_LIMIT,
        catalog.DEVICE_BUSY,
        catalog.DEVICE_LIMIT,
        catalog.COST_BUDGET,
    )
    said = (catalog.PREDICTIONS, catalog.WRONG_PREDICTIONS, catalog.ACCURACY, catalog.QUANTIZED_DELTA, catalog.COST)
    absent = (catalog.FIRST_FORWARD, catalog.COLD_START, *process, *said)
    assert [] == [sample for metric in absent for sample in samples_of(report, metric)]
    assert {0.0} == {sample.value for sample in samples_of(report, catalog.FORWARD_SECONDS)}


def test_gradients_and_steps_are_told_where_they_are_watched(make_report: ReportBuilder) -> None:
    """A model in service has neither; watched gradients stand at zero until there is one, and a loop without a scaler has no scale."""
    report = make_report("ok", 1)
    layer = next(iter(report.sites))[0]
    counted = replace(report.totals, nonfinite={layer: Nonfinite(backwards=4, first_backward=3)})
    assert (4.0, 3.0) == tuple(one(replace(report, totals=counted), m) for m in (catalog.SITE_GRADIENTS, catalog.SITE_FIRST_GRADIENTS))
    assert 0.0 == one(report, catalog.SITE_GRADIENTS)
    serving = replace(report, totals=Totals(), gradients=False)
    told = (catalog.SITE_GRADIENTS, catalog.TRAINING_STEPS, catalog.LOSS_SCALE)
    assert [] == [sample for metric in told for sample in samples_of(serving, metric)]
    unscaled = replace(report, totals=Totals(training=Training(5, 1)))
    assert 5.0 == one(unscaled, catalog.TRAINING_STEPS)
    assert [] == [*samples_of(unscaled, catalog.LOSS_SCALE), *samples_of(unscaled, catalog.SKIPPED_STEPS)]


def test_exactly_one_verdict_holds(make_report: ReportBuilder) -> None:
    """The verdict is a series of its own for each word, 1 at the one that holds."""
    verdicts = by_labels(make_report("ticket"), catalog.VERDICT, "verdict")

    assert {(verdict,): float(verdict == "ticket") for verdict in VERDICTS} == verdicts


def test_layers_come_in_the_models_order(make_report: ReportBuilder) -> None:
    """The order of the report's mapping does not matter."""
    report = make_report("ok", 12)
    shuffled = replace(report, sites=dict(sorted(report.sites.items(), reverse=True)))

    assert list(samples(report)) == list(samples(shuffled))
    assert [float(place) for place in range(12)] == [sample.value for sample in samples_of(shuffled, catalog.LAYER_INDEX)]


def test_parts_beyond_the_catalogue_are_not_lost(make_report: ReportBuilder) -> None:
    """A failure in a part that the catalogue does not list is exported all the same."""
    report = make_report("ok")
    report = replace(report, totals=replace(report.totals, errors={"lens": 2}), disabled=("lens", "mask"))

    assert 2.0 == one(report, catalog.ERRORS, part="lens")
    disabled = by_labels(report, catalog.PART_DISABLED, "part")
    assert {("lens",), ("mask",)} == {part for part, value in disabled.items() if value}
    assert len(PARTS) + 1 == len(disabled)


def test_an_absent_panel_has_no_statistics(make_report: ReportBuilder) -> None:
    """Without a panel its metrics are left out, the score's are not; gates are read before the GELU only."""
    report = make_report("ok", 1)
    bare = replace(report, sites={key: replace(seen, panel=None) for key, seen in report.sites.items()})
    (layer,) = {layer for layer, _ in report.sites}

    assert [] == [*samples_of(bare, catalog.WASSERSTEIN), *samples_of(bare, catalog.GATE_OPEN), *samples_of(bare, catalog.PSI)]
    assert {"pre", "post"} == {sample.labels["point"] for sample in samples_of(bare, catalog.SCORE)}
    assert {(layer,): 0.04} == by_labels(report, catalog.GATE_CLOSED, "layer")
    assert {(layer,): 0.01} == by_labels(report, catalog.GATE_OPEN, "layer")


def test_each_statistic_has_its_own_metric(make_report: ReportBuilder) -> None:
    """No two statistics of a panel are mixed up."""
    report = make_report("ok", 1)
    key = next(key for key in report.sites if key[1] == "pre")
    panel = Panel(Interval(0.1, 0.2), 0.3, 1, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
    report = replace(report, sites={key: replace(report.sites[key], panel=panel)})
    read = (
        catalog.WASSERSTEIN,
        catalog.MEAN_SHIFT,
        catalog.SPREAD_SHIFT,
        catalog.TAIL,
        catalog.GATE_CLOSED,
        catalog.GATE_OPEN,
        catalog.ZERO,
        catalog.PSI,
    )

    assert [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0] == [one(report, metric) for metric in read]


def test_only_limits_that_are_armed_are_exported(make_report: ReportBuilder) -> None:
    """A baseline too short for paging has the ticket's limit alone; without a baseline there is none."""
    report = make_report("ok")
    assert report.certificate is not None
    short = replace(report, certificate=replace(report.certificate, page_limit=math.inf, paging=False))

    assert {("ticket",): 6.0, ("page",): 7.5} == by_labels(report, catalog.LIMIT, "tier")
    assert {("ticket",): 6.0} == by_labels(short, catalog.LIMIT, "tier")
    assert {} == by_labels(make_report("warming"), catalog.LIMIT, "tier")
    assert (2880.0, 141.0) == (one(report, catalog.BASELINE_WINDOWS), one(report, catalog.BASELINE_LOOKS))


def test_alarms_stand_at_judged_points_only(make_report: ReportBuilder) -> None:
    """A judged point has both tiers, 1 at the one that is raised; a point without evidence has none."""
    report = make_report("ticket", 3, blind=1)
    calm, drifting, blind = dict.fromkeys(layer for layer, _ in report.sites)
    alarms = by_labels(report, catalog.ALARM, "layer", "tier")

    expected = {(calm, "ticket"): 0.0, (calm, "page"): 0.0, (drifting, "ticket"): 1.0, (drifting, "page"): 0.0}
    assert expected == alarms
    assert (blind, "ticket") not in alarms


def test_drift_has_one_first_layer_and_an_onset_for_each(make_report: ReportBuilder) -> None:
    """The first layer in drift carries the scope; each layer's onset is the earlier of its two sides'; calm has neither."""
    report = make_report("ticket", 4)
    first, second = report.drifting
    early = replace(report.sites[first, "post"], onset=5.0)
    report = replace(report, sites={**report.sites, (first, "post"): early})

    assert {(first, "model"): 1.0} == by_labels(report, catalog.FIRST_DRIFT, "layer", "scope")
    assert {(first,): 5.0, (second,): report.sites[second, "pre"].onset} == by_labels(report, catalog.ONSET, "layer")
    assert [] == [*samples_of(make_report("ok"), catalog.FIRST_DRIFT), *samples_of(make_report("ok"), catalog.ONSET)]


def test_gross_faults_are_told_for_every_observed_layer(make_report: ReportBuilder) -> None:
    """Each observed layer says 0 or 1 for each fault, with a baseline or without; a blind one says nothing."""
    report = make_report("warming", 3, blind=1)
    first, second, _ = dict.fromkeys(layer for layer, _ in report.sites)
    dead = replace(report.sites[first, "pre"], gross="dead")
    wrong = replace(report.sites[second, "post"], gross="impossible")
    report = replace(report, sites={**report.sites, (first, "pre"): dead, (second, "post"): wrong})

    expected = {(first, "dead"): 1.0, (first, "impossible"): 0.0, (second, "dead"): 0.0, (second, "impossible"): 1.0}
    assert expected == by_labels(report, catalog.GROSS, "layer", "fault")


@pytest.mark.parametrize(
    ("variant", "precision", "words"),
    [("tanh", "float32", "tanh in float32"), ("", "bfloat16", "undecided in bfloat16"), ("other", "", "other")],
)
def test_kernels_say_what_was_declared_and_measured(make_report: ReportBuilder, variant: str, precision: str, words: str) -> None:
    """A measured layer is 1 with a fault and 0 without, in words; one that was not measured says nothing."""
    report = make_report("ok", 2)
    first, second = dict.fromkeys(layer for layer, _ in report.sites)
    after = report.sites[first, "post"]
    assert after.parity is not None
    wrong = replace(after, parity=replace(after.parity, variant=variant, precision=precision, most=1950.0, fault="wrong"))
    report = replace(report, sites={**report.sites, (first, "post"): wrong})

    expected = {(first, "erf in float32", words): 1.0, (second, "erf in float32", "erf in float32"): 0.0}
    assert expected == by_labels(report, catalog.KERNEL_MISMATCH, "layer", "declared", "measured")
    assert {(first,): 1950.0, (second,): 1.75} == by_labels(report, catalog.KERNEL_ERROR, "layer")
    assert {} == by_labels(make_report("warming", 2), catalog.KERNEL_MISMATCH, "layer")


def test_headroom_is_told_with_its_alarm(make_report: ReportBuilder) -> None:
    """Bits are there from the first window on, the time left only with a trend, and of the tiers one is raised at most."""
    report = make_report("ok", 1)
    (layer, _), before = next(iter(report.sites.items()))
    report = replace(report, sites={**report.sites, (layer, "pre"): replace(before, headroom=Headroom(4.5, 10.0, 600.0, "page"))})

    assert {(layer, "pre"): 4.5, (layer, "post"): 125.0} == by_labels(report, catalog.HEADROOM, "layer", "point")
    assert {(layer, "pre"): 600.0} == by_labels(report, catalog.OVERFLOW_TIME, "layer", "point")
    raised = {("pre", "ticket"): 0.0, ("pre", "page"): 1.0, ("post", "ticket"): 0.0, ("post", "page"): 0.0}
    assert raised == by_labels(report, catalog.OVERFLOW, "point", "tier")
    assert {} == by_labels(make_report("warming", 1), catalog.OVERFLOW, "point", "tier")


def test_build_info_names_both_versions(make_report: ReportBuilder) -> None:
    """The framework's version is the report's."""
    (build,) = samples_of(make_report("ok"), catalog.BUILD_INFO)

    assert ("torch 2.13.0", 1.0) == (build.labels["framework"], build.value)
    assert build.labels["version"]


def test_an_armed_baselines_origin_is_one_series(make_report: ReportBuilder) -> None:
    """Whatever is known of where it comes from is in one series, and what is not is "unknown"."""
    (found,) = samples_of(make_report("ok"), catalog.BASELINE_ORIGIN)
    assert ("3f9a12c07be45d68", "float32", "8c1d5e0f22ab7734", "no") == tuple(
        found.labels[name] for name in ("weights", "dtype", "signer", "promoted")
    )
    (bare,) = samples_of(replace(make_report("ok"), baseline_origin=BaselineOrigin(promoted=True)), catalog.BASELINE_ORIGIN)
    assert ("unknown", "none", "yes") == tuple(bare.labels[name] for name in ("torch", "signer", "promoted"))
    assert [] == list(samples_of(make_report("warming"), catalog.BASELINE_ORIGIN))


def test_a_baseline_is_named_only_when_armed(make_report: ReportBuilder) -> None:
    """BASELINE_INFO is there exactly when BASELINE_ARMED is 1."""
    armed, bare = make_report("ok"), make_report("warming")

    assert "v1" == next(samples_of(armed, catalog.BASELINE_INFO)).labels["baseline"]
    assert [] == list(samples_of(bare, catalog.BASELINE_INFO))
    assert (1.0, 0.0) == (one(armed, catalog.BASELINE_ARMED), one(bare, catalog.BASELINE_ARMED))


@given(
    name=st.sampled_from(["model", "model_version", "layer", "point", "le", "kind", "sign", "verdict", "part", "version"]),
    value=st.text(max_size=5),
)
def test_user_labels_never_override_ours(make_report: ReportBuilder, name: str, value: str) -> None:
    """Whatever a user calls a label, our own labels keep our values."""

    def ours(sample: Sample) -> list[str]:
        bucket = ("le",) if sample.metric.kind == "histogram" and sample.metric not in SUMMED else ()
        return [sample.labels[label] for label in (*MODEL_LABELS, *sample.metric.labels, *bucket)]

    plain, labelled = make_report("page", labels={}), make_report("page", labels={name: value})

    assert [ours(sample) for sample in samples(plain)] == [ours(sample) for sample in samples(labelled)]
