"""The Kubernetes resources, and those of docs/deploy.md, against the published schemas with unknown fields refused."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from geluwatch import catalog
from geluwatch.errors import ConfigError
from geluwatch.mixin.build import check, write
from geluwatch.mixin.dashboards import dashboards
from geluwatch.mixin.kubernetes import KubernetesSettings, render_kubernetes
from geluwatch.mixin.rulefile import groups
from geluwatch.mixin.settings import MixinSettings

Manifest = dict[str, Any]

SETTINGS = MixinSettings()
PLAIN = KubernetesSettings()
EVERYTHING = KubernetesSettings(
    namespace="observability",
    labels={"release": "kube-prometheus-stack", "example.org/team": ""},
    pod_labels={"app.kubernetes.io/part-of": "search", "geluwatch": "enabled"},
    pod_namespaces=("models", "models-canary"),
    ports={"geluwatch": 9464, "geluwatch-1": 9465, "geluwatch-2": 9470},
    prometheus_namespace="prometheus",
    cluster="eu$1",
    dashboard_folder="Models",
    sample_limit=1000,
)
CORE_VERSIONS = ("1.25", kubernetes_validate.latest_version())
LARGEST_CONFIG_MAP = 1 << 20
LARGEST_RULE = 1 << 19  # the operator refuses a PrometheusRule above half of what a ConfigMap holds
LARGEST_ANNOTATIONS = 1 << 18  # `kubectl apply` keeps a copy of the resource in one
TARGET_LABELS = {"cluster", "namespace", "job", "instance", "pod", "container", "endpoint"}


def dashboards_of(settings: MixinSettings) -> dict[str, bytes]:
    """Return the dashboards by path."""
    return {f"dashboards/{uid}.json": content for uid, content in dashboards(settings).items()}


def manifests(kubernetes: KubernetesSettings, settings: MixinSettings = SETTINGS) -> dict[str, Manifest]:
    """Return the resources by file name."""
    rendered = render_kubernetes(settings, kubernetes, dashboards_of(settings))
    return {Path(path).stem: yaml.load(content, Loader=yaml.CSafeLoader) for path, content in rendered.items()}


def told(*command: str | Path) -> str:
    """Return what a program prints; it has to succeed."""
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert 0 == run.returncode, run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def plain() -> dict[str, Manifest]:
    """Return the resources at the default settings."""
    return manifests(PLAIN)


@pytest.fixture(scope="module")
def everything() -> dict[str, Manifest]:
    """Return the resources with every option given."""
    return manifests(EVERYTHING)


@pytest.fixture(scope="module")
def validate(root: Path) -> Callable[[Manifest], None]:
    """Return the function that raises where a resource is not as its schema has it, or has fields that none knows."""
    schemas = {
        kind: json.loads((root / f"third_party/kubernetes-schemas/{kind.lower()}.json").read_text())
        for kind in ("PrometheusRule", "PodMonitor")
    }

    def validated(manifest: Manifest) -> None:
        if manifest["kind"] in schemas:
            jsonschema.Draft202012Validator(schemas[manifest["kind"]]).validate(manifest)
        else:
            for version in CORE_VERSIONS:
                kubernetes_validate.validate(manifest, version, strict=True)

    return validated


@pytest.fixture(scope="module")
def documented(root: Path) -> list[Manifest]:
    """Return the YAML of docs/deploy.md: Prometheus with addresses, Prometheus with discovery, a Deployment."""
    page = (root / "docs/deploy.md").read_text()
    return [yaml.safe_load(fence) for fence in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]


@pytest.fixture(scope="module")
def deployment(documented: list[Manifest]) -> Manifest:
    """Return the Deployment that docs/deploy.md shows."""
    return documented[2]


def test_every_resource_is_valid(
    plain: dict[str, Manifest], everything: dict[str, Manifest], deployment: Manifest, validate: Callable[[Manifest], None]
) -> None:
    """Rules, pod monitor, dashboards, network policies and the documented Deployment hold what their schemas allow, and nothing else."""
    kinds = set()
    for manifest in (*plain.values(), *everything.values(), *manifests(PLAIN, MixinSettings.quick()).values(), deployment):
        validate(manifest)
        kinds.add(manifest["kind"])
    assert {"PrometheusRule", "PodMonitor", "ConfigMap", "NetworkPolicy", "Deployment"} == kinds


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("prometheusrule", ("spec", "groups", 0, "rules", 0, "expression"), "1"),
        ("prometheusrule", ("spec", "groups", 0, "rules", 0, "expr"), None),
        ("prometheusrule", ("spec", "groups", 0, "interval"), "half an hour"),
        ("prometheusrule", ("spec", "groups", 0, "name"), 7),
        ("prometheusrule", ("spec", "rules"), []),
        ("prometheusrule", ("metadata", "label"), {}),
        ("prometheusrule", ("metadata", "labels", "release"), 1),
        ("prometheusrule", ("apiVersion",), "monitoring.coreos.com/v1beta1"),
        ("podmonitor", ("spec", "podMetricsEndpoints", 0, "ports"), "geluwatch"),
        ("podmonitor", ("spec", "podMetricsEndpoints", 0, "port"), 9464),
        ("podmonitor", ("spec", "podMetricsEndpoints", 0, "interval"), "30"),
        ("podmonitor", ("spec", "podMetricsEndpoints", 0, "relabelings", 0, "target_label"), "cluster"),
        ("podmonitor", ("spec", "sampleLimit"), "50000"),
        ("podmonitor", ("spec", "selector", "labels"), {}),
        ("podmonitor", ("spec", "selector"), None),
        ("networkpolicy-models", ("spec", "ingress", 0, "port"), 9464),
        ("networkpolicy-models", ("spec", "ingress", 1, "ports", 0, "endPort"), "65535"),
        ("dashboard-", ("data", "more.json"), {}),
        ("dashboard-", ("date",), {}),
    ],
)
def test_a_planted_mistake_is_caught(
    name: str, path: tuple[str | int, ...], value: object, everything: dict[str, Manifest], validate: Callable[[Manifest], None]
) -> None:
    """A misspelt field, a value of the wrong type and a field that is missing are each refused."""
    broken = copy.deepcopy(next(manifest for stem, manifest in everything.items() if stem.startswith(name)))
    *parents, last = path
    place: Any = broken
    for step in parents:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    with pytest.raises(jsonschema.ValidationError):
        validate(broken)


def test_rules_are_those_of_the_rule_file(plain: dict[str, Manifest], promtool: str, tmp_path: Path) -> None:
    """The PrometheusRule holds the groups of the rule file, and promtool takes its specification as one."""
    spec = plain["prometheusrule"]["spec"]
    assert {"groups": groups(SETTINGS)} == spec
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump(spec))
    told(promtool, "check", "rules", file)


def test_each_dashboard_is_a_config_map_for_the_sidecar(everything: dict[str, Manifest]) -> None:
    """Each dashboard is there whole, under its uid, with the sidecar's label and the folder's annotation."""
    expected = {Path(path).stem: json.loads(content) for path, content in dashboards_of(SETTINGS).items()}
    found = {manifest["metadata"]["name"]: manifest for manifest in everything.values() if manifest["kind"] == "ConfigMap"}
    assert expected == {uid: json.loads(manifest["data"][f"{uid}.json"]) for uid, manifest in found.items()}
    for manifest in found.values():
        assert "1" == manifest["metadata"]["labels"]["grafana_dashboard"]
        assert {"grafana_folder": "Models"} == manifest["metadata"]["annotations"]


def test_resources_are_within_every_size_limit(plain: dict[str, Manifest]) -> None:
    """A ConfigMap holds a mebibyte, a PrometheusRule half, and the copy that `kubectl apply` keeps a quarter."""
    for name, manifest in plain.items():
        assert len(json.dumps(manifest.get("data", {}), ensure_ascii=False).encode()) < LARGEST_CONFIG_MAP, name
        assert len(json.dumps(manifest).encode()) < LARGEST_ANNOTATIONS, name
    assert len(yaml.safe_dump(plain["prometheusrule"]["spec"]).encode()) < LARGEST_RULE


def test_scraping_finds_the_documented_pods(plain: dict[str, Manifest], deployment: Manifest) -> None:
    """The pods of docs/deploy.md carry the labels, the port and the application label that the default pod monitor looks for."""
    spec, template = plain["podmonitor"]["spec"], deployment["spec"]["template"]
    assert spec["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert spec["jobLabel"] in template["metadata"]["labels"]
    ports = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
    assert {"geluwatch": 9464} == {endpoint["port"]: ports[endpoint["port"]] for endpoint in spec["podMetricsEndpoints"]}
    assert {"any": True} == spec["namespaceSelector"]


def test_agents_send_no_label_of_the_target() -> None:
    """No metric has a label that the operator gives to targets, which would rename it."""
    sent = {label for metric in catalog.METRICS for label in (*catalog.MODEL_LABELS, *metric.labels)}
    assert set() == TARGET_LABELS & sent


def test_options_reach_the_resources(everything: dict[str, Manifest]) -> None:
    """Namespaces, labels, ports, cluster and limit stand where they are meant to, the cluster as literal text."""
    rule, monitor = everything["prometheusrule"], everything["podmonitor"]
    for manifest in (rule, monitor):
        assert "observability" == manifest["metadata"]["namespace"]
        assert EVERYTHING.labels.items() <= manifest["metadata"]["labels"].items()
    assert EVERYTHING.pod_labels == monitor["spec"]["selector"]["matchLabels"]
    assert {"matchNames": ["models", "models-canary"]} == monitor["spec"]["namespaceSelector"]
    assert 1000 == monitor["spec"]["sampleLimit"]
    relabelings = [{"targetLabel": "cluster", "replacement": "eu$$1"}]
    expected = [{"port": name, "path": "/metrics", "interval": "30s", "relabelings": relabelings} for name in EVERYTHING.ports]
    assert expected == monitor["spec"]["podMetricsEndpoints"]


def test_rules_with_short_ranges_are_scraped_often() -> None:
    """The interval leaves at least four scrapes in the range of the rules, at the shipped and at the quick durations."""
    quick = manifests(PLAIN, MixinSettings.quick())["podmonitor"]["spec"]["podMetricsEndpoints"][0]
    assert "1s" == quick["interval"]


def allowed(policy: Manifest, namespace: str, protocol: str, port: int) -> bool:
    """Return whether a policy lets a pod of a namespace connect to a port, by the rules of Kubernetes."""
    for rule in policy["spec"]["ingress"]:
        labels = {"kubernetes.io/metadata.name": namespace}
        comes = "from" not in rule or any(peer["namespaceSelector"]["matchLabels"].items() <= labels.items() for peer in rule["from"])
        ranges = [(each["port"], each.get("endPort", each["port"])) for each in rule["ports"] if each["protocol"] == protocol]
        if comes and any(first <= port <= last for first, last in ranges):
            return True
    return False


def test_network_policies_keep_all_but_prometheus_from_the_agents(everything: dict[str, Manifest]) -> None:
    """Of all ports and protocols, others are kept from the agents' TCP ports and from nothing else; Prometheus reaches all."""
    for namespace in EVERYTHING.pod_namespaces:
        policy = everything[f"networkpolicy-{namespace}"]
        assert (namespace, ["Ingress"]) == (policy["metadata"]["namespace"], policy["spec"]["policyTypes"])
        assert EVERYTHING.pod_labels == policy["spec"]["podSelector"]["matchLabels"]
        asked = product(("TCP", "UDP", "SCTP"), range(1, 65536))
        refused = {(protocol, port) for protocol, port in asked if not allowed(policy, "shop", protocol, port)}
        assert {("TCP", port) for port in EVERYTHING.ports.values()} == refused
        assert all(allowed(policy, "prometheus", "TCP", port) for port in EVERYTHING.ports.values())


@pytest.mark.parametrize("port", [1, 65535])
def test_network_policies_know_the_first_and_the_last_port(port: int, validate: Callable[[Manifest], None]) -> None:
    """An agent on the first or the last port leaves no empty range behind, and is kept from others."""
    policy = manifests(KubernetesSettings(pod_namespaces=("models",), ports={"geluwatch": port}))["networkpolicy-models"]
    validate(policy)
    assert not allowed(policy, "shop", "TCP", port)
    assert allowed(policy, "monitoring", "TCP", port)
    assert allowed(policy, "shop", "TCP", 8080)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"namespace": "Monitoring"}, "namespace is lower-case.*'Monitoring'"),
        ({"pod_namespaces": ("models", "")}, "namespace is lower-case.*''"),
        ({"prometheus_namespace": "a.b"}, "namespace is lower-case.*'a.b'"),
        ({"labels": {"": "x"}}, "label's key.*''"),
        ({"labels": {"/release": "x"}}, "label's key.*'/release'"),
        ({"labels": {"Example.org/team": "x"}}, "label's key.*'Example.org/team'"),
        ({"labels": {"release": "two words"}}, "release got 'two words'"),
        ({"pod_labels": {"geluwatch": "x" * 64}}, "geluwatch got 'x+'"),
        ({"pod_labels": {}}, "at least one label and one port"),
        ({"ports": {}}, "at least one label and one port"),
        ({"ports": {"much-too-long-a-name": 1}}, "port's name.*'much-too-long-a-name'"),
        ({"ports": {"9464": 9464}}, "port's name.*'9464'"),
        ({"ports": {"geluwatch": 65536}}, "port geluwatch must be a number from 1 to 65535, got 65536"),
        ({"sample_limit": 0}, "sample limit.*got 0"),
        ({"cluster": ""}, "cluster"),
        ({"dashboard_folder": ""}, "dashboard folder"),
    ],
)
def test_names_that_kubernetes_would_refuse_are_refused(options: dict[str, Any], words: str) -> None:
    """Each is one sentence that says what is wrong and shows it."""
    with pytest.raises(ConfigError, match=words) as refused:
        KubernetesSettings(**options)
    assert str(refused.value).endswith(".")
    assert "\n" not in str(refused.value)


def test_writing_makes_the_check_pass(tmp_path: Path) -> None:
    """What is written is checked, a resource that is no longer rendered is found and removed, and other folders are left alone."""
    other = write(tmp_path, SETTINGS)
    assert all("kubernetes" not in path.parts for path in other)
    write(tmp_path, SETTINGS, EVERYTHING)
    assert [] == check(tmp_path, SETTINGS, EVERYTHING)
    assert [] == check(tmp_path, SETTINGS)
    assert {"kubernetes/networkpolicy-models.yaml", "kubernetes/podmonitor.yaml"} <= set(check(tmp_path, SETTINGS, PLAIN))
    write(tmp_path, SETTINGS, PLAIN)
    assert not (tmp_path / "kubernetes/networkpolicy-models.yaml").exists()
    assert [] == check(tmp_path, SETTINGS, PLAIN)


def test_the_documented_configuration_is_taken_by_promtool(documented: list[Manifest], promtool: str, tmp_path: Path) -> None:
    """The Prometheus configuration of docs/deploy.md is one, beside the rendered alerts."""
    write(tmp_path, SETTINGS)
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump(documented[0]))
    told(promtool, "check", "config", file)


def test_the_documented_relabelling_keeps_watched_pods(documented: list[Manifest], promtool: str, tmp_path: Path) -> None:
    """Of what discovery may find, only ports of running watched pods are kept, named by application, namespace, pod and cluster."""
    pod = {
        "__meta_kubernetes_pod_label_geluwatch": "enabled",
        "__meta_kubernetes_pod_container_port_name": "geluwatch",
        "__meta_kubernetes_pod_phase": "Running",
        "__meta_kubernetes_pod_label_app_kubernetes_io_name": "minilm",
        "__meta_kubernetes_namespace": "models",
        "__meta_kubernetes_pod_name": "minilm-1",
    }
    found = {
        "10.0.0.1:9464": pod,
        "10.0.0.1:9465": {**pod, "__meta_kubernetes_pod_container_port_name": "geluwatch-1"},
        "10.0.0.1:8080": {**pod, "__meta_kubernetes_pod_container_port_name": "http"},
        "10.0.0.2:9464": {**pod, "__meta_kubernetes_pod_phase": "Succeeded"},
        "10.0.0.3:9464": {**pod, "__meta_kubernetes_pod_label_geluwatch": ""},
        "10.0.0.4:9464": {**pod, "__meta_kubernetes_pod_label_app_kubernetes_io_name": ""},
    }
    configuration = copy.deepcopy(documented[1])
    (job,) = configuration["scrape_configs"]
    assert [{"role": "pod"}] == job.pop("kubernetes_sd_configs")  # Debian builds promtool without it
    job["static_configs"] = [{"targets": [address], "labels": labels} for address, labels in found.items()]
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump(configuration))
    discovered = json.loads(told(promtool, "check", "service-discovery", "--timeout=2s", file, "geluwatch"))
    targets = [each["labels"] for each in discovered if each["labels"]]
    kept = {target["instance"]: {name: target[name] for name in ("job", "namespace", "pod", "cluster")} for target in targets}
    named = {"job": "minilm", "namespace": "models", "pod": "minilm-1", "cluster": "eu-1"}
    assert {"10.0.0.1:9464": named, "10.0.0.1:9465": named, "10.0.0.4:9464": {**named, "job": "geluwatch"}} == kept


def test_documented_python_and_commands_are_real(root: Path, tmp_path: Path) -> None:
    """The Python of docs/deploy.md compiles, and its commands are accepted and render what it says."""
    from geluwatch.cli.main import parser

    page = (root / "docs/deploy.md").read_text()
    for fence in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        compile(fence, "docs/deploy.md", "exec")
    shell = "".join(re.findall(r"```shell\n(.*?)```", page, re.DOTALL)).replace("\\\n", " ")
    commands = re.findall(r"^geluwatch (mixin .*)$", shell, re.MULTILINE)
    assert 3 == len(commands)
    for command in commands:
        arguments = parser().parse_args(command.replace("bundle", str(tmp_path / "bundle")).split())
        assert 0 == arguments.func(arguments)
    assert (tmp_path / "bundle/kubernetes/networkpolicy-models.yaml").exists()
