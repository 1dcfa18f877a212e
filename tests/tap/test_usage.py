"""What the process uses, against what the system says by other ways."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from geluwatch.tap import usage


def test_processor_time_grows_with_work() -> None:
    """A tenth of a second of work is seen, and agrees with what the system accounts."""
    before = usage.read().cpu_seconds
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    after = usage.read().cpu_seconds
    own = resource.getrusage(resource.RUSAGE_SELF)
    assert after - before >= 0.1
    assert own.ru_utime + own.ru_stime == pytest.approx(after, abs=0.1)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="there is no /proc")
def test_memory_and_threads_are_the_systems() -> None:
    """Fifty megabytes that are written to show as resident, and one more thread as one more."""
    before = usage.read()
    held = bytearray(b"x" * 50_000_000)
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait)
    thread.start()
    after = usage.read()
    go_on.set()
    thread.join()
    assert after.resident - before.resident >= 0.9 * len(held)
    assert after.threads == before.threads + 1


def test_what_the_system_does_not_tell_is_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without /proc memory and threads are unknown rather than zero."""
    monkeypatch.setattr(usage, "_SELF", tmp_path)
    seen = usage.read()
    assert (None, None) == (seen.resident, seen.threads)


def test_devices_are_not_woken(attach: Callable[..., Any]) -> None:
    """Reading starts no device: in a process that has used none, there is none in the report."""
    watch = attach(torch.nn.Sequential(torch.nn.GELU()))
    assert () == watch.flush().usage.devices
    assert not torch.cuda.is_initialized()
