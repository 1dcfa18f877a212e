"""The digest of what a baseline says, whatever database, compression or order of keys it comes out of.

A record is written as its fields in the order of their names, each with its value, and without those that have their default:
a field that a later release adds does not change the digest of a baseline that lacks it. Every value begins with a letter for
its kind and, where it may be of any length, its length:

======  =====================================================================================================
letter  value
======  =====================================================================================================
``_``   None
``#``   a number that a float64 holds: its 8 bytes, little-endian, NaN as the one that numpy has; truth is 1 or 0
``i``   another whole number: its length, and its decimal digits
``s``   text: its length in UTF-8, and its bytes
``a``   an array: its dtype, little-endian, its shape, and the SHA-256 of its bytes
``[``   a sequence: its length, and its values
``{``   a mapping, or a record: its length, and keys with values, in the order of the written keys
======  =====================================================================================================
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any

import numpy as np

from geluwatch.records import Baseline, Site

_UNSIGNED = {Baseline: frozenset({"signature"}), Site: frozenset({"gate"})}
"""Fields that are no content: what signs it, and what no store keeps."""


def content_digest(baseline: Baseline) -> str:
    """Return the SHA-256 of a baseline's content, 64 hexadecimal digits."""
    return hashlib.sha256(_written(baseline)).hexdigest()


def _written(value: Any) -> bytes:
    if value is None:
        return b"_"
    if isinstance(value, str):
        return _sized(b"s", value.encode("utf-8", "surrogatepass"))
    if isinstance(value, (bool, int, float, np.generic)):
        return _number(value)
    if isinstance(value, np.ndarray):
        little = np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<"), copy=False)
        return b"a" + _written(little.dtype.str) + _written(value.shape) + hashlib.sha256(little.tobytes()).digest()
    if isinstance(value, Mapping):
        return _mapping({_written(key): _written(each) for key, each in value.items()})
    if isinstance(value, (tuple, list)):
        return b"[%d " % len(value) + b"".join(map(_written, value))
    if is_dataclass(value) and not isinstance(value, type):
        given = {key: (_written(getattr(value, name)), default) for name, key, default in _fields(type(value))}
        return _mapping({key: written for key, (written, default) in given.items() if written != default})
    raise TypeError(f"{type(value).__name__} has no written form")


def _number(value: Any) -> bytes:
    as_float = float(value)
    if as_float != value and not math.isnan(as_float):
        return _sized(b"i", b"%d" % int(value))
    return b"#" + struct.pack("<d", math.nan if math.isnan(as_float) else as_float)


def _mapping(entries: Mapping[bytes, bytes]) -> bytes:
    return b"{%d " % len(entries) + b"".join(key + entries[key] for key in sorted(entries))


def _sized(kind: bytes, content: bytes) -> bytes:
    return kind + b"%d " % len(content) + content


@cache
def _fields(record: type) -> tuple[tuple[str, bytes, bytes | None], ...]:
    """Return (name, written name, written default or None) of a record's fields."""
    found = []
    for field in fields(record):
        if field.name not in _UNSIGNED.get(record, ()):
            default = field.default_factory() if field.default_factory is not MISSING else field.default
            found.append((field.name, _written(field.name), None if default is MISSING else _written(default)))
    return tuple(found)
