"""Where a module's own code calls GELU as a function: read from its bytecode, before it has ever run.

The scan follows what Python would: global and enclosing names, attributes of modules, the instance's own attributes,
methods of its class, and the helper functions they call. What it cannot follow is found when it runs (see `heard`).
"""

from __future__ import annotations

import builtins
import dis
import functools
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn import functional

Chain = tuple[tuple[CodeType, int], ...]
"""(code, bytecode offset) of a call and of the calls around it, up to and with the first that is a method of the owner."""

_DEPTH = 4
"""Helper functions deep; a formula is seldom more than one away."""

_MARKS = frozenset({"erf", "tanh", "sigmoid"})
"""What a GELU spelled out calls, by name."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of GELU as a function in a module's own code."""

    chain: Chain
    """Empty where the call cannot be told apart at run time."""
    attribute: str = ""
    """Name of the instance's attribute that holds the function; empty where it is not the instance's."""
    spelled: str = ""
    """Qualified name of the function that spells the formula out; empty for torch's own."""


def calls_of(module: nn.Module) -> tuple[Call, ...]:
    """Return the GELU calls in a module's own code, in textual order; library layers of torch are known to have none."""
    if type(module).__module__.startswith("torch.nn.modules") and not _has_function(module):
        return ()
    found: dict[Call, None] = {}
    for call in _in_function(_forward(module), module, (), 0, set()):
        found.setdefault(call)
    return tuple(found)


def is_gelu(thing: object) -> bool:
    """Return whether something is torch's GELU as a function, be it partially applied."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    return thing is functional.gelu or thing is torch.ops.aten.gelu or thing is torch.ops.aten.gelu.default


def methods_of(module: nn.Module) -> frozenset[CodeType]:
    """Return the code of a module's own methods, those of decorated ones included."""
    codes: set[CodeType] = set()
    for cls in type(module).__mro__:
        if cls is nn.Module:
            break
        for value in vars(cls).values():
            codes.update(code for function in _unwrapped(value) for code in _with_inner(function.__code__))
    codes.update(code for function in _unwrapped(vars(module).get("forward")) for code in _with_inner(function.__code__))
    return frozenset(codes)


def _with_inner(code: CodeType) -> Iterator[CodeType]:
    """Yield a function's code, and that of comprehensions and functions made inside it."""
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _with_inner(const)


def _has_function(module: nn.Module) -> bool:
    return any(is_gelu(value) for value in vars(module).values())


def _forward(module: nn.Module) -> object:
    return vars(module).get("forward") or type(module).forward


def _unwrapped(value: object) -> Iterator[FunctionType]:
    """Yield the Python functions behind a method: itself, and those that decorators have closed over."""
    seen: list[object] = [value]
    for thing in seen:
        if isinstance(thing, (staticmethod, classmethod, MethodType)):
            seen.append(thing.__func__)
        elif isinstance(thing, functools.partial):
            seen.append(thing.func)
        elif isinstance(thing, FunctionType) and len(seen) < 2 * _DEPTH:
            yield thing
            seen.extend(content for content in _cells(thing.__closure__) if isinstance(content, (FunctionType, MethodType)))


def _cells(closure: tuple[CellType, ...] | None) -> Iterator[object]:
    for cell in closure or ():
        try:
            yield cell.cell_contents
        except ValueError:  # an empty cell
            continue


def _in_function(thing: object, module: nn.Module, outer: Chain, depth: int, under_way: set[CodeType]) -> Iterator[Call]:
    """Yield the calls in a function and in those it calls; `outer` are the calls that lead from the owner's method to it."""
    own = methods_of(module)
    for function in _unwrapped(thing):
        if function.__code__ in under_way or depth > _DEPTH:
            continue
        names = _Names(function, module)
        around: Chain = () if function.__code__ in own else outer
        for code in _with_inner(function.__code__):
            for path, offset in _references(code):
                here: Chain = ((code, offset), *around) if offset >= 0 else ()
                yield from _behind(path, names.resolve(path), module, here, depth, under_way | {function.__code__})


def _behind(path: tuple[str, ...], target: object, module: nn.Module, here: Chain, depth: int, under_way: set[CodeType]) -> Iterator[Call]:
    """Yield what a name that is mentioned leads to: a GELU, those in a function, or a formula."""
    if is_gelu(target):
        yield Call(here, path[1] if path[0] == "self" and len(path) == 2 else "")
    elif isinstance(target, (FunctionType, MethodType)) and _may_lead_to_gelu(target):
        inner = list(_in_function(target, module, here, depth + 1, under_way))
        if not inner and _spells_out(target, path[-1]):
            inner = [Call((), spelled=f"{target.__module__}.{target.__qualname__}")]
        yield from inner
    elif _is_other_gelu(target, path[-1]):
        yield Call((), spelled=f"{getattr(target, '__module__', None) or type(target).__name__}.{path[-1]}")


def _may_lead_to_gelu(function: FunctionType | MethodType) -> bool:
    """Return whether a function is worth reading: torch's own call no GELU, but for its layers."""
    module = function.__module__ or ""
    return not module.startswith("torch") or module.startswith("torch.nn.modules")


def _spells_out(function: FunctionType | MethodType, name: str) -> bool:
    """Return whether a function with "gelu" in its name computes one by itself."""
    if "gelu" not in f"{name} {function.__name__}".lower():
        return False
    return bool(_MARKS & {part for inner in _unwrapped(function) for part in inner.__code__.co_names})


def _is_other_gelu(target: object, name: str) -> bool:
    """Return whether something that is called is a GELU by its name, and no function that could be read: a compiled one, say."""
    if target is None or not callable(target) or isinstance(target, (type, nn.Module, FunctionType, MethodType)):
        return False
    return "gelu" in name.lower()


class _Names:
    """What names mean in a function of a module."""

    def __init__(self, function: FunctionType, module: nn.Module) -> None:
        self._globals: Mapping[str, Any] = function.__globals__
        self._free = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=False))
        self._module = module

    def resolve(self, path: tuple[str, ...]) -> object:
        """Return what a dotted path means, or None where that cannot be known without running something."""
        first, *rest = path
        if first == "self":
            thing: object = self._module
        elif first in self._free:
            thing = next(_cells((self._free[first],)), None)
        else:
            thing = self._globals.get(first, getattr(builtins, first, None))
        for name in rest:
            thing = _attribute(thing, name)
        return thing


def _attribute(thing: object, name: str) -> object:
    """Return an attribute without running code of the user's, which a property would."""
    if isinstance(thing, nn.Module):
        for place in ("_modules", "_parameters", "_buffers"):
            if name in vars(thing).get(place, ()):
                return vars(thing)[place][name]
    if isinstance(thing, ModuleType) or thing is torch.ops or isinstance(thing, type(torch.ops.aten)):
        return getattr(thing, name, None)
    if thing is torch.ops.aten.gelu:
        return getattr(thing, name, None)
    value = inspect.getattr_static(thing, name, None) if thing is not None else None
    return None if isinstance(value, property) else value


@functools.lru_cache(maxsize=4096)
def _references(code: CodeType) -> tuple[tuple[tuple[str, ...], int], ...]:
    """Return (dotted path, offset of the call) for every name that the code calls or mentions; offset -1 without a call.

    The callee of a call begins where the call begins; of calls that begin there, `f(x)(y)`, the innermost ends first.
    """
    instructions = list(dis.get_instructions(code))
    calls: dict[tuple[int | None, int | None], list[tuple[tuple[int, int], int]]] = {}
    for step in instructions:
        at = step.positions
        if step.opname.startswith("CALL") and at is not None and at.lineno is not None and "INTRINSIC" not in step.opname:
            calls.setdefault((at.lineno, at.col_offset), []).append(((at.end_lineno or 0, at.end_col_offset or 0), step.offset))
    found: list[tuple[tuple[str, ...], int]] = []
    for path, step in _paths(instructions):
        at = step.positions
        around = [] if at is None or at.lineno is None else calls.get((at.lineno, at.col_offset), [])
        end = (0, 0) if at is None else (at.end_lineno or 0, at.end_col_offset or 0)
        found.append((path, min(((ends, offset) for ends, offset in around if ends > end), default=((0, 0), -1))[1]))
    return tuple(found)


def _paths(instructions: list[dis.Instruction]) -> Iterator[tuple[tuple[str, ...], dis.Instruction]]:
    """Yield the dotted paths that instructions load, each with the instruction that ends it."""
    path: tuple[str, ...] = ()
    last: dis.Instruction | None = None
    for step in instructions:
        if step.opname in {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF"} or _loads_self(step):
            if path and last is not None:
                yield path, last
            path, last = (str(step.argval),), step
        elif step.opname in {"LOAD_ATTR", "LOAD_METHOD"} and path:
            path, last = (*path, str(step.argval)), step
        elif step.opname not in {"CACHE", "PUSH_NULL", "PRECALL", "EXTENDED_ARG", "COPY_FREE_VARS"}:
            if path and last is not None:
                yield path, last
            path, last = (), None
    if path and last is not None:
        yield path, last


def _loads_self(step: dis.Instruction) -> bool:
    return step.opname.startswith("LOAD_FAST") and step.argval == "self"
