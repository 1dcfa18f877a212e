"""The book of results: a file for each part, written after every cell, so that a run can be broken off and taken up again.

Several processes may work on one part, each on cells of its own (`--only`).
"""

from __future__ import annotations

import ast
import fcntl
import json
import math
from pathlib import Path
from typing import Any

import stamp

from geluwatch.config import Config

HERE = Path(__file__).parent
RESULTS = stamp.ROOT / "benchmarks" / "results" / "field"


def source_hash(module: str) -> str:
    """Return the stamp of all that can change what a module of this folder measures: the detector, its settings, what the module imports.

    Tables and pictures only show it, and this module keeps it. The rivals' scripts and pins belong to each module that reaches them.
    """
    package = stamp.package("core", "records")
    scripts = stamp.scripts("calibration", "simulation", "corpus")
    return stamp.of([*package, *scripts, *(path for name in reached(module) for path in _files(name))], repr(Config()))


def reached(module: str) -> set[str]:
    """Return a module of this folder and those that it imports, one by way of the other."""
    found, left = set(), {module}
    while left:
        name = left.pop()
        found.add(name)
        tree = ast.parse((HERE / f"{name}.py").read_text()) if (HERE / f"{name}.py").exists() else ast.Module([], [])
        near = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1]
        names = {each for node in near for each in ([node.module] if node.module else [alias.name for alias in node.names])}
        left |= names - found - {"book", "tables", "pictures"}
    return found


def _files(name: str) -> list[Path]:
    inside = [path for path in (HERE / name).rglob("*") if path.suffix in {".py", ".txt"}]
    return inside or [HERE / f"{name}.py"]


class Book:
    """One part's cells by name."""

    def __init__(self, path: Path, source: str, plan: dict[str, Any], *, fresh: bool) -> None:
        self._path = path
        self._head = {"source": source, "plan": plan}
        self.cells: dict[str, Any] = {}
        self._written = not fresh
        if path.exists() and not fresh:
            found = json.loads(path.read_text())
            if {key: found[key] for key in self._head} != json.loads(json.dumps(self._head)):
                raise SystemExit(f"{path} is of other code or another size; --fresh begins it anew.")
            self.cells = found["cells"]

    def write(self, name: str, cell: Any) -> None:
        """Enter a cell and write the file, with what other processes have entered since."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._written and self._path.exists():
                self.cells = json.loads(self._path.read_text())["cells"] | self.cells
            self.cells[name] = finite(cell)
            part = self._path.with_suffix(".part")
            part.write_text(json.dumps({**self._head, "cells": self.cells}, indent=1) + "\n")
            part.replace(self._path)
        self._written = True


def finite(value: Any) -> Any:
    """Return a value with None in the place of infinities and NaN, which JSON has no word for."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
