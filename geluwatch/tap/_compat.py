"""Private torch symbols, each looked up once and done without where a release lacks it."""

from __future__ import annotations

from collections.abc import Callable

import torch

_task_id: Callable[[], int] | None = getattr(torch._C, "_current_graph_task_id", None)  # noqa: SLF001


def in_backward() -> bool:
    """Return whether this thread runs a backward pass, where forward hooks fire again only to recompute."""
    return _task_id is not None and _task_id() != -1
