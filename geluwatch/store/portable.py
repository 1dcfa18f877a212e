"""One baseline as one file, to be carried between stores: exact, documented (docs/baseline-file.md), and without pickle.

The first line names the format and its version, the second is the SHA-256 of everything behind it, and the rest is a zip
archive. So any byte that is not what it was is noticed before anything is believed.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geluwatch import files
from geluwatch.errors import BaselineError, StoreError
from geluwatch.records import Baseline, Site
from geluwatch.store import codec
from geluwatch.store.codec.archive import DAMAGE, refuse_large
from geluwatch.store.rules import check
from geluwatch.store.signing import Keys

_MAGIC = b"geluwatch-baseline "
_VERSION = 1
_MOST_BYTES = 1 << 32
"""Most bytes that an archive may unfold to: more is no baseline, but an attempt on the reader's memory."""
_SITE = ("layer", "position", "form", "kind", "variant", "state", "reason")


def dump(baseline: Baseline) -> bytes:
    """Return a baseline as the content of a file; equal baselines give equal bytes.

    Raises:
        BaselineError: No store could keep it.
    """
    check(baseline)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as entries:
        for name, content in _entries(baseline):
            entries.writestr(zipfile.ZipInfo(name), content)  # stored as it is: payloads are deflated, and the date is zip's first
    content = archive.getvalue()
    return _MAGIC + b"%d\n" % _VERSION + hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def load(content: bytes, name: str) -> Baseline:
    """Return the baseline that `dump` was given.

    Args:
        content: The bytes of the file.
        name: What to call it in an error.

    Raises:
        BaselineError: They are no such file, not what was written, of a newer release, or hold no baseline that can be kept.
    """
    line, _, rest = content.partition(b"\n")
    if not line.startswith(_MAGIC) or not (version := line.removeprefix(_MAGIC)).isdigit() or len(version) > 9:
        raise BaselineError(f"{name} is no exported baseline; `geluwatch baseline export` writes one.")
    if int(version) != _VERSION:
        raise BaselineError(f"{name} is of version {int(version)} where this release knows {_VERSION}; upgrade geluwatch.")
    digest, _, archive = rest.partition(b"\n")
    if hashlib.sha256(archive).hexdigest().encode() != digest:
        raise BaselineError(f"{name} is not what was exported, its SHA-256 differs: it was cut off, damaged or changed; export it again.")
    try:
        baseline = _read(archive, name)
        check(baseline)
    except (*DAMAGE, StoreError, BaselineError) as failure:
        raise BaselineError(f"{name} holds no baseline that can be kept ({failure}); export it again.") from None
    return baseline


def write(baseline: Baseline, path: Path) -> None:
    """Write a baseline to a new file, all of it or nothing.

    Raises:
        BaselineError: There is such a file, it cannot be written, or no store could keep the baseline.
    """
    content = dump(baseline)
    try:
        files.create(path, content, mode=0o600)
    except FileExistsError:
        raise BaselineError(f"{path} exists already, and is not written over; give another name or remove it.") from None
    except OSError as failure:
        raise BaselineError(f"{path} cannot be written ({failure.strerror}); give another place.") from None


def read(path: Path, keys: Keys | None = None) -> Baseline:
    """Return the baseline in a file.

    Args:
        path: The file.
        keys: Whom to trust; None asks the environment (see `geluwatch.store.signing`).

    Raises:
        BaselineError: The file cannot be read, or `load` refuses it.
        SignatureError: Keys are trusted, and none of them signed what the file holds.
    """
    try:
        content = path.read_bytes()
    except OSError as failure:
        raise BaselineError(f"{path} cannot be read ({failure.strerror}); name a file that `geluwatch baseline export` wrote.") from None
    baseline = load(content, str(path))
    (Keys.from_environment() if keys is None else keys).check(baseline, f"The baseline in {path}")
    return baseline


def _entries(baseline: Baseline) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the archive's entries."""
    head = {
        "model": baseline.model,
        "model_version": baseline.model_version,
        "name": baseline.name,
        "created": baseline.created,
        "sites": [{field: getattr(site, field) for field in _SITE} for site in baseline.sites],
        "certificate": codec.encode_certificate(baseline.certificate),
        "windows": len(baseline.windows),
        "calm": baseline.calm is not None,
        **({} if baseline.probe is None else {"probe": True}),  # left out elsewhere, so that those files are what they always were
    }
    head |= _origin(baseline)
    yield "baseline.json", json.dumps(head, allow_nan=False, indent=1).encode()
    yield "references.npz", codec.encode_references(baseline.references)
    yield "histograms.npz", codec.encode_histograms(baseline.histograms)
    if baseline.calm is not None:
        yield "calm.npz", codec.encode_calm(baseline.calm)
    if baseline.probe is not None:
        yield "probe.npz", codec.encode_probe(baseline.probe)
    for place, window in enumerate(baseline.windows):
        yield _window(place), codec.encode_window(window)


def _origin(baseline: Baseline) -> dict[str, Any]:
    """Return what a baseline may lack, where it has it: a file of an earlier release has none of it."""
    origin, signature = baseline.provenance, baseline.signature
    parts = {
        "traffic": baseline.traffic,
        "provenance": codec.encode_provenance(origin) if origin else None,
        "signature": codec.encode_signature(signature) if signature else None,
    }
    return {name: part for name, part in parts.items() if part}


def _read(archive: bytes, name: str) -> Baseline:
    with zipfile.ZipFile(io.BytesIO(archive)) as entries:
        refuse_large(entries, _MOST_BYTES)
        head = json.loads(entries.read("baseline.json"))
        windows = (codec.decode_window(entries.read(_window(place)), f"window {place}") for place in range(head["windows"]))
        return Baseline(
            model=_text(head["model"]),
            model_version=_text(head["model_version"]),
            name=_text(head["name"]),
            created=float(head["created"]),
            sites=tuple(_site(site) for site in head["sites"]),
            windows=tuple(windows),
            certificate=codec.decode_certificate(head["certificate"], f"the certificate of {name}"),
            references=codec.decode_references(entries.read("references.npz"), "the references"),
            histograms=codec.decode_histograms(entries.read("histograms.npz"), "the histograms"),
            calm=codec.decode_calm(entries.read("calm.npz"), "the calm scores") if head["calm"] else None,
            traffic=_text(head.get("traffic", "")),
            provenance=codec.decode_provenance(head["provenance"]) if "provenance" in head else None,
            signature=codec.decode_signature(head["signature"]) if "signature" in head else None,
            probe=codec.decode_probe(entries.read("probe.npz"), "the probe") if head.get("probe") else None,
        )


def _window(place: int) -> str:
    return f"windows/{place:05d}.npz"


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text expected, got {value!r}")
    return value


def _site(fields: dict[str, Any]) -> Site:
    position, state = fields["position"], fields["state"]
    if not isinstance(position, int) or state not in {"observed", "blind"} or isinstance(position, bool):
        raise ValueError(f"no call site: {fields!r}")
    layer, form, kind, variant, reason = (_text(fields[name]) for name in ("layer", "form", "kind", "variant", "reason"))
    return Site(layer, position, form, kind, variant, state, reason)
