"""What runbooks and playbooks have in common: templates of Markdown with the settings' facts, and names that are easy to ask for."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
from importlib import resources

from geluwatch.mixin.rules.agents import memory_step
from geluwatch.mixin.rules.fleet import limit as canary_limit
from geluwatch.mixin.settings import MixinSettings

_PREFIX = "geluwatch"


class _Prose(string.Template):
    """Markdown with `@{name}` for facts, since `$` belongs to shell snippets."""

    delimiter = "@"


def filled(folder: str, name: str, settings: MixinSettings, facts: Mapping[str, str]) -> str:
    """Return a template of a folder with the settings' facts and further ones filled in."""
    template = resources.files("geluwatch.mixin").joinpath("templates", folder, f"{name}.md")
    return _Prose(template.read_text(encoding="utf-8")).substitute({**_facts(settings), **facts})


def found(asked: str, names: Iterable[str]) -> str | None:
    """Return the name that was meant: case, the prefix and a file's ending do not matter; None if there is none."""
    return next((name for name in names if _plain(name) == _plain(asked)), None)


def _plain(name: str) -> str:
    return name.strip().lower().removesuffix(".md").removeprefix(_PREFIX)


def _facts(settings: MixinSettings) -> dict[str, str]:
    return {
        **dict(settings.severities.items()),
        "window": settings.rate_window,
        "grace": settings.grace,
        "memory": settings.agent_memory,
        "memory_step": f"{memory_step(settings)}s",
        "canary": settings.canary,
        "rollout": settings.rollout_window,
        "usual": settings.usual_range,
        "week": settings.compare_offset,
        "shortest": settings.burn_windows[0],
        "hour": settings.burn_windows[2],
        "longest": settings.burn_windows[-1],
        "drift_for": settings.drift_for,
        "baseline_age": settings.baseline_age,
        "canary_limit": canary_limit(settings),
        "canary_distance": f"{settings.thresholds.canary_distance:g}",
    }
