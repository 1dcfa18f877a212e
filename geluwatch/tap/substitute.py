"""A copy of a model in which another function stands in place of every GELU.

Modules are replaced by one of a class of ours wherever they are held. Calls of the function, and those of torch's fused encoder layer,
are answered by it where torch dispatches them (see `dispatch`). What is neither is named, with the reason.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from geluwatch.errors import AttachError
from geluwatch.tap import dispatch
from geluwatch.tap._compat import untapped
from geluwatch.tap.discover import SPARSE, Found, discover

Activation = Callable[[torch.Tensor], torch.Tensor]

_DISPATCHED = frozenset({"functional", "fused"})
"""Forms of sites whose calls are met where torch dispatches them."""


class Substitute(nn.Module):
    """Stands in place of a GELU module."""

    def __init__(self, compute: Activation) -> None:
        super().__init__()
        self.compute = compute

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return what stands in place of the GELU of values."""
        return self.compute(values)


class Swapped:
    """A copy of a model with another function in place of its GELUs; it shares the model's parameters, which nothing here writes to.

    Shared, so that a copy takes little memory, and none is slower than another because the caches hold another's weights.

    Args:
        model: The model; it is not touched.
        activation: Maps a tensor to one of the same shape. None: nothing is replaced.
        classes: Further classes of GELU modules.

    Raises:
        AttachError: The model cannot be copied.
    """

    def __init__(self, model: nn.Module, activation: Activation | None, classes: tuple[type, ...] = ()) -> None:
        self.model = shared_copy(model).eval()
        self.calls = 0
        """Calls that the function has answered."""
        self.kept: dict[str, str] = {}
        """Sites that could not be replaced, by layer, with the reason."""
        self._activation = activation
        found = discover(self.model, classes)
        self.dispatched = dispatch.available() and any(item.site.form in _DISPATCHED for item in found)
        """Whether some GELUs are met where torch dispatches them, on a way through Python that takes time of its own."""
        if activation is not None:
            for item in found:
                self._replace(item)

    @contextmanager
    def running(self) -> Iterator[nn.Module]:
        """Give the copy to run: within this context calls of the function are answered as well.

        Where nothing is replaced they go the same way to torch's own kernel, so that times can be compared; where the model makes no
        such calls, nothing stands in anybody's way.
        """
        if not self.dispatched:
            yield self.model
            return
        answer = dispatch.own_kernel if self._activation is None else lambda values, _approximate: self._answer(values)
        with dispatch.substituted(answer):
            yield self.model

    def _replace(self, item: Found) -> None:
        """Put the function in the place of a site, or note why that cannot be."""
        site, module = item.site, item.module
        if module is not None and item.producer is not None:
            self._put(module, nn.Sequential(item.producer, Substitute(self._answer)))
        elif module is not None and site.form == "module" and site.reason != SPARSE:
            self._put(module, Substitute(self._clipping(module) if item.clips else self._answer))
        elif module is not None and site.form == "gated" and not site.reason:
            self._put(module, Substitute(self._gate))
        elif site.form not in _DISPATCHED or not self.dispatched:
            self.kept[site.layer] = site.reason or "of a form that nothing can be put in the place of"

    def _put(self, old: nn.Module, new: nn.Module) -> None:
        """Put a module wherever another is held."""
        if old is self.model:
            self.model = new.eval()
        for holder in list(self.model.modules()):
            for name, child in list(holder._modules.items()):  # noqa: SLF001  # the public iterators drop one that is held twice
                if child is old and holder is not new:
                    setattr(holder, name, new.eval())

    def _answer(self, values: torch.Tensor) -> torch.Tensor:
        """Compute the function, whose own calls of GELU are not replaced."""
        assert self._activation is not None  # noqa: S101  # for the type checker
        self.calls += 1
        if not self.dispatched:
            return self._activation(values)
        with untapped():
            return self._activation(values)

    def _gate(self, values: torch.Tensor) -> torch.Tensor:
        gate, rest = values.chunk(2, dim=-1)
        return self._answer(gate) * rest

    def _clipping(self, module: nn.Module) -> Activation:
        """Return the function with the bounds that a clipping GELU sets to its own output."""
        low, high = getattr(module, "min", None), getattr(module, "max", None)
        if not all(isinstance(bound, (int, float)) for bound in (low, high)):
            return self._answer
        return lambda values: self._answer(values).clip(low, high)


def shared_copy(model: nn.Module) -> nn.Module:
    """Return a copy of a model that shares its parameters; buffers, which a pass may write to, are its own.

    Raises:
        AttachError: It cannot be copied.
    """
    try:
        return copy.deepcopy(model, {id(each): each for each in model.parameters()})
    except Exception as failure:
        raise AttachError(
            f"This {type(model).__name__} cannot be copied ({type(failure).__name__}: {failure}), and an experiment works on copies; give "
            "one that can be."
        ) from failure
