"""The book of results: a file for each part, written after every cell, so that a run can be broken off and taken up again.

Several processes may work on one part, each on cells of its own (`--only`).
"""

from __future__ import annotations

import fcntl
import json
import math
from pathlib import Path
from typing import Any

import stamp

RESULTS = stamp.ROOT / "benchmarks" / "results" / "field"


def source_hash() -> str:
    """Return the stamp of everything that can change the figures; tables and pictures only show them."""
    here = [path for path in Path(__file__).parent.rglob("*") if path.suffix in {".py", ".txt"}]
    measured = [path for path in here if path.name not in {"tables.py", "pictures.py"}]
    package = [*stamp.package("core", "records"), stamp.PACKAGE / "config.py"]
    return stamp.of([*package, *measured, *stamp.scripts("calibration", "simulation", "corpus")])


class Book:
    """One part's cells by name."""

    def __init__(self, path: Path, plan: dict[str, Any], *, fresh: bool) -> None:
        self._path = path
        self._head = {"source": source_hash(), "plan": plan}
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
