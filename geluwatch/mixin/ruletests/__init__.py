"""Unit tests of the alert rules in promtool's format: each alert fires when it should, not a moment before, and ends.

Counters start far from zero and jump by little, so that Prometheus 2 (whose ranges hold both ends) and 3 (whose ranges
leave the older end out) round to the same numbers. All times follow the settings, so that quick rules are tested too.
The expected texts are written out here, not taken from the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from geluwatch.mixin.rulefile import file_name
from geluwatch.mixin.rules import GROUPS, alerted
from geluwatch.mixin.rules.alerting import Alert
from geluwatch.mixin.ruletests import (
    accuracy,
    agent_faulty,
    agent_missing,
    baseline_missing,
    baseline_mixed,
    baseline_stale,
    budget,
    canary,
    cost,
    drift,
    fleet_distance,
    gross,
    kernel,
    latency,
    memory,
    model_changed,
    nonfinite,
    out_of_memory,
    over_budget,
    overflow,
    quantized,
    rollout,
    saturation,
    sites_blind,
    stray,
    training,
)
from geluwatch.mixin.ruletests.grammar import Answer, Case, Expected, Scale
from geluwatch.mixin.settings import MixinSettings

_Stories = Mapping[str, Callable[[Alert, Scale], tuple[Case, ...]]]

_STORIES: _Stories = {
    "GeluwatchNonFiniteActivations": nonfinite.cases,
    "GeluwatchOutOfMemory": out_of_memory.cases,
    "GeluwatchGrossFault": gross.cases,
    "GeluwatchActivationDrift": drift.cases,
    "GeluwatchPodDrift": stray.cases,
    "GeluwatchModelChanged": model_changed.cases,
    "GeluwatchOverflowAhead": overflow.cases,
    "GeluwatchKernelMismatch": kernel.cases,
    "GeluwatchTrainingFault": training.cases,
    "GeluwatchAgentMissing": agent_missing.cases,
    "GeluwatchBaselineMissing": baseline_missing.cases,
    "GeluwatchBaselineMixed": baseline_mixed.cases,
    "GeluwatchBaselineStale": baseline_stale.cases,
    "GeluwatchCanaryDivergence": lambda alert, scale: (*canary.cases(alert, scale), *fleet_distance.cases(alert, scale)),
    "GeluwatchSitesBlind": sites_blind.cases,
    "GeluwatchAgentFaulty": agent_faulty.cases,
    "GeluwatchAgentOverBudget": over_budget.cases,
    "GeluwatchSaturation": saturation.cases,
    "GeluwatchRollout": rollout.cases,
    "GeluwatchErrorBudgetBurn": budget.cases,
    "GeluwatchQuantizedAccuracy": quantized.cases,
    "GeluwatchMemoryPressure": memory.cases,
}

_LONG_STORIES: _Stories = {
    "GeluwatchErrorBudgetBurn": budget.long_cases,
    "GeluwatchLatencySpike": latency.cases,
    "GeluwatchAccuracyDrop": accuracy.cases,
    "GeluwatchCostUp": cost.cases,
}
"""Stories that take days, told on a coarser grid and in a file of their own: there are many moments in days."""


def rule_tests(settings: MixinSettings) -> dict[str, dict[str, Any]]:
    """Return the test files of the rules of some settings by name, to lie one folder below them.

    Each tests the rules of one group and loads no others, for each moment of a story is an evaluation of every rule loaded.
    The settings must select all targets, because the stories could not know how to please a selector.
    """
    documents = {}
    for group, families in GROUPS.items():
        told = {alert.name: alert for alert in alerted(families, settings)}
        for ending, stories, scale in (("", _STORIES, Scale(settings)), (".long", _LONG_STORIES, Scale(settings, coarse=True))):
            tests = [_test(alert, case, scale) for name, alert in told.items() if name in stories for case in stories[name](alert, scale)]
            if tests:
                documents[f"{group}.rules{ending}.test.yaml"] = {
                    "rule_files": [f"../{file_name(group)}"],
                    "evaluation_interval": f"{scale.step}s",
                    "tests": tests,
                }
    return documents


def _test(alert: Alert, case: Case, scale: Scale) -> dict[str, Any]:
    return {
        "name": f"{alert.name} {case.name}",
        "interval": f"{scale.step}s",
        "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
        "alert_rule_test": [
            {
                "eval_time": f"{check.step * scale.step}s",
                "alertname": alert.name,
                "exp_alerts": [_expected(alert, expected, scale.settings) for expected in check.expected],
            }
            for check in case.checks
        ],
        **({"promql_expr_test": [_answer(answer, scale) for answer in case.answers]} if case.answers else {}),
    }


def _answer(answer: Answer, scale: Scale) -> dict[str, Any]:
    found = [{"labels": labels, "value": value} for labels, value in answer.found.items()]
    return {"expr": answer.query, "eval_time": f"{answer.step * scale.step}s", "exp_samples": found}


def _expected(alert: Alert, expected: Expected, settings: MixinSettings) -> dict[str, Any]:
    selected = "&".join(
        f"var-{label}={expected.labels[label]}" for label in ("job", "model", "cluster", "namespace") if label in expected.labels
    )
    return {
        "exp_labels": {**expected.labels, "severity": settings.severities[expected.tier or alert.tier], "owner": alert.owner},
        "exp_annotations": {
            "summary": alert.summary,
            "description": expected.description,
            "runbook_url": _runbook_url(alert, expected.agent, settings),
            "dashboard_url": f"{(settings.dashboard_base or '').rstrip('/')}/d/{alert.dashboard}?{selected}",
        },
    }


def _runbook_url(alert: Alert, agent: str | None, settings: MixinSettings) -> str:
    if settings.runbook_base is not None:
        return f"{settings.runbook_base.rstrip('/')}/{alert.name}"
    return f"http://{agent}/runbooks/{alert.name}" if agent else f"runbooks/{alert.name}.md"
