"""`geluwatch baseline keygen`, `sign` and `verify`: who vouches for a baseline."""

from __future__ import annotations

import argparse
from pathlib import Path

from geluwatch.cli.stored import add_key, called, key, opened


def add_actions(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the actions to those of `baseline`."""
    keygen = actions.add_parser(
        "keygen",
        help="make a key to sign with",
        description="Write a new Ed25519 private key to FILE, readable by its owner alone, and the public key to FILE.pub.",
    )
    keygen.add_argument("file", type=Path, help="file to write; one that exists is left alone")
    keygen.set_defaults(func=_keygen)
    sign = actions.add_parser("sign", help="sign one", description="Sign a stored baseline with the key that GELUWATCH_SIGNING_KEY names.")
    sign.set_defaults(func=_sign)
    verify = actions.add_parser(
        "verify",
        help="whether one is what was recorded and signed",
        description="Compare a stored baseline with its signature, the keys that GELUWATCH_TRUSTED_KEYS names, and the audit log.",
    )
    verify.set_defaults(func=_verify)
    for action in (sign, verify):
        add_key(action)


def _keygen(arguments: argparse.Namespace) -> int:
    from geluwatch.store import signing

    name, path = signing.make_keys(arguments.file), arguments.file
    print(f"Key {name} is made: the private key is {path}, which only its owner can read, the public key {path}.pub.")
    print(f"To sign:   export {signing.SIGNING_KEY}={path}")
    print(f"To trust:  export {signing.TRUSTED_KEYS}={path}.pub    (several public keys may stand in one file)")
    return 0


def _sign(arguments: argparse.Namespace) -> int:
    with opened(arguments) as store:
        signed = store.sign(*key(arguments))
    print(f"{called(signed)} is signed by key {signed.signature.signer if signed.signature else 'none'}.")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    with opened(arguments) as store:
        baseline, trusting = store.verify(*key(arguments)), store.trusts
    signer = baseline.signature.signer if baseline.signature else "none"
    trust = "which is trusted" if trusting else "but no keys are trusted here: GELUWATCH_TRUSTED_KEYS is not set"
    print(f"{called(baseline)} is what was recorded, and signed by key {signer}, {trust}.")
    return 0
