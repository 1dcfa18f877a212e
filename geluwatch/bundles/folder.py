"""A folder of bundles: each is written whole or not at all, and the oldest go."""

from __future__ import annotations

import re
import secrets
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from geluwatch import files
from geluwatch.errors import IncidentError

_ABANDONED_SECONDS = 3600.0

_NAME = re.compile(r"incident-\d{8}T\d{6}Z-.*-[0-9a-f]{6}\.zip")


def name_for(model: str, kind: str, when: float) -> str:
    """Return the name of a new bundle's file; names sort by time, and no two processes give the same one."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(when))
    plain = re.sub(r"[^A-Za-z0-9._]+", "-", model).strip("-.")[:60] or "model"
    return f"incident-{moment}-{plain}-{kind}-{secrets.token_hex(3)}.zip"


def prepare(folder: Path) -> None:
    """Make a folder, and see that a file can be written there.

    Raises:
        IncidentError: It cannot.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as failure:
        raise IncidentError(f"Bundles cannot be written to {folder} ({failure.strerror}); give another folder.") from None


def write(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, all of it or nothing.

    Raises:
        IncidentError: It cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.replace(path, content, mode=0o600)
    except OSError as failure:
        raise IncidentError(f"{path} cannot be written ({failure.strerror}); give another folder.") from None


def bundles(folder: Path) -> list[Path]:
    """Return the bundles of a folder, oldest first.

    Raises:
        IncidentError: The folder cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))
    except OSError as failure:
        raise IncidentError(f"{folder} cannot be read ({failure.strerror}); name the folder given as Config(incidents=...).") from None


def prune(folder: Path, kept: int, *, newest: Path) -> None:
    """Remove the oldest bundles but so many, and never the newest, for names of one second sort by kind; and what a killed process left."""
    oldest = [path for path in bundles(folder) if path != newest][: -kept + 1 or None]
    for path in (*oldest, *_abandoned(folder)):
        with suppress(OSError):  # another process may have been quicker
            path.unlink()


def _abandoned(folder: Path) -> list[Path]:
    """Return bundles that were being written an hour ago: whoever wrote them has been killed."""
    before = time.time() - _ABANDONED_SECONDS
    found = []
    for path in folder.glob(".incident-*.zip.*"):
        with suppress(OSError):
            found += [path] if path.stat().st_mtime < before else []
    return found
