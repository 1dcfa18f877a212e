"""Training in several processes: which one this is, and what all of them saw together."""

from __future__ import annotations

from typing import TypeVar

from torch import distributed

_Any = TypeVar("_Any")


def rank() -> int | None:
    """Return this process's rank, or None where it trains alone."""
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() < 2:
        return None
    return distributed.get_rank()


def gather(value: _Any) -> list[_Any]:
    """Return what every rank has given, in the order of ranks; a collective that all have to call. Alone: just the value."""
    if rank() is None:
        return [value]
    gathered: list[_Any] = [value] * distributed.get_world_size()
    distributed.all_gather_object(gathered, value)
    return gathered
