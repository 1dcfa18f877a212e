"""`geluwatch demo` as a command."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from geluwatch.cli.demo import add_parser, command
from geluwatch.errors import ConfigError, MissingPartError


def parsed(*arguments: str) -> argparse.Namespace:
    """Return the arguments of a demo command line."""
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    return parser.parse_args(["demo", *arguments])


def test_help_loads_nothing_heavy() -> None:
    """The command line's help appears without torch, rich, transformers or numpy being loaded."""
    script = (
        "import sys; from geluwatch.cli.main import main\n"
        "try: main(['demo', '--help'])\n"
        "except SystemExit: print(sorted({'torch', 'rich', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60).stdout
    assert "--no-servers" in shown
    assert "[]" == shown.splitlines()[-1]


def test_without_rich_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing display library is refused in one sentence before anything else is done."""
    monkeypatch.setattr(command.util, "find_spec", lambda _: None)
    with pytest.raises(MissingPartError, match=r"needs the package rich, which is not installed; run: pip install rich"):
        command.run(parsed())


def test_an_unusable_data_folder_is_refused(tmp_path: Path) -> None:
    """A path that cannot be a folder is named, and nothing is left in the temporary directory."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"--data .*file/below cannot be used as a folder: Not a directory"):
        command.run(parsed("--data", str(tmp_path / "file" / "below")))


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_early_end_leaves_nothing(tmp_path: Path, sent: signal.Signals) -> None:
    """Ctrl-C and SIGTERM while the model loads end the command with status 130 and no folder left behind."""
    with subprocess.Popen(
        [sys.executable, "-m", "geluwatch", "demo", "--no-servers"],
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if "SHA-256" in line:
                break
        running.send_signal(sent)
        assert (130, "") == (running.wait(60), running.communicate()[1])
    assert [] == [path.name for path in tmp_path.iterdir() if path.name.startswith("geluwatch")]


@pytest.mark.e2e
def test_the_whole_demonstration(tmp_path: Path) -> None:
    """Every promise is kept, with whatever servers are installed, and no folder is left behind."""
    ran = subprocess.run(
        [sys.executable, "-m", "geluwatch", "demo"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (0, "") == (ran.returncode, ran.stderr), ran.stdout
    assert "All 6 promises were kept" in ran.stdout
    assert [] == [path.name for path in tmp_path.iterdir() if path.name.startswith("geluwatch")]
