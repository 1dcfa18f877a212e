"""A watch on a real model in a real process: its thread, its address, its end, its forks."""

from __future__ import annotations

import atexit
import gc
import json
import logging
import math
import os
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
from torch import nn

import geluwatch
from geluwatch.config import Config


def gelu_model() -> nn.Module:
    """Return a model with one GELU."""
    return nn.Sequential(nn.Linear(4, 4), nn.GELU())


def test_the_background_thread_flushes_and_closes_windows() -> None:
    """Attached for real, the watch publishes and closes windows by itself while the model runs."""
    model = gelu_model()
    config = Config(window_seconds=0.05, flush_seconds=0.01, minimum_rows=2, cost_budget=1.0)
    reached = threading.Event()
    with geluwatch.attach(model, name="model", config=config) as watch:
        for _ in range(500):
            model(torch.randn(4, 4))
            if watch.report.totals.windows >= 3:
                reached.set()
                break
            reached.wait(0.01)
        assert reached.is_set()
    assert "ok" != watch.report.verdict
    assert not any(thread.name == "geluwatch" for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [({}, 5.0), ({"window_seconds": 300.0, "flush_seconds": 60.0}, 60.0), ({"window_seconds": 60.0, "flush_seconds": 60.0}, 15.0)],
)
def test_the_report_says_how_often_it_comes(settings: dict[str, float], seconds: float) -> None:
    """What is served names the seconds between two reports: those of a flush, or a quarter of the window where that is less."""
    model = gelu_model()
    with geluwatch.attach(model, name="model", config=Config(**settings)) as watch:
        with urllib.request.urlopen(f"{watch.serve()}/report.json") as answer:
            assert seconds == json.load(answer)["report_seconds"]
        assert seconds == watch.report_seconds


def test_a_layer_that_dies_in_a_real_model_pages() -> None:
    """Weights that close one layer's gates for good are a page that names the layer, without any baseline."""
    model = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 2))
    config = Config(window_seconds=None, flush_seconds=3600.0, cost_budget=None)
    with geluwatch.attach(model, name="model", config=config) as watch:
        model(torch.randn(100, 4))
        assert "warming" == watch.close_window().verdict
        with torch.no_grad():
            model[2].bias.fill_(-50.0)
        model(torch.randn(100, 4))
        report = watch.close_window()
    assert "page" == report.verdict
    assert [("3", "post", "dead")] == [(*key, site.gross) for key, site in report.sites.items() if site.gross]


def deep_model() -> nn.Sequential:
    """Return a model with three GELUs, whose weights are the same every time."""
    torch.manual_seed(0)
    return nn.Sequential(*(part for _ in range(3) for part in (nn.Linear(32, 32), nn.GELU())), nn.Linear(32, 2))


def test_a_changed_weight_and_changed_traffic_are_told_apart_and_explained() -> None:
    """Larger weights before the second GELU are drift of the model there, stronger inputs are drift of the traffic from the first on.

    Either way a sentence says what the values do, with the numbers, and the panel holds them.
    """
    model, random = deep_model(), torch.Generator().manual_seed(1)

    def window(strength: float = 1.0) -> geluwatch.Report:
        with torch.no_grad():
            model(strength * torch.randn(400, 32, generator=random))
        return watch.close_window()

    with geluwatch.attach(model, name="model", config=Config(window_seconds=None, flush_seconds=3600.0, cost_budget=None)) as watch:
        for _ in range(40):
            window()
        assert watch.record_baseline("calm", arm=True).armed
        assert ("ok", (), "", "") == ((calm := window()).verdict, calm.drifting, calm.scope, calm.cause)
        with torch.no_grad():
            model[2].weight.mul_(1.3)
        report = window()
        assert ("ticket", "3", "model") == (report.verdict, report.drifting[0], report.scope)
        assert re.fullmatch(r"3: pre-GELU values are 1\.\d+ times as spread out as in the baseline .*", report.cause)
        panel = report.sites["3", "pre"].panel
        assert panel is not None
        assert 0.1 < panel.log_spread < 0.3
        with torch.no_grad():
            model[2].weight.div_(1.3)
        watch.arm("calm")
        report = window(strength=3.0)
        assert ("ticket", ("1", "3", "5"), "traffic") == (report.verdict, report.drifting, report.scope)
        assert report.cause.startswith("1: pre-GELU values are ")


def test_leaving_the_context_by_an_error_detaches_and_lets_it_through() -> None:
    """A watch used as a context comes off when the block raises, and the error is the block's own."""
    model = gelu_model()
    with pytest.raises(ZeroDivisionError), geluwatch.attach(model, name="model"):
        raise ZeroDivisionError
    geluwatch.attach(model, name="model").detach()


def test_serving_gives_one_address_and_ends_with_the_watch() -> None:
    """`serve` returns the same working address each time, and nothing listens there after detach."""
    model = gelu_model()
    with geluwatch.attach(model, name="model", config=Config(flush_seconds=3600.0)) as watch:
        url = watch.serve()
        assert url == watch.serve()
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
            assert b"geluwatch_forward_passes_total" in answer.read()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url}/metrics", timeout=2)


def test_attaching_and_detaching_leaves_nothing_behind_at_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each watch registers one call at exit and takes it back, also when its model goes first."""
    registered: list[object] = []
    monkeypatch.setattr(atexit, "register", registered.append)
    monkeypatch.setattr(atexit, "unregister", lambda function: registered.remove(function) if function in registered else None)
    model = gelu_model()
    watch = geluwatch.attach(model, name="gone", config=Config(flush_seconds=3600.0))
    assert 1 == len(registered)
    del model
    gc.collect()
    watch._background._thread.join(timeout=5.0)
    assert [] == registered
    model = gelu_model()
    with geluwatch.attach(model, name="model"):
        assert 1 == len(registered)
    assert [] == registered
    watch.detach()


def test_a_watch_ends_wholly_with_its_model() -> None:
    """When the model is let go its port is free again, and a part that lives on, as what a wrapper held does, has no hook left."""
    inner = gelu_model()
    outer = nn.Sequential(inner)
    watch = geluwatch.attach(outer, name="outer")
    port = int(watch.serve().rsplit(":", 1)[1].rstrip("/"))
    del outer
    gc.collect()
    watch._background._thread.join(timeout=10.0)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in inner.modules())
    with geluwatch.attach(inner, name="inner") as again:
        assert again.serve(port=port).rstrip("/").endswith(f":{port}")


_BY_ITSELF = """
import geluwatch, torch
from torch import nn
model = nn.Sequential(nn.Linear(4, 4), nn.GELU())
watch = geluwatch.attach(model, name="model", store={store!r})
model(torch.randn(2, 4))
print("done")
"""


def test_a_process_that_never_detaches_ends_in_peace() -> None:
    """A script that just ends, watch and all, exits at once with status 0 and an empty standard error."""
    done = subprocess.run([sys.executable, "-c", _BY_ITSELF.format(store=None)], capture_output=True, text=True, timeout=60, check=False)
    assert (0, "done\n", "") == (done.returncode, done.stdout, done.stderr)


_FORKED = """
import logging, os, sys, threading, time, geluwatch, torch
from torch import nn
torch.set_num_threads(1)
logging.getLogger("geluwatch").setLevel("ERROR")
model = nn.Sequential(nn.Linear(4, 4), nn.GELU())
config = geluwatch.Config(window_seconds=None, flush_seconds=0.02, incidents=sys.argv[1])
watch = geluwatch.attach(model, name="model", config=config)
watch.serve()
watch.capture_incident("waits for a pass of the parent's", profile_steps=1)
holder = threading.Thread(target=lambda: watch._lock.acquire() and time.sleep(0.5))
holder.start(); time.sleep(0.1)
child = os.fork()
if child == 0:
    model(torch.full((2, 4), float("nan")))
    deadline = time.monotonic() + 10
    while watch.report.totals.nonfinite_forwards < 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    watch.close_window(); watch.serve(); watch.detach()
    os._exit(0 if watch.report.totals.nonfinite_forwards == 1 else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), watch.report.totals.nonfinite_forwards)
print([name.split("-")[3] for name in os.listdir(sys.argv[1])])
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_goes_on_by_itself(tmp_path: Path) -> None:
    """A worker forked with a watched model, at a moment when the lock was held, flushes, serves and detaches on its own.

    It leaves a bundle of its own page, and not the one that the parent waits to write.
    """
    done = subprocess.run([sys.executable, "-c", _FORKED, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False)
    assert ("0 0\n['nonfinite']\n", "") == (done.stdout, done.stderr)


def test_logging_says_nothing_in_calm(caplog: pytest.LogCaptureFixture) -> None:
    """A watch that does its work logs nothing."""
    caplog.set_level(logging.DEBUG, logger="geluwatch")
    model = gelu_model()
    with geluwatch.attach(model, name="model", config=Config(window_seconds=None)) as watch:
        model(torch.full((2, 4), math.nan))
        watch.close_window()
    assert [] == caplog.records
