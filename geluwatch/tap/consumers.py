"""Hooks on the layers around GELUs: what the first pass shows of them, and what stands for a GELU's whole output later.

One column of a dense layer's output is non-finite in every row in which its input was. Convolutions and their norms
say which dimension of a GELU's values are channels, where it is not the last.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from geluwatch.tap import guard
from geluwatch.tap._compat import unseen
from geluwatch.tap.hook import Hook
from geluwatch.tap.look import dense, total, version

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
CHANNELS_FIRST = (*_CONVOLUTIONS, *_NORMS)
"""Layers whose channels are not the last dimension."""


class ConsumerHook(Hook):
    """Forward hook of the dense layer behind a GELU: one column of its output stands for the GELU's whole output.

    Unless that was written to in between, which torch counts, but not for tensors made in inference mode: what is repaired in place
    there goes by unseen. To look at them whole would make all serving dearer for the few models that do so.
    """

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Do so, when torch calls the hook."""
        if torch.compiler.is_compiling():
            return
        tap = self.tap
        try:
            state = tap.state()
            pending = state.pending
            if pending is None or not args or args[0] is not pending.post:
                return
            with unseen():
                if not dense(module) or type(output) is not torch.Tensor or version(pending.post) != pending.version:
                    return  # left pending, so that it is looked at whole
                state.pending = None
                if guard.suspicious_column(output):
                    tap.check_late(state, pending)
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            tap.breaker.trip("guard", error)


class LearnConsumer(Hook):
    """Forward pre-hook of every dense layer during the first pass: whose output does it take, just as it left the GELU?"""

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Do so, when torch calls the hook."""
        if torch.compiler.is_compiling():
            return
        tap = self.tap
        if not tap.learning:
            return
        try:
            latest = tap.state().latest
            if latest is None or not args or args[0] is not latest.post:
                return
            with unseen():
                if dense(module) and total(latest.post) == latest.total:
                    tap.consumers[latest.site] = module
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            tap.breaker.trip("guard", error)


class LearnChannels(Hook):
    """Forward hook, during the first pass, of layers whose channels are not the last dimension: is a GELU next?"""

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Do so, when torch calls the hook."""
        if torch.compiler.is_compiling() or not self.tap.learning:
            return
        try:
            state = self.tap.state()
            if not state.depth:  # a part that is called by itself: no end of a pass would let go of what it gave
                return
            latest, state.channels = state.latest, None
            if isinstance(output, torch.Tensor) and (dim := channels_of(module, output)) != -1:
                state.channels = (output, dim)
                if latest is not None and args and args[0] is latest.post and latest.site not in self.tap.channels:
                    self.tap.channels[latest.site] = dim
                    self.tap.widths.pop(latest.site, None)
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            self.tap.breaker.trip("guard", error)


def channels_of(module: nn.Module, output: torch.Tensor) -> int:
    """Return which dimension of a layer's output, from the last, is its channels; -1 where it is the last or the layer knows none."""
    if isinstance(module, _CONVOLUTIONS):
        return -1 - len(module.kernel_size)
    return 1 - output.dim() if isinstance(module, _NORMS) and output.dim() > 2 else -1
