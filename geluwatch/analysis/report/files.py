"""Puts a report into a file: whole or not at all, and over nothing that is not a report of ours."""

from __future__ import annotations

from pathlib import Path

from geluwatch import files
from geluwatch.analysis.report.digest import FOOT
from geluwatch.analysis.report.page import MARK
from geluwatch.errors import ReportError

_LOOKED_AT = 2000
"""Characters at either end of a file in which our mark is looked for."""


def write(path: Path, text: str, *, force: bool = False) -> int:
    """Write a report, and return its size in bytes.

    A file that is there is replaced if it is a report or a digest of ours, or with `force`.

    Raises:
        ReportError: There is a file of another kind, or the place cannot be written to.
    """
    content = text.encode()
    try:
        if path.exists() and not path.is_file():  # a pipe or a device is written to, and not replaced
            path.write_bytes(content)
            return len(content)
        if path.exists() and not force and not _ours(path):
            raise ReportError(f"{path} is there and is no report of geluwatch; give another --output, or --force to replace it.")
        files.replace(path.resolve(), content)  # a link stays, and what it leads to is replaced
    except OSError as failure:
        raise ReportError(f"{path} cannot be written ({failure.strerror}); give another --output.") from None
    return len(content)


def _ours(path: Path) -> bool:
    text = path.read_bytes()
    return not text or MARK.encode() in text[:_LOOKED_AT] or f"\n{FOOT}".encode() in text[-_LOOKED_AT:]
