"""The stored form of provenances and signatures: JSON objects, fields by their names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from geluwatch.errors import StoreError
from geluwatch.records import Activation, Provenance, Signature, Weights
from geluwatch.store.codec.archive import DAMAGE

VERSION = 1


def encode_provenance(provenance: Provenance) -> dict[str, Any]:
    """Return a provenance as JSON values."""
    return {"version": VERSION, **asdict(provenance)}


def decode_provenance(stored: Mapping[str, Any], name: str = "The provenance") -> Provenance:
    """Return the provenance that `encode_provenance` wrote.

    Raises:
        StoreError: The values are no provenance, or were written by a newer release.
    """
    try:
        if stored["version"] == VERSION:
            return _provenance(stored)
        found = int(stored["version"])
    except DAMAGE as failure:
        raise StoreError(f"{name} cannot be read ({type(failure).__name__}: {failure}); record the baseline again.") from None
    raise StoreError(f"{name} cannot be read, it is stored as version {found} where this release knows {VERSION}; upgrade geluwatch.")


def encode_signature(signature: Signature) -> dict[str, Any]:
    """Return a signature as JSON values."""
    return {"algorithm": "ed25519", "key": signature.key, "value": signature.value}


def decode_signature(stored: Mapping[str, Any], name: str = "The signature") -> Signature:
    """Return the signature that `encode_signature` wrote.

    Raises:
        StoreError: The values are no signature.
    """
    try:
        if stored["algorithm"] != "ed25519":
            raise ValueError(f"algorithm {stored['algorithm']!r}")
        return Signature(_text(stored["key"]), _text(stored["value"]))
    except DAMAGE as failure:
        raise StoreError(f"{name} cannot be read ({type(failure).__name__}: {failure}); sign the baseline again.") from None


def _provenance(stored: Mapping[str, Any]) -> Provenance:
    weights = stored["weights"]
    return Provenance(
        weights=Weights(
            digest=_text(weights["digest"]),
            reason=_text(weights["reason"]),
            tensors=_texts(weights["tensors"]),
            parameters=int(weights["parameters"]),
            dtypes=tuple(map(_text, weights["dtypes"])),
            devices=tuple(map(_text, weights["devices"])),
        ),
        activations=tuple(Activation(**_texts(each)) for each in stored["activations"]),
        versions=_texts(stored["versions"]),
        machine=_texts(stored["machine"]),
        settings=_texts(stored["settings"]),
    )


def _texts(stored: Mapping[str, Any]) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in stored.items()}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text expected, got {value!r}")
    return value
