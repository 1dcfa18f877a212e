"""Asks a real Prometheus what each panel of a dashboard asks, as Grafana would.

The Prometheus holds the synthetic fleet of `tests/mixin/test_answers.py` and what the recording rules make of it.
"""

from __future__ import annotations

import copy
import json
import re
import runpy
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from geluwatch.mixin import build
from geluwatch.mixin.settings import MixinSettings

Json = dict[str, Any]
Ask = Callable[..., list[Any]]

ROOT = Path(__file__).resolve().parents[2]
SCRAPE = 60
"""Seconds between scrapes of the fleet; Grafana's step is never shorter, and `$__rate_interval` is four of them."""


@contextmanager
def fleet(folder: Path) -> Iterator[Ask]:
    """Yield the function that asks a Prometheus, in a new folder, that holds the fleet and the recorded series."""
    day = runpy.run_path(str(ROOT / "tests/mixin/test_answers.py"))
    (folder / "day.om").write_text("\n".join(day["exposition"]()) + "\n")
    _promtool("openmetrics", "--quiet", folder / "day.om", folder / "data")
    rules = yaml.safe_load(build.render_all(MixinSettings())["alerts/geluwatch.rules.yaml"])
    recorded = [rule for group in rules["groups"] for rule in group["rules"] if "record" in rule]
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": recorded}]}))
    end = day["END"]
    span = [f"--start={end - SCRAPE * (day['STEPS'] - 1)}", f"--end={end}", f"--eval-interval={SCRAPE}s"]
    for _ in range(depth(recorded)):
        with _serving(folder) as address:
            _promtool("rules", *span, f"--url=http://{address}", f"--output-dir={folder / 'data'}", folder / "rules.yaml")
    with _serving(folder) as address:
        yield lambda path, **asked: _get(address, path, start=end - SCRAPE * (day["STEPS"] - 1), end=end, **asked)


def depth(recorded: list[Json]) -> int:
    """Return how many recordings the longest chain of recordings has: rules read what blocks already hold."""
    exprs = {rule["record"]: rule["expr"] for rule in recorded}

    def below(name: str) -> int:
        return 1 + max(
            (below(other) for other in set(re.findall(r"[a-z_]+(?::\w+){2}", exprs[name])) - {name} if other in exprs), default=0
        )

    return max(map(below, exprs))


def _promtool(kind: str, *words: object) -> None:
    command = ["promtool", "tsdb", "create-blocks-from", kind, *map(str, words)]
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
        kind = {"path": "query"} if target["instant"] else {"path": "query_range", "step": SCRAPE}
        answers[target["refId"]] = ask(query=filled(target["expr"], chosen), **kind)
    place = {**panel["gridPos"], "y": panel["gridPos"]["y"] - top}
    return {**copy.deepcopy(panel), "title": filled(panel["title"], chosen), "gridPos": place, "answers": answers}


def filled(text: str, chosen: dict[str, str]) -> str:
    """Return a text with Grafana's and the dashboard's variables filled in."""
    known = {**chosen, "__rate_interval": f"{4 * SCRAPE}s", "__range": f"{40 * SCRAPE}s", "__interval": f"{SCRAPE}s"}
    return re.sub(r"\$\{?(\w+)(?::\w+)?\}?", lambda found: known.get(found[1], found[0]), text)
