"""The stored form of a probe (see `geluwatch.store.codec.archive` for the container).

==============  =================  ==========================================================================================
entry           kind               content
==============  =================  ==========================================================================================
`header.json`                      `values`, `parameters`; `inputs`, each of `args` and `kwargs` as trees; `rows`, for each input
                                   the calls of its pass with `layer`, `dtype`, `shape`, `derived`
`times.npy`     plain (1,)         `created`
`bytes.npy`     column of uint8    all input arrays end to end, each little-endian and in C order
`pre.npy`       column of float32  kept rows before the GELU, call after call
`post.npy`      column of float32  kept rows after it, likewise
==============  =================  ==========================================================================================

A tree is a list whose first part says what it is: `["array", dtype, shape]` and `["bfloat16", shape]` take their bytes from the
column; `["dict", {key: tree}]`, `["list", [tree]]` and `["tuple", [tree]]` hold others; `["value", v]` is a bool, an int, text or
null, and `["float", text]` is a float in hexadecimal, so that it comes back as it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from geluwatch.core.probe import TOLERANCES
from geluwatch.errors import BaselineError
from geluwatch.records import Bfloat16, Probe, ProbeInput, Rows, Tree
from geluwatch.store.codec.archive import Array, Arrays, Format, Header, check_lengths, joined

FORMAT = Format("geluwatch-probe", 1, {"bytes": "<u1", "pre": "<f4", "post": "<f4"}, plain=("times",))

_NUMBERS = "biufc"


def encode_probe(probe: Probe) -> bytes:
    """Return a probe as bytes, in the format of this module's docstring.

    Raises:
        BaselineError: An input holds what cannot be kept, or rows before and after a GELU do not belong together.
    """
    parts: list[Array] = []
    inputs = [{"args": _plain(each.args, parts), "kwargs": _plain(dict(each.kwargs), parts)} for each in probe.inputs]
    calls = [rows for of_input in probe.rows for rows in of_input]
    header = {
        "values": int(probe.values),
        "parameters": probe.parameters,
        "inputs": inputs,
        "rows": [[_call(rows) for rows in of_input] for of_input in probe.rows],
    }
    arrays = {
        "times": np.array([probe.created], np.float64),
        "bytes": joined(parts, "<u1"),
        "pre": joined((rows.pre.reshape(-1) for rows in calls), "<f4"),
        "post": joined((rows.post.reshape(-1) for rows in calls), "<f4"),
    }
    return FORMAT.write(header, arrays)


def decode_probe(payload: bytes, name: str = "The probe") -> Probe:
    """Return the probe that `encode_probe` wrote.

    Raises:
        StoreError: The bytes are damaged, are no probe, or were written by a newer release.
    """
    return FORMAT.read(payload, name, _probe)


def _call(rows: Rows) -> dict[str, Any]:
    if rows.pre.ndim != 2 or rows.pre.shape != rows.post.shape:
        raise BaselineError(
            f"The probe cannot be stored: at {rows.layer}, rows of shape {rows.pre.shape} before the GELU do not belong to those of "
            f"shape {rows.post.shape} after it; both must be (rows, channels)."
        )
    return {"layer": rows.layer, "dtype": rows.dtype, "shape": list(rows.pre.shape), "derived": bool(rows.derived)}


def _plain(tree: Tree, parts: list[Array]) -> list[Any]:
    """Return a tree as JSON values; its arrays' bytes are added to `parts`."""
    if isinstance(tree, dict):
        return ["dict", {key: _plain(part, parts) for key, part in tree.items()}]
    if isinstance(tree, (list, tuple)):
        return ["list" if isinstance(tree, list) else "tuple", [_plain(part, parts) for part in tree]]
    if isinstance(tree, Bfloat16):
        return ["bfloat16", _packed(tree.bits, parts)]
    if isinstance(tree, np.ndarray) and tree.dtype.kind in _NUMBERS:
        return ["array", tree.dtype.newbyteorder("=").name, _packed(tree, parts)]
    if isinstance(tree, float):
        return ["float", tree.hex()]
    if tree is None or isinstance(tree, (bool, int, str)):
        return ["value", tree]
    raise BaselineError(f"The probe cannot be stored: an input holds a {type(tree).__name__}; a probe keeps arrays and plain values.")


def _packed(array: Array, parts: list[Array]) -> list[int]:
    parts.append(np.frombuffer(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes(), np.uint8))
    return list(array.shape)


def _probe(header: Header, arrays: Arrays) -> Probe:
    (created,) = arrays["times"].tolist()
    calls = [call for of_input in header["rows"] for call in of_input]
    values = sum(math.prod(_shape(call["shape"])) for call in calls)
    check_lengths(arrays, {"pre": values, "post": values})
    if len(header["rows"]) != len(header["inputs"]):
        raise ValueError(f"rows of {len(header['inputs'])} inputs expected, got those of {len(header['rows'])}")
    taken = _Bytes(arrays["bytes"].tobytes())
    inputs = tuple(ProbeInput(_tree(each["args"], taken, tuple), _tree(each["kwargs"], taken, dict)) for each in header["inputs"])
    if taken.left:
        raise ValueError(f"{taken.left} bytes of inputs belong to none")
    return Probe(created, inputs, _rows(header["rows"], arrays), int(header["values"]), str(header["parameters"]))


def _rows(calls: Sequence[Sequence[Header]], arrays: Arrays) -> tuple[tuple[Rows, ...], ...]:
    found, end = [], 0
    for of_input in calls:
        pairs = []
        for call in of_input:
            shape = _shape(call["shape"])
            if call["dtype"] not in TOLERANCES or len(shape) != 2:
                raise ValueError(f"no rows: {call!r}")
            start, end = end, end + math.prod(shape)
            pre, post = (arrays[side][start:end].reshape(shape) for side in ("pre", "post"))
            pairs.append(Rows(str(call["layer"]), call["dtype"], pre, post, bool(call["derived"])))
        found.append(tuple(pairs))
    return tuple(found)


class _Bytes:
    """The bytes of all input arrays, taken one array after the other."""

    def __init__(self, content: bytes) -> None:
        self._content, self._place = content, 0

    @property
    def left(self) -> int:
        return len(self._content) - self._place

    def take(self, dtype: str, shape: tuple[int, ...]) -> Array:
        """Return the next array."""
        little = np.dtype(dtype).newbyteorder("<")
        start, self._place = self._place, self._place + little.itemsize * math.prod(shape)
        if little.kind not in _NUMBERS or self.left < 0:
            raise ValueError(f"no array: {dtype!r} {shape}")
        array = np.frombuffer(self._content[start : self._place], little).reshape(shape)
        return array.astype(little.newbyteorder("="))


def _tree(stored: Sequence[Any], taken: _Bytes, expected: type | None = None) -> Tree:
    """Return the tree that `_plain` wrote, of the expected type."""
    kind, *content = stored
    if kind == "dict":
        tree: Tree = {str(key): _tree(part, taken) for key, part in content[0].items()}
    elif kind in ("list", "tuple"):
        tree = (list if kind == "list" else tuple)(_tree(part, taken) for part in content[0])
    elif kind == "bfloat16":
        tree = Bfloat16(taken.take("uint16", _shape(content[0])))
    elif kind == "array":
        tree = taken.take(content[0], _shape(content[1]))
    else:
        tree = float.fromhex(content[0]) if kind == "float" else content[0]
    if expected is not None and not isinstance(tree, expected):
        raise ValueError(f"{expected.__name__} expected, got {type(tree).__name__}")
    return tree


def _shape(sizes: Sequence[Any]) -> tuple[int, ...]:
    if any(isinstance(size, bool) or not isinstance(size, int) or size < 0 for size in sizes):
        raise ValueError(f"no shape: {sizes!r}")
    return tuple(sizes)
