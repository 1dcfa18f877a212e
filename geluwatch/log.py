"""What the agent says in the host's log. A log handler is the user's, and may raise: nothing of that reaches whoever speaks."""

from __future__ import annotations

import logging
from contextlib import suppress
from logging import ERROR, INFO, WARNING

__all__ = ["ERROR", "INFO", "WARNING", "say"]

_log = logging.getLogger("geluwatch")


def say(level: int, message: str, *values: object) -> None:
    """Log a message of the agent, its values filled in as `logging` does, and go on whatever comes of it."""
    with suppress(Exception):
        _log.log(level, f"geluwatch: {message}", *values, stacklevel=2)
