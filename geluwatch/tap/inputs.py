"""Inputs of forward passes as records without torch, back again, and an even sample of those that traffic brings."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch

from geluwatch import log
from geluwatch.core.probe import MOST_BYTES, nbytes
from geluwatch.errors import ProbeError
from geluwatch.records import Bfloat16, ProbeInput, Tree
from geluwatch.tap._compat import capturing, unseen

_PLAIN = (bool, int, float, str, type(None))
_NUMBERS = "biufc"
"""Kinds of numpy's dtypes that are numbers."""

_MOST_LEAVES = 10_000


def kept(item: object) -> ProbeInput:
    """Return what a pass is sent as a record: a mapping is its keyword arguments, a tuple its positional ones, anything else the only one.

    Raises:
        ProbeError: It holds something else than tensors, arrays, plain values, and dictionaries, lists and tuples of them.
    """
    if isinstance(item, ProbeInput):
        return item
    if isinstance(item, Mapping):
        return ProbeInput((), _kept(item, "the input"))
    return ProbeInput(_kept(item if isinstance(item, tuple) else (item,), "the input"), {})


def given(item: ProbeInput, device: torch.device, cast: tuple[torch.dtype, torch.dtype] | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a pass: arrays as tensors of their own on a device.

    Args:
        item: The record.
        device: Where the tensors go.
        cast: A dtype, and the one that tensors of it are cast to; None leaves all as they are.
    """
    return _given(item.args, device, cast), _given(dict(item.kwargs), device, cast)


class Reservoir:
    """An even sample of passes' inputs: each pass has the same chance to be in it.

    Copies stay on the device that the tensors are on, for to fetch them would be a wait. Inputs that hold something that no
    probe can keep, or that take more than their share of the memory, are left out, and the first is told of.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._seen = 0
        self._held: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self._random = random.Random(0x6E1)  # noqa: S311  # no secret is drawn, and torch's generators are the model's
        self._told = False

    def offer(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Take the inputs of a pass that begins, or do not."""
        self._seen += 1
        place = len(self._held) if len(self._held) < self._size else self._random.randrange(self._seen)
        if place >= self._size:
            return
        share = MOST_BYTES // self._size
        if not _keepable(args, kwargs):
            self._leave_out("they hold something that no probe can keep, or too many values")
            return
        if (size := nbytes((args, kwargs))) > share:
            self._leave_out(f"they take {size} bytes, and each of {self._size} may take {share}; set a smaller Config(capture_inputs=...)")
            return
        with unseen():
            copy = copied(args), copied(kwargs)
        self._held[place : place + 1] = [copy]  # one more at the end, or in another's place

    def sample(self) -> tuple[ProbeInput, ...]:
        """Return what is held, fetched from its device."""
        found = []
        for args, kwargs in tuple(self._held):
            try:
                found.append(ProbeInput(_kept(args, "an input"), _kept(kwargs, "an input")))
            except ProbeError as error:  # of a dtype that cannot be kept, which is not looked at while a pass waits
                self._leave_out(str(error))
        return tuple(found)

    def _leave_out(self, why: str) -> None:
        if not self._told:
            self._told = True
            log.say(log.WARNING, "inputs of a pass are not captured for a probe: %s", why)


def _kept(value: Any, place: str) -> Tree:
    if isinstance(value, np.generic):
        return _kept(value.item(), place)
    if type(value) in _PLAIN or isinstance(value, Bfloat16):
        return value
    if isinstance(value, torch.Tensor):
        return _array(value, place)
    if isinstance(value, np.ndarray) and value.dtype.kind in _NUMBERS:
        return np.array(value, dtype=value.dtype.newbyteorder("="), order="C")
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {str(key): _kept(part, f"{place}[{key!r}]") for key, part in value.items()}
    if type(value) in (list, tuple, torch.Size):
        parts = [_kept(part, f"{place}[{number}]") for number, part in enumerate(value)]
        return parts if isinstance(value, list) else tuple(parts)
    raise ProbeError(
        f"A probe keeps tensors, arrays, plain values, and dictionaries, lists and tuples of them; {place} is a {type(value).__name__}: "
        "leave it out, or give what it is made of."
    )


def _array(tensor: torch.Tensor, place: str) -> Tree:
    try:
        values = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
        if values.dtype is torch.bfloat16:
            return Bfloat16(np.array(values.view(torch.int16).numpy()).view(np.uint16))
        return np.array(values.numpy())
    except (RuntimeError, TypeError, NotImplementedError):  # sparse, quantised, nested, or of a dtype that numpy lacks
        raise ProbeError(
            f"A probe keeps dense tensors of numpy's dtypes and of bfloat16; {place} is of {tensor.dtype} with layout {tensor.layout}: "
            "leave it out, or convert it."
        ) from None


def _given(tree: Tree, device: torch.device, cast: tuple[torch.dtype, torch.dtype] | None) -> Any:
    if isinstance(tree, dict):
        return {key: _given(part, device, cast) for key, part in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(_given(part, device, cast) for part in tree)
    if isinstance(tree, Bfloat16):
        tensor = torch.tensor(tree.bits.view(np.int16), device="cpu").view(torch.bfloat16)
    elif isinstance(tree, np.ndarray):
        tensor = torch.tensor(tree, device="cpu")  # a copy, for the pass may write to it
    else:
        return tree
    return tensor.to(device, cast[1] if cast and tensor.dtype is cast[0] else tensor.dtype)


def _keepable(*trees: Any) -> bool:
    """Return whether a probe can keep trees, without a look at their values, nor at all of very many: the pass waits."""
    leaves = list(islice(_leaves(trees), _MOST_LEAVES + 1))
    return len(leaves) <= _MOST_LEAVES and all(map(_keepable_leaf, leaves))


def _leaves(tree: Any) -> Iterator[Any]:
    """Yield what is in the containers of a tree; of a mapping with a key that is no text, the mapping."""
    if isinstance(tree, Mapping):
        for key, part in tree.items():
            yield from _leaves(part) if isinstance(key, str) else (tree,)
    elif type(tree) in (list, tuple, torch.Size):
        for part in tree:
            yield from _leaves(part)
    else:
        yield tree


def _keepable_leaf(leaf: Any) -> bool:
    if isinstance(leaf, torch.Tensor):
        plain = type(leaf) in (torch.Tensor, torch.nn.Parameter) and leaf.layout is torch.strided
        return plain and not leaf.is_meta and not leaf.is_nested and not leaf.is_quantized and not capturing(leaf.device)
    return type(leaf) in _PLAIN or (isinstance(leaf, np.ndarray) and leaf.dtype.kind in _NUMBERS)


def copied(tree: Any) -> Any:
    """Return a tree with copies of its tensors and arrays: what a pass writes to in place is not what the next one is given."""
    if isinstance(tree, Mapping):
        return {key: copied(part) for key, part in tree.items()}
    if isinstance(tree, (list, tuple)):
        parts = [copied(part) for part in tree]
        return parts if isinstance(tree, list) else tuple(parts)
    if isinstance(tree, torch.Tensor):
        return tree.detach().clone()
    return tree.copy() if isinstance(tree, np.ndarray) else tree
