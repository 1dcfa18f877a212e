"""Reads dashboards through one version of grafana-foundation-sdk and prints what its models do not keep.

Run by `test_models` with that version alone on the path: several cannot live in one environment. From standard input
come the dashboards by uid; to standard output goes a list of [uid, path, what], where the path names a panel by its
kind and what is "lost" or "changed".
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from grafana_foundation_sdk.cog import runtime
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models

Json = dict[str, Any]


def main() -> None:
    """Print what is not kept of the dashboards on standard input."""
    register_default_plugins()
    dashboards: dict[str, Json] = json.load(sys.stdin)
    found = {(uid, *difference) for uid, dashboard in dashboards.items() for difference in differences(dashboard)}
    json.dump(sorted(found), sys.stdout)


def differences(dashboard: Json) -> Iterator[tuple[str, str]]:
    """Yield (path, what) for everything of a dashboard that the models do not keep."""
    outside = {key: value for key, value in dashboard.items() if key != "panels"}
    yield from compare(outside, written(models.Dashboard.from_json(outside)), "dashboard")
    for panel in dashboard["panels"]:
        inner = panel.get("panels", [])
        for one in [{**panel, "panels": []} if panel["type"] == "row" else panel, *inner]:
            yield from _fields(one)
            one.get("fieldConfig", {"defaults": {}})["defaults"].pop("custom", None)
            model = models.RowPanel if one["type"] == "row" else models.Panel
            yield from compare(one, written(model.from_json(one)), one["type"])


def _fields(panel: Json) -> Iterator[tuple[str, str]]:
    """Yield what is not kept of the settings of fields that the panel's model leaves untyped: custom ones and overrides.

    An override's property is read as the default that it stands for, `custom.lineWidth` as the kind's own.
    """
    config = panel.get("fieldConfig", {"defaults": {}, "overrides": []})
    entries = [(f"custom.{key}", value) for key, value in config["defaults"].get("custom", {}).items()]
    entries += [(entry["id"], entry["value"]) for override in config["overrides"] for entry in override["properties"]]
    for name, value in entries:
        read = _custom(panel["type"]) if name.startswith("custom.") else models.FieldConfig.from_json
        setting = {name.removeprefix("custom."): value}
        if read is None:
            yield f"{panel['type']} {name}", "lost"
        else:
            yield from compare(setting, written(read(setting)), f"{panel['type']} field")


def _custom(kind: str) -> Callable[[Json], Any] | None:
    """Return what reads a kind's own settings of a field, if the kind has any; that of tables is shared in early versions."""
    if kind == "table":
        return common.TableFieldOptions.from_json
    config = runtime.panelcfg_config(kind)
    return config and config.field_config_from_json_hook


def written(model: Any) -> Any:
    """Return what a model writes, as plain data."""
    return json.loads(json.dumps(model, cls=JSONEncoder))


def compare(before: Any, after: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield (path, what) for each key of the first that the second lacks and each value that differs."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key in after:
                yield from compare(value, after[key], f"{path}.{key}")
            elif value is not None:
                yield f"{path}.{key}", "lost"
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for left, right in zip(before, after, strict=True):
            yield from compare(left, right, path)
    elif before != after:
        yield path, "changed"


if __name__ == "__main__":
    main()
