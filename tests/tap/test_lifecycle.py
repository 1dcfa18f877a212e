"""From attach to detach and after: memory that stays flat, nothing left behind, watches beside each other, forked workers."""

from __future__ import annotations

import gc
import json
import math
import os
import signal
import subprocess
import sys
import threading
import urllib.request
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import geluwatch
from geluwatch.config import Config
from geluwatch.tap import look

WORKERS = Path(__file__).parent / "workers"
BAD = torch.full((2, 8), math.nan)

TRACED_LIMIT = 256 * 2**10
"""Bytes of Python's own that the last four fifths of the traced passes may add: 16 a pass."""

RESIDENT_LIMIT = 4 * 2**20
"""Bytes of memory that the last 80,000 passes may add to the process: 52 a pass, less than the smallest tensor takes."""

linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")


@linux
@pytest.mark.parametrize(("measure", "passes", "limit"), [("resident", 100_000, RESIDENT_LIMIT), ("traced", 20_000, TRACED_LIMIT)])
def test_memory_is_flat_over_a_hundred_thousand_passes(measure: str, passes: int, limit: int) -> None:
    """After warming up on a fifth of the passes, the rest add next to nothing, and every pass and fault among them was counted.

    Tracing every allocation is slow: GELUWATCH_SOAK sets how many passes are traced, 20,000 unless it says otherwise.
    """
    passes = int(os.environ.get("GELUWATCH_SOAK", passes)) if measure == "traced" else passes
    command = [sys.executable, str(WORKERS / "soak.py"), str(passes), measure]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    growth, forwards, hits, errors = done.stdout.split(maxsplit=3)
    print(f"\n{measure}: {growth} bytes over {passes - passes // 5} passes")
    assert (str(passes), str(passes // 10), "{}\n") == (forwards, hits, errors)
    assert int(growth) < limit


class Calls(nn.Module):
    """A GELU that is a function."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (...) to the same shape."""
        return nn.functional.gelu(x)


def small_model() -> nn.Module:
    """Return a model with every kind of hook on it once watched."""
    act = nn.GELU()
    return nn.Sequential(nn.Sequential(nn.Linear(8, 8), act), nn.Sequential(nn.Linear(8, 8), act), nn.Linear(8, 8), nn.GELU(), Calls())


def shape_of(model: nn.Module, hooks: Callable[[nn.Module], Any]) -> tuple[Any, ...]:
    """Return everything about a model that a watch could have changed: hooks, classes, attributes, parameters and their identity."""
    parts = [(name, type(part), id(part), tuple(vars(part)), type(part).__call__) for name, part in model.named_modules()]
    state = [(name, id(value), value._version) for name, value in model.state_dict(keep_vars=True).items()]
    return hooks(model), parts, state


def descriptors() -> set[str]:
    """Return what the open file descriptors of this process point at, apart from the one that lists them."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{entry.name} {entry.readlink()}")
        except OSError:
            continue
    return {text for text in found if "/proc/" not in text}


@linux
def test_detach_is_total(hook_census: Callable[[nn.Module], Any], tmp_path: Path) -> None:
    """After a watch with a database and a listener, model, threads, open files and torch's global hooks are as they were, five times."""
    model = small_model()
    store = f"sqlite:///{tmp_path}/baselines.db"
    global_hooks = nn.modules.module._global_forward_hooks, nn.modules.module._global_forward_pre_hooks
    with geluwatch.attach(model, name="warm-up", store=store) as watch:  # whatever is imported or opened once is no leak
        watch.serve()
    before = shape_of(model, hook_census), threading.active_count(), descriptors(), [dict(each) for each in global_hooks]
    for turn in range(5):
        watch = geluwatch.attach(model, name="model", store=store, config=Config(window_seconds=None, flush_seconds=0.01))
        with urllib.request.urlopen(f"{watch.serve()}/metrics", timeout=10) as answer:
            answer.read()
        model(BAD)
        watch.close_window()
        watch.detach()
        assert 1 == watch.report.totals.nonfinite_forwards, turn
    gc.collect()
    assert before == (shape_of(model, hook_census), threading.active_count(), descriptors(), [dict(each) for each in global_hooks])


@pytest.mark.skipif("fbgemm" not in torch.backends.quantized.supported_engines, reason="needs a quantised dense layer")
def test_hooks_that_another_module_took_over_come_off_too(attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A quantiser that exchanges a dense layer hands its hooks on to the new one; detach takes ours off there as well."""
    monkeypatch.setattr(look, "LARGE", 1)
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)).eval()
    watch = attach(model)
    model(torch.randn(2, 8))
    watch.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, inplace=True)
    model(torch.randn(2, 8))
    watch.detach()
    assert [] == [hook for part in model.modules() for hook in (*part._forward_hooks.values(), *part._forward_pre_hooks.values())]


def test_no_mode_is_on_while_a_watched_model_runs(attach: Callable[..., Any]) -> None:
    """Neither a dispatch nor a function mode of ours is active inside a plain module's forward, where each would slow every operation."""
    depths: list[tuple[int, int]] = []

    class Looks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            depths.append((torch._C._len_torch_dispatch_stack(), torch._C._len_torch_function_stack()))
            return x

    model = nn.Sequential(Looks(), nn.GELU(), Looks())
    attach(model)
    for _ in range(3):
        model(torch.randn(2, 8))
    assert [(0, 0)] * 6 == depths


def test_a_model_and_a_part_of_it_can_be_watched_at_once(attach: Callable[..., Any], hook_census: Callable[[nn.Module], Any]) -> None:
    """Two watches, one on the whole and one on a part, each count what is theirs, and the end of one leaves the other at work."""
    model = nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.GELU()), nn.Linear(8, 8), nn.GELU())
    bare = hook_census(model)
    whole, part = attach(model), attach(model[0])
    model(BAD)
    model[0](BAD)
    assert (1, 2) == (whole.flush().totals.forwards, part.flush().totals.forwards)
    assert (2, 2) == (whole.report.totals.nonfinite_forwards, part.report.totals.nonfinite_forwards)
    assert (["0.1", "2"], ["1"]) == (list(whole.report.totals.nonfinite), list(part.report.totals.nonfinite))
    part.detach()
    model(BAD)
    assert (3, {}) == (whole.flush().totals.nonfinite_forwards, whole.report.totals.errors)
    assert 2 == part.report.totals.nonfinite_forwards
    whole.detach()
    assert bare == hook_census(model)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
@pytest.mark.parametrize("large", [1, 2**18], ids=["through consumers", "as it is"])
def test_thousands_of_interrupts_on_any_line_do_no_harm(large: int) -> None:
    """Interrupts that land anywhere, in our hooks too, all reach the user; no finished pass is lost, and all is exact afterwards."""
    command = [sys.executable, str(WORKERS / "interrupts.py"), "3", str(large)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"})
    seen = json.loads(done.stdout)
    print(f"\n{seen}")
    assert seen["interrupts"] > 100
    assert seen["finished"] <= seen["forwards"] <= seen["begun"] <= seen["finished"] + seen["interrupts"]
    assert seen["faulty"] <= seen["hits"]
    assert ([200, 50], [50, 0, 0], {}, True) == (seen["calm"], seen["firsts"], seen["errors"], seen["same"])


_LOADED = """
import math, torch, geluwatch
from torch import nn
from torch.utils.data import DataLoader
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(4, 4), nn.GELU())
with geluwatch.attach(model, name="model", config=geluwatch.Config(flush_seconds=0.01)) as watch:
    for _ in range(2):
        for batch in DataLoader(torch.ones(40, 4), batch_size=4, num_workers=2, multiprocessing_context="fork"):
            model(batch)
    model(torch.full((2, 4), math.nan))
totals = watch.report.totals
print(totals.forwards, totals.nonfinite_forwards, dict(totals.errors))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_loaders_that_fork_workers_go_on() -> None:
    """Workers forked to load data while a watch flushes every few milliseconds deliver every batch and end; counts are exact."""
    done = subprocess.run([sys.executable, "-c", _LOADED], capture_output=True, text=True, timeout=120, check=False)
    assert ("21 1 {}\n", "") == (done.stdout, done.stderr)


_FORKED = """
import math, os, threading, time, geluwatch, torch
from torch import nn
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(4, 4), nn.GELU())
bad = torch.full((2, 4), math.nan)
watch = geluwatch.attach(model, name="model", config=geluwatch.Config(window_seconds=None, flush_seconds=3600.0))
for _ in range(3): model(bad)
watch._source._tap.breaker.trip("mask", ValueError("of the parent"))
watch.close_window()
for _ in range(2): model(bad)   # not flushed: waits in the tap
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    for _ in range({passes}): model(bad)
    totals = watch.flush().totals
    elements = sum(sum(seen.elements.values()) for seen in totals.nonfinite.values())
    os.write(writer, f"{{totals.forwards}} {{totals.nonfinite_forwards}} {{elements}} {{dict(totals.errors)}}".encode())
    watch.detach()
    os._exit(0)
os.waitpid(child, 0)
totals = watch.flush().totals
print(os.read(reader, 1000).decode(), "|", totals.forwards, totals.nonfinite_forwards, dict(totals.errors))
watch.detach()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("passes", [0, 4])
def test_a_forked_child_counts_from_zero(passes: int) -> None:
    """What a parent saw before the fork, flushed or not, is the parent's: the child reports its own passes and failures alone."""
    done = subprocess.run([sys.executable, "-c", _FORKED.format(passes=passes)], capture_output=True, text=True, timeout=60, check=False)
    assert f"{passes} {passes} {8 * passes} {{}} | 5 5 {{'mask': 1}}\n" == done.stdout
    assert "geluwatch: mask failed and goes on: ValueError('of the parent')\n" == done.stderr


_SPAWNED = """
import math, multiprocessing, sys, torch
from torch import nn
import geluwatch

def work(model, answers):
    model(torch.full((2, 4), math.nan))
    with geluwatch.attach(model, name="child", config=geluwatch.Config(flush_seconds=3600.0)) as watch:
        model(torch.full((2, 4), math.nan))
        answers.put((watch.flush().totals.forwards, watch.report.totals.nonfinite_forwards))

if __name__ == "__main__":
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(4, 4), nn.GELU())
    with geluwatch.attach(model, name="parent", config=geluwatch.Config(flush_seconds=3600.0)) as watch:
        model(torch.full((2, 4), math.nan))
        context = multiprocessing.get_context("spawn")
        answers = context.Queue()
        process = context.Process(target=work, args=(model, answers))
        process.start()
        print(answers.get(timeout=60), watch.flush().totals.nonfinite_forwards)
        process.join()
"""


def test_a_watched_model_sent_to_a_spawned_process_is_unwatched_there(tmp_path: Path) -> None:
    """A process that is given a watched model gets a bare one, which can be watched there, and each counts its own."""
    script = tmp_path / "spawned.py"
    script.write_text(_SPAWNED)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert ("(1, 1) 1\n", 0) == (done.stdout, done.returncode), done.stderr
