"""Writes files whole or not at all: whoever looks finds the old file, or none, or the new one, and never a part of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def replace(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file, in place of one that is there.

    Raises:
        OSError: It cannot be written; what was there still is.
    """
    with _part(path, content, mode) as part:
        part.replace(path)


def create(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a new file.

    Raises:
        FileExistsError: There is one, which is left alone.
        OSError: It cannot be written.
    """
    with _part(path, content, mode) as part:
        os.link(part, path)  # unlike a rename, it never replaces


@contextmanager
def _part(path: Path, content: bytes, mode: int) -> Iterator[Path]:
    """Give a file beside another, with its content on the disk; nothing is left of it afterwards."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.chmod(mode)
        yield part
    finally:
        part.unlink(missing_ok=True)
