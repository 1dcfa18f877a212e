"""Named ranges around each GELU for profilers, put on only when asked for.

A range is a `torch.profiler.record_function`, so it shows in `torch.profiler` traces, and as an NVTX range under
`torch.autograd.profiler.emit_nvtx`. It spans the GELU alone: hooks of ours lie outside of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from geluwatch.tap._compat import rerun, unseen
from geluwatch.tap.hook import Hook
from geluwatch.tap.shared import Tap
from geluwatch.tap.sites import caller


def name(layer: str) -> str:
    """Return what the range of a layer is called."""
    return f"gelu {layer}"


class _Range(Hook):
    def __init__(self, tap: Tap, site: int) -> None:
        super().__init__(tap)
        self.site = site


class RangeBegin(_Range):
    """Forward pre-hook of a GELU: its range begins. Put on after all others, so that none of them is in it."""

    def __call__(self, _module: nn.Module, _args: tuple[Any, ...]) -> None:
        """Open the range, unless a recomputation or a trace is under way."""
        tap, site = self.tap, self.site
        if torch.compiler.is_compiling() or not tap.breaker.allows("ranges"):
            return
        try:
            if rerun():
                return
            state = tap.state()
            close(state.ranges, site)  # left open by an interrupt, after which torch calls no hook
            opened = torch.profiler.record_function(name(tap.sites[caller(tap, state, site)].layer))
            with unseen():
                opened.__enter__()  # type: ignore[no-untyped-call]  # torch's own
            state.ranges[site] = opened
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            tap.breaker.trip("ranges", error)


class RangeEnd(_Range):
    """Forward hook of a GELU, called also when it raised: its range ends. Put on before all others."""

    def __call__(self, _module: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
        """Close the range, if there is one."""
        if torch.compiler.is_compiling():
            return
        try:
            close(self.tap.state().ranges, self.site)
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            self.tap.breaker.trip("ranges", error)


def close(ranges: dict[int, Any], site: int) -> None:
    """Close the open range of a site, if there is one."""
    opened = ranges.pop(site, None)
    if opened is not None:
        with unseen():
            opened.__exit__(None, None, None)
