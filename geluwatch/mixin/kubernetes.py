"""Renders the artefacts as Kubernetes resources: rules and scraping for the Prometheus operator, dashboards for Grafana.

Rules are one PrometheusRule, watched pods are found by one PodMonitor, and each dashboard is a ConfigMap with the label
that Grafana's sidecar looks for. The listener has no password, so a NetworkPolicy can keep all but Prometheus away.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

from geluwatch.errors import ConfigError
from geluwatch.mixin.rulefile import dump, groups
from geluwatch.mixin.settings import MixinSettings, seconds

_NAME = "geluwatch"
_OWN_LABELS = {"app.kubernetes.io/name": _NAME}
_SIDECAR_LABEL = {"grafana_dashboard": "1"}
_SIDECAR_FOLDER = "grafana_folder"
_SLOWEST_SCRAPE = 30
_SCRAPES_IN_RANGE = 10
_LAST_PORT = 65535

_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_WORD = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_PORT_NAME = re.compile(r"(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesSettings:
    """Where the resources lie and which pods they are about.

    Raises:
        ConfigError: A name is none that Kubernetes takes; the message says which and what to write instead.
    """

    namespace: str = "monitoring"
    """Where rules, pod monitor and dashboards are put."""

    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels of the PrometheusRule and the PodMonitor, by which a Prometheus selects them."""

    pod_labels: Mapping[str, str] = field(default_factory=lambda: {_NAME: "enabled"})
    """Labels of the pods whose agents are scraped."""

    pod_namespaces: tuple[str, ...] = ()
    """Namespaces of those pods; empty: any. A NetworkPolicy is rendered for each."""

    ports: Mapping[str, int] = field(default_factory=lambda: {_NAME: 9464})
    """The container ports that agents listen on, by name: one for each watched process of a pod."""

    prometheus_namespace: str | None = None
    """Where Prometheus runs, which may scrape; None: in `namespace`."""

    cluster: str | None = None
    """Value of the label `cluster` for every target; None: no such label."""

    dashboard_folder: str | None = None
    """Folder of the dashboards in Grafana; None: the sidecar's default."""

    sample_limit: int = 50_000
    """Series from which a scrape is refused as out of hand."""

    def __post_init__(self) -> None:
        for name in (self.namespace, *self.pod_namespaces, *filter(None, [self.prometheus_namespace])):
            if not _NAMESPACE.fullmatch(name):
                raise ConfigError(f"A namespace is lower-case letters, digits and hyphens, at most 63, such as monitoring; got {name!r}.")
        for key, value in (*self.labels.items(), *self.pod_labels.items()):
            _check_label(key, value)
        if not self.pod_labels or not self.ports:
            raise ConfigError("Which pods to scrape takes at least one label and one port, such as geluwatch=enabled and geluwatch=9464.")
        for name, port in self.ports.items():
            _check_port(name, port)
        if self.sample_limit < 1:
            raise ConfigError(f"The sample limit must be a positive number of series, got {self.sample_limit}.")
        if self.cluster == "" or self.dashboard_folder == "":
            raise ConfigError("The cluster and the dashboard folder need a name of at least one character.")


def render_kubernetes(settings: MixinSettings, kubernetes: KubernetesSettings, dashboards: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return every manifest by its path, sorted.

    Args:
        settings: What the rules are rendered with.
        kubernetes: Where the resources lie and which pods they are about.
        dashboards: The dashboards as JSON, by path.
    """
    named = {PurePosixPath(path).stem: content for path, content in dashboards.items()}
    manifests = {
        "prometheusrule": _prometheus_rule(settings, kubernetes),
        "podmonitor": _pod_monitor(settings, kubernetes),
        **{f"networkpolicy-{namespace}": _network_policy(namespace, kubernetes) for namespace in kubernetes.pod_namespaces},
        **{f"dashboard-{uid}": _dashboard(uid, content, kubernetes) for uid, content in named.items()},
    }
    return dict(sorted((f"kubernetes/{name}.yaml", dump(manifest)) for name, manifest in manifests.items()))


def _prometheus_rule(settings: MixinSettings, kubernetes: KubernetesSettings) -> Manifest:
    return {
        **_head("monitoring.coreos.com/v1", "PrometheusRule", kubernetes.namespace, kubernetes.labels),
        "spec": {"groups": groups(settings)},
    }


def _pod_monitor(settings: MixinSettings, kubernetes: KubernetesSettings) -> Manifest:
    """Return what finds the pods; the job is named by the pods' application label, as far as they have one."""
    namespaces = {"matchNames": list(kubernetes.pod_namespaces)} if kubernetes.pod_namespaces else {"any": True}
    return {
        **_head("monitoring.coreos.com/v1", "PodMonitor", kubernetes.namespace, kubernetes.labels),
        "spec": {
            "jobLabel": "app.kubernetes.io/name",
            "namespaceSelector": namespaces,
            "selector": {"matchLabels": dict(kubernetes.pod_labels)},
            "sampleLimit": kubernetes.sample_limit,
            "podMetricsEndpoints": [_endpoint(name, settings, kubernetes) for name in kubernetes.ports],
        },
    }


def _endpoint(port: str, settings: MixinSettings, kubernetes: KubernetesSettings) -> Manifest:
    endpoint: Manifest = {"port": port, "path": "/metrics", "interval": _scrape_interval(settings)}
    if kubernetes.cluster is not None:
        endpoint["relabelings"] = [{"targetLabel": "cluster", "replacement": kubernetes.cluster.replace("$", "$$")}]
    return endpoint


def _scrape_interval(settings: MixinSettings) -> str:
    """Return the interval at which the rules' ranges hold enough scrapes to survive a lost one."""
    return f"{max(1, min(_SLOWEST_SCRAPE, seconds(settings.rate_window) // _SCRAPES_IN_RANGE))}s"


def _network_policy(namespace: str, kubernetes: KubernetesSettings) -> Manifest:
    """Return what lets only Prometheus reach the agents' ports, and everybody all others.

    A pod that any policy selects takes in nothing but what is allowed, so all other ports have to be.
    """
    prometheus = {"kubernetes.io/metadata.name": kubernetes.prometheus_namespace or kubernetes.namespace}
    agents = sorted(set(kubernetes.ports.values()))
    return {
        **_head("networking.k8s.io/v1", "NetworkPolicy", namespace, {}),
        "spec": {
            "podSelector": {"matchLabels": dict(kubernetes.pod_labels)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "from": [{"namespaceSelector": {"matchLabels": prometheus}}],
                    "ports": [{"protocol": "TCP", "port": port} for port in agents],
                },
                {
                    "ports": [
                        *({"protocol": "TCP", "port": first, "endPort": last} for first, last in _gaps(agents)),
                        *({"protocol": protocol, "port": 1, "endPort": _LAST_PORT} for protocol in ("UDP", "SCTP")),
                    ]
                },
            ],
        },
    }


def _gaps(ports: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the ranges of ports between the given ones, which are sorted."""
    for before, after in pairwise([0, *ports, _LAST_PORT + 1]):
        if after - before > 1:
            yield before + 1, after - 1


def _dashboard(uid: str, content: bytes, kubernetes: KubernetesSettings) -> Manifest:
    """Return a dashboard for the sidecar, without the blanks that are there for people: resources have a size limit."""
    head = _head("v1", "ConfigMap", kubernetes.namespace, _SIDECAR_LABEL, name=uid)
    if kubernetes.dashboard_folder is not None:
        head["metadata"]["annotations"] = {_SIDECAR_FOLDER: kubernetes.dashboard_folder}
    compact = json.dumps(json.loads(content), separators=(",", ":"), ensure_ascii=False)
    return {**head, "data": {f"{uid}.json": f"{compact}\n"}}


def _head(api_version: str, kind: str, namespace: str, labels: Mapping[str, str], name: str = _NAME) -> Manifest:
    metadata = {"name": name, "namespace": namespace, "labels": {**_OWN_LABELS, **labels}}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


def _check_label(key: str, value: str) -> None:
    prefix, slash, name = key.rpartition("/")
    if not _WORD.fullmatch(name) or (slash and not _PREFIX.fullmatch(prefix)):
        raise ConfigError(f"A label's key is a name, such as release or example.org/team; got {key!r}.")
    if value and not _WORD.fullmatch(value):
        raise ConfigError(f"A label's value is at most 63 letters, digits, hyphens, dots and underscores; {key} got {value!r}.")


def _check_port(name: str, port: int) -> None:
    if not _PORT_NAME.fullmatch(name):
        raise ConfigError(f"A port's name is at most 15 lower-case letters, digits and single hyphens, such as geluwatch; got {name!r}.")
    if not 1 <= port <= _LAST_PORT:
        raise ConfigError(f"The port {name} must be a number from 1 to {_LAST_PORT}, got {port}.")
