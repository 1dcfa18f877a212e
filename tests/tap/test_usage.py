"""What the process uses, against what the system says by other ways."""

from __future__ import annotations

import os
import re
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


def grouped(root: Path, lines: str, **limits: str) -> tuple[Path, Path]:
    """Write what the system says of a process's control groups, and return where it is."""
    process, groups = root / "proc", root / "groups"
    process.mkdir()
    (process / "cgroup").write_text(lines)
    for place, limit in limits.items():
        file = groups / place.replace("__", "/").replace("memory_", "memory.")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{limit}\n")
    return process, groups


UNLIMITED_ONE = "9223372036854771712"
MEGABYTES = 1 << 20


@pytest.mark.parametrize(
    ("lines", "limits", "megabytes"),
    [
        ("0::/\n", {"memory_max": str(512 * MEGABYTES)}, 512),
        ("0::/pods/one\n", {"pods__one__memory_max": "max", "pods__memory_max": str(256 * MEGABYTES)}, 256),
        ("0::/pods/one\n", {"pods__one__memory_max": str(64 * MEGABYTES), "pods__memory_max": str(256 * MEGABYTES)}, 64),
        ("4:cpu:/x\n3:memory:/x\n", {"memory__x__memory_limit_in_bytes": str(128 * MEGABYTES), "cpu__x__memory_max": "1"}, 128),
        ("3:memory:/seen/outside\n", {"memory__memory_limit_in_bytes": str(32 * MEGABYTES)}, 32),
        ("3:memory:/\n0::/\n", {"memory__memory_limit_in_bytes": UNLIMITED_ONE}, None),
        ("0::/\n", {"memory_max": "max"}, None),
        ("0::/\n", {}, None),
    ],
)
def test_the_least_limit_of_the_control_groups_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: str, limits: dict[str, str], megabytes: int | None
) -> None:
    """Of either version, of the process's own group or one around it; without any limit it is what the machine has."""
    process, groups = grouped(tmp_path, lines, **limits)
    monkeypatch.setattr(usage, "_SELF", process)
    monkeypatch.setattr(usage, "_GROUPS", groups)
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert usage.read().limit == (machine if megabytes is None else megabytes * MEGABYTES)


@pytest.mark.parametrize(
    ("lines", "group", "said"),
    [
        ("0::/pod\n", "pod__memory_", {"max": "512", "current": "400", "stat": "anon 7\ninactive_file 150"}),
        ("3:memory:/pod\n", "memory__pod__memory_", {"limit_in_bytes": "512", "usage_in_bytes": "400", "stat": "total_inactive_file 150"}),
    ],
)
def test_what_all_of_a_container_use_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: str, group: str, said: dict[str, str]
) -> None:
    """Where a control group sets the limit, its own use counts, less cached files; what it does not tell is the process's own."""
    process, groups = grouped(tmp_path, lines, **{group + name: text for name, text in said.items()})
    (process / "statm").write_text("0 2")
    monkeypatch.setattr(usage, "_SELF", process)
    monkeypatch.setattr(usage, "_GROUPS", groups)
    assert (512, 250) == (usage.read().limit, usage.read().used)
    next(groups.rglob("memory.stat")).unlink()
    assert 2 * os.sysconf("SC_PAGE_SIZE") == usage.read().used


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="there is no /proc")
def test_this_process_may_use_no_more_than_the_machine_has() -> None:
    """What this very system says is above what the process uses and at most what the machine has."""
    total = int(re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())[1]) * 1024
    seen = usage.read()
    assert seen.resident < seen.limit <= total


def test_devices_are_not_woken(attach: Callable[..., Any]) -> None:
    """Reading starts no device: in a process that has used none, there is none in the report."""
    watch = attach(torch.nn.Sequential(torch.nn.GELU()))
    assert () == watch.flush().usage.devices
    assert not torch.cuda.is_initialized()
