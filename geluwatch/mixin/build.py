"""Renders every artefact, writes them to a directory, and tells where a directory differs from what they should be.

The same settings give the same bytes everywhere: UTF-8, LF, sorted or written-out order, one newline at the end.
"""

from __future__ import annotations

from pathlib import Path

from geluwatch.errors import MixinError
from geluwatch.files import replace
from geluwatch.mixin.alertmanager import EXAMPLE_FILE, example
from geluwatch.mixin.dashboards import dashboards
from geluwatch.mixin.handbook import files
from geluwatch.mixin.kubernetes import KubernetesSettings, render_kubernetes
from geluwatch.mixin.metrics_page import metrics_page
from geluwatch.mixin.rulefile import GENERATED, dump, rule_files
from geluwatch.mixin.ruletests import rule_tests
from geluwatch.mixin.settings import MixinSettings
from geluwatch.mixin.thresholds import Thresholds


def render_all(settings: MixinSettings) -> dict[str, bytes]:
    """Return every artefact by its path relative to where they are to lie.

    Rule tests come only with settings that select all targets and keep the thresholds, because their series could not
    know how to please a selector, and tell of the thresholds as they are shipped.
    """
    drawn = dashboards(settings)
    rendered = {
        **{f"dashboards/{uid}.json": content for uid, content in drawn.items()},
        **{f"alerts/{name}": content for name, content in rule_files(settings).items()},
        **{f"runbooks/{path}": _marked(text) for path, text in files(settings).items()},
        f"alerts/{EXAMPLE_FILE}": example(settings),
    }
    if not settings.selector and not settings.expected_targets and settings.thresholds == Thresholds():
        rendered |= {f"alerts/tests/{name}": dump(document) for name, document in rule_tests(settings).items()}
    rendered["docs/metrics.md"] = metrics_page(settings, list(drawn.values()))
    return dict(sorted(rendered.items()))


def write(directory: Path, settings: MixinSettings, kubernetes: KubernetesSettings | None = None) -> tuple[Path, ...]:
    """Write every artefact below a directory, and remove those of ours that are no longer rendered.

    Each file is replaced at once, so that a reader finds the old or the new one and never half of it. Files of others
    are left alone.

    Args:
        directory: Where the folders of the artefacts lie.
        settings: What they are rendered with.
        kubernetes: None writes files for Prometheus and Grafana themselves; else they are written as its resources.

    Returns:
        The files written, sorted.

    Raises:
        MixinError: A file cannot be written or removed.
    """
    rendered = _render(settings, kubernetes)
    try:
        for path in _stale(directory, rendered):
            (directory / path).unlink()
        for path, content in rendered.items():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            replace(directory / path, content)
    except OSError as error:
        raise MixinError(f"The artefacts cannot be written below {directory}: {error}; choose a directory that can be written.") from error
    return tuple(directory / path for path in rendered)


def check(directory: Path, settings: MixinSettings, kubernetes: KubernetesSettings | None = None) -> list[str]:
    """Return the paths below a directory that are missing, differ, or are ours and no longer rendered; sorted.

    Raises:
        MixinError: A file that is there cannot be read.
    """
    rendered = _render(settings, kubernetes)
    try:
        different = [path for path, content in rendered.items() if _read(directory / path) != content]
        return sorted([*different, *_stale(directory, rendered)])
    except OSError as error:
        raise MixinError(f"The artefacts below {directory} cannot be read: {error}; make them readable.") from error


def _marked(text: str) -> bytes:
    return f"{text}\n<!-- {GENERATED} -->\n".encode()


def _stale(directory: Path, rendered: dict[str, bytes]) -> list[str]:
    """Return the files of ours in the folders we write to that are not among the rendered ones."""
    folders = sorted({directory / Path(path).parent for path in rendered})
    found = [path for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_file()]
    names = [path.relative_to(directory).as_posix() for path in found]
    return [name for name in names if name not in rendered and GENERATED.encode() in (directory / name).read_bytes()]


def _render(settings: MixinSettings, kubernetes: KubernetesSettings | None) -> dict[str, bytes]:
    rendered = render_all(settings)
    if kubernetes is None:
        return rendered
    dashboards = {path: content for path, content in rendered.items() if path.startswith("dashboards/")}
    return render_kubernetes(settings, kubernetes, dashboards)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
