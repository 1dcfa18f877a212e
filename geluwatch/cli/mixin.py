"""`geluwatch mixin`: renders dashboards, alerts, rule tests and runbooks, or checks that they are up to date."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geluwatch.errors import ConfigError

if TYPE_CHECKING:
    from geluwatch.mixin.kubernetes import KubernetesSettings
    from geluwatch.mixin.settings import MixinSettings, Tier
    from geluwatch.mixin.thresholds import Thresholds

_HERE = Path()
_FORMATS = ("prometheus", "kubernetes")
_FIELDS = ("selector", "expected_targets", "runbook_base", "dashboard_base")
_KUBERNETES: Mapping[str, str] = {
    "namespace": "--namespace",
    "labels": "--label",
    "pod_labels": "--pod-label",
    "pod_namespaces": "--pod-namespace",
    "ports": "--port",
    "prometheus_namespace": "--prometheus-namespace",
    "cluster": "--cluster",
    "dashboard_folder": "--dashboard-folder",
    "sample_limit": "--sample-limit",
}
"""The option of each field of the Kubernetes settings."""

_ABOUT = (
    "prometheus: dashboards/, alerts/, runbooks/ and docs/metrics.md, to be loaded by Prometheus and Grafana themselves. "
    "kubernetes: kubernetes/ with a PrometheusRule, a PodMonitor, a ConfigMap for each dashboard, and NetworkPolicies."
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser."""
    parser = subparsers.add_parser("mixin", help="render dashboards, alerts, rule tests and runbooks")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    render = commands.add_parser("render", help="write them", description=f"Write the artefacts. {_ABOUT}")
    render.add_argument("--out", type=Path, default=_HERE, metavar="DIR", help="where to write (default: here)")
    _add_settings(render)
    render.set_defaults(func=_render)
    differs = "Exit with 1 if any artefact differs from what would be rendered with the same options."
    check = commands.add_parser("check", help="exit with 1 if any of them differs from what would be rendered", description=differs)
    check.add_argument("--dir", type=Path, default=_HERE, metavar="DIR", help="where they are (default: here)")
    _add_settings(check)
    check.set_defaults(func=_check)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=_FORMATS, default=_FORMATS[0], help="what it is for (default: prometheus)")
    parser.add_argument("--selector", default="", metavar="MATCHERS", help="targets to look at, such as 'cluster=\"eu\"' (default: all)")
    parser.add_argument("--expected-targets", default="", metavar="MATCHERS", help="targets that must carry an agent (default: not known)")
    parser.add_argument("--runbook-base", metavar="URL", help="where runbooks are published (default: the agents serve them)")
    parser.add_argument("--dashboard-base", metavar="URL", help="where Grafana is (default: links hold the path only)")
    threshold = "limit to change, such as latency_seconds=1.0; repeatable (default: see docs/deploy.md)"
    parser.add_argument("--threshold", dest="thresholds", action="append", default=[], metavar="NAME=VALUE", help=threshold)
    wait = "wait or range of the rules to change, such as rollout_window=2h; repeatable (default: see docs/deploy.md)"
    parser.add_argument("--wait", dest="waits", action="append", default=[], metavar="NAME=DURATION", help=wait)
    severity = "label of a tier, such as page=sev1; repeatable (default: page=critical, ticket=warning, notice=info)"
    parser.add_argument("--severity", dest="severities", action="append", default=[], metavar="TIER=LABEL", help=severity)
    parser.add_argument("--quick", action="store_true", help="waits of seconds, for demonstrations")
    _add_kubernetes(parser.add_argument_group("with --format kubernetes"))


def _add_kubernetes(group: argparse._ArgumentGroup) -> None:
    pairs: dict[str, Any] = {"action": "append", "metavar": "KEY=VALUE"}
    group.add_argument("--namespace", help="where rules, pod monitor and dashboards are put (default: monitoring)")
    group.add_argument("--label", dest="labels", **pairs, help="label by which Prometheus selects rules and pod monitors; repeatable")
    group.add_argument("--pod-label", dest="pod_labels", **pairs, help="label of the watched pods; repeatable (default: geluwatch=enabled)")
    where = "namespace of the watched pods; repeatable; gets a NetworkPolicy (default: any, and none)"
    group.add_argument("--pod-namespace", dest="pod_namespaces", action="append", metavar="NAME", help=where)
    port = "container port of an agent; repeatable (default: geluwatch=9464)"
    group.add_argument("--port", dest="ports", action="append", metavar="NAME=NUMBER", help=port)
    where = "where Prometheus runs, which NetworkPolicies let in (default: that of --namespace)"
    group.add_argument("--prometheus-namespace", metavar="NAMESPACE", help=where)
    group.add_argument("--cluster", metavar="NAME", help="label `cluster` of every target (default: none)")
    group.add_argument("--dashboard-folder", metavar="NAME", help="folder in Grafana (default: the sidecar's)")
    group.add_argument("--sample-limit", type=int, metavar="SERIES", help="size from which a scrape is refused (default: 50000)")


def _settings(args: argparse.Namespace) -> MixinSettings:
    from geluwatch.mixin.settings import MixinSettings

    chosen = MixinSettings.quick() if args.quick else MixinSettings()
    given: dict[str, Any] = {name: getattr(args, name) for name in _FIELDS} | _waits(args.waits)
    severities = {**chosen.severities, **_severities(args.severities)}
    return replace(chosen, thresholds=_thresholds(args.thresholds), severities=severities, **given)


def _waits(given: list[str]) -> dict[str, str]:
    from geluwatch.mixin.settings import DURATIONS

    return _chosen("wait", given, DURATIONS)


def _severities(given: list[str]) -> dict[Tier, str]:
    from geluwatch.mixin.settings import TIERS

    chosen = _chosen("severity", given, TIERS)
    return {tier: chosen[tier] for tier in TIERS if tier in chosen}


def _thresholds(given: list[str]) -> Thresholds:
    from geluwatch.mixin.thresholds import Thresholds

    chosen: dict[str, float] = {}
    for name, text in _chosen("threshold", given, [item.name for item in fields(Thresholds)]).items():
        try:
            chosen[name] = float(text)
        except ValueError:
            raise ConfigError(f"{name} must be a number, got {text!r}.") from None
    return Thresholds(**chosen)


def _chosen(what: str, given: list[str], names: Sequence[str]) -> dict[str, str]:
    """Return what an option that may be repeated gives by name, the last where one is given twice."""
    chosen = dict(_pair(f"--{what}", pair) for pair in given)
    for name in chosen:
        if name not in names:
            raise ConfigError(f"There is no {what} {name!r}; there are {', '.join(names)}.")
    return chosen


def _kubernetes(args: argparse.Namespace) -> KubernetesSettings | None:
    from geluwatch.mixin.kubernetes import KubernetesSettings

    given: dict[str, Any] = {name: getattr(args, name) for name in _KUBERNETES if getattr(args, name) is not None}
    if args.format != "kubernetes":
        for name in given:
            raise ConfigError(f"{_KUBERNETES[name]} is for Kubernetes only; add --format kubernetes.")
        return None
    for name in ("labels", "pod_labels", "ports"):
        if name in given:
            given[name] = dict(_pair(_KUBERNETES[name], text) for text in given[name])
    if "ports" in given:
        given["ports"] = {name: _number(name, text) for name, text in given["ports"].items()}
    if "pod_namespaces" in given:
        given["pod_namespaces"] = tuple(given["pod_namespaces"])
    return KubernetesSettings(**given)


def _pair(option: str, text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign:
        raise ConfigError(f"{option} takes a key and a value with = between them, got {text!r}.")
    return key, value


def _number(name: str, text: str) -> int:
    if not text.isdecimal():
        raise ConfigError(f"--port takes a name and a number, such as geluwatch=9464; got {name}={text}.")
    return int(text)


def _render(args: argparse.Namespace) -> int:
    from geluwatch.mixin.build import write

    for path in write(args.out, _settings(args), _kubernetes(args)):
        sys.stdout.write(f"{path}\n")
    return 0


def _check(args: argparse.Namespace) -> int:
    from geluwatch.mixin.build import check

    different = check(args.dir, _settings(args), _kubernetes(args))
    if not different:
        sys.stdout.write("Everything is up to date.\n")
        return 0
    for path in different:
        sys.stdout.write(f"{args.dir / path}\n")
    sys.stderr.write(f"{len(different)} files are not what would be rendered; mend them with: {_command(args)}\n")
    return 1


def _command(args: argparse.Namespace) -> str:
    """Return the command that renders what a check of these options compares with."""
    words = ["geluwatch", "mixin", "render"]
    words += ["--out", str(args.dir)] if args.dir != _HERE else []
    words += ["--format", args.format] if args.format != _FORMATS[0] else []
    flags = {**{name: f"--{name.replace('_', '-')}" for name in _FIELDS}, "thresholds": "--threshold", **_KUBERNETES}
    for name, flag in flags.items():
        given = getattr(args, name)
        values = given if isinstance(given, list) else [given] if given else []
        words += [f"{flag}={value}" for value in values]
    words += ["--quick"] if args.quick else []
    return shlex.join(words)
