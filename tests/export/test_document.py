"""The report as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from geluwatch.export import document as module
from geluwatch.export.document import document
from geluwatch.records import VERDICTS, Headroom, Nonfinite, Report, Verdict

ReportBuilder = Callable[..., Report]


def keys(value: object) -> set[str]:
    """Every key anywhere in a JSON value, but for those that name a label, a part of the agent or a point."""
    if isinstance(value, dict):
        named = [nested for key, nested in value.items() if key not in ("labels", "errors")]
        own = set(value) - {"pre", "post"}
        return own.union(*(keys(nested) for nested in named))
    return set().union(*(keys(nested) for nested in value)) if isinstance(value, list) else set()


@pytest.mark.parametrize("verdict", VERDICTS)
def test_it_is_strict_json(make_report: ReportBuilder, verdict: Verdict) -> None:
    """In every state a report survives JSON without NaN or infinity."""
    found = document(make_report(verdict, 3))

    assert found == json.loads(json.dumps(found, allow_nan=False))


def test_every_key_is_documented(make_report: ReportBuilder) -> None:
    """The module's docstring, which is the documentation of the format, names each key."""
    words = set(re.findall(r"\w+", str(module.__doc__)))

    assert keys(document(make_report("page"))) <= words
    assert keys(document(make_report("ticket"))) <= words


def test_numbers_that_json_lacks_become_null(make_report: ReportBuilder) -> None:
    """NaN and infinity are null; a window statistic that is missing is null as well."""
    report = make_report("warming", 1)
    endless = replace(report, sites={key: replace(seen, evidence=float("inf")) for key, seen in report.sites.items()})
    (layer,) = document(endless)["layers"]

    assert (None, None, 0) == (layer["points"]["pre"]["evidence"], layer["points"]["pre"]["mean"], layer["points"]["pre"]["rows"])
    assert (None, None) == (document(report)["window"], document(report)["baseline"])


def test_layers_come_in_the_models_order_with_both_points(make_report: ReportBuilder) -> None:
    """However the report's mapping is ordered, layers ascend and pre comes before post."""
    report = make_report("ok", 12)
    found = document(replace(report, sites=dict(sorted(report.sites.items(), reverse=True))))["layers"]

    assert list(range(12)) == [layer["position"] for layer in found]
    assert {("pre", "post")} == {tuple(layer["points"]) for layer in found}


def test_a_layers_guard_counts_are_since_attach(make_report: ReportBuilder) -> None:
    """The three counts of the guard stand beside the layer, 0 where it saw nothing."""
    report = make_report("ok", 2)
    layer = next(iter(report.sites))[0]
    first, second = document(replace(report, totals=replace(report.totals, nonfinite={layer: Nonfinite(5, 3, 2)})))["layers"]
    counts = ("nonfinite_forwards", "first_nonfinite_forwards", "padding_nonfinite_forwards")

    assert (5, 3, 2) == tuple(first[count] for count in counts)
    assert (0, 0, 0) == tuple(second[count] for count in counts)


def test_the_report_keeps_its_facts(make_report: ReportBuilder) -> None:
    """Verdict, baseline and a layer's numbers are those of the report."""
    report = make_report("ticket", 4)
    found = document(report, "runbooks/Drift")

    assert ("ticket", "runbooks/Drift", list(report.drifting)) == (found["verdict"], found["runbook"], found["drifting"])
    assert (report.scope, report.cause, []) == (found["scope"], found["cause"], found["gross"])
    assert (report.baseline, report.baseline_created) == (found["baseline"]["name"], found["baseline"]["created"])
    assert (6.0, 7.5, True) == tuple(found["baseline"]["certificate"][key] for key in ("ticket_limit", "page_limit", "paging"))
    for (layer, point), seen in report.sites.items():
        shown = found["layers"][seen.position]
        point_shown = shown["points"][point]
        assert (layer, seen.ks, seen.evidence) == (shown["layer"], point_shown["ks"], point_shown["evidence"])
        assert (seen.alarm, seen.onset, seen.family) == tuple(point_shown[key] for key in ("alarm", "onset", "family"))
        assert seen.panel is not None
        assert seen.panel.wasserstein == point_shown["panel"]["wasserstein"]


def test_wrong_kernels_and_overflows_ahead_are_listed(make_report: ReportBuilder) -> None:
    """Both stand at the top where there are any, and the numbers behind them at their points; without a window all is null."""
    report = make_report("ok", 2)
    layer = next(iter(report.sites))[0]
    before, after = report.sites[layer, "pre"], report.sites[layer, "post"]
    assert after.parity is not None
    near = Headroom(4.5, 10.0, 600.0, "page")
    wrong = replace(after.parity, variant="tanh", fault="declared erf, measured tanh")
    sites = {**report.sites, (layer, "pre"): replace(before, headroom=near), (layer, "post"): replace(after, parity=wrong)}
    found = document(replace(report, sites=sites))

    assert [{"layer": layer, "fault": "declared erf, measured tanh"}] == found["kernels"]
    assert [{"layer": layer, "point": "pre", "bits": 4.5, "windows": 10.0, "seconds": 600.0, "alarm": "page"}] == found["overflow"]
    points = found["layers"][0]["points"]
    assert (None, "tanh", 1.75) == (points["pre"]["parity"], points["post"]["parity"]["variant"], points["post"]["parity"]["most"])
    assert {"bits": 125.0, "windows": None, "seconds": None, "alarm": ""} == points["post"]["headroom"]
    bare = document(make_report("warming", 1))
    assert ([], []) == (bare["kernels"], bare["overflow"])
    assert {"bits": None, "windows": None, "seconds": None, "alarm": ""} == bare["layers"][0]["points"]["pre"]["headroom"]


def test_gross_faults_are_listed(make_report: ReportBuilder) -> None:
    """What is grossly wrong stands at the top, layers in the model's order, as well as at its point."""
    report = make_report("ok", 2)
    key = next(key for key in report.sites if key[1] == "post")
    found = document(replace(report, sites={**report.sites, key: replace(report.sites[key], gross="impossible")}))

    assert [{"layer": key[0], "point": "post", "fault": "impossible"}] == found["gross"]
    assert "impossible" == found["layers"][0]["points"]["post"]["gross"]


def test_it_says_how_often_reports_come(make_report: ReportBuilder) -> None:
    """Who asks can tell an old report from one that is merely not due; null where whoever writes it does not know."""
    report = make_report("ok")
    assert [None, 15.0, None] == [document(report, report_seconds=seconds)["report_seconds"] for seconds in (None, 15.0, float("inf"))]


def test_a_limit_that_is_not_armed_is_null(make_report: ReportBuilder) -> None:
    """A baseline too short for paging has no limit for it; one without a certificate has null."""
    report = make_report("ok")
    assert report.certificate is not None
    short = replace(report, certificate=replace(report.certificate, page_limit=float("inf"), paging=False))

    assert None is document(short)["baseline"]["certificate"]["page_limit"]
    assert None is document(replace(report, certificate=None))["baseline"]["certificate"]


def test_a_probe_is_told_with_its_first_layer(make_report: ReportBuilder) -> None:
    """What the last replay showed, and what follows from it; null before there was one, and where a size has no value."""
    found = document(make_report("ticket", 2))
    first = "encoder.layer.1.intermediate.intermediate_act_fn"
    assert ("model", f"The probe says: the model changed, first at layer {first}.") == (found["origin"], found["attribution"])
    assert (True, first, False, 2.5e-3) == tuple(found["probe"][key] for key in ("moved", "first", "within", "size"))
    assert [3e-7, 2.5e-3] == [layer["before"] for layer in found["probe"]["layers"]]
    assert ("", None) == (document(make_report("warming", 2))["origin"], document(make_report("warming", 2))["probe"])
    report = make_report("ticket", 2)
    assert report.probe is not None
    assert report.probe.first is not None
    gone = replace(report.probe, first=replace(report.probe.first, rows=0))
    assert document(replace(report, probe=gone))["probe"]["size"] is None
