"""Probes of a watch: recorded with a baseline, replayed when asked or on a schedule, and told in the report."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import geluwatch
from geluwatch.config import Config
from geluwatch.errors import ConfigError, DetachedError, ProbeBusyError, ProbeError
from geluwatch.store.memory import MemoryBaselines

WINDOWS = 30


class Model(nn.Module):
    """Two GELUs."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.body = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 16), nn.GELU())
        for parameter in self.parameters():
            parameter.data.normal_(0.0, 0.5, generator=generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., 8) to (..., 16)."""
        return self.body(x)


def traffic(watch: geluwatch.Watch, model: nn.Module, windows: int = WINDOWS) -> None:
    """Serve windows of calm traffic."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(windows):
            for _ in range(4):
                model(torch.randn(64, 8, generator=generator))
            watch.close_window()


@pytest.fixture
def attach() -> Iterator[Callable[..., geluwatch.Watch]]:
    """Watch models, and come off them at the end."""
    made: list[geluwatch.Watch] = []

    def begin(model: nn.Module, store: Any = None, **settings: Any) -> geluwatch.Watch:
        config = Config(**{"window_seconds": None, "flush_seconds": 3600.0, "cost_budget": None, "horizons": (1,), **settings})
        made.append(geluwatch.attach(model, name="model", store=store, config=config))
        return made[-1]

    yield begin
    for watch in made:
        watch.detach()


def test_a_probe_lives_with_its_baseline(attach: Callable[..., geluwatch.Watch]) -> None:
    """It is stored, comes back with the baseline when it is armed, and its replay says that the model is the same, or not."""
    store, model = MemoryBaselines(), Model().eval()
    watch = attach(model, store)
    with pytest.raises(ProbeError, match="No baseline is armed"):
        watch.probe()
    traffic(watch, model)
    watch.record_baseline("v1", probe=[torch.randn(3, 8), {"x": torch.randn(5, 8)}])
    assert (None, "") == (watch.report.probe, watch.report.attribution)
    watch.arm("v1")
    forwards = watch.flush().totals.forwards
    assert not watch.probe().moved
    assert ("warming", forwards) == (watch.report.verdict, watch.flush().totals.forwards)
    model.body[2].weight.data.mul_(1.001)
    result = watch.probe()
    assert ("body.3", False, True) == (result.first and result.first.layer, result.within, result.moved)
    report = watch.report
    assert ("ticket", "", result) == (report.verdict, report.origin, report.probe)
    assert report.attribution == f"The probe says: {result.sentence}."
    watch.arm("v1")
    assert watch.report.probe is None
    watch.detach()
    with pytest.raises(DetachedError):
        watch.probe()


def test_sampled_inputs_make_a_probe(attach: Callable[..., geluwatch.Watch]) -> None:
    """Where none are given, those that traffic was sampled for are taken; where there are none, the baseline has no probe."""
    store, model = MemoryBaselines(), Model().eval()
    watch = attach(model, store, capture_inputs=4)
    traffic(watch, model)
    assert 4 == len(watch.captured_inputs())
    watch.record_baseline("sampled")
    probe = store.load("model", "1", "sampled").probe
    assert probe is not None
    assert 4 == len(probe.inputs)
    assert {(64, 8)} == {each.args[0].shape for each in probe.inputs}
    watch.detach()
    plain = attach(model, store)
    traffic(plain, model)
    plain.record_baseline("plain", arm=True)
    with pytest.raises(ProbeError, match="Baseline 'plain' has no probe; record the next one"):
        plain.probe()


def test_what_makes_no_probe_is_refused_before_anything_is_stored(attach: Callable[..., geluwatch.Watch]) -> None:
    """No input, one that the model does not take, too large ones, and a model that is not the same twice."""

    class Fickle(nn.Module):
        """Gives other values each time."""

        def __init__(self) -> None:
            super().__init__()
            self.act, self.calls = nn.GELU(), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Apply the activation to something else each time."""
            self.calls += 1
            return self.act(x + self.calls)

    store, model = MemoryBaselines(), Model().eval()
    watch = attach(model, store)
    traffic(watch, model)
    large = np.zeros((1 << 20, 8), np.float32)
    for given, said in (
        ([], "no input"),
        ([torch.zeros(1, 3)], "Input 1 cannot be sent"),
        ([large], "take 33554432 bytes, more than the 16777216"),
    ):
        with pytest.raises(ProbeError, match=said):
            watch.record_baseline("v1", probe=given)
    fickle = Fickle().eval()
    other = attach(fickle, store)
    with pytest.raises(ProbeError, match=r"other values for the same inputs .* first at layer act"):
        other.record_baseline("v1", probe=[torch.randn(3, 8)])
    assert () == store.names("model", "1")


def test_a_schedule_replays_by_itself(attach: Callable[..., geluwatch.Watch]) -> None:
    """In the background, without a call; it waits while the model is in training, and a failure is counted and told once."""
    store, model = MemoryBaselines(), Model().eval()
    watch = attach(model, store, probe_seconds=0.02)
    traffic(watch, model)
    watch.record_baseline("v1", probe=[torch.randn(3, 8)], arm=True)
    assert wait(lambda: watch.report.probe is not None)
    model.body[2].weight.data.mul_(1.5)
    assert wait(lambda: watch.report.probe is not None and watch.report.probe.moved)
    model.train()
    last = settled(watch)
    time.sleep(0.1)
    assert last is watch.report.probe
    assert {} == watch.flush().totals.errors
    model.eval()
    model.body[0].weight.data = model.body[0].weight.data[:, :5]
    assert wait(lambda: watch.report.totals.errors.get("probe", 0) > 1)
    watch.detach()
    assert not [thread for thread in threading.enumerate() if thread.name == "geluwatch"]


def test_calls_within_a_pass_are_refused(attach: Callable[..., geluwatch.Watch]) -> None:
    """A watch asked from within a forward pass says so, and the pass goes on."""
    model = Model().eval()
    watch = attach(model)
    traffic(watch, model)
    watch.record_baseline("v1", probe=[torch.randn(3, 8)], arm=True)
    seen: list[str] = []

    def ask(*_: Any) -> None:
        with pytest.raises(ProbeBusyError) as refused:
            watch.probe()
        seen.append(str(refused.value))

    model.body[0].register_forward_hook(ask)
    model(torch.randn(2, 8))
    assert 1 == len(seen)


@pytest.mark.parametrize(
    ("setting", "value"), [("capture_inputs", -1), ("capture_inputs", True), ("probe_seconds", 0), ("probe_seconds", "60")]
)
def test_settings_are_checked(setting: str, value: Any) -> None:
    """By name and value."""
    with pytest.raises(ConfigError, match=f"{setting} must be"):
        replace(Config(), **{setting: value})


def wait(true: Callable[[], bool]) -> bool:
    """Wait until something is true."""
    until = time.monotonic() + 20.0
    while not true() and time.monotonic() < until:
        time.sleep(0.01)
    return true()


def settled(watch: geluwatch.Watch) -> Any:
    """Return the last result once a replay that was under way is over."""
    last = None
    while last is not watch.report.probe:
        last = watch.report.probe
        time.sleep(0.1)
    return last


def test_a_captured_request_that_the_model_refuses_is_left_out(
    attach: Callable[..., geluwatch.Watch], caplog: pytest.LogCaptureFixture
) -> None:
    """The baseline is recorded with a probe of the others, and the log says how many are not in it and why."""
    store, model = MemoryBaselines(), Model().eval()
    watch = attach(model, store, capture_inputs=4)
    with pytest.raises(RuntimeError):
        model(torch.zeros(2, 3))
    for _ in range(2):
        model(torch.zeros(2, 8))
    assert 3 == len(watch.captured_inputs())
    watch.flush()
    traffic(watch, model)
    for place, held in enumerate(((torch.zeros(2, 3),), (torch.zeros(2, 8),))):
        watch._source._tap.inputs._held[place] = (held, {})
    watch.record_baseline("sampled")
    probe = store.load("model", "1", "sampled").probe
    assert probe is not None
    assert 3 == len(probe.inputs)
    assert "1 of 4 captured inputs are not in the probe: Input 1 cannot be sent through the model" in caplog.text


def test_inputs_too_large_for_a_probe_are_told_of(attach: Callable[..., geluwatch.Watch], caplog: pytest.LogCaptureFixture) -> None:
    """Once, with what there is room for, when the first of them comes by; a text counts as well."""
    model = Model().eval()
    watch = attach(model, capture_inputs=16)
    for _ in range(3):
        model(torch.zeros(40_000, 8))
    assert () == watch.captured_inputs()
    assert 1 == caplog.text.count("inputs of a pass are not captured for a probe")
    assert "set a smaller Config(capture_inputs=...)" in caplog.text
