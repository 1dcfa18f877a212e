"""What a part of the benchmark is given, and how it enters what it found."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .book import Book
from .cells import Size, Traffic
from .rivals import Environments, Rival, ask


@dataclass(frozen=True)
class Scale:
    """How much of everything else."""

    baselines: int
    """Baselines in the count of our own false alarms, each followed by `months`."""
    months: float
    steps: int
    """In which the GPT learns."""
    trials: int
    """Of each change of real traffic."""
    seeds: int
    """Of each fault in each layer."""
    files: int | None
    """Source files read for texts; None for all."""


@dataclass(frozen=True)
class Run:
    """What a part is given."""

    size: Size
    cache: Path
    environments: Environments
    only: str
    rivals: tuple[Rival, ...]
    scale: Scale

    def wants(self, book: Book, name: str) -> bool:
        """Return whether a cell is asked for and not known yet."""
        return self.only in name and name not in book.cells

    def ask(self, rival: Rival, traffic: Traffic, job: str, streams: list[dict[str, Any]], baselines: int) -> Any:
        """Return a rival's answer on streams of one kind of traffic."""
        known = [traffic.known(seed) for seed in range(baselines)]
        return ask(rival, self.cache / "jobs" / job / rival.script, streams, known, self.environments.python(rival.environment))


def enter(book: Book, name: str, cell: dict[str, Any]) -> None:
    """Write a cell down, and say so."""
    book.write(name, cell)
    print(f"{time.strftime('%H:%M:%S')}  {name}", file=sys.stderr, flush=True)
