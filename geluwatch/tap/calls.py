"""Where a module's own code calls GELU as a function: read from its bytecode, before it has ever run.

The scan follows what Python would: global and enclosing names, attributes of modules, the instance's own attributes,
methods of its class, and the helper functions they call. What it cannot follow is found when it runs (see `ear`).
"""

from __future__ import annotations

import builtins
import dis
import functools
import inspect
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn import functional

Chain = tuple[tuple[CodeType, int], ...]
"""(code, bytecode offset) of a call and of the calls around it, up to and with the first that is a method of the owner."""

_DEPTH = 4
"""Helper functions deep; a formula is seldom more than one away."""

_GELUS = (
    functional.gelu,
    *(torch.ops.aten.gelu, torch.ops.aten.gelu.default, torch.ops.aten.gelu_, torch.ops.aten.gelu_.default),
)

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


_methods: WeakKeyDictionary[type, frozenset[CodeType]] = WeakKeyDictionary()


class Reader:
    """Reads the code of modules, once for all those of a class that hold the same functions."""

    def __init__(self) -> None:
        self._read: dict[tuple[object, ...], tuple[Call, ...]] = {}

    def calls_of(self, module: nn.Module) -> tuple[Call, ...]:
        """Return the GELU calls in a module's own code, in the order in which they run; library layers of torch are known to have none."""
        if type(module).__module__.startswith("torch.nn.modules") and not _has_function(module):
            return ()
        key = (type(module), *((name, id(value)) for name, value in vars(module).items() if callable(value)))
        if key not in self._read:
            self._read[key] = tuple(dict.fromkeys(_in_function(_forward(module), module, (), 0, set())))
        return self._read[key]


def is_gelu(thing: object) -> bool:
    """Return whether something is torch's GELU as a function, be it partially applied."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    return any(thing is known for known in _GELUS)


def methods_of(module: nn.Module) -> frozenset[CodeType]:
    """Return the code of a module's own methods, those of decorated ones included."""
    own = vars(module).get("forward")
    return _of_class(type(module)) | frozenset(code for function in _unwrapped(own) for code in _with_inner(function.__code__))


def _of_class(cls: type) -> frozenset[CodeType]:
    """Return the code of a class's methods."""
    if cls not in _methods:
        _methods[cls] = frozenset(_code_of(cls))
    return _methods[cls]


def _code_of(cls: type) -> Iterator[CodeType]:
    parents = itertools.takewhile(lambda parent: parent is not nn.Module, cls.__mro__)
    for function in (function for parent in parents for value in vars(parent).values() for function in _unwrapped(value)):
        yield from _with_inner(function.__code__)


def _with_inner(code: CodeType) -> Iterator[CodeType]:
    """Yield a function's code, and that of comprehensions and functions made inside it."""
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _with_inner(const)


def _has_function(module: nn.Module) -> bool:
    return any(is_gelu(value) or isinstance(value, (FunctionType, functools.partial)) for value in vars(module).values())


def _forward(module: nn.Module) -> object:
    return vars(module).get("forward") or inspect.getattr_static(type(module), "forward", None)


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
        method = function.__code__ in own
        names = _Names(function, module, own_name(function.__code__) if method else "")
        around: Chain = () if method else outer
        for code in _with_inner(function.__code__):
            for path, offset in _references(code, names.own):
                here: Chain = ((code, offset), *around) if offset >= 0 else ()
                for call in _behind(path[-1], names.resolve(path), module, here, depth, under_way | {function.__code__}):
                    attribute = path[1] if path[0] == names.own and len(path) == 2 and is_gelu(names.resolve(path)) else ""
                    yield replace(call, attribute=attribute) if attribute else call


def own_name(code: CodeType) -> str:
    """Return what a method calls its instance, "self" by custom; empty for a function without parameters."""
    return code.co_varnames[0] if code.co_argcount else ""


def _behind(name: str, target: object, module: nn.Module, here: Chain, depth: int, under_way: set[CodeType]) -> Iterator[Call]:
    """Yield what a name that is mentioned leads to: a GELU, those in a function, or a formula."""
    if is_gelu(target):
        yield Call(here)
    elif isinstance(target, (FunctionType, MethodType)) and _may_lead_to_gelu(target):
        inner = list(_in_function(target, module, here, depth + 1, under_way))
        if not inner and _spells_out(target, name):
            inner = [Call((), spelled=f"{target.__module__}.{target.__qualname__}")]
        yield from inner
    elif _is_other_gelu(target, name):
        yield Call((), spelled=f"{getattr(target, '__module__', None) or type(target).__name__}.{name}")


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

    def __init__(self, function: FunctionType, module: nn.Module, own: str) -> None:
        self.own = own
        self._globals: Mapping[str, Any] = function.__globals__
        self._free = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=False))
        self._module = module

    def resolve(self, path: tuple[str, ...]) -> object:
        """Return what a dotted path means, or None where that cannot be known without running something."""
        first, *rest = path
        if first == self.own:
            thing: object = self._module
        elif first == "super" and rest and "__class__" in self._free:
            after = next(_cells((self._free["__class__"],)), None)
            parents = itertools.islice(itertools.dropwhile(lambda cls: cls is not after, type(self._module).__mro__), 1, None)
            thing = next((vars(cls)[rest[0]] for cls in parents if rest[0] in vars(cls)), None)
            rest = rest[1:]
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
    if thing is torch.ops or isinstance(thing, type(torch.ops.aten)) or thing is torch.ops.aten.gelu or thing is torch.ops.aten.gelu_:
        return getattr(thing, name, None)
    if isinstance(thing, ModuleType):  # not asked for what it lacks: a module's own `__getattr__` may import for seconds, or raise
        return vars(thing).get(name)
    value = inspect.getattr_static(thing, name, None) if thing is not None else None
    if isinstance(value, (staticmethod, classmethod)):
        return value.__func__
    return None if isinstance(value, property) else value


@functools.lru_cache(maxsize=4096)
def _references(code: CodeType, own: str) -> tuple[tuple[tuple[str, ...], int], ...]:
    """Return (dotted path, offset of the call) for every name that the code calls or mentions, as they run; offset -1 without a call.

    The callee of a call begins where the call begins; of calls that begin there, `f(x)(y)`, the innermost ends first.
    """
    instructions = list(dis.get_instructions(code))
    calls: dict[tuple[int | None, int | None], list[tuple[tuple[int, int], int]]] = {}
    for step in instructions:
        at = step.positions
        if step.opname.startswith("CALL") and at is not None and at.lineno is not None and "INTRINSIC" not in step.opname:
            calls.setdefault((at.lineno, at.col_offset), []).append(((at.end_lineno or 0, at.end_col_offset or 0), step.offset))
    found: list[tuple[tuple[str, ...], int]] = []
    for path, step in _paths(instructions, own):
        at = step.positions
        around = [] if at is None or at.lineno is None else calls.get((at.lineno, at.col_offset), [])
        end = (0, 0) if at is None else (at.end_lineno or 0, at.end_col_offset or 0)
        found.append((path, min(((ends, offset) for ends, offset in around if ends > end), default=((0, 0), -1))[1]))
    return tuple(sorted(found, key=lambda mentioned: mentioned[1] if mentioned[1] >= 0 else len(code.co_code)))


def _paths(instructions: list[dis.Instruction], own: str) -> Iterator[tuple[tuple[str, ...], dis.Instruction]]:
    """Yield the dotted paths that instructions load, each with the instruction that ends it."""
    path: tuple[str, ...] = ()
    last: dis.Instruction | None = None
    for step in instructions:
        name = _loaded(step, own)
        if name:
            if path and last is not None:
                yield path, last
            path, last = (name,), step
        elif step.opname == "LOAD_SUPER_ATTR":
            path, last = ("super", str(step.argval)), step
        elif step.opname in {"LOAD_ATTR", "LOAD_METHOD"} and path:
            path, last = (*path, str(step.argval)), step
        elif path == ("super",) and step.opname in {"PRECALL", "CALL"}:
            continue
        elif step.opname not in {"CACHE", "PUSH_NULL", "PRECALL", "EXTENDED_ARG", "COPY_FREE_VARS"}:
            if path and last is not None:
                yield path, last
            path, last = (), None
    if path and last is not None:
        yield path, last


def _loaded(step: dis.Instruction, own: str) -> str:
    """Return the name that an instruction loads last: any but a local variable's, or the instance's own."""
    if step.opname in {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF"}:
        return str(step.argval)
    if "LOAD_FAST" not in step.opname:
        return ""
    # Newer Pythons load two variables at a time.
    local = step.argval[-1] if isinstance(step.argval, tuple) else step.argval
    return own if local == own else ""
