"""The book of results: a file for each part, written after every cell, so that a run can be broken off and taken up again."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "field"


def source_hash() -> str:
    """Return a hash over everything that can change the figures, so that stale results show."""
    digest = hashlib.sha256()
    folders = (ROOT / "geluwatch" / "core", ROOT / "geluwatch" / "records", ROOT / "benchmarks" / "field")
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in {".py", ".txt"} and "results" not in path.parts]
    files += [ROOT / "geluwatch" / "config.py", *(ROOT / "benchmarks" / f"{name}.py" for name in ("calibration", "simulation", "corpus"))]
    for path in sorted(files):
        if path.name not in {"tables.py", "pictures.py"}:  # these only show what was measured
            digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


class Book:
    """One part's cells by name."""

    def __init__(self, path: Path, plan: dict[str, Any], *, fresh: bool) -> None:
        self._path = path
        self._head = {"source": source_hash(), "plan": plan}
        self.cells: dict[str, Any] = {}
        if path.exists() and not fresh:
            found = json.loads(path.read_text())
            if {key: found[key] for key in self._head} != json.loads(json.dumps(self._head)):
                raise SystemExit(f"{path} is of other code or another size; --fresh begins it anew.")
            self.cells = found["cells"]

    def write(self, name: str, cell: Any) -> None:
        """Enter a cell and write the file."""
        self.cells[name] = finite(cell)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps({**self._head, "cells": self.cells}, indent=1) + "\n")
        part.replace(self._path)


def finite(value: Any) -> Any:
    """Return a value with None in the place of infinities and NaN, which JSON has no word for."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
