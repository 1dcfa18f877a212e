"""A stamp on results: a hash of the sources that they were measured with, so that stale ones show."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "geluwatch"


def package(*parts: str) -> list[Path]:
    """Return the package's sources; of some parts of it where those are named."""
    return [path for folder in [PACKAGE / part for part in parts] or [PACKAGE] for path in folder.rglob("*.py")]


def scripts(*names: str) -> list[Path]:
    """Return benchmarks by name."""
    return [ROOT / "benchmarks" / f"{name}.py" for name in names]


def of(paths: Iterable[Path], besides: str = "") -> str:
    """Return a hash over the names and contents of files, and of what is to be hashed besides."""
    digest = hashlib.sha256(besides.encode())
    for path in sorted(paths):
        digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]
