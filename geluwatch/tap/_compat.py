"""Private torch symbols, each looked up once and done without where a release lacks it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from types import CodeType
from typing import Any

import torch
from torch import nn

_functorch: Any = getattr(torch._C, "_functorch", None)  # noqa: SLF001
_dynamo: Any = getattr(getattr(torch._C, "_dynamo", None), "eval_frame", None)  # noqa: SLF001

_task_id: Callable[[], int] = getattr(torch._C, "_current_graph_task_id", lambda: -1)  # noqa: SLF001
_tracing_state: Callable[[], object] = getattr(torch._C, "_get_tracing_state", lambda: None)  # noqa: SLF001
_batched: Callable[[torch.Tensor], bool] = getattr(_functorch, "is_batchedtensor", lambda _tensor: False)
_transformed: Callable[[torch.Tensor], bool] = getattr(_functorch, "is_functorch_wrapped_tensor", lambda _tensor: False)
_compiled_entries: Callable[[CodeType], list[Any]] = getattr(_dynamo, "_debug_get_cache_entry_list", lambda _code: [])
_call_code: CodeType | None = getattr(getattr(nn.Module, "_call_impl", None), "__code__", None)

modes: Callable[[], int] = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 0)  # noqa: SLF001
"""Return how many dispatch modes are active in this thread."""

unseen: Callable[[], AbstractContextManager[Any]] = getattr(torch._C, "_DisableTorchDispatch", nullcontext)  # noqa: SLF001
"""Return a context in which operations pass dispatch modes by.

Selective checkpointing is such a mode: it counts operations in forward and recomputation, and one more on one side
only would hand the backward pass the wrong tensors.
"""


def task_id() -> int:
    """Return which backward pass this thread is in, or -1 outside of any."""
    return _task_id()


def rerun() -> bool:
    """Return whether this thread recomputes a forward for a backward pass, or records one for the JIT."""
    return _task_id() != -1 or _tracing_state() is not None


def batched(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is one that `torch.func.vmap` passes in, whose values cannot be read."""
    return _batched(tensor)


def transformed(tensor: torch.Tensor) -> bool:
    """Return whether a tensor belongs to any `torch.func` transform."""
    return _transformed(tensor)


def calls_under_way(module: nn.Module) -> int:
    """Return how many calls of a module this thread is in, read off its stack."""
    frame, calls = sys._getframe(), 0  # noqa: SLF001
    while (caller := frame.f_back) is not None:
        frame = caller
        calls += frame.f_code is _call_code and frame.f_locals.get("self") is module
    return calls


class Traces:
    """Counts how often hooks of this process were traced into compiled code, where they do not run."""

    count = 0


def note_trace() -> None:
    """Count a trace; Dynamo runs this while it compiles, and puts nothing into the compiled code.

    It takes no argument and reads nothing: whatever told one hook from another would become a guard, and blocks
    that share their compiled code today would be compiled one by one.
    """
    Traces.count += 1


# What torch.compiler.assume_constant_result does, without the seconds that importing Dynamo takes.
note_trace._dynamo_marked_constant = True  # type: ignore[attr-defined]  # noqa: SLF001


def compiled_before(model: nn.Module) -> bool:
    """Return whether code of a model's classes has been compiled already; hooks put on later do not run in it."""
    if any(hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None for module in model.modules()):
        return True
    return any(_compiled_entries(code) for code in _entry_codes(model))


def _entry_codes(model: nn.Module) -> Iterator[CodeType]:
    """Yield the code objects at which compilation of a model can begin."""
    for cls in {type(module) for module in model.modules()}:
        if isinstance(code := getattr(cls.forward, "__code__", None), CodeType):
            yield code
    wrapper = getattr(sys.modules.get("torch._dynamo.external_utils"), "wrap_inline", None)
    for const in wrapper.__code__.co_consts if wrapper is not None else ():
        if isinstance(const, CodeType):
            yield const
