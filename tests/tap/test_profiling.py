"""Passes that are profiled because somebody asked: in their own threads, from beginning to end, and never in the way."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from geluwatch.tap import _compat


def traces(watch: Any) -> list[list[str]]:
    """Return the names of the events of each trace that is there."""
    return [
        [event["name"] for event in json.loads(gzip.decompress(trace))["traceEvents"] if "name" in event]
        for trace in watch._source.drain().traces
    ]


def test_as_many_passes_as_asked_are_profiled(attach: Callable[..., Any], block: Any) -> None:
    """Two of four passes leave a trace with the model's operations each; outputs are the same to the bit, and no compiler is loaded."""
    model, x = block(), torch.randn(4, 8)
    expected = model(x)
    watch = attach(model)
    watch._source.profile(2)
    loaded = _compat.compiler_loaded()
    for _ in range(4):
        assert expected.equal(model(x))
    assert loaded == _compat.compiler_loaded()
    found = traces(watch)
    assert [True, True] == ["aten::gelu" in names for names in found]
    assert not _compat.profiler_running()


def test_a_profiler_of_the_users_is_left_alone(attach: Callable[..., Any], block: Any) -> None:
    """While one runs, no pass is profiled; the user's trace is whole, and the passes are profiled when it has ended."""
    model, x = block(), torch.randn(4, 8)
    watch = attach(model)
    model(x)
    watch._source.profile(1)
    with torch.autograd.profiler.profile(use_kineto=True) as profile:
        model(x)
    assert "aten::gelu" in {event.key for event in profile.key_averages()}
    assert [] == traces(watch)
    model(x)
    assert 1 == len(traces(watch))


def test_a_pass_that_raises_ends_its_profile(attach: Callable[..., Any], block: Any) -> None:
    """The trace of a failed pass is there, and the profiler does not run on."""
    model = block()
    watch = attach(model)
    watch._source.profile(1)
    with pytest.raises(RuntimeError):
        model(torch.randn(4, 9))
    assert not _compat.profiler_running()
    assert 1 == len(traces(watch))


def test_coming_off_waits_for_a_pass_that_is_profiled(attach: Callable[..., Any]) -> None:
    """A profiler can be stopped in its own thread only: detaching in the midst of such a pass leaves none behind."""
    inside, go_on = threading.Event(), threading.Event()

    class Slow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.GELU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            inside.set()
            go_on.wait(10)
            return self.act(x)

    model = Slow()
    watch = attach(model)
    watch._source.profile(2)
    serving = threading.Thread(target=model, args=(torch.randn(2, 3),))
    serving.start()
    assert inside.wait(10)
    threading.Timer(0.05, go_on.set).start()
    watch.detach()
    assert not _compat.profiler_running()
    serving.join()


def test_coming_off_within_a_pass_ends_its_profile(attach: Callable[..., Any]) -> None:
    """A model that detaches its own watch in its forward is left without a profiler."""

    class Detaches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.GELU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            watch.detach()
            return self.act(x)

    model = Detaches()
    watch = attach(model)
    watch._source.profile(1)
    model(torch.randn(2, 3))
    assert not _compat.profiler_running()
