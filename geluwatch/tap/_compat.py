"""Private torch symbols, each looked up once and done without where a release lacks it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from types import CodeType, FrameType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

_functorch: Any = getattr(torch._C, "_functorch", None)  # noqa: SLF001
_dynamo: Any = getattr(getattr(torch._C, "_dynamo", None), "eval_frame", None)  # noqa: SLF001

_task_id: Callable[[], int] = getattr(torch._C, "_current_graph_task_id", lambda: -1)  # noqa: SLF001
_saved_hooks: Callable[[bool], object] = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", lambda _traced: None)  # noqa: SLF001
_tracing_state: Callable[[], object] = getattr(torch._C, "_get_tracing_state", lambda: None)  # noqa: SLF001
_batched: Callable[[torch.Tensor], bool] = getattr(_functorch, "is_batchedtensor", lambda _tensor: False)
_batched_of_old: Callable[[torch.Tensor], bool] = getattr(_functorch, "is_legacy_batchedtensor", lambda _tensor: False)
_unwrapped: Callable[[torch.Tensor], torch.Tensor] = getattr(_functorch, "get_unwrapped", lambda tensor: tensor)
_transformed: Callable[[torch.Tensor], bool] = getattr(_functorch, "is_functorch_wrapped_tensor", lambda _tensor: False)
_compiled_entries: Callable[[CodeType], list[Any]] = getattr(_dynamo, "_debug_get_cache_entry_list", lambda _code: [])
_call_code: CodeType | None = getattr(getattr(nn.Module, "_call_impl", None), "__code__", None)

_TAP_KEY = "TESTING_ONLY_GenericMode"
"""A dispatch key above all others that torch leaves free: included in a thread, it shows an operation to a Python kernel first."""

FUSED_CODE = frozenset(
    method.__code__ for name in ("forward", "_ff_block") if (method := getattr(nn.TransformerEncoderLayer, name, None)) is not None
)
"""Code of torch's encoder layer from which its GELU is called, on the fused path and on the other."""

_OPS_FILE = torch._ops.__file__  # noqa: SLF001

_NEAR = 8
"""Frames between a hook and what called its module."""

_include: Callable[[str, bool], None] | None = getattr(torch._C, "_dispatch_tls_set_dispatch_key_included", None)  # noqa: SLF001
_exclude: Callable[[Any], AbstractContextManager[Any]] | None = getattr(torch._C, "_ExcludeDispatchKeyGuard", None)  # noqa: SLF001
_libraries: list[Any] = []

_profiling: Callable[[], bool] = getattr(torch._C._autograd, "_profiler_enabled", lambda: False)  # noqa: SLF001

_mode_at: Callable[[int], object] = getattr(torch._C, "_get_function_stack_at", lambda _place: None)  # noqa: SLF001
dispatch_modes: Callable[[], int] = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 0)  # noqa: SLF001
function_modes: Callable[[], int] = getattr(torch._C, "_len_torch_function_stack", lambda: 0)  # noqa: SLF001
_no_dispatch: Callable[[], AbstractContextManager[Any]] = getattr(torch._C, "_DisableTorchDispatch", nullcontext)  # noqa: SLF001
_no_function: Callable[[], AbstractContextManager[Any]] = getattr(torch._C, "DisableTorchFunction", nullcontext)  # noqa: SLF001


def modes() -> int:
    """Return how many modes, of functions or of dispatch, are active in this thread."""
    return dispatch_modes() + function_modes()


def unseen() -> AbstractContextManager[Any]:
    """Return a context in which operations pass modes by.

    Selective checkpointing is such a mode: it counts operations in forward and recomputation, and one more on one side
    only would hand the backward pass the wrong tensors.
    """
    return _Unseen() if modes() else _NOTHING


class _Unseen:
    def __enter__(self) -> None:
        self._contexts = (_no_dispatch(), _no_function())
        for context in self._contexts:
            context.__enter__()

    def __exit__(self, *error: object) -> None:
        for context in reversed(self._contexts):
            context.__exit__(None, None, None)


_NOTHING = nullcontext()


def capturing(device: torch.device) -> bool:
    """Return whether this thread records a CUDA graph, in which a copy to the host, or a question to an event, is an error."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def profiler_running() -> bool:
    """Return whether a profiler runs in this process: torch has one for all threads."""
    return bool(_profiling()) or bool(getattr(torch.autograd.profiler, "_is_profiler_enabled", False))


def task_id() -> int:
    """Return which backward pass this thread is in, or -1 outside of any."""
    return _task_id()


def rerun() -> bool:
    """Return whether this thread recomputes a forward for a backward pass, or records one for the JIT."""
    return _task_id() != -1 or _tracing_state() is not None


def recorded_anew() -> bool:
    """Return whether what this thread recomputes for a backward pass has a graph that the pass goes through, as in a reentrant checkpoint.

    The other kind of checkpoint takes from it, by hooks, only what was saved, and breaks it off there.
    """
    return _task_id() != -1 and _saved_hooks(True) is None


def batched(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is one that `torch.func.vmap` passes in, whose values cannot be read."""
    return _batched(tensor)


def vectorised(gradient: torch.Tensor) -> bool:
    """Return whether a gradient stands for many, as in derivatives that torch computes all at once: its values cannot be read."""
    return _batched_of_old(gradient) or unreadable(gradient)


def unreadable(tensor: torch.Tensor) -> bool:
    """Return whether a tensor, or one that a transform has wrapped in it, is of `torch.func.vmap`."""
    while _transformed(tensor):
        if _batched(tensor):
            return True
        tensor = _unwrapped(tensor)
    return False


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


def tap_kernels(kernels: Mapping[str, Callable[..., Any]]) -> bool:
    """Put Python kernels in front of `aten` operations, for threads that `tapped` turns them on in; False where torch has no way.

    Every other operation falls through the key at no cost: the dispatcher skips it in a table made beforehand.
    """
    if _include is None or not hasattr(torch.library, "fallthrough_kernel"):
        return False
    if not _libraries:
        try:
            rest, aten = (torch.library.Library(namespace, "IMPL") for namespace in ("_", "aten"))  # type: ignore[no-untyped-call]  # torch's own
            _libraries.extend((rest, aten))  # kept, for a library takes its kernels along when it goes
            rest.fallback(torch.library.fallthrough_kernel, _TAP_KEY)  # type: ignore[no-untyped-call]  # torch's own
            _spare_higher_order()
            for name, kernel in kernels.items():
                aten.impl(name, kernel, _TAP_KEY)  # type: ignore[no-untyped-call]  # torch's own
        except (AttributeError, RuntimeError, ValueError):  # another release, or the key is another's
            _libraries.clear()
            return False
    return True


def _spare_higher_order() -> None:
    """Have higher-order operations (`cond`, `flex_attention`) pass the key by: they dispatch in Python, from a table each."""
    key = torch._C._dispatch_key_parse(_TAP_KEY)  # noqa: SLF001
    ops = torch._ops  # noqa: SLF001
    ops._HIGHER_ORDER_OP_DEFAULT_FALLTHROUGH_DISPATCH_KEYS.append(key)  # noqa: SLF001
    for operation in ops._higher_order_ops.values():  # noqa: SLF001
        operation.fallthrough(key)  # type: ignore[no-untyped-call]  # torch's own


def tapped(on: bool) -> None:  # a setter
    """Turn the kernels of `tap_kernels` on or off for this thread."""
    if _include is not None:
        _include(_TAP_KEY, on)


def enter_function_mode(mode: TorchFunctionMode) -> None:
    """Enter a mode of functions in this thread."""
    torch._C._push_on_torch_function_stack(mode)  # noqa: SLF001


def leave_function_mode(mode: TorchFunctionMode) -> None:
    """Leave a mode of functions wherever it lies in this thread; nothing happens where it is not on.

    Others may have been entered since, or have been left in its stead: what lies on top need not be ours.
    """
    if not any(_mode_at(place) is mode for place in range(function_modes())):
        return
    above: list[TorchFunctionMode] = []
    while (top := torch._C._pop_torch_function_stack()) is not mode:  # noqa: SLF001
        above.append(top)
    for other in reversed(above):
        enter_function_mode(other)


def compiled_in_place(module: nn.Module) -> bool:
    """Return whether a module's own call has been compiled."""
    return getattr(module, "_compiled_call_impl", None) is not None


def scale_of(scaler: Any) -> torch.Tensor | float | None:
    """Return a GradScaler's scale as it lies there, None where it is off: `get_scale` would wait for a device."""
    if scaler is None or not scaler.is_enabled():
        return None
    held = getattr(scaler, "_scale", None)
    return held if isinstance(held, torch.Tensor) else float(scaler.get_scale())


def traces_speech() -> bool:
    """Return whether this release is known to trace effects and function modes within hooks, checkpoints and DDP."""
    major, minor = torch.__version__.split(".")[:2]
    return (int(major), int(minor)) >= (2, 13)


def untapped() -> AbstractContextManager[Any]:
    """Return a context in which this thread's calls pass the kernels of `tap_kernels` by."""
    return _exclude(_tap_keys()) if _exclude is not None else _Untapped()


@cache
def _tap_keys() -> Any:
    return torch._C.DispatchKeySet(torch._C._dispatch_key_parse(_TAP_KEY))  # noqa: SLF001


class _Untapped:
    def __enter__(self) -> None:
        tapped(False)

    def __exit__(self, *error: object) -> None:
        tapped(True)


def effectful(operation: Any) -> bool:
    """Have compilers keep every call of an operation without outputs, in order; False where torch has no way."""
    try:
        from torch._higher_order_ops.effects import _EffectType, _register_effectful_op
    except ImportError:
        return False
    _register_effectful_op(operation, _EffectType.ORDERED)
    return True


def never_compiled_alone(code: CodeType) -> None:
    """Have Dynamo run a function as it stands where it meets its frame by itself; inside other code it is still traced.

    A module's hooks are such frames where its call is what was compiled, and each would become compiled code of its own.
    """
    if all(hasattr(_dynamo, name) for name in ("set_code_exec_strategy", "_FrameExecStrategy", "_FrameAction")):
        skip = _dynamo._FrameAction.SKIP  # noqa: SLF001
        _dynamo.set_code_exec_strategy(code, _dynamo._FrameExecStrategy(skip, skip))  # noqa: SLF001


def compiler_loaded() -> bool:
    """Return whether Dynamo has been loaded in this process, so that there may be compiled code."""
    return "torch._dynamo.convert_frame" in sys.modules


def called_by_compiler() -> bool:
    """Return whether the module whose hook runs was called by `torch.compile`, read off this thread's stack."""
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001
    for _ in range(_NEAR):
        if frame is None:
            return False
        if frame.f_code.co_name == "compile_wrapper" and "_dynamo" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def runs_module(frame: FrameType) -> nn.Module | None:
    """Return the module whose call a frame of torch's own makes, None for any other frame."""
    if frame.f_code is not _call_code:
        return None
    module = local_of(frame, "self")
    return module if isinstance(module, nn.Module) else None


def of_torchs_modules(code: CodeType) -> bool:
    """Return whether code is torch's own around a module's forward."""
    return _call_code is not None and code.co_filename == _call_code.co_filename


def between(code: CodeType) -> bool:
    """Return whether code only stands between a call and what is called: torch's own, and that of modes."""
    return code.co_name == "__torch_function__" or of_torchs_modules(code) or code.co_filename == _OPS_FILE


def offset_of(code: CodeType, last: int) -> int:
    """Return where the call begins that a frame is in: some Pythons say where its inline caches end."""
    instructions = code.co_code
    while last > 0 and instructions[last] == 0:
        last -= 2
    return last


def local_of(frame: FrameType, name: str) -> object:
    """Return a local variable of a frame of torch's own, without leaving references to its other ones behind.

    Before Python 3.13 the frame keeps the dictionary of locals that is made for this, and tensors in it would live on.
    """
    values = frame.f_locals
    value = values.get(name)
    if isinstance(values, dict):
        values.clear()
    return value


def compiled_before(model: nn.Module) -> bool:
    """Return whether code of a model's classes has been compiled already; hooks put on later do not run in it."""
    if any(hasattr(module, "_orig_mod") or compiled_in_place(module) for module in model.modules()):
        return True
    return any(_compiled_entries(code) for code in _entry_codes(model))


def _entry_codes(model: nn.Module) -> Iterator[CodeType]:
    """Yield the code objects at which compilation of a model can begin."""
    for cls in {type(module) for module in model.modules()}:
        # Asked without a descriptor's help: a scripted module's cannot be asked of its class.
        if isinstance(code := getattr(inspect.getattr_static(cls, "forward", None), "__code__", None), CodeType):
            yield code
    wrapper = getattr(sys.modules.get("torch._dynamo.external_utils"), "wrap_inline", None)
    for const in wrapper.__code__.co_consts if wrapper is not None else ():
        if isinstance(const, CodeType):
            yield const
