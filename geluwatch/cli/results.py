"""Files for programs, beside what is printed for people."""

from __future__ import annotations

from pathlib import Path

from geluwatch.errors import ConfigError


def write(path: Path | None, content: str) -> None:
    """Write what a command found where its user wants it, if anywhere; it may be a pipe or a device.

    Raises:
        ConfigError: It cannot be written.
    """
    if path is None:
        return
    try:
        path.write_text(content, "utf-8")
    except OSError as failure:
        raise ConfigError(f"{path} cannot be written ({failure.strerror}); give another place.") from None
