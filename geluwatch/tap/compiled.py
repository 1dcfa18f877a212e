"""How hooks speak from compiled code: one operation without outputs, which a compiler keeps, in order, and cannot see into.

A hook that is traced leaves a call of it in the graph; when the graph runs, the call comes back to the hook. Hooks
are named by tensors, not numbers: a number would be a constant of the graph, and blocks that share their compiled
code would be compiled one by one.
"""

from __future__ import annotations

import itertools
from typing import Any, Protocol, TypeGuard
from weakref import WeakValueDictionary

import torch

from geluwatch.config import Config
from geluwatch.tap._compat import effectful, traces_speech


class Speaker(Protocol):
    """A hook that can be called from compiled code."""

    def spoken(self, first: torch.Tensor | None, second: torch.Tensor | None) -> None:
        """Take the tensors that the traced call was given."""
        ...

    def failed(self, error: Exception) -> None:
        """Take what `spoken` has raised; nothing may be raised here."""
        ...


_speakers: WeakValueDictionary[int, Speaker] = WeakValueDictionary()
_numbers = itertools.count()
_library = torch.library.Library("geluwatch", "DEF")  # type: ignore[no-untyped-call]  # torch's own
_library.define("speak(Tensor token, Tensor? first, Tensor? second) -> ()")  # type: ignore[no-untyped-call]  # torch's own


def token_of(speaker: Speaker, config: Config) -> torch.Tensor | None:
    """Return the tensor that names a hook in compiled code, for as long as the hook is referred to; None where it shall be silent."""
    if not (config.compiled and SPEECH_IS_TRACED):
        return None
    number = next(_numbers)
    _speakers[number] = speaker
    with torch.inference_mode(mode=False):  # compiled code takes inference tensors apart from others
        return torch.tensor(number, device="cpu")


def may_speak(token: torch.Tensor | None) -> TypeGuard[torch.Tensor]:
    """Return, inside a hook that is being traced, whether its call may go into the graph: not into one that is exported."""
    return token is not None and not torch.compiler.is_exporting()


def can_speak(token: torch.Tensor | None, args: tuple[Any, ...], output: Any) -> TypeGuard[torch.Tensor]:
    """Return the same for a call with tensors: not into a graph for an accelerator, where it would keep CUDA graphs from being made."""
    if not may_speak(token) or len(args) != 1:
        return False
    return isinstance(args[0], torch.Tensor) and isinstance(output, torch.Tensor) and output.device.type == "cpu"


def say(token: torch.Tensor | None) -> None:
    """Speak without tensors, inside a hook that is being traced, where it may."""
    if may_speak(token):
        torch.ops.geluwatch.speak(token, None, None)


def _speak(token: torch.Tensor, first: torch.Tensor | None, second: torch.Tensor | None) -> None:
    speaker = _speakers.get(int(token))
    if speaker is not None:
        try:
            speaker.spoken(first, second)
        except Exception as error:  # noqa: BLE001  # nothing may reach the model
            speaker.failed(error)


def _silent(token: torch.Tensor, first: torch.Tensor | None, second: torch.Tensor | None) -> None:
    """Stand for the operation where there are no values to be read."""


_library.impl("speak", _speak, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]  # torch's own
_library.impl("speak", _silent, "Meta")  # type: ignore[no-untyped-call]  # torch's own

# Under vmap values cannot be read.
_library.impl("speak", _silent, "FuncTorchBatched")  # type: ignore[no-untyped-call]  # torch's own

SPEECH_IS_TRACED = traces_speech() and effectful(torch.ops.geluwatch.speak.default)
"""Whether hooks can speak from compiled code with this torch; where not, they are traced as nothing, and blind."""
