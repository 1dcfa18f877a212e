"""The file that a bundle is: a zip of JSON and `.npz` entries, without pickle, within a limit of bytes."""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geluwatch.bundles import contents
from geluwatch.bundles.contents import Case
from geluwatch.errors import IncidentError, StoreError
from geluwatch.records import Called, Evidence, KeptRows, Site, Window

_MOST_BYTES = 512 * 2**20
"""Of all entries unfolded, on reading: a damaged or hostile file must not fill the memory."""

_OVERHEAD = 256
"""Bytes of an entry besides its content and, twice, its name: more than zip takes."""

_ROOM = 8 * 2**10
"""Bytes kept free for the manifest and the end of the file."""

_PACKED = (".npz", ".gz")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle as it was read."""

    path: Path
    manifest: Mapping[str, Any]
    report: Mapping[str, Any]
    """As `geluwatch.export.document` writes it; empty where it was left out."""
    sites: tuple[Site, ...]
    runtime: Mapping[str, Any]
    environment: Mapping[str, Any]
    evidence: tuple[Evidence, ...]
    windows: tuple[Window, ...]
    """Oldest first."""
    traces: tuple[str, ...]
    """Names of entries."""


def dump(case: Case, written: float, most: int) -> bytes:
    """Return a bundle as bytes, at most so many; entries for which there is no room are left out and named in the manifest."""
    content = io.BytesIO()
    left_out: list[str] = []
    with zipfile.ZipFile(content, "w") as file:
        for name, entry in contents.entries(case):
            packed = name.endswith(_PACKED)
            if name.endswith(".npz") and f"{name.removesuffix('.npz')}.json" in left_out:
                left_out.append(name)  # rows without their head cannot be read
                continue
            size = len(entry if packed else zlib.compress(entry)) + _OVERHEAD + 2 * len(name)
            if content.tell() + size + _directory(file) + _ROOM + 64 * len(left_out) <= most:
                _add(file, name, entry, packed=packed)
            else:
                left_out.append(name)
        _add(file, contents.MANIFEST, contents.manifest(case, written, left_out), packed=False)
    return content.getvalue()


def _directory(file: zipfile.ZipFile) -> int:
    """Return what the list at the end takes so far."""
    return sum(64 + len(entry.filename) for entry in file.infolist())


def _add(file: zipfile.ZipFile, name: str, content: bytes, *, packed: bool) -> None:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = 0o600 << 16
    file.writestr(entry, content, compress_type=zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED)


def read(path: Path) -> Bundle:
    """Return what is in a bundle.

    Raises:
        IncidentError: The file cannot be read, is damaged, is no bundle, or was written by a newer release.
    """
    from geluwatch.store.codec.archive import DAMAGE, refuse_large

    try:
        content = path.read_bytes()
    except OSError as failure:
        raise IncidentError(f"{path} cannot be read ({failure.strerror}); name a bundle of the folder given as incidents.") from None
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            refuse_large(file, _MOST_BYTES)
            found = json.loads(file.read(contents.MANIFEST))
            if found["format"] != contents.FORMAT:
                raise ValueError(f"it is {found['format']!r}")
            if found["version"] == contents.VERSION:
                if lacking := contents.KEYS - found.keys():
                    raise ValueError(f"its manifest lacks {', '.join(sorted(lacking))}")
                return _read(path, file, found)
    except (*DAMAGE, StoreError) as failure:
        reason = f"{type(failure).__name__}: {failure}".rstrip(".: ")
        raise IncidentError(f"{path} is damaged or no bundle of geluwatch ({reason}); copy it again from where it was written.") from None
    raise IncidentError(f"{path} is of version {found['version']} where this release knows {contents.VERSION}; upgrade geluwatch.")


def _read(path: Path, file: zipfile.ZipFile, manifest: Mapping[str, Any]) -> Bundle:
    from geluwatch.store.codec import decode_window

    names = file.namelist()

    def told(name: str) -> Any:
        return json.loads(file.read(name)) if name in names else {}

    return Bundle(
        path=path,
        manifest=manifest,
        report=told("report.json"),
        sites=tuple(Site(**site) for site in told("census.json")),
        runtime=told("provenance.json"),
        environment=told("environment.json"),
        evidence=tuple(_evidence(file, name.removesuffix(".npz")) for name in sorted(names) if _is_read(name, names)),
        windows=tuple(decode_window(file.read(name), name) for name in sorted(names) if re.fullmatch(r"windows/\d+\.npz", name)),
        traces=tuple(name for name in sorted(names) if name.startswith("traces/")),
    )


def _is_read(name: str, names: list[str]) -> bool:
    return bool(re.fullmatch(r"rows/\d+\.npz", name)) and f"{name.removesuffix('.npz')}.json" in names


def _evidence(file: zipfile.ZipFile, stem: str) -> Evidence:
    head, arrays = json.loads(file.read(f"{stem}.json")), _arrays(file, f"{stem}.npz")
    inputs = f"inputs/{stem.removeprefix('rows/')}.npz"
    called = head["called"]
    return Evidence(
        time=float(head["time"]),
        shape=tuple(head["shape"]),
        bad_rows=int(head["bad_rows"]),
        bad=_rows("bad", head["parts"]["bad"], arrays),
        good=_rows("good", head["parts"]["good"], arrays) if "good" in head["parts"] else None,
        before=_rows("before", head["parts"]["before"], arrays) if "before" in head["parts"] else None,
        mode=head["mode"],
        called=None if called is None else _called(called, _arrays(file, inputs) if inputs in file.namelist() else {}),
    )


def _called(head: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Called:
    wanted = sum(map(_tensors, (*head["tree"]["args"], *head["tree"]["kwargs"].values())))
    return Called(head["tree"], arrays, whole=bool(head["whole"]) and len(arrays) == wanted)  # there may have been no room for them


def _tensors(told: Mapping[str, Any]) -> int:
    """Return how many tensors an argument holds whose values were kept."""
    items = told.get("items", ())
    return int("array" in told) + sum(map(_tensors, items.values() if isinstance(items, dict) else items))


def _rows(part: str, head: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> KeptRows:
    places, pre, post = arrays[f"{part}_places"], arrays.get(f"{part}_pre"), arrays[f"{part}_post"]
    if post.ndim != 2 or len(places) != len(post) or (pre is not None and pre.shape != post.shape):
        raise ValueError(f"rows that do not belong together: {places.shape}, {post.shape}")
    return KeptRows(str(head["layer"]), str(head["dtype"]), places, pre, post, bool(head["derived"]))


def _arrays(file: zipfile.ZipFile, name: str) -> dict[str, npt.NDArray[Any]]:
    with np.load(io.BytesIO(file.read(name)), allow_pickle=False) as found:
        return {key: found[key] for key in found.files}
