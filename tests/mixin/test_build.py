"""Rendering, writing and checking the artefacts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from geluwatch.errors import MixinError
from geluwatch.mixin.build import check, render_all, write
from geluwatch.mixin.settings import MixinSettings
from geluwatch.mixin.thresholds import Thresholds

SETTINGS = MixinSettings()


def test_committed_artefacts_are_what_is_rendered(root: Path) -> None:
    """The repository holds exactly what the generators make; if not: `geluwatch mixin render`."""
    assert [] == check(root, SETTINGS)


def test_rendering_does_not_depend_on_the_process() -> None:
    """Another interpreter with another hash seed, locale and time zone renders the same bytes."""
    code = (
        "import hashlib; from geluwatch.mixin.build import render_all; from geluwatch.mixin.settings import MixinSettings;"
        "print(hashlib.sha256(repr(render_all(MixinSettings())).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": "C", "TZ": zone},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo"))
    }
    assert 1 == len(digests)


def test_files_are_text_that_version_control_likes(rendered: dict[str, bytes]) -> None:
    """Every file is UTF-8 with LF, ends in one newline, and has no blank before a line's end."""
    for path, content in rendered.items():
        text = content.decode()
        assert "\r" not in text, path
        assert text.endswith("\n"), path
        assert not text.endswith("\n\n"), path
        assert [] == [line for line in text.splitlines() if line != line.rstrip()], path


def test_writing_makes_the_check_pass(tmp_path: Path) -> None:
    """What is written is what is checked, and nothing but the artefacts is left behind."""
    assert sorted(render_all(SETTINGS)) == check(tmp_path, SETTINGS)
    written = write(tmp_path, SETTINGS)
    assert [] == check(tmp_path, SETTINGS)
    assert sorted(written) == sorted(path for path in tmp_path.rglob("*") if path.is_file())


def test_a_changed_a_missing_and_a_stale_file_are_each_found(tmp_path: Path) -> None:
    """The check names a file that was edited, one that is gone, and one of ours that is no longer rendered."""
    write(tmp_path, SETTINGS)
    edited, gone = tmp_path / "alerts/geluwatch-numbers.rules.yaml", tmp_path / "dashboards/geluwatch-agents.json"
    stale = tmp_path / "runbooks/GeluwatchRetired.md"
    stale.write_bytes((tmp_path / "runbooks/GeluwatchAgentMissing.md").read_bytes())
    edited.write_bytes(edited.read_bytes().replace(b"for: 15m", b"for: 15s"))
    gone.unlink()
    expected = ["alerts/geluwatch-numbers.rules.yaml", "dashboards/geluwatch-agents.json", "runbooks/GeluwatchRetired.md"]
    assert expected == check(tmp_path, SETTINGS)
    write(tmp_path, SETTINGS)
    assert [] == check(tmp_path, SETTINGS)
    assert not stale.exists()


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    """A file without our mark is neither stale nor removed, whatever folder it lies in."""
    foreign = tmp_path / "alerts/tests/own.yaml"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("groups: []\n")
    write(tmp_path, SETTINGS)
    assert [] == check(tmp_path, SETTINGS)
    assert "groups: []\n" == foreign.read_text()


def test_a_write_that_fails_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is replaced at once: when that fails, the old one is still there and no half of a new one."""
    write(tmp_path, SETTINGS)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(MixinError, match="No space left on device"):
        write(tmp_path, MixinSettings.quick())
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_directory_that_is_a_file_is_reported(tmp_path: Path) -> None:
    """The message names the place and what to do, and is an error of our own."""
    target = tmp_path / "file"
    target.write_text("")
    with pytest.raises(MixinError, match=rf"cannot be written below {target}"):
        write(target, SETTINGS)
    assert sorted(render_all(SETTINGS)) == check(target, SETTINGS)


def test_rule_tests_come_only_with_rules_that_they_can_know() -> None:
    """With a selector or other thresholds there are no rule tests, because their series could not be known to fit."""
    path = "alerts/tests/geluwatch-numbers.rules.test.yaml"
    assert path in render_all(SETTINGS)
    assert path not in render_all(MixinSettings(selector='job="a"'))
    assert path not in render_all(MixinSettings(expected_targets='job="a"'))
    assert path not in render_all(MixinSettings(thresholds=Thresholds(latency_seconds=1.0)))
