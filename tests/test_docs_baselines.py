"""The page on baselines: its commands are run one after the other, and print what it shows."""

from __future__ import annotations

import os
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from geluwatch.cli.main import main

PAGE = Path(__file__).resolve().parent.parent / "docs" / "baselines.md"

_VARYING = ((r"\b[0-9a-f]{8,64}\b", "HEX"), (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "TIME"), (r"[\d.,]+(e-\d+)?", "N"), (r"[ -]+", " "))


def alike(text: str) -> str:
    """Return a text without what differs from run to run and from machine to machine."""
    for pattern, word in _VARYING:
        text = re.sub(pattern, word, text)
    return re.sub(r"(?m)^ (versions|machine|replay|hours|horizons|pages|tickets|time)?( .*)?\n", r" \1\n", text)


class Shell:
    """Runs the page's commands in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys, self._environment = capsys, monkeypatch

    def run(self, line: str) -> str:
        """Return what a command prints."""
        words = shlex.split(line)
        if words[0] in {"export", "unset"}:
            for word in words[1:]:
                name, _, value = word.partition("=")
                self._set(name, value if words[0] == "export" else None)
            return ""
        named = words[: words.index("geluwatch")]
        before = {word.partition("=")[0]: os.environ.get(word.partition("=")[0]) for word in named}
        for word in named:
            self._set(*word.split("=", 1))
        main(words[words.index("geluwatch") + 1 :])
        for name, value in before.items():
            self._set(name, value)
        printed = self._capsys.readouterr()
        return printed.out + printed.err

    def _set(self, name: str, value: str | None) -> None:
        self._environment.delenv(name, raising=False) if value is None else self._environment.setenv(name, value)


def answered(page: str, shell: Shell) -> Iterator[str]:
    """Yield the page's parts, each block of commands with what they print now."""
    for part in re.split(r"(```console\n.*?```)", page, flags=re.DOTALL):
        if not part.startswith("```console"):
            yield part
            continue
        lines = [line for line in part.splitlines() if line.startswith("$ ")]
        yield "```console\n" + "".join(f"{line}\n{shell.run(line[2:])}" for line in lines) + "```"


def test_the_commands_print_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From recording to the log, with the same words; GELUWATCH_UPDATE_DOCS=1 writes the page anew."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GELUWATCH_ACTOR", "alice")
    monkeypatch.setenv("COLUMNS", "200")
    page = PAGE.read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "record.py").write_text(block)
    runpy.run_path(str(tmp_path / "record.py"))
    found = "".join(answered(page, Shell(capsys, monkeypatch)))
    if os.environ.get("GELUWATCH_UPDATE_DOCS"):
        PAGE.write_text(re.sub(r"Linux-[^,]+", "Linux-6.12-x86_64-with-glibc2.36", found))
        page = found
    assert alike(page) == alike(found)
    assert page.count("$ geluwatch") >= 15
