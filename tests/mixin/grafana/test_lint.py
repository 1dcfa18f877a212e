"""Every dashboard obeys the rules of Grafana's dashboard-linter 0.2, under the linter's own names.

The rules are stricter here in one way: the linter looks at six kinds of panel, these look at every kind that asks a
question. Its two rules for LogQL are one here: nothing but Prometheus is asked.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

import promql_parser
import pytest

Json = dict[str, Any]
Rule = Callable[[Json], Iterator[str]]

PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
RATE_INTERVAL = "7919s"
"""Stands for $__rate_interval while an expression is parsed; nobody writes such a span by hand."""
GLOBALS = {"__rate_interval": RATE_INTERVAL, "__interval": "7907s", "__range": "7901s", "__range_s": "7883", "__interval_ms": "7879"}
SILENT = {"row", "text"}
UNITS = {
    *("none", "string", "short", "percent", "percentunit", "locale", "sci", "bool", "bool_yes_no", "bool_on_off"),
    *("bytes", "decbytes", "bits", "Bps", "cps", "ops", "reqps", "rps", "iops", "cpm", "rpm", "hertz", "celsius", "watt", "joule"),
    *("ns", "µs", "ms", "s", "m", "h", "d", "dtdurationms", "dtdurations", "dthms", "dateTimeAsIso", "dateTimeAsLocal", "dateTimeFromNow"),
    *("currencyUSD", "currencyEUR", "currencyGBP"),
}
"""Those of Grafana's units that could be meant here."""

EXCLUDED = {
    ("target-instance-rule", r".*: \w+:\w+:\w+"): "recorded over all pods of a model",
    ("target-instance-rule", r".*: ALERTS\w*"): "an alert is about a model, not a pod",
    ("target-job-rule", r".*: ALERTS\w*"): "an alert that has no job, such as one about absence, is shown whatever is chosen",
    ("target-job-rule", r".*: model_layer_point:\w+:stable"): "a canary may be a job of its own, and is compared with the stable one's",
    (
        "target-counter-agg-rule",
        r".*: geluwatch_\w*(?:nonfinite|out_of_memory)_forward_passes_total",
    ): "counts from birth, before any increase",
}
"""What is let through, by rule and pattern of the complaint, and why."""


def shown(dashboard: Json) -> list[Json]:
    """Return the panels that ask something, those inside collapsed rows included."""
    nested = [inner for panel in dashboard["panels"] for inner in panel.get("panels", ())]
    return [panel for panel in [*dashboard["panels"], *nested] if panel["type"] not in SILENT]


def asked(dashboard: Json) -> Iterator[tuple[str, str]]:
    """Yield (panel's title, expression)."""
    for panel in shown(dashboard):
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def expanded(expr: str) -> str:
    """Return an expression with Grafana's variables outside quoted strings filled in."""
    parts = expr.split('"')
    for place in range(0, len(parts), 2):
        parts[place] = re.sub(r"\$\{?(\w+)(?::\w+)?\}?", lambda found: GLOBALS.get(found[1], found[1]), parts[place])
    return '"'.join(parts)


def tree(expr: str) -> list[tuple[Any, list[Any]]]:
    """Return every node of an expression with its ancestors; nothing for what does not parse, which is another rule's."""
    found: list[tuple[Any, list[Any]]] = []
    above: list[Any] = []

    def enter(node: Any) -> None:
        found.append((node, above.copy()))
        above.append(node)

    def leave(_: Any) -> None:
        above.pop()

    try:
        promql_parser.walk(promql_parser.parse(expanded(expr)), enter, leave)
    except ValueError:
        return []
    return found


def called(nodes: list[Any]) -> set[str]:
    """Return the names of the functions among some nodes."""
    return {node.func.name for node in nodes if isinstance(node, promql_parser.Call)}


def variables(dashboard: Json, kind: str) -> list[Json]:
    """Return the variables of a kind."""
    return [variable for variable in dashboard["templating"]["list"] if variable["type"] == kind]


def template_datasource(dashboard: Json) -> Iterator[str]:
    """One variable chooses the data source, and is named for that."""
    if [("datasource", "Data source", "prometheus")] != [(v["name"], v["label"], v["query"]) for v in variables(dashboard, "datasource")]:
        yield "no variable named datasource and labelled Data source"


def template_choice(name: str) -> Rule:
    """Return the rule that a dashboard can be limited to some values of a label."""

    def rule(dashboard: Json) -> Iterator[str]:
        wanted = {"label": name.title(), "multi": True, "allValue": ".+", "datasource": PROMETHEUS}
        found = [variable for variable in variables(dashboard, "query") if variable["name"] == name]
        if not found:
            yield f"no query variable {name}"
        for variable in found:
            yield from (f"{name} has {key} {variable.get(key)}" for key, value in wanted.items() if variable.get(key) != value)

    return rule


def template_label_promql(dashboard: Json) -> Iterator[str]:
    """Every query variable calls a function that Grafana knows, on an expression that parses."""
    for variable in variables(dashboard, "query"):
        found = re.fullmatch(r"(label_names|label_values|metrics|query_result)\((.+?)(?:, \w+)?\)", variable["query"])
        if not found or not tree(found[2]):
            yield f"{variable['name']} asks {variable['query']}"


def template_on_time_change_reload(dashboard: Json) -> Iterator[str]:
    """Query variables are asked again when the time range changes."""
    yield from (variable["name"] for variable in variables(dashboard, "query") if variable["refresh"] != 2)


def panel_datasource(dashboard: Json) -> Iterator[str]:
    """Every panel and each of its targets asks the data source that the variable names."""
    for panel in shown(dashboard):
        if any(PROMETHEUS != asker.get("datasource") for asker in [panel, *panel.get("targets", ())]):
            yield panel["title"]


def panel_title_description(dashboard: Json) -> Iterator[str]:
    """Every panel says what it is."""
    yield from (f"{panel['id']} {panel['title']}" for panel in shown(dashboard) if not panel["title"] or not panel.get("description"))


def panel_units(dashboard: Json) -> Iterator[str]:
    """Every panel's unit, and each that a column sets, is one that Grafana knows."""
    for panel in shown(dashboard):
        config = panel["fieldConfig"]
        columns = [entry["value"] for override in config["overrides"] for entry in override["properties"] if entry["id"] == "unit"]
        named = (unit for unit in (config["defaults"].get("unit"), *columns) if not str(unit).startswith("count:"))
        yield from (f"{panel['title']}: {unit}" for unit in named if unit not in UNITS)


def panel_no_targets(dashboard: Json) -> Iterator[str]:
    """Every panel asks something."""
    yield from (panel["title"] for panel in shown(dashboard) if not panel.get("targets"))


def target_promql(dashboard: Json) -> Iterator[str]:
    """Every expression is PromQL."""
    yield from (f"{title}: {expr}" for title, expr in asked(dashboard) if not tree(expr))


def target_rate_interval(dashboard: Json) -> Iterator[str]:
    """A rate over time is taken over $__rate_interval, which always holds enough scrapes."""
    for title, expr in asked(dashboard):
        for node, above in tree(expr):
            rate = isinstance(node, promql_parser.MatrixSelector) and {"rate", "irate"} & called(above[-1:])
            if rate and node.range != promql_parser.parse_duration(RATE_INTERVAL):
                yield f"{title}: rate over {promql_parser.display_duration(node.range)}"


def target_matcher(label: str) -> Rule:
    """Return the rule that every selector is limited by the variable of a label."""

    def rule(dashboard: Json) -> Iterator[str]:
        for title, expr in asked(dashboard):
            for node, _ in tree(expr):
                if isinstance(node, promql_parser.VectorSelector):
                    limits = [(matcher.name, matcher.op, matcher.value) for matcher in node.matchers.matchers]
                    if (label, promql_parser.MatchOp.Re, f"${label}") not in limits:
                        yield f"{title}: {node.name}"

    return rule


def target_counter_agg(dashboard: Json) -> Iterator[str]:
    """A counter is read as what it grew by."""
    for title, expr in asked(dashboard):
        for node, above in tree(expr):
            counter = isinstance(node, promql_parser.VectorSelector) and str(node.name).endswith("_total")
            if counter and not {"rate", "irate", "increase"} & called(above[-2:-1]):
                yield f"{title}: {node.name}"


def uneditable(dashboard: Json) -> Iterator[str]:
    """A dashboard that is generated is not edited in place."""
    if dashboard.get("editable", True):
        yield "editable"


RULES: dict[str, Rule] = {
    "template-datasource-rule": template_datasource,
    "template-job-rule": template_choice("job"),
    "template-instance-rule": template_choice("instance"),
    "template-label-promql-rule": template_label_promql,
    "template-on-time-change-reload-rule": template_on_time_change_reload,
    "panel-datasource-rule": panel_datasource,
    "panel-title-description-rule": panel_title_description,
    "panel-units-rule": panel_units,
    "panel-no-targets-rule": panel_no_targets,
    "target-promql-rule": target_promql,
    "target-rate-interval-rule": target_rate_interval,
    "target-job-rule": target_matcher("job"),
    "target-instance-rule": target_matcher("instance"),
    "target-counter-agg-rule": target_counter_agg,
    "uneditable-dashboard": uneditable,
}


def complaints(dashboard: Json) -> Iterator[tuple[str, str]]:
    """Yield (rule, complaint)."""
    for name, rule in RULES.items():
        yield from ((name, complaint) for complaint in rule(dashboard))


def excluded(rule: str, complaint: str) -> list[tuple[str, str]]:
    """Return the exclusions that let a complaint through."""
    return [(name, pattern) for name, pattern in EXCLUDED if name == rule and re.fullmatch(pattern, complaint)]


def test_no_rule_is_broken(dashboards: dict[str, Json]) -> None:
    """The linter has nothing to say on any dashboard, save what is let through with a reason."""
    found = [f"{uid}: {said}" for uid, dashboard in dashboards.items() for said in complaints(dashboard) if not excluded(*said)]
    assert "" == "\n".join(found)


def test_every_exclusion_is_needed(dashboards: dict[str, Json]) -> None:
    """Nothing is let through that no dashboard does."""
    needed = {entry for dashboard in dashboards.values() for said in complaints(dashboard) for entry in excluded(*said)}
    assert set(EXCLUDED) == needed


def test_there_was_something_to_look_at(dashboards: dict[str, Json]) -> None:
    """Every dashboard has panels and expressions, so no rule passed for want of them."""
    assert dashboards
    assert all(len(shown(dashboard)) > 5 and len(list(asked(dashboard))) > 5 for dashboard in dashboards.values())


def _variable(dashboard: Json, name: str) -> Json:
    return next(variable for variable in dashboard["templating"]["list"] if variable["name"] == name)


def _remove(dashboard: Json, name: str) -> None:
    dashboard["templating"]["list"].remove(_variable(dashboard, name))


def _ask(expr: str) -> Callable[[Json], None]:
    return lambda dashboard: shown(dashboard)[0]["targets"][0].update(expr=expr)


def _nest(dashboard: Json, **change: object) -> None:
    """Add a collapsed row around a panel with a fault."""
    inner = {**copy.deepcopy(shown(dashboard)[0]), **change}
    dashboard["panels"].append({"type": "row", "title": "More", "collapsed": True, "panels": [inner]})


LIMITED = '{job=~"$job", instance=~"$instance"}'
FAULTS: list[tuple[str, Callable[[Json], object]]] = [
    ("template-datasource-rule", lambda dashboard: _variable(dashboard, "datasource").update(name="source")),
    ("template-job-rule", lambda dashboard: _remove(dashboard, "job")),
    ("template-job-rule", lambda dashboard: _variable(dashboard, "job").update(multi=False)),
    ("template-instance-rule", lambda dashboard: _variable(dashboard, "instance").update(allValue=".*")),
    ("template-label-promql-rule", lambda dashboard: _variable(dashboard, "job").update(query="label_values(up{, job)")),
    ("template-label-promql-rule", lambda dashboard: _variable(dashboard, "job").update(query="labels(up, job)")),
    ("template-on-time-change-reload-rule", lambda dashboard: _variable(dashboard, "job").update(refresh=1)),
    ("panel-datasource-rule", lambda dashboard: shown(dashboard)[0].update(datasource={"type": "prometheus", "uid": "main"})),
    ("panel-datasource-rule", lambda dashboard: shown(dashboard)[0]["targets"][0].pop("datasource")),
    ("panel-title-description-rule", lambda dashboard: shown(dashboard)[0].update(description="")),
    ("panel-title-description-rule", lambda dashboard: _nest(dashboard, description="")),
    ("panel-units-rule", lambda dashboard: shown(dashboard)[0]["fieldConfig"]["defaults"].update(unit="seconds")),
    ("panel-no-targets-rule", lambda dashboard: shown(dashboard)[0].update(targets=[])),
    ("target-promql-rule", _ask("sum(")),
    ("target-rate-interval-rule", _ask(f"rate(a_total{LIMITED}[5m])")),
    ("target-rate-interval-rule", lambda dashboard: _nest(dashboard, targets=[{"expr": f"irate(a_total{LIMITED}[$__interval])"}])),
    ("target-job-rule", _ask('a{instance=~"$instance"} / b{job=~"$job", instance=~"$instance"}')),
    ("target-instance-rule", _ask('a{job=~"$job", instance="$instance"}')),
    ("target-counter-agg-rule", _ask(f"a_total{LIMITED}")),
    ("target-counter-agg-rule", _ask(f"max_over_time(a_total{LIMITED}[1h])")),
    ("uneditable-dashboard", lambda dashboard: dashboard.pop("editable")),
]


@pytest.mark.parametrize(("rule", "fault"), FAULTS)
def test_a_planted_fault_is_found(rule: str, fault: Callable[[Json], object], dashboards: dict[str, Json]) -> None:
    """Each rule complains of a dashboard that breaks it, of one thing more than before."""
    for dashboard in dashboards.values():
        broken = copy.deepcopy(dashboard)
        before = list(RULES[rule](broken))
        fault(broken)
        assert set(RULES[rule](broken)) - set(before)


def test_every_rule_has_a_planted_fault() -> None:
    """No rule goes untested."""
    assert set(RULES) == {rule for rule, _ in FAULTS}


def test_what_the_rules_ask_for_is_let_through(dashboards: dict[str, Json]) -> None:
    """A rate over $__rate_interval and any other function over a span of its own are not complained of."""
    fine = f"rate(a_total{LIMITED}[$__rate_interval]) > max_over_time(b{LIMITED}[1h]) + increase(c_total{LIMITED}[$__range])"
    dashboard = copy.deepcopy(next(iter(dashboards.values())))
    dashboard["panels"] = [{**copy.deepcopy(shown(dashboard)[0]), "targets": [{"expr": fine, "datasource": PROMETHEUS}]}]
    assert [] == list(complaints(dashboard))
