"""The digest of a model's weights: the same for the same bits, whatever wraps the model, wherever it lies and whatever is tied.

A tensor's digest is the SHA-256 of the line "NAME DTYPE SHAPE" and its elements' bytes in the order of their indices; the
whole is the SHA-256 of the lines "NAME DIGEST" in the order of the names. Names are those of the module tree without
wrappers (see `names`), so a tensor that has two of them counts under both, tied or not. Tensors are read one after the
other and piece by piece: nothing more than a piece, or one tensor that is not contiguous, is ever held twice.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from geluwatch.records import Weights
from geluwatch.tap.names import stable

SHORT = 16
"""Digits kept of a tensor's digest."""

_PIECE = 64 * 2**20
"""Bytes read at a time."""

_SHARDED = "FullyShardedDataParallel"


def read(model: nn.Module, *, digest: bool = True) -> Weights:
    """Return what is known of a model's weights; they should not change meanwhile.

    Args:
        model: The model.
        digest: Whether to read the weights themselves, and not only what they are. That takes about a second for a gigabyte, and
            waits for the device they lie on.
    """
    shape = _counted(model)
    if not digest:
        return Weights(reason="not read", **shape)
    try:
        digests = _digests(model)
    except Exception as failure:  # noqa: BLE001  # tensors may be of any kind, and a baseline is worth more than their digest
        return Weights(reason=f"{failure}", **shape)
    whole = hashlib.sha256("".join(f"{name} {digests[name]}\n" for name in sorted(digests)).encode()).hexdigest()
    return Weights(digest=whole, tensors={name: found[:SHORT] for name, found in digests.items()}, **shape)


def _counted(model: nn.Module) -> dict[str, Any]:
    """Return number, dtypes and devices of the parameters."""
    dtypes: Counter[str] = Counter()
    devices: Counter[str] = Counter()
    for parameter in model.parameters():
        count = 0 if is_lazy(parameter) else parameter.numel()
        dtypes[_named(parameter.dtype)] += count
        devices[parameter.device.type] += count
    names = {"dtypes": dtypes, "devices": devices}
    return {"parameters": dtypes.total(), **{what: tuple(name for name, _ in found.most_common()) for what, found in names.items()}}


def _digests(model: nn.Module) -> dict[str, str]:
    """Return the digest of every tensor by its name, in the model's order.

    Raises:
        ValueError: A tensor cannot be read in this process; the message is the reason.
    """
    if any(type(module).__name__ == _SHARDED for module in model.modules()):
        raise ValueError("the weights are sharded over several processes by FSDP")
    found: dict[str, str] = {}
    for qualified, tensor in _tensors(model):
        name = stable(qualified)
        name = qualified if name in found else name
        if is_lazy(tensor) or tensor.is_meta:
            raise ValueError(f"{name} has no values in this process")
        digest = hashlib.sha256(f"{name} {_named(tensor.dtype)} {tuple(tensor.shape)}\n".encode())
        for piece in _pieces(name, tensor.detach()):
            digest.update(piece)
        found[name] = digest.hexdigest()
    return found


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield every parameter and buffer under every name it has, and the weights that quantised modules keep elsewhere."""
    for prefix, module in model.named_modules(remove_duplicate=False):
        yield from module.named_parameters(prefix, recurse=False, remove_duplicate=False)
        yield from module.named_buffers(prefix, recurse=False, remove_duplicate=False)
        packed = getattr(module, "_weight_bias", None)
        if callable(packed):
            yield from (
                (f"{prefix}.{name}", tensor) for name, tensor in zip(("weight", "bias"), packed(), strict=True) if tensor is not None
            )


def _pieces(name: str, tensor: torch.Tensor) -> Iterator[bytes | memoryview]:
    """Yield a tensor's content, piece by piece."""
    if hasattr(tensor, "placements"):
        raise ValueError(f"{name} is sharded over several processes")
    if hasattr(tensor, "__tensor_flatten__"):
        inner, context = tensor.__tensor_flatten__()
        yield repr(context).encode()
        for part in inner:
            yield from _pieces(f"{name}.{part}", getattr(tensor, part))
        return
    if tensor.is_quantized:
        yield f"{tensor.qscheme()} {_scales(tensor)}".encode()
        tensor = tensor.int_repr()
    dense = tensor if tensor.layout == torch.strided else tensor.to_dense()
    flat = torch.view_as_real(dense.resolve_conj()).reshape(-1) if dense.is_complex() else dense.resolve_neg().reshape(-1)
    for piece in torch.split(flat, max(1, _PIECE // flat.element_size())):
        yield piece.cpu().contiguous().view(torch.uint8).numpy().data


def _scales(tensor: torch.Tensor) -> tuple[Any, Any]:
    """Return scale and zero point of a quantised tensor, lists where each channel has its own."""
    if tensor.qscheme() in {torch.per_tensor_affine, torch.per_tensor_symmetric}:
        return tensor.q_scale(), tensor.q_zero_point()
    return tensor.q_per_channel_scales().tolist(), tensor.q_per_channel_zero_points().tolist()


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
