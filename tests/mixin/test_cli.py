"""The commands `geluwatch mixin` and `geluwatch runbook`."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import pytest

from geluwatch.cli import mixin, runbook
from geluwatch.errors import ConfigError
from geluwatch.mixin.build import check
from geluwatch.mixin.playbooks import SUMMARIES, playbook
from geluwatch.mixin.runbooks import names
from geluwatch.mixin.runbooks import runbook as page
from geluwatch.mixin.settings import MixinSettings


def run(*words: str) -> int:
    """Run a command and return its exit status."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    mixin.add_parser(commands)
    runbook.add_parser(commands)
    args = parser.parse_args(words)
    return int(args.func(args))


def test_render_writes_and_names_every_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is rendered is what the check expects, and each path is printed."""
    assert 0 == run("mixin", "render", "--out", str(tmp_path))
    assert [] == check(tmp_path, MixinSettings())
    printed = capsys.readouterr().out.splitlines()
    assert sorted(str(path) for path in tmp_path.rglob("*") if path.is_file()) == sorted(printed)


def test_check_passes_on_what_was_rendered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A fresh render is up to date, by the same options and no others."""
    assert 0 == run("mixin", "render", "--out", str(tmp_path), "--quick", "--runbook-base", "https://runbooks.example")
    assert 0 == run("mixin", "check", "--dir", str(tmp_path), "--quick", "--runbook-base", "https://runbooks.example")
    assert "Everything is up to date." in capsys.readouterr().out
    assert 1 == run("mixin", "check", "--dir", str(tmp_path))


def test_check_names_what_differs_and_the_command_that_mends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A check that fails exits with 1, lists the files, and gives a command that makes the next one pass."""
    directory = tmp_path / "with blank"
    options = ["--selector", 'job="a b"', "--dashboard-base", "https://grafana.example"]
    assert 0 == run("mixin", "render", "--out", str(directory), *options)
    (directory / "runbooks/GeluwatchAgentMissing.md").write_text("edited")
    capsys.readouterr()
    assert 1 == run("mixin", "check", "--dir", str(directory), *options)
    told = capsys.readouterr()
    assert f"{directory / 'runbooks/GeluwatchAgentMissing.md'}\n" == told.out
    command = told.err.split("mend them with: ")[1]
    assert 0 == run(*shlex.split(command)[1:])
    assert 0 == run("mixin", "check", "--dir", str(directory), *options)


def test_unusable_options_are_refused(tmp_path: Path) -> None:
    """An option that makes no sense is an error of ours, before anything is written."""
    with pytest.raises(ConfigError, match="runbook_base must be an http or https URL"):
        run("mixin", "render", "--out", str(tmp_path), "--runbook-base", "nowhere")
    assert [] == list(tmp_path.iterdir())


def test_runbooks_and_playbooks_are_listed_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a name every runbook and every playbook is listed, each in its block, with what it is about."""
    assert 0 == run("runbook")
    *blocks, hint = capsys.readouterr().out.split("\n\n")
    listed = {block.splitlines()[0]: [line.split()[0] for line in block.splitlines()[1:]] for block in blocks}
    assert {"Runbooks:": list(names()), "Playbooks:": list(SUMMARIES)} == listed
    assert all(line.endswith(".") for block in blocks for line in block.splitlines()[1:])
    assert "To read one: geluwatch runbook NAME\n" == hint


@pytest.mark.parametrize(("asked", "expected"), [("activationdrift", page("GeluwatchActivationDrift")), ("rollback", playbook("Rollback"))])
def test_a_page_is_printed_as_it_is(asked: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A name in any form prints the Markdown where the output is no terminal."""
    assert 0 == run("runbook", asked)
    assert expected == capsys.readouterr().out


def test_an_unknown_runbook_is_refused() -> None:
    """A name that is none is an error that lists what there is."""
    with pytest.raises(ConfigError, match="GeluwatchAgentMissing"):
        run("runbook", "nothing")
