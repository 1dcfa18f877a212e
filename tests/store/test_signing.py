"""Signatures: who signed is known, and what was tampered with, in a database or a file, is refused in a sentence of its own."""

from __future__ import annotations

import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat, PublicFormat
from sqlalchemy import text

from geluwatch.errors import BaselineError, MissingPartError, SignatureError, StoreError
from geluwatch.records import Baseline, Signature
from geluwatch.store import MemoryBaselines, SqlBaselines, portable, signing
from geluwatch.store.engine import for_writing, make_engine
from geluwatch.store.signing import Keys

Make = Callable[..., Baseline]
Store = MemoryBaselines | SqlBaselines

ALICE, MALLORY = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
KEY = ("minilm", "1", "v1")
CALLED = 'Baseline "v1" of model "minilm" version "1"'


def public(private: Ed25519PrivateKey) -> str:
    """Return a public key as signatures hold it."""
    return private.public_key().public_bytes_raw().hex()


TRUSTING = Keys(trusted=frozenset({public(ALICE)}))


def with_keys(store: Store, keys: Keys) -> Store:
    """Have a store sign and trust otherwise from now on."""
    store._keys = keys
    return store


@pytest.fixture
def unsigned(baseline: Make) -> Baseline:
    """A baseline that nobody has signed, with everything in it."""
    return baseline(signature=None)


def test_what_is_recorded_is_signed_and_believed(store: Store, unsigned: Baseline, same: Callable[..., bool]) -> None:
    """A store with a key signs what it saves; one that trusts the key loads it, just as it was."""
    with_keys(store, Keys(ALICE)).save(unsigned)
    loaded = with_keys(store, TRUSTING).load(*KEY)
    assert same(unsigned, replace(loaded, signature=None))
    assert public(ALICE) == (loaded.signature or Signature("", "")).key
    assert loaded.signature == store.verify(*KEY).signature
    assert ["recorded", "signed"] == [entry.action for entry in store.log()]


def test_the_three_refusals(store: Store, unsigned: Baseline) -> None:
    """Unsigned, signed by another, and changed since: each is refused by its own sentence; without trusted keys none is."""
    store.save(unsigned)
    with_keys(store, Keys(MALLORY)).save(replace(unsigned, name="other"))
    signed = Keys(ALICE).signed(unsigned)
    with_keys(store, Keys()).save(replace(signed, name="changed"))
    assert "v1" == store.load(*KEY).name
    with_keys(store, TRUSTING)
    for name, said in (
        ("v1", "is unsigned, and GELUWATCH_TRUSTED_KEYS asks for signatures; sign it with `geluwatch baseline sign`."),
        ("other", f"is signed by key {public(MALLORY)[:16]}, which is not among the 1 of GELUWATCH_TRUSTED_KEYS; add that key, or"),
        ("changed", f"is not what key {public(ALICE)[:16]} signed: it was changed afterwards; restore it from a copy, or"),
    ):
        for act in (store.load, store.verify, store.promote, store.approve):
            with pytest.raises(SignatureError) as caught:
                act("minilm", "1", name)
            assert str(caught.value).startswith(f'Baseline "{name}" of model "minilm" version "1" {said}')


def test_a_signature_can_be_given_later(store: Store, unsigned: Baseline) -> None:
    """Whoever has the key signs what is stored, and signs anew what another signed; what was tampered with is not signed."""
    store.save(unsigned)
    with pytest.raises(SignatureError, match=r"^There is no key to sign with; let GELUWATCH_SIGNING_KEY name one"):
        store.sign(*KEY)
    for private in (MALLORY, ALICE):
        assert public(private)[:16] == (with_keys(store, Keys(private)).sign(*KEY).signature or Signature("", "")).signer
    assert "v1" == with_keys(store, TRUSTING).load(*KEY).name
    with_keys(store, Keys()).save(replace(Keys(MALLORY).signed(unsigned), name="changed"))
    with pytest.raises(SignatureError, match=r"is not what key .* signed"):
        with_keys(store, Keys(ALICE)).sign("minilm", "1", "changed")
    assert ["recorded", "signed", "signed", "recorded", "signed"] == [entry.action for entry in store.log()]


def test_verify_compares_with_the_log(store: Store, unsigned: Baseline) -> None:
    """Even one who has the key cannot put another content in the place of what was recorded; nobody stands for what is unsigned."""
    store.save(unsigned)
    with pytest.raises(SignatureError, match="is unsigned, so that nobody stands for it"):
        store.verify(*KEY)
    with_keys(store, Keys(ALICE)).sign(*KEY)
    assert "v1" == store.verify(*KEY).name


def test_what_is_taken_from_elsewhere_has_to_be_trusted(store: Store, unsigned: Baseline) -> None:
    """A trusted signature comes along with the baseline; another one is refused before anything is stored."""
    with_keys(store, TRUSTING)
    with pytest.raises(SignatureError, match="which is not among"):
        store.take(Keys(MALLORY).signed(unsigned), "a file")
    assert () == store.names("minilm", "1")
    store.take(Keys(ALICE).signed(unsigned), "a file")
    assert "v1" == store.load(*KEY).name


TAMPERING = (
    "UPDATE geluwatch_baseline SET created = created + 1",
    "UPDATE geluwatch_baseline SET traffic = 'us'",
    "UPDATE geluwatch_baseline SET provenance = NULL",
    "UPDATE geluwatch_baseline SET calm_payload = NULL",
    "UPDATE geluwatch_baseline SET reference_payload = histogram_payload",
    "UPDATE geluwatch_baseline SET histogram_payload = NULL",
    "UPDATE geluwatch_baseline SET certificate = CAST(REPLACE(CAST(certificate AS TEXT), '7.1', '70.1') AS {json})",
    "UPDATE geluwatch_baseline SET provenance = CAST(REPLACE(CAST(provenance AS TEXT), 'AVX2', 'AVX1') AS {json})",
    "UPDATE geluwatch_baseline SET signature = CAST(REPLACE(CAST(signature AS TEXT), 'ed25519', 'none') AS {json})",
    "UPDATE geluwatch_baseline SET signature = NULL",
    "UPDATE geluwatch_baseline_site SET variant = 'tanh' WHERE ordinal = 0",
    "UPDATE geluwatch_baseline_site SET layer = 'x' WHERE ordinal = 1",
    "UPDATE geluwatch_baseline_site SET state = 'observed', reason = ''",
    "UPDATE geluwatch_baseline_site SET form = 'x' WHERE ordinal = 1",
    "UPDATE geluwatch_baseline_site SET kind = 'x' WHERE ordinal = 1",
    "UPDATE geluwatch_baseline_site SET position = 7 WHERE ordinal = 1",
    "DELETE FROM geluwatch_baseline_site WHERE ordinal = 0",
    "DELETE FROM geluwatch_baseline_window WHERE position = 1",
    "UPDATE geluwatch_baseline_window SET position = 9 WHERE position = 0",
    "UPDATE geluwatch_baseline_window SET payload = (SELECT reference_payload FROM geluwatch_baseline) WHERE position = 1",
)


def test_tampering_anywhere_in_the_database_is_refused(url: str, unsigned: Baseline) -> None:
    """Whatever is changed in a row that a baseline is made of, it is not loaded any more, and one sentence says why."""
    store, engine = SqlBaselines(url, Keys(ALICE, TRUSTING.trusted)), make_engine(url)
    json_type = "JSON" if engine.dialect.name == "postgresql" else "TEXT"
    for statement in TAMPERING:
        store.save(unsigned)
        assert "v1" == store.load(*KEY).name
        with for_writing(engine).begin() as connection:
            assert connection.execute(text(statement.format(json=json_type))).rowcount, statement
        with pytest.raises((SignatureError, StoreError)) as caught:
            store.load(*KEY)
        assert str(caught.value).count("\n") == 0, statement
        with for_writing(engine).begin() as connection:
            connection.execute(text("DELETE FROM geluwatch_baseline"))


def test_a_file_that_was_tampered_with_is_refused(tmp_path: Path, unsigned: Baseline) -> None:
    """A file whose content was changed and whose checksum was made anew is refused where keys are trusted, as is an unsigned one."""
    signed = Keys(ALICE).signed(unsigned)
    for name, written, said in (
        ("changed", replace(signed, traffic="us"), "is not what key"),
        ("unsigned", unsigned, "is unsigned, and"),
        ("other", Keys(MALLORY).signed(unsigned), "which is not among"),
    ):
        path = tmp_path / f"{name}.baseline"
        portable.write(written, path)
        assert written.signature == portable.read(path, Keys()).signature
        with pytest.raises(SignatureError, match=rf"^The baseline in {path} .*{said}"):
            portable.read(path, TRUSTING)
    portable.write(signed, tmp_path / "signed.baseline")
    assert signed.signature == portable.read(tmp_path / "signed.baseline", TRUSTING).signature


def test_signatures_that_are_none_are_refused(unsigned: Baseline) -> None:
    """Letters that are no key or no signature, of whatever length, are those of a baseline that was changed, and no crash."""
    good = Keys(ALICE).signed(unsigned).signature or Signature("", "")
    assert signing.is_intact(replace(unsigned, signature=good))
    for bad in (Signature("xyz", good.value), Signature("00", good.value), Signature(good.key, ""), Signature(good.key, good.value[:-2])):
        assert not signing.is_intact(replace(unsigned, signature=bad))
    with pytest.raises(SignatureError, match="is not what key"):
        TRUSTING.check(replace(unsigned, signature=Signature(good.key, "zz")), CALLED)


def test_made_keys_sign_and_are_trusted(tmp_path: Path, unsigned: Baseline) -> None:
    """The private key is its owner's alone, the public one is beside it, and several may stand in one file; none is written over."""
    made = [signing.make_keys(tmp_path / name) for name in ("a.pem", "b.pem")]
    assert [0o600, 0o644] == [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.pem", "a.pem.pub")]
    both = tmp_path / "trusted.pem"
    both.write_bytes(b"# the team's\n" + (tmp_path / "a.pem.pub").read_bytes() + b"\n" + (tmp_path / "b.pem.pub").read_bytes())
    for name, short in zip(("a.pem", "b.pem"), made, strict=True):
        keys = Keys.from_environment({"GELUWATCH_SIGNING_KEY": str(tmp_path / name), "GELUWATCH_TRUSTED_KEYS": str(both)})
        signed = keys.signed(unsigned)
        keys.check(signed, CALLED)
        assert short == (signed.signature or Signature("", "")).signer
    with pytest.raises(SignatureError, match=r"a\.pem\.pub exists already, and no key is written over"):
        signing.make_keys(tmp_path / "a.pem")
    with pytest.raises(SignatureError, match="cannot be written"):
        signing.make_keys(tmp_path / "nowhere" / "a.pem")
    (tmp_path / "c.pem").touch()
    with pytest.raises(SignatureError, match=r"c\.pem exists already"):
        signing.make_keys(tmp_path / "c.pem")
    assert not (tmp_path / "c.pem.pub").exists()


def test_files_without_keys_are_refused(tmp_path: Path) -> None:
    """A file that is missing, no PEM, of another kind of key or behind a password is named, with the variable and what to do."""
    other = generate_private_key(SECP256R1())
    plain = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    files = {
        "none.pem": b"no key",
        "other.pem": other.private_bytes(*plain),
        "locked.pem": ALICE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")),
        "other.pub": other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "broken.pub": b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for variable, names, said in (
        ("GELUWATCH_SIGNING_KEY", ("none.pem", "other.pem", "locked.pem"), "holds no Ed25519 private key in PEM without a password"),
        ("GELUWATCH_TRUSTED_KEYS", ("none.pem", "other.pub", "broken.pub"), "must hold Ed25519 public keys in PEM and no other"),
    ):
        for name in names:
            with pytest.raises(SignatureError, match=f"{name}, which {variable} names, {said}"):
                Keys.from_environment({variable: str(tmp_path / name)})
        with pytest.raises(SignatureError, match=f"missing, which {variable} names, cannot be read"):
            Keys.from_environment({variable: str(tmp_path / "missing")})
    assert Keys() == Keys.from_environment({})


def test_without_the_library_only_keys_are_refused(monkeypatch: pytest.MonkeyPatch, baseline: Make) -> None:
    """Where `cryptography` is not installed a store without keys works; to use a key says what to install."""
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
    store = MemoryBaselines(Keys())
    store.save(baseline())
    assert store.load(*KEY).signature is not None
    with pytest.raises(MissingPartError, match=r"Signatures need the package cryptography; run: pip install cryptography"):
        store.verify(*KEY)


def test_a_baseline_that_was_signed_is_no_other(unsigned: Baseline) -> None:
    """A signature moved to another baseline of the same key is refused: the content is what it is of."""
    signed = Keys(ALICE).signed(unsigned)
    with pytest.raises(BaselineError, match="is not what key"):
        TRUSTING.check(replace(signed, name="v2"), CALLED)
