"""Signatures over what a baseline says: Ed25519, by the library `cryptography`, which is imported when a key is used.

What is signed is the line "geluwatch-baseline DIGEST" (see `geluwatch.store.digest`). A signature holds its public key, so
that anybody can tell whether the content is what was signed; who signed it is a matter of the keys that are trusted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geluwatch import files
from geluwatch.errors import MissingPartError, SignatureError
from geluwatch.records import Baseline, Signature
from geluwatch.store.digest import content_digest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGNING_KEY = "GELUWATCH_SIGNING_KEY"
"""Environment variable: path of a PEM file with the private key that signs what is recorded."""

TRUSTED_KEYS = "GELUWATCH_TRUSTED_KEYS"
"""Environment variable: path of a PEM file with the public keys of those whose baselines are believed."""

_PUBLIC = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)
_SHORT = 16


@dataclass(frozen=True, slots=True)
class Keys:
    """What a store signs with and whom it trusts; without either it does neither."""

    private: Ed25519PrivateKey | None = None
    trusted: frozenset[str] | None = None
    """Public keys, each 32 bytes as hexadecimal digits; None where none is asked for."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Keys:
        """Return the keys that the two environment variables name.

        Raises:
            SignatureError: A file cannot be read, or holds no such key.
            MissingPartError: A key is named, and `cryptography` is not installed.
        """
        signing, trusted = environment.get(SIGNING_KEY), environment.get(TRUSTED_KEYS)
        return cls(_private(Path(signing)) if signing else None, _trusted(Path(trusted)) if trusted else None)

    def signed(self, baseline: Baseline) -> Baseline:
        """Return a baseline with a signature by the private key; without a key, the baseline as it is."""
        if self.private is None:
            return baseline
        value = self.private.sign(_message(baseline))
        return replace(baseline, signature=Signature(self.private.public_key().public_bytes_raw().hex(), value.hex()))

    def check(self, baseline: Baseline, called: str) -> None:
        """Refuse a baseline that is not what somebody trusted has signed; where no keys are trusted, none is refused.

        Args:
            baseline: The baseline.
            called: How to name it at the beginning of a sentence.

        Raises:
            SignatureError: It is unsigned, signed by another key, or changed since.
        """
        if self.trusted is None:
            return
        signature = baseline.signature
        if signature is None:
            raise SignatureError(f"{called} is unsigned, and {TRUSTED_KEYS} asks for signatures; sign it with `geluwatch baseline sign`.")
        if signature.key not in self.trusted:
            raise SignatureError(
                f"{called} is signed by key {signature.signer}, which is not among the {len(self.trusted)} of {TRUSTED_KEYS}; "
                "add that key, or have a trusted one sign it."
            )
        if not is_intact(baseline):
            raise changed(baseline, called)


def is_intact(baseline: Baseline) -> bool:
    """Return whether a signed baseline is what the key in its signature signed."""
    ed25519 = _library()
    from cryptography.exceptions import InvalidSignature

    if baseline.signature is None:
        return False
    try:
        key = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(baseline.signature.key))
        key.verify(bytes.fromhex(baseline.signature.value), _message(baseline))
    except (InvalidSignature, ValueError):
        return False
    return True


def changed(baseline: Baseline, called: str) -> SignatureError:
    """Return the error for a baseline that is not what was signed."""
    signer = baseline.signature.signer if baseline.signature else "none"
    return SignatureError(
        f"{called} is not what key {signer} signed: it was changed afterwards; restore it from a copy, or record it again."
    )


def make_keys(path: Path) -> str:
    """Write a new private key, readable by its owner alone, and beside it the public one, PATH.pub; return the latter's name in short.

    Raises:
        SignatureError: There is such a file, or it cannot be written.
        MissingPartError: `cryptography` is not installed.
    """
    ed25519 = _library()
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    private = ed25519.Ed25519PrivateKey.generate()
    public = private.public_key()
    beside = path.with_name(f"{path.name}.pub")
    _write_new(beside, public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), 0o644)
    try:
        _write_new(path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    except SignatureError:
        beside.unlink()
        raise
    return str(public.public_bytes_raw().hex())[:_SHORT]


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        files.create(path, content, mode)
    except FileExistsError:
        raise SignatureError(f"{path} exists already, and no key is written over; give another name.") from None
    except OSError as failure:
        raise SignatureError(f"{path} cannot be written ({failure.strerror}); give another place.") from None


def _message(baseline: Baseline) -> bytes:
    return f"geluwatch-baseline {content_digest(baseline)}\n".encode()


def _private(path: Path) -> Ed25519PrivateKey:
    ed25519 = _library()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key: Any = load_pem_private_key(_content(path, SIGNING_KEY), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise SignatureError(
            f"{path}, which {SIGNING_KEY} names, holds no Ed25519 private key in PEM without a password; "
            "`geluwatch baseline keygen` makes one."
        )
    private: Ed25519PrivateKey = key
    return private


def _trusted(path: Path) -> frozenset[str]:
    ed25519 = _library()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        keys = [load_pem_public_key(block) for block in _PUBLIC.findall(_content(path, TRUSTED_KEYS))]
    except (ValueError, UnsupportedAlgorithm):
        keys = []
    if not keys or not all(isinstance(key, ed25519.Ed25519PublicKey) for key in keys):
        raise SignatureError(
            f"{path}, which {TRUSTED_KEYS} names, must hold Ed25519 public keys in PEM and no other; "
            "`geluwatch baseline keygen` makes one beside each private key."
        )
    return frozenset(key.public_bytes_raw().hex() for key in keys if isinstance(key, ed25519.Ed25519PublicKey))


def _content(path: Path, variable: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as failure:
        raise SignatureError(f"{path}, which {variable} names, cannot be read ({failure.strerror}); correct the variable.") from None


def _library() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise MissingPartError("Signatures need the package cryptography; run: pip install cryptography") from None
    return ed25519
