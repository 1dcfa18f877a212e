"""Asks a real Prometheus what each panel of a dashboard asks, as Grafana would.

The Prometheus holds the fleet of `day` and what the recording rules make of it. Run by itself it prints the sections of
every dashboard, by uid, as JSON.
"""

from __future__ import annotations

import copy
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import day
import yaml

from geluwatch.mixin import build
from geluwatch.mixin.rulefile import rule_file
from geluwatch.mixin.settings import MixinSettings

Json = dict[str, Any]
Ask = Callable[..., list[Any]]


def shown() -> Iterator[tuple[Json, list[Json]]]:
    """Yield every dashboard with its sections as they are shown."""
    rendered = build.render_all(MixinSettings())
    with tempfile.TemporaryDirectory() as folder, fleet(Path(folder)) as ask:
        for path, content in rendered.items():
            if path.startswith("dashboards/"):
                dashboard = json.loads(content)
                yield dashboard, answered(dashboard, ask)


@contextmanager
def fleet(folder: Path) -> Iterator[Ask]:
    """Yield the function that asks a Prometheus, in a new folder, that holds the fleet and the recorded series."""
    (folder / "day.om").write_text("\n".join(day.exposition()) + "\n")
    _promtool("openmetrics", "--quiet", folder / "day.om", folder / "data")
    groups = yaml.safe_load(rule_file(MixinSettings()))
    recorded = [rule for group in groups["groups"] for rule in group["rules"] if "record" in rule]
    start = day.END - day.STEP * (day.STEPS - 1)
    span = [f"--start={start}", f"--end={day.END}", f"--eval-interval={day.STEP}s"]
    for number, rules in enumerate(levels(recorded)):
        path = folder / f"rules-{number}.yaml"
        path.write_text(yaml.safe_dump({"groups": [{"name": "recorded", "rules": rules}]}))
        with _serving(folder) as address:
            _promtool("rules", *span, f"--url=http://{address}", f"--output-dir={folder / 'data'}", path)
    with _serving(folder) as address:
        yield lambda path, **asked: _get(address, path, start=start, end=day.END, **asked)


def levels(recorded: list[Json]) -> list[list[Json]]:
    """Return recordings so that each reads only what the lists before its own record: promtool fills in one list at a time."""
    found: list[list[Json]] = []
    while recorded:
        names = {rule["record"] for rule in recorded}
        ready = [rule for rule in recorded if not names & set(re.findall(r"\w+(?::\w+){2}", rule["expr"])) - {rule["record"]}]
        found.append(ready)
        recorded = [rule for rule in recorded if rule not in ready]
    return found


def _promtool(kind: str, *words: object) -> None:
    # One block holds it all: promtool reads its whole input once for each block.
    command = ["promtool", "tsdb", "create-blocks-from", kind, "--max-block-duration=500h", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")


@contextmanager
def _serving(folder: Path) -> Iterator[str]:
    """Yield the address of a Prometheus that serves the blocks of a folder."""
    (folder / "config.yml").write_text("{}\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    arguments = [f"--config.file={folder}/config.yml", f"--storage.tsdb.path={folder}/data", f"--web.listen-address={address}"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(["prometheus", "--storage.tsdb.retention.time=100y", *arguments], stderr=log)
        try:
            _wait_until_ready(address)
            yield address
        finally:
            server.terminate()
            server.wait()


def _wait_until_ready(address: str) -> None:
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"http://{address}/-/ready"):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("Prometheus did not become ready")


def _get(address: str, path: str, **asked: object) -> Any:
    if path == "query":
        asked["time"] = asked.pop("end")
    with urllib.request.urlopen(f"http://{address}/api/v1/{path}?{urllib.parse.urlencode(asked, doseq=True)}") as response:
        return json.load(response)["data"]


def answered(dashboard: Json, ask: Ask) -> list[Json]:
    """Return the sections of a dashboard as they are shown: row, and panels with their targets' answers.

    Variables are filled in, repeated rows stand once for each value, collapsed ones are open. Panels stand where they
    do relative to their section's top.
    """
    chosen = _variables(dashboard, ask)
    choices = {variable["name"]: variable["query"].split(",") for variable in dashboard["templating"]["list"]}
    shown = []
    for row, panels in _sections(dashboard):
        repeat = row.get("repeat", "")
        top = min(panel["gridPos"]["y"] for panel in panels)
        for value in choices.get(repeat, [""]):
            scope = {**chosen, repeat: value}
            here = [_panel(panel, scope, top, ask) for panel in panels]
            shown.append({"title": filled(row.get("title", ""), scope), "collapsed": row.get("collapsed", False), "panels": here})
    return shown


def _sections(dashboard: Json) -> list[tuple[Json, list[Json]]]:
    """Return each row with its panels; what stands above the first row has none."""
    sections: list[tuple[Json, list[Json]]] = [({}, [])]
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            sections.append((panel, list(panel.get("panels", ()))))
        else:
            sections[-1][1].append(panel)
    return [section for section in sections if section[1]]


def _variables(dashboard: Json, ask: Ask) -> dict[str, str]:
    """Return what each variable stands for when the dashboard is opened: all, or the first of its values."""
    chosen: dict[str, str] = {}
    for variable in dashboard["templating"]["list"]:
        found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"])
        if variable.get("includeAll"):
            chosen[variable["name"]] = variable["allValue"]
        elif found:
            chosen[variable["name"]] = ask(f"label/{found[2]}/values", **{"match[]": filled(found[1], chosen)})[0]
        else:
            chosen[variable["name"]] = variable["query"].split(",")[0]
    return chosen


def _panel(panel: Json, chosen: dict[str, str], top: int, ask: Ask) -> Json:
    answers = {}
    for target in panel.get("targets", ()):
        kind = {"path": "query"} if target["instant"] else {"path": "query_range", "step": day.STEP}
        answers[target["refId"]] = ask(query=filled(target["expr"], chosen), **kind)
    place = {**panel["gridPos"], "y": panel["gridPos"]["y"] - top}
    return {**copy.deepcopy(panel), "title": filled(panel["title"], chosen), "gridPos": place, "answers": answers}


def filled(text: str, chosen: dict[str, str]) -> str:
    """Return a text with Grafana's and the dashboard's variables filled in."""
    spans = {"__rate_interval": 4 * day.STEP, "__range": day.STEPS * day.STEP, "__interval": day.STEP}
    known = {**chosen, **{name: f"{seconds}s" for name, seconds in spans.items()}}
    return re.sub(r"\$\{?(\w+)(?::\w+)?\}?", lambda found: known.get(found[1], found[0]), text)


if __name__ == "__main__":
    json.dump({dashboard["uid"]: sections for dashboard, sections in shown()}, sys.stdout)
