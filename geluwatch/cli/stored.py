"""What the commands on stored baselines share: arguments, the store, and how things are written."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geluwatch.records import Baseline
    from geluwatch.store import SqlBaselines


def add_store(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the store."""
    parser.add_argument("--store", required=True, metavar="URL", help="SQLAlchemy URL, for example sqlite:///geluwatch.db")


def add_key(parser: argparse.ArgumentParser, *, default: str | None = "latest") -> None:
    """Add the arguments that name a baseline; without a default its name has to be given."""
    parser.add_argument("model", help="model name given to attach")
    if default is None:
        parser.add_argument("name", help="baseline name")
    else:
        meaning = f'baseline name; "{default}" (the default) is the newest promoted one, or where none is, the newest not retired'
        parser.add_argument("name", nargs="?", default=default, help=meaning)
    parser.add_argument("--model-version", default="1", help="model version given to attach (default: 1)")
    add_store(parser)


@contextmanager
def opened(arguments: argparse.Namespace, *, new: bool = False) -> Iterator[SqlBaselines]:
    """Open the store that the arguments name, with the keys and the actor of the environment, and close it; `new` if it may be made."""
    from geluwatch.store import SqlBaselines, refuse_missing

    if not new:
        refuse_missing(arguments.store)
    store = SqlBaselines(arguments.store)
    try:
        yield store
    finally:
        store.close()


def key(arguments: argparse.Namespace) -> tuple[str, str, str]:
    """Return model, version and name of the baseline that the arguments name."""
    return arguments.model, arguments.model_version, arguments.name


def called(baseline: Baseline) -> str:
    """Return how a sentence about a baseline begins."""
    return f'Baseline "{baseline.name}" of model "{baseline.model}" version "{baseline.model_version}"'


def when(seconds: float) -> str:
    """Return a time in seconds since the epoch as people write it."""
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M:%SZ")
