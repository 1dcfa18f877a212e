"""Every test leaves the process as it found it: no thread of ours, no watched model."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import settings

# Time limits per example fail on a busy machine, and say nothing about the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

LONGEST = ("test_end_to_end.py", "test_demo_command.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the modules that take longest first, so that no worker begins one when the others have nothing left to do."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a geluwatch thread running or a model attached; fixtures of wider scope keep theirs."""
    before = _ours()
    yield
    left = _ours() - before
    if left:  # a thread may be on its last line, a model in a cycle
        time.sleep(0.2)
        gc.collect()
        left = _ours() - before
    assert not left, f"left behind: {sorted(name for name, _ in left)}"


def _ours() -> set[tuple[str, int]]:
    """Return (name, identity) of every thread of ours and every watched model."""
    threads = {(thread.name, id(thread)) for thread in threading.enumerate() if thread.name.startswith("geluwatch")}
    # Looked up, not imported: tests of parts that do without torch stay without it.
    source = sys.modules.get("geluwatch.tap.source")
    return threads | ({(type(model).__name__, id(model)) for model in source._attached} if source else set())
