"""Named ranges in a profiler's trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

Attach = Callable[..., Any]


def names(run: Callable[[], object]) -> dict[str, int]:
    """Return how often each of our ranges shows in a trace."""
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        run()
    return {event.key: event.count for event in trace.key_averages() if event.key.startswith("gelu ")}


def test_each_site_has_a_range_of_its_name(attach: Attach, block: Callable[..., Any]) -> None:
    """Two passes through two blocks: two ranges for each, with the operation inside and the agent's own work outside."""
    model = nn.Sequential(block(), block())
    attach(model, ranges=True)
    x = torch.randn(2, 8)
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        model(x)
        model(x)
    ranges = [event for event in trace.events() if event.name.startswith("gelu ")]
    assert {"gelu 0.act", "gelu 1.act"} == {event.name for event in ranges}
    assert 4 == len(ranges)
    assert [["aten::gelu"]] * 4 == [[child.name for child in event.cpu_children] for event in ranges]


def test_there_is_none_unless_asked_for(attach: Attach, block: Callable[..., Any]) -> None:
    """By default a trace shows none."""
    model = nn.Sequential(block())
    attach(model)
    assert {} == names(lambda: model(torch.randn(2, 8)))


def test_a_shared_gelu_has_its_callers_names(attach: Attach, block: Callable[..., Any]) -> None:
    """One module in two blocks is two sites, and so two ranges."""
    act = nn.GELU()
    model = nn.Sequential(block(act), block(act))
    attach(model, ranges=True)
    assert {"gelu 0.act": 1, "gelu 1.act": 1} == names(lambda: model(torch.randn(2, 8)))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_range_ends_with_an_error(error: type[BaseException], attach: Attach) -> None:
    """Whatever leaves the GELU, the next pass has one whole range again."""

    class Fails(nn.GELU):
        fail = True

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.fail:
                raise error
            return super().forward(x)

    model = nn.Sequential(Fails())
    watch = attach(model, ranges=True)
    with pytest.raises(error):
        model(torch.randn(2, 4))
    model[0].fail = False
    assert {"gelu 0": 1} == names(lambda: model(torch.randn(2, 4)))
    assert {} == watch.flush().totals.errors


def test_detaching_takes_the_ranges_off(attach: Attach, block: Callable[..., Any], hook_census: Callable[..., Any]) -> None:
    """Afterwards the model has the hooks it had before."""
    model = nn.Sequential(block())
    before = hook_census(model)
    watch = attach(model, ranges=True, gradients=True)
    assert before != hook_census(model)
    watch.detach()
    assert before == hook_census(model)
