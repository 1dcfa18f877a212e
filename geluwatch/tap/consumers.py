"""Hooks on the dense layers behind GELUs: one column of such a layer's output stands for the GELU's whole output."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from geluwatch.tap import guard
from geluwatch.tap._compat import unseen
from geluwatch.tap.hook import Hook
from geluwatch.tap.look import dense, total, version


class ConsumerHook(Hook):
    """Forward hook of the dense layer behind a GELU: one column of its output stands for the GELU's whole output."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        tap = self.tap
        try:
            state = tap.state()
            pending = state.pending
            if pending is None or not args or args[0] is not pending.post:
                return
            if not dense(module) or type(output) is not torch.Tensor or version(pending.post) != pending.version:
                return  # left pending, so that it is looked at whole
            with unseen():
                state.pending = None
                if guard.suspicious_column(output):
                    tap.check(state, pending.site, pending.pre, pending.post)
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            tap.breaker.trip("guard", error)


class LearnConsumer(Hook):
    """Forward pre-hook of every dense layer during the first pass: whose output does it take, just as it left the GELU?"""

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if torch.compiler.is_compiling():
            return
        tap = self.tap
        if not tap.learning:
            return
        try:
            latest = tap.state().latest
            if latest is None or not args or args[0] is not latest.post or not dense(module):
                return
            with unseen():
                if total(latest.post) == latest.total:
                    tap.consumers[latest.site] = module
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            tap.breaker.trip("guard", error)
