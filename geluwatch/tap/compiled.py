"""How hooks speak from compiled code: one operation without outputs, which a compiler keeps, in order, and cannot see into.

A hook that is traced leaves a call of it in the graph; when the graph runs, the call comes back to the hook. Hooks
are named by tensors, not numbers: a number would be a constant of the graph, and blocks that share their compiled
code would be compiled one by one.
"""

from __future__ import annotations

import itertools
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch

from geluwatch.tap._compat import effectful, traces_speech


class Speaker(Protocol):
    """A hook that can be called from compiled code; nothing may be raised."""

    def spoken(self, first: torch.Tensor | None, second: torch.Tensor | None) -> None:
        """Take the tensors that the traced call was given."""
        ...


_speakers: WeakValueDictionary[int, Speaker] = WeakValueDictionary()
_numbers = itertools.count()
_library = torch.library.Library("geluwatch", "DEF")
_library.define("speak(Tensor token, Tensor? first, Tensor? second) -> ()")


def token_of(speaker: Speaker) -> torch.Tensor:
    """Return the tensor that names a hook in compiled code, for as long as the hook is referred to."""
    number = next(_numbers)
    _speakers[number] = speaker
    with torch.inference_mode(mode=False):  # compiled code takes inference tensors apart from others
        return torch.tensor(number, device="cpu")


def can_speak(args: tuple[Any, ...], output: Any) -> bool:
    """Return, inside a hook that is being traced, whether a call with its tensors may go into the graph.

    Not into one that is exported, nor into one for an accelerator: there it would keep CUDA graphs from being made.
    """
    if torch.compiler.is_exporting() or len(args) != 1 or not SPEECH_IS_TRACED:
        return False
    return isinstance(args[0], torch.Tensor) and isinstance(output, torch.Tensor) and output.device.type == "cpu"


def modes_traced() -> bool:
    """Return, inside a hook that is being traced, whether a mode may be traced around a forward."""
    return SPEECH_IS_TRACED and not torch.compiler.is_exporting()


def _speak(token: torch.Tensor, first: torch.Tensor | None, second: torch.Tensor | None) -> None:
    speaker = _speakers.get(int(token))
    if speaker is not None:
        speaker.spoken(first, second)


def _silent(token: torch.Tensor, first: torch.Tensor | None, second: torch.Tensor | None) -> None:
    """Stand for the operation where there are no values."""


_library.impl("speak", _speak, "CompositeExplicitAutograd")
_library.impl("speak", _silent, "Meta")

SPEECH_IS_TRACED = traces_speech() and effectful(torch.ops.geluwatch.speak.default)
"""Whether hooks can speak from compiled code with this torch; where not, they are traced as nothing, and blind."""
