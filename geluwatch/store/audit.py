"""The audit log: who did what with which baseline, as a chain in which each entry holds the digest of the one before it.

An entry is never changed or removed. Whoever can write to the database could make the whole chain anew; who has noted the
digest of any entry will notice, for it is not in the new one.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from geluwatch.errors import ConfigError
from geluwatch.store.rules import KEY_LENGTH

Action = Literal[
    "recorded",
    "imported",
    "exported",
    "signed",
    "armed",
    "approved",
    "promoted",
    "retired",
    "policy changed",
    "activation changed",
]

START = "0" * 64
"""What stands for the entry before the first."""

ACTOR = "GELUWATCH_ACTOR"
"""Environment variable: whom entries name."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the log."""

    time: float
    """Seconds since the epoch."""
    actor: str
    action: str
    model: str
    model_version: str = ""
    """Empty, like the name, where it is about all versions of the model."""
    name: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """JSON values; what they are depends on the action."""
    previous: str = START
    """Digest of the entry before."""
    digest: str = ""
    """SHA-256 of everything above as JSON, keys in order."""


def actor(environment: Mapping[str, str] = os.environ) -> str:
    """Return whom entries name: GELUWATCH_ACTOR, or the user and the host.

    Raises:
        ConfigError: The variable holds what no entry could.
    """
    if named := environment.get(ACTOR, "").strip():
        if len(named) > KEY_LENGTH or not named.isprintable():
            raise ConfigError(f"{ACTOR} must be at most {KEY_LENGTH} printable characters, got {named[:KEY_LENGTH]!r}.")
        return named
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        user = f"uid{os.getuid()}"
    return f"{user}@{socket.gethostname()}"[:KEY_LENGTH]


def chained(entry: Entry, previous: str) -> Entry:
    """Return an entry as it stands behind the one of that digest."""
    content = asdict(entry) | {"previous": previous}
    return Entry(**content | {"digest": _digest(content)})


def flaws(entries: Iterable[Entry]) -> Iterator[str]:
    """Yield a sentence for each place, oldest first, where the log is not what was written."""
    last: Entry | None = None
    for place, entry in enumerate(entries, start=1):
        if _digest(asdict(entry)) != entry.digest:
            yield f"entry {place} ({_called(entry)}) was changed: its content does not give its digest"
        expected = last.digest if last else START
        if entry.previous != expected:
            behind = f"entry {place - 1} ({_called(last)})" if last else "the beginning"
            yield f"entry {place} ({_called(entry)}) does not follow {behind}: one was removed, or inserted, between them"
        last = entry


def _digest(content: Mapping[str, Any]) -> str:
    said = {name: value for name, value in content.items() if name != "digest"}
    return hashlib.sha256(json.dumps(said, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _called(entry: Entry) -> str:
    return f"{entry.actor} {entry.action} {' '.join(filter(None, (entry.model, entry.model_version, entry.name)))}"
