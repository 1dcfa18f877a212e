"""The container of every payload: an `.npz` archive (a zip of `.npy` arrays) with one JSON entry beside the arrays.

Numpy or any zip tool opens it. `header.json` holds `format`, `version` and what else a part needs that is no array. Arrays
are of two kinds, told apart by the part's `Format`:

=======  ============================  ==================================================================================
kind     entry                         content
=======  ============================  ==================================================================================
plain    float64, any shape            the array itself
column   uint8 (b, n) of b-byte values byte planes: row k holds byte k, lowest first, of each of n little-endian values
=======  ============================  ==================================================================================

Planes lay like bytes together, which makes an archive 30 % smaller and four times quicker to write than deflating the plain
arrays. Zip's checksums tell damage from content. Entries carry no time stamp: equal parts give equal bytes.
"""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from geluwatch.errors import BaselineError, StoreError
from geluwatch.records import PointKey

DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    OSError,
    RuntimeError,
    ArithmeticError,
    MemoryError,
)
"""What the zip, npy and JSON readers raise on bytes that are damaged or come from elsewhere."""

Array = npt.NDArray[Any]
Header = Mapping[str, Any]
Arrays = Mapping[str, Array]

_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of payload: what its header says, and which arrays it holds."""

    name: str
    version: int
    columns: Mapping[str, str]
    """dtype of each flat array that is split into byte planes."""
    plain: tuple[str, ...] = field(default=())
    advice: str = "record it again"
    """What to do about damage."""
    level: int = 1
    """Zip's level of compression. Where most bytes are random mantissas, 6 takes two thirds more time and saves 2 %."""

    def write(self, header: Header, arrays: Arrays) -> bytes:
        """Return a part as bytes; `arrays` holds the format's columns as flat arrays, and its plain ones."""
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as entries:
            head = {"format": self.name, "version": self.version, **header}
            self._add(entries, "header.json", json.dumps(head, allow_nan=False).encode())
            for name in self.plain:
                self._add(entries, f"{name}.npy", _npy(arrays[name].astype("<f8", copy=False)))
            for name, dtype in self.columns.items():
                self._add(entries, f"{name}.npy", _npy(_to_planes(arrays[name], dtype)))
        return archive.getvalue()

    def read(self, payload: bytes, name: str, build: Callable[[Header, Arrays], _Part]) -> _Part:
        """Return the part that `write` was given.

        Args:
            payload: The bytes.
            name: What to call the part in an error.
            build: Makes the part of its header and its arrays; whatever it raises on parts that do not fit is damage.

        Raises:
            StoreError: The bytes are damaged, are of another format, or were written by a newer release.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(payload)) as entries:
                if any(entry.compress_type != zipfile.ZIP_DEFLATED for entry in entries.infolist()):
                    raise zipfile.BadZipFile("an entry is not deflated")
                header = json.loads(entries.read("header.json"))
                if (header["format"], header["version"]) == (self.name, self.version):
                    return build(header, self._arrays(entries))
            found = f"{header['format']} version {header['version']}"
        except DAMAGE as failure:
            reason = f"{type(failure).__name__}: {failure}".rstrip(".: ")
            kind = self.name.removeprefix("geluwatch-")
            raise StoreError(f"{name} cannot be read, the bytes are damaged or no stored {kind} ({reason}); {self.advice}.") from None
        known = f"{self.name} version {self.version}"
        raise StoreError(f"{name} cannot be read, it is stored as {found} where this release knows {known}; upgrade geluwatch.")

    def _add(self, entries: zipfile.ZipFile, name: str, content: bytes) -> None:
        # A ZipInfo made by hand carries zip's first date, not the clock's.
        entries.writestr(zipfile.ZipInfo(name), content, compress_type=zipfile.ZIP_DEFLATED, compresslevel=self.level)

    def _arrays(self, entries: zipfile.ZipFile) -> dict[str, Array]:
        # Each entry is read whole first, since only then has its checksum been compared.
        contents = {name: io.BytesIO(entries.read(f"{name}.npy")) for name in (*self.plain, *self.columns)}
        arrays = {name: np.lib.format.read_array(content, allow_pickle=False) for name, content in contents.items()}
        return {name: _from_planes(array, self.columns[name]) if name in self.columns else array for name, array in arrays.items()}


def refuse_large(archive: zipfile.ZipFile, most: int) -> None:
    """Refuse an archive that unfolds to more than so many bytes, with the archives in it, before anything of it is unfolded.

    Raises:
        zipfile.BadZipFile: It does, or an archive in it is damaged.
    """
    total = 0
    for entry in archive.infolist():
        total += entry.file_size
        if total <= most and entry.filename.endswith(".npz"):
            with zipfile.ZipFile(io.BytesIO(archive.read(entry))) as inner:
                total += sum(each.file_size for each in inner.infolist())
        if total > most:
            raise zipfile.BadZipFile(f"it unfolds to more than {most} bytes")


def joined(arrays: Iterable[Array], dtype: str) -> Array:
    """Return flat arrays end to end."""
    return np.concatenate([np.empty(0, dtype), *arrays]).astype(dtype, copy=False)


def check_pair(part: str, key: PointKey, **arrays: Array) -> None:
    """Refuse to store two arrays of one (layer, point), given by their names, that are not flat and equally long.

    Raises:
        BaselineError: They are not.
    """
    (name, one), (other_name, other) = arrays.items()
    if one.ndim != 1 or one.shape != other.shape:
        raise BaselineError(
            f"The {part} cannot be stored: at {key[0]} {key[1]}, {name} of shape {one.shape} does not belong to {other_name} "
            f"of shape {other.shape}; both must be flat and equally long."
        )


def check_lengths(arrays: Arrays, lengths: Mapping[str, int]) -> None:
    """Compare how many values a header promises with how many its arrays hold.

    Raises:
        ValueError: They differ.
    """
    for name, length in lengths.items():
        if length != len(arrays[name]):
            raise ValueError(f"{length} values expected, {name} holds {len(arrays[name])}")


def json_number(value: float) -> float | str:
    """Return a number as JSON has it; non-finite ones, which JSON lacks, as text that `float` reads."""
    return float(value) if math.isfinite(value) else repr(float(value))


def _npy(array: Array) -> bytes:
    entry = io.BytesIO()
    np.lib.format.write_array(entry, array, allow_pickle=False)
    return entry.getvalue()


def _to_planes(values: Array, dtype: str) -> Array:
    little = values.astype(dtype, copy=False)
    return np.ascontiguousarray(little.view(np.uint8).reshape(len(little), little.itemsize).T)


def _from_planes(planes: Array, dtype: str) -> Array:
    itemsize, length = planes.shape
    little = np.ascontiguousarray(planes.T).view(dtype).reshape(length)
    if planes.dtype != np.uint8 or itemsize != little.itemsize:
        raise ValueError(f"byte planes of {dtype} expected, got {planes.dtype} {planes.shape}")
    return little.astype(little.dtype.newbyteorder("="), copy=False)
