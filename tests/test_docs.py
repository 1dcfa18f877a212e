"""The README's promises, run as a newcomer would."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import yaml

from geluwatch.cli.main import parser

ROOT = Path(__file__).resolve().parent.parent


def test_readme_quick_start_prints_what_it_says(tmp_path: Path) -> None:
    """The README's first Python block runs as it stands, and each printed line starts with its comment."""
    block = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    script = tmp_path / "quick_start.py"
    script.write_text(block)
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert (0, "") == (run.returncode, run.stderr)
    printed = run.stdout.splitlines()
    expected = [line.split("#", 1)[1].strip() if "#" in line else "" for line in block.splitlines() if "print(" in line]
    assert len(expected) == len(printed)
    for promise, line in zip(expected, printed, strict=True):
        if promise and not promise.startswith("/metrics"):
            assert promise == line


def test_readme_names_files_that_exist() -> None:
    """Every relative link of the README and the design page leads to a file."""
    for page in ("README.md", "DESIGN.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / page).read_text()):
            assert (ROOT / target).exists(), f"{page} links to {target}, which does not exist"


def test_make_targets_of_the_readme_exist() -> None:
    """Every `make` target that the pages name is in the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md"):
        named = set(re.findall(r"`?make ([a-z-]+)", (ROOT / page).read_text()))
        assert set() == named - targets, f"{page} names targets that the Makefile lacks"


def test_the_gates_page_runs() -> None:
    """Its Python block runs and prints what it says, its commands are the command line's, and its YAML is a list of steps."""
    page = (ROOT / "docs" / "gates.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    run = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, timeout=120, check=False)
    assert (0, "") == (run.returncode, run.stderr)
    assert [line.split("# ", 1)[1] for line in block.splitlines() if line.startswith("print(")] == run.stdout.splitlines()
    commands = re.findall(r"geluwatch (compare .*?)'?$", page, re.MULTILINE)
    assert 9 == len(commands)
    for command in commands:
        assert "compare" == parser().parse_args(shlex.split(command)).func.__module__.rpartition(".")[2]
    (steps,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert ["name"] * 3 == [next(iter(step)) for step in yaml.safe_load(steps)]


def test_the_shadow_pages_commands_are_the_command_lines() -> None:
    """Every command of the page parses, and its tables fit a terminal of 100 columns."""
    page = (ROOT / "docs" / "shadow.md").read_text()
    commands = re.findall(r"^geluwatch (shadow .*)$", page, re.MULTILINE)
    assert 3 == len(commands)
    for command in commands:
        assert "shadow" == parser().parse_args(shlex.split(command)).func.__module__.rpartition(".")[2]
    assert max(len(line) for line in page.splitlines() if line.startswith(("variant ", "int8", "GELU output"))) <= 100
