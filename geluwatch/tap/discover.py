"""The census: every GELU call site of a model, with its form and declared formula, before it has run.

Module classes of other libraries are known by name, so that nothing is imported to look for them. Calls of GELU as a
function are read from the code of the modules that make them (see `calls`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import TypeGuard

from torch import nn

from geluwatch.records import Site
from geluwatch.tap import dispatch
from geluwatch.tap.calls import Chain, Reader, is_gelu
from geluwatch.tap.names import stable

_MODULES = {
    "transformers": {
        "GELUActivation": "erf",
        "GELUTanh": "tanh",
        "PytorchGELUTanh": "tanh",
        "NewGELUActivation": "tanh",
        "FastGELUActivation": "tanh",
        "AccurateGELUActivation": "tanh",
        "QuickGELUActivation": "quick",
        "ClippedGELUActivation": "erf",
        "BloomGelu": "tanh",
        "GeLU": "erf",
    },
    "timm": {"GELU": "erf", "GELUTanh": "tanh", "QuickGELU": "quick"},
    "vllm": {"NewGELU": "tanh", "FastGELU": "tanh", "QuickGELU": "quick"},
    "sglang": {"NewGELU": "tanh", "FastGELU": "tanh", "QuickGELU": "quick"},
}
"""Declared formula of a module class, by the package that it is from."""

_GATED = {"vllm": frozenset({"GeluAndMul"}), "sglang": frozenset({"GeluAndMul"})}
"""Modules that multiply the GELU of the first half of their input by the second; `approximate` says which formula."""

_UNREADABLE = {"vllm": frozenset({"GeluAndMulSparse"})}
"""Modules in which the GELU's own input is made anew."""

_SPELLED_BEHIND = {"transformers": {"EsmIntermediate": "dense", "EvollaSaProtIntermediate": "dense"}}
"""Classes that return a spelled-out formula of what one of their parts gives: that part, by name."""

_CLIPPING = frozenset({"ClippedGELUActivation"})

_NO_KERNELS = "called as a function, which this release of torch has no way to observe"
_INSIDE_FUSED = "inside nn.TransformerEncoderLayer, whose fused path a hook would switch off"
SPARSE = "the input of its GELU is thinned inside the module, where no hook reaches"
_UNKNOWN = "a class that is not known; if it is a GELU, name it: Config(gelu_classes=({},))"
_SPELLED = "spelled out in {}, which is no module: put it into one, and name its class in Config(gelu_classes=...)"


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """One call site: its record, and where it is to be met."""

    site: Site
    caller: nn.Module
    """The module whose forward makes the call."""
    module: nn.Module | None = None
    """The module that computes the GELU, where there is one to hook."""
    producer: nn.Module | None = None
    """The part of `module` whose output is the GELU's input, where `module` computes more than the GELU."""
    chain: Chain = ()
    """The code that makes the call, where a function is called; empty where that shows only when it runs."""
    clips: bool = False
    """Whether the output can be finite where the input is not, so that the input has to be checked too."""


def discover(model: nn.Module, extra: tuple[type, ...] = ()) -> tuple[Found, ...]:
    """Return the GELU call sites of a model in module order; a module that is shared has one site per caller."""
    found = tuple(_walk(model, extra))
    layers = _distinct([item.site.layer for item in found])
    return tuple(
        replace(item, site=replace(item.site, layer=layer, position=position))
        for position, (item, layer) in enumerate(zip(found, layers, strict=True))
    )


def strangers(found: tuple[Found, ...]) -> list[str]:
    """Return the names of classes that are not known and may be GELUs, by their name."""
    kinds = dict.fromkeys(item.site.kind for item in found)
    return [kind for kind in kinds if any(item.site.reason == _UNKNOWN.format(kind) for item in found)]


def variant_of(module: nn.Module, extra: tuple[type, ...] = ()) -> str | None:
    """Return the declared formula of a GELU module ("erf", "tanh", "quick", "other"), or None if it is no GELU."""
    if isinstance(module, nn.GELU):
        return _declared(module)
    if extra and isinstance(module, extra):
        return "other"
    for package, name in _ancestry(module):
        if name in _MODULES.get(package, ()):
            return _MODULES[package][name]
        if name in _GATED.get(package, ()) or name in _UNREADABLE.get(package, ()):
            return _declared(module)
    return None


def gated(module: nn.Module) -> bool:
    """Return whether a GELU module multiplies by another half of its input."""
    return any(name in _GATED.get(package, ()) for package, name in _ancestry(module))


def fused_parts(model: nn.Module) -> set[nn.Module]:
    """Return every module in which any hook would switch off a fused kernel."""
    return {inner for layer in model.modules() if _can_fuse(layer) for inner in layer.modules()}


def _can_fuse(module: nn.Module) -> TypeGuard[nn.TransformerEncoderLayer]:
    """Return whether a module is torch's encoder layer with an activation that its fused path knows, ReLU or GELU."""
    return isinstance(module, nn.TransformerEncoderLayer) and bool(getattr(module, "activation_relu_or_gelu", 0))


def _declared(module: nn.Module) -> str:
    return "tanh" if getattr(module, "approximate", "none") == "tanh" else "erf"


def _ancestry(module: nn.Module) -> Iterator[tuple[str, str]]:
    for cls in type(module).__mro__:
        yield cls.__module__.partition(".")[0], cls.__name__


def _distinct(layers: list[str]) -> list[str]:
    """Return names numbered "#0", "#1", ... where several would be the same without the wrappers' parts."""
    often = Counter(layers)
    numbers = {layer: count() for layer in often}
    return [f"{layer}#{next(numbers[layer])}" if often[layer] > 1 else layer for layer in layers]


def _walk(model: nn.Module, extra: tuple[type, ...]) -> Iterator[Found]:
    """Yield the call sites over the module tree, a shared GELU once for each module that holds it.

    A GELU's own children are not entered: a class that wraps another GELU is one site.
    """
    if variant_of(model, extra) is not None:
        yield _of_module(stable(""), model, model, extra)
        return
    reader, parts = Reader(), fused_parts(model)
    seen: set[nn.Module] = set()
    held: set[tuple[nn.Module, nn.Module]] = set()
    stack: list[tuple[str, nn.Module | None, nn.Module]] = [("", None, model)]
    while stack:
        path, caller, module = stack.pop()
        if caller is not None and variant_of(module, extra) is not None:
            if (caller, module) not in held:
                held.add((caller, module))
                yield _of_module(stable(path), module, caller, extra, fused=module in parts)
        elif module not in seen:
            seen.add(module)
            encoder = _can_fuse(module)
            if _can_fuse(module):
                yield from _of_encoder(path, module)
            else:
                calls = tuple(_of_calls(path, module, reader, fused=module in parts))
                yield from calls if calls or not _may_be_one(module) else (_of_stranger(path, module),)
            # The public iterators drop a child that is held twice, and a shared GELU is just that.
            children = module._modules.items()  # noqa: SLF001
            # A list or a dictionary of modules is never called itself: its owner is the caller.
            owner = caller if caller is not None and isinstance(module, (nn.ModuleList, nn.ModuleDict)) else module
            stack.extend(
                (f"{path}.{name}", owner, child)
                for name, child in reversed(children)
                if child is not None and not (encoder and name == "activation")
            )


def _of_module(layer: str, module: nn.Module, caller: nn.Module, extra: tuple[type, ...], *, fused: bool = False) -> Found:
    """Return the site of a GELU module."""
    variant = variant_of(module, extra) or "other"
    reason = _INSIDE_FUSED if fused else ""
    if any(name in _UNREADABLE.get(package, ()) for package, name in _ancestry(module)):
        reason = SPARSE
    site = Site(layer, 0, "gated" if gated(module) else "module", type(module).__name__, variant)
    clips = variant == "other" or any(name in _CLIPPING for _, name in _ancestry(module))
    return Found(_blind(site, reason), caller, module, clips=clips)


def _may_be_one(module: nn.Module) -> bool:
    """Return whether a module of a class that is not known is called a GELU, and spells it out itself."""
    return "gelu" in type(module).__name__.lower() and not module._modules  # noqa: SLF001  # the public iterators make a list of them


def _of_stranger(path: str, module: nn.Module) -> Found:
    kind = type(module).__name__
    return Found(Site(stable(path), 0, "formula", kind, "other", "blind", _UNKNOWN.format(kind)), module)


def _of_encoder(path: str, module: nn.TransformerEncoderLayer) -> Iterator[Found]:
    """Yield the site of torch's encoder layer: one, whether the activation is a module, a function, or fused."""
    activation = module.activation
    function = "erf" if is_gelu(activation) else None
    variant = variant_of(activation) if isinstance(activation, nn.Module) else function
    if variant is not None:
        site = Site(stable(f"{path}.activation"), 0, "fused", type(module).__name__, variant)
        # The root's own hooks would switch the fused path off as any other.
        yield Found(_blind(site, "" if path and dispatch.available() else _INSIDE_FUSED), module)


def _of_calls(path: str, module: nn.Module, reader: Reader, *, fused: bool) -> Iterator[Found]:
    """Yield the sites of a module's own calls of GELU as a function."""
    for call in reader.calls_of(module):
        producer = _producer(module) if call.spelled else None
        if producer is not None:
            site = Site(stable(path), 0, "formula", type(module).__name__, "erf")
            yield Found(_blind(site, _INSIDE_FUSED if fused else ""), module, module, producer=producer)
            continue
        site = Site(
            stable(f"{path}.{call.attribute}"),
            0,
            "formula" if call.spelled else "functional",
            type(module).__name__,
            "other" if call.spelled else "erf",
        )
        reason = _SPELLED.format(call.spelled) if call.spelled else _INSIDE_FUSED if fused else ""
        if not reason and not dispatch.available():
            reason = _NO_KERNELS
        yield Found(_blind(site, reason), module, chain=call.chain)


def _producer(module: nn.Module) -> nn.Module | None:
    """Return the part of a known class whose output goes straight into the formula whose result the class returns."""
    for package, name in _ancestry(module):
        if name in _SPELLED_BEHIND.get(package, ()):
            part = getattr(module, _SPELLED_BEHIND[package][name], None)
            return part if isinstance(part, nn.Module) else None
    return None


def _blind(site: Site, reason: str) -> Site:
    return replace(site, state="blind", reason=reason) if reason else site
