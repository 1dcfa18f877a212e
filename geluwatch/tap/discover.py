"""The census: every GELU module of a model, by class, with its declared formula.

Classes of other libraries are known by name, so that nothing is imported to look for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from torch import nn

from geluwatch.records import Site, State
from geluwatch.tap.names import stable

_TRANSFORMERS = {
    "GELUActivation": "erf",
    "GELUTanh": "tanh",
    "PytorchGELUTanh": "tanh",
    "NewGELUActivation": "tanh",
    "FastGELUActivation": "tanh",
    "AccurateGELUActivation": "tanh",
    "QuickGELUActivation": "quick",
    "ClippedGELUActivation": "erf",
    "BloomGelu": "tanh",
}

_CLIPPING = frozenset({"ClippedGELUActivation"})

_FUSED = "inside nn.TransformerEncoderLayer, whose fused path a hook would switch off"


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """One call site: its record, the GELU module, and the module that calls it."""

    site: Site
    module: nn.Module
    caller: nn.Module
    clips: bool
    """Whether the output can be finite where the input is not, so that the input has to be checked too."""


def discover(model: nn.Module, extra: tuple[type, ...] = ()) -> tuple[Found, ...]:
    """Return the GELU call sites of a model in module order; a module that is shared has one site per caller."""
    fused = fused_parts(model)
    found: list[Found] = []
    held = tuple(_gelus(model, extra))
    for layer, (_, caller, module) in zip(_distinct([layer for layer, _, _ in held]), held, strict=True):
        variant = variant_of(module, extra) or "other"
        state: State = "blind" if module in fused else "observed"
        site = Site(layer, len(found), "module", type(module).__name__, variant, state, _FUSED if module in fused else "")
        clips = variant == "other" or any(cls.__name__ in _CLIPPING for cls in type(module).__mro__)
        found.append(Found(site, module, caller, clips))
    return tuple(found)


def _distinct(layers: list[str]) -> list[str]:
    """Return names numbered "#0", "#1", ... where several would be the same without the wrappers' parts."""
    often = Counter(layers)
    numbers = {layer: count() for layer in often}
    return [f"{layer}#{next(numbers[layer])}" if often[layer] > 1 else layer for layer in layers]


def variant_of(module: nn.Module, extra: tuple[type, ...] = ()) -> str | None:
    """Return the declared formula of a GELU module ("erf", "tanh", "quick", "other"), or None if it is no GELU."""
    if isinstance(module, nn.GELU):
        return "tanh" if module.approximate == "tanh" else "erf"
    if extra and isinstance(module, extra):
        return "other"
    for cls in type(module).__mro__:
        if cls.__module__.partition(".")[0] == "transformers" and cls.__name__ in _TRANSFORMERS:
            return _TRANSFORMERS[cls.__name__]
    return None


def fused_parts(model: nn.Module) -> set[nn.Module]:
    """Return every module in which any hook would switch off a fused kernel."""
    return {inner for layer in model.modules() if isinstance(layer, nn.TransformerEncoderLayer) for inner in layer.modules()}


def _gelus(model: nn.Module, extra: tuple[type, ...]) -> Iterator[tuple[str, nn.Module, nn.Module]]:
    """Yield (layer, caller, GELU) over the module tree, a shared GELU once for each module that holds it.

    A GELU's own children are not entered: a class that wraps another GELU is one site.
    """
    if variant_of(model, extra) is not None:
        yield stable(""), model, model
        return
    seen: set[nn.Module] = set()
    held: set[tuple[nn.Module, nn.Module]] = set()
    stack: list[tuple[str, nn.Module | None, nn.Module]] = [("", None, model)]
    while stack:
        path, caller, module = stack.pop()
        if caller is not None and variant_of(module, extra) is not None:
            if (caller, module) not in held:
                held.add((caller, module))
                yield stable(path), caller, module
        elif module not in seen:
            seen.add(module)
            # The public iterators drop a child that is held twice, and a shared GELU is just that.
            children = module._modules.items()  # noqa: SLF001
            # A list or a dictionary of modules is never called itself: its owner is the caller.
            owner = caller if caller is not None and isinstance(module, (nn.ModuleList, nn.ModuleDict)) else module
            stack.extend((f"{path}.{name}", owner, child) for name, child in reversed(children) if child is not None)
