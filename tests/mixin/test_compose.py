"""The compose stack of examples/: its shape, its configurations, and its servers with exactly these, short of Docker."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import pytest
import torch
import yaml
from torch import nn

import geluwatch
from geluwatch.cli.demo.servers import Server, free_port, get
from geluwatch.mixin.build import write
from geluwatch.mixin.settings import MixinSettings

Json = dict[str, Any]

RENDERED = ("alerts", "dashboards")
SECONDS_TO_PAGE = 60


@pytest.fixture(scope="module")
def folder(root: Path) -> Path:
    """Return the folder of the stack."""
    return root / "examples/compose"


@pytest.fixture(scope="module")
def compose(folder: Path) -> Json:
    """Return the compose file."""
    parsed: Json = yaml.safe_load((folder / "compose.yaml").read_text())
    return parsed


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the artefacts, rendered afresh."""
    out = tmp_path_factory.mktemp("bundle")
    write(out, MixinSettings())
    return out


@pytest.fixture(scope="module")
def mounts(compose: Json, folder: Path, bundle: Path) -> dict[str, dict[str, Path]]:
    """Return for each service what lies where in its container: files of the stack, or artefacts rendered afresh."""
    return {name: dict(_mounts(service, folder, bundle)) for name, service in compose["services"].items()}


def _mounts(service: Json, folder: Path, bundle: Path) -> Iterator[tuple[str, Path]]:
    for source, target, *_ in (volume.split(":") for volume in service["volumes"]):
        if source.startswith("."):
            path = (folder / source).resolve()
            yield target, bundle / path.name if path.name in RENDERED else path


def local(text: str, inside: dict[str, Path]) -> str:
    """Return a text whose paths in a container are those of this machine."""
    for target in sorted(inside, key=len, reverse=True):
        text = text.replace(target, str(inside[target]))
    return text


def test_the_compose_file_is_valid(compose: Json, root: Path) -> None:
    """It holds what the Compose Specification allows, and a misspelt field or a value of the wrong type would be caught."""
    schema = jsonschema.Draft202012Validator(json.loads((root / "third_party/compose-spec/compose-spec.json").read_text()))
    schema.validate(compose)
    for field, value in (("volume", []), ("command", 7), ("depends_on", {"prometheus": "up"})):
        broken = copy.deepcopy(compose)
        broken["services"]["grafana"][field] = value
        assert not schema.is_valid(broken), field


def test_versions_are_pinned_and_nothing_is_open_to_others(compose: Json) -> None:
    """Each image has a whole version, and each server listens on loopback."""
    services = compose["services"]
    assert {"prometheus", "alertmanager", "grafana"} == set(services)
    for name, service in services.items():
        assert re.fullmatch(r"[a-z]+/[a-z]+:v?\d+\.\d+\.\d+", service["image"]), name
        assert ("host", None) == (service["network_mode"], service.get("ports")), name
    for name in ("prometheus", "alertmanager"):
        (address,) = [argument for argument in services[name]["command"] if argument.startswith("--web.listen-address=")]
        assert address.startswith("--web.listen-address=127.0.0.1:"), name
    assert "--cluster.listen-address=" in services["alertmanager"]["command"]
    assert "127.0.0.1" == services["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"]


def test_every_mount_is_there(compose: Json, mounts: dict[str, dict[str, Path]], folder: Path) -> None:
    """Every file and folder that is mounted is in the repository, read-only, and every volume is declared."""
    for service in compose["services"].values():
        for source, _, *mode in (volume.split(":") for volume in service["volumes"]):
            if source.startswith("."):
                assert (folder / source).exists(), source
                assert ["ro"] == mode, source
            else:
                assert source in compose["volumes"]
    assert all(path.exists() for inside in mounts.values() for path in inside.values())


def test_prometheus_configuration_is_taken_by_promtool(mounts: dict[str, dict[str, Path]], promtool: str, tmp_path: Path) -> None:
    """The configuration, the list of targets and the rules at the mounted places are valid, and scrapes are limited."""
    inside = mounts["prometheus"]
    source = inside["/etc/prometheus"]
    text = local((source / "prometheus.yml").read_text(), inside)
    for name, content in (("prometheus.yml", text), ("targets.yml", (source / "targets.yml").read_text())):
        (tmp_path / name).write_text(content)
    checked = subprocess.run([promtool, "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True, check=False)
    assert 0 == checked.returncode, checked.stderr
    assert str(inside["/etc/geluwatch/alerts"]) in text
    assert all("sample_limit" in job for job in yaml.safe_load(text)["scrape_configs"])


def test_alertmanager_configuration_is_taken_by_amtool(
    compose: Json, mounts: dict[str, dict[str, Path]], programs: Callable[[str], str]
) -> None:
    """The file that Alertmanager is given is mounted and valid."""
    (config,) = [a.partition("=")[2] for a in compose["services"]["alertmanager"]["command"] if a.startswith("--config.file=")]
    file = local(config, mounts["alertmanager"])
    checked = subprocess.run([programs("amtool"), "check-config", file], capture_output=True, text=True, check=False)
    assert 0 == checked.returncode, checked.stderr


def test_grafana_is_provisioned_with_what_runs(compose: Json, mounts: dict[str, dict[str, Path]], folder: Path) -> None:
    """One default data source is the Prometheus of the stack, and the dashboards are read from where they are mounted."""
    listening = {
        name: argument.removeprefix("--web.listen-address=")
        for name in ("prometheus", "alertmanager")
        for argument in compose["services"][name]["command"]
        if argument.startswith("--web.listen-address=")
    }
    sources = yaml.safe_load((folder / "grafana/datasources/geluwatch.yml").read_text())
    assert {"apiVersion", "datasources"} == set(sources)
    known = {"name", "uid", "type", "access", "url", "isDefault", "jsonData"}
    assert all(set(source) <= known for source in sources["datasources"])
    assert {name: f"http://{address}" for name, address in listening.items()} == {s["type"]: s["url"] for s in sources["datasources"]}
    assert ["prometheus"] == [source["uid"] for source in sources["datasources"] if source.get("isDefault")]

    dashboards = yaml.safe_load((folder / "grafana/dashboards/geluwatch.yml").read_text())
    assert {"apiVersion", "providers"} == set(dashboards)
    (provider,) = dashboards["providers"]
    assert {"name", "folder", "type", "allowUiUpdates", "updateIntervalSeconds", "options"} == set(provider)
    assert list(mounts["grafana"][provider["options"]["path"]].glob("*.json"))
    assert folder / "grafana" == mounts["grafana"]["/etc/grafana/provisioning"]


def test_the_example_listens_where_the_stack_scrapes(folder: Path, root: Path) -> None:
    """The target is the default address of examples/serve.py, whose options in the README exist."""
    (group,) = yaml.safe_load((folder / "prometheus/targets.yml").read_text())
    (target,) = group["targets"]
    serve = (root / "examples/serve.py").read_text()
    assert f'"--metrics-port", type=int, default={target.removeprefix("127.0.0.1:")}' in serve
    page = (folder / "README.md").read_text()
    (command,) = re.findall(r"python examples/serve\.py (.*?) +#", page)
    assert all(f'"{option}"' in serve for option in re.findall(r"--[a-z-]+", command))
    for link in re.findall(r"\]\((?!http)([^)]+)\)", page):
        assert (folder / link).exists(), link


class Service(Server):
    """A server of the stack, with the arguments that the compose file gives it."""

    def __init__(self, folder: Path, command: list[str], inside: dict[str, Path]) -> None:
        super().__init__(folder)
        self._command, self._inside = command, inside

    def arguments(self) -> list[str]:
        """Return the arguments: paths are this machine's, data lies in the folder, the port is free."""
        given = []
        for argument in self._command:
            flag, sign, value = argument.partition("=")
            if flag.startswith("--storage") and flag.endswith("path"):
                value = str(self.folder / "data")
            elif flag == "--web.listen-address":
                value = f"127.0.0.1:{self.port}"
            given.append(f"{flag}{sign}{local(value, self._inside)}")
        return given


class PrometheusService(Service):
    names: ClassVar[tuple[str, ...]] = ("prometheus",)


class AlertmanagerService(Service):
    names: ClassVar[tuple[str, ...]] = ("alertmanager", "prometheus-alertmanager")


def shortened(configuration: Path, inside: dict[str, Path], out: Path, alertmanager: Server, agent: str) -> None:
    """Write Prometheus's configuration anew: other ports, one second instead of fifteen, paths of this machine."""
    out.mkdir()
    text = local((configuration / "prometheus.yml").read_text(), inside).replace("15s", "1s")
    assert "127.0.0.1:9093" in text
    (out / "prometheus.yml").write_text(text.replace("127.0.0.1:9093", f"127.0.0.1:{alertmanager.port}"))
    targets = (configuration / "targets.yml").read_text()
    (out / "targets.yml").write_text(targets.replace("127.0.0.1:9464", agent))


@pytest.mark.e2e
def test_the_stack_scrapes_an_agent_and_hands_its_page_on(
    compose: Json, mounts: dict[str, dict[str, Path]], programs: Callable[[str], str], tmp_path: Path
) -> None:
    """Prometheus and Alertmanager, started as the compose file says, turn a NaN of a real model into a page."""
    assert all(programs(name) for name in ("prometheus", "prometheus-alertmanager"))
    services = compose["services"]
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU())
    agent = f"127.0.0.1:{free_port()}"
    inside = dict(mounts["prometheus"])
    with (
        geluwatch.attach(model, name="tiny", version="1", config=geluwatch.Config(window_seconds=None)) as watch,
        AlertmanagerService(tmp_path / "am", services["alertmanager"]["command"], mounts["alertmanager"]) as alertmanager,
    ):
        watch.serve(port=int(agent.rpartition(":")[2]))
        with torch.no_grad():
            model(torch.full((1, 4), float("nan")))
        watch.close_window()
        shortened(inside["/etc/prometheus"], inside, tmp_path / "configuration", alertmanager, agent)
        inside["/etc/prometheus"] = tmp_path / "configuration"
        with PrometheusService(tmp_path / "prometheus", services["prometheus"]["command"], inside):
            assert ("minilm", "tiny", "critical") in pages(alertmanager)


def pages(alertmanager: Server) -> list[tuple[str, str, str]]:
    """Return job, model and severity of the alerts about NaN that Alertmanager has been told of, as soon as there are any."""
    deadline = time.monotonic() + SECONDS_TO_PAGE
    while time.monotonic() < deadline:
        told = json.loads(get(f"{alertmanager.url}/api/v2/alerts")[1])
        labels = [alert["labels"] for alert in told if alert["labels"]["alertname"] == "GeluwatchNonFiniteActivations"]
        if labels:
            return [(each["job"], each["model"], each["severity"]) for each in labels]
        time.sleep(0.2)
    return []
