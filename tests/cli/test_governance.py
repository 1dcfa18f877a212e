"""`geluwatch baseline` where people decide: keys, signatures, approval, promotion, policies and the log; the page in docs has the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from geluwatch.cli.main import main
from geluwatch.records import Baseline, Certificate, Signature, Site
from geluwatch.store import SqlBaselines, portable
from geluwatch.store.engine import for_writing, make_engine

CERTIFICATE = Certificate(100, 0, 6000.0, (1,), 9.0, 1, 2.0, 1.0, 7.0, 9.0, armed=True)
BASELINE = Baseline("minilm", "1", "v1", 1_700_000_000.0, (Site("act", 0, "module", "GELU", "erf"),), (), CERTIFICATE)
CALLED = 'Baseline "v1" of model "minilm" version "1"'

READING = ("baseline list", "baseline log", "baseline show minilm", "baseline policy minilm", "history list", "report minilm")

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store with a baseline that alice recorded."""
    monkeypatch.setenv("GELUWATCH_ACTOR", "alice")
    address = f"sqlite:///{tmp_path}/store.db"
    store = SqlBaselines(address)
    store.save(BASELINE)
    store.close()
    return address


@pytest.fixture
def key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A key to sign with, its public half beside it."""
    path = tmp_path / "alice.pem"
    assert 0 == main(["baseline", "keygen", str(path)])
    assert str(path) in capsys.readouterr().out
    return path


@pytest.fixture
def run(url: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs an action on that store; returns its exit status and all that it printed."""

    def action(*arguments: str) -> tuple[int, str]:
        status = main(["baseline", *arguments, "--store", url])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return action


def test_from_a_key_to_a_refusal(run: Run, url: str, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key is made, signs and is trusted; without it nothing is signed, and what was changed is refused with exit status 1."""
    unsigned = f"geluwatch: {CALLED} is unsigned, so that nobody stands for it; sign it with `geluwatch baseline sign`.\n"
    assert (1, unsigned) == run("verify", "minilm")
    status, printed = run("sign", "minilm")
    assert 1 == status
    assert printed.startswith("geluwatch: There is no key to sign with; let GELUWATCH_SIGNING_KEY name one")
    monkeypatch.setenv("GELUWATCH_SIGNING_KEY", str(key))
    signed = run("sign", "minilm")[1]
    name = signed.split()[-1].rstrip(".")
    assert f"{CALLED} is signed by key {name}.\n" == signed
    intact = f"{CALLED} is what was recorded, and signed by key {name}"
    assert (0, f"{intact}, but no keys are trusted here: GELUWATCH_TRUSTED_KEYS is not set.\n") == run("verify", "minilm")
    monkeypatch.setenv("GELUWATCH_TRUSTED_KEYS", f"{key}.pub")
    assert (0, f"{intact}, which is trusted.\n") == run("verify", "minilm", "v1")
    swap_formula(url)
    for action in ("verify", "show", "promote"):
        status, printed = run(action, "minilm", "v1")
        assert 1 == status
        assert printed.startswith(f"geluwatch: {CALLED} is not what key {name} signed: it was changed afterwards;")


def swap_formula(url: str) -> None:
    """Change what the census of every baseline says, behind the store's back."""
    with for_writing(make_engine(url)).begin() as connection:
        connection.execute(text("UPDATE geluwatch_baseline_site SET variant = 'tanh'"))


def test_the_digest_in_the_log_tells_too(run: Run, url: str, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Content that was changed before it was signed is signed well, and still is not what was recorded."""
    swap_formula(url)
    monkeypatch.setenv("GELUWATCH_SIGNING_KEY", str(key))
    assert 0 == run("sign", "minilm")[0]
    told = f"geluwatch: {CALLED} is not what the log says was recorded: it was changed afterwards; restore it.\n"
    assert (1, told) == run("verify", "minilm")


def test_keys_are_never_written_over(key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that exists is left alone, with exit status 1."""
    before = key.read_bytes()
    assert 1 == main(["baseline", "keygen", str(key)])
    assert "exists already, and no key is written over" in capsys.readouterr().err
    assert before == key.read_bytes()


def test_refusals_exit_with_one(run: Run) -> None:
    """What is missing, what is done already and what does not exist is said in a sentence, and nothing is logged."""
    run("policy", "minilm", "--approvals", "1", "--stable-hours", "2.5")
    for arguments, said in (
        (("promote", "minilm", "v1"), "has 0 of 1 approvals by others than alice, who recorded it; it spans 1.7 of 2.5 hours."),
        (("approve", "minilm", "v1"), "was recorded by alice; somebody else has to approve it."),
        (("retire", "minilm", "v9"), 'No baseline "v9" is stored for model "minilm" version "1"; there are "v1".'),
        (("policy", "minilm", "--approvals", "-1"), "A policy asks for zero or more approvals and hours, got -1 and 2.5; give others."),
    ):
        status, printed = run(*arguments)
        assert 1 == status
        assert said in printed
    assert ["recorded", "policy"] == [line.split("  ")[2].split()[0] for line in run("log")[1].splitlines()[:-1]]


def test_a_policy_is_printed_as_it_stands(run: Run) -> None:
    """Without an option it is only printed, and an option that is left out stays as it is."""
    none = "0 approvals by others than whoever recorded it, 0 hours from its first window to its last"
    assert none in run("policy", "minilm")[1]
    run("policy", "minilm", "--approvals", "1")
    assert "needs 1 approval by others than whoever recorded it, 36 hours" in run("policy", "minilm", "--stable-hours", "36")[1]
    assert "approvals 0 became 1\n" in run("log", "minilm")[1]


def test_a_policy_may_be_set_before_there_is_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where an option sets something the database is made, and what was set is read from it."""
    store = ["--store", f"sqlite:///{tmp_path}/new.db"]
    assert 0 == main(["baseline", "policy", "minilm", "--approvals", "2", *store])
    capsys.readouterr()
    assert 0 == main(["baseline", "policy", "minilm", *store])
    assert "needs 2 approvals by others" in capsys.readouterr().out


def test_a_log_that_was_tampered_with_exits_with_one(run: Run, url: str) -> None:
    """The entry is named; a digest that was noted tells a log that was cut off, which is whole in itself."""
    run("retire", "minilm", "v1", "--reason", "test")
    status, printed = run("log")
    noted = printed.split()[-1].rstrip(".")
    assert (0, 64) == (status, len(noted))
    whole = f"The log of 2 entries is whole; the last is {noted}.\n"
    assert (0, whole) == run("log", "--holds", noted) == run("log", "--holds", noted[:12])
    with for_writing(make_engine(url)).begin() as connection:
        connection.execute(text("DELETE FROM geluwatch_audit WHERE id = 2"))
    assert 0 == run("log")[0]
    assert (1, f"The log is not what was written: it has no entry {noted}, so it was cut off or made anew.\n") == run(
        "log", "--holds", noted
    )
    with for_writing(make_engine(url)).begin() as connection:
        connection.execute(text("UPDATE geluwatch_audit SET actor = 'mallory'"))
    status, printed = run("log", "minilm")
    assert 1 == status
    assert "entry 1 (mallory recorded minilm 1 v1) was changed: its content does not give its digest." in printed


def test_an_empty_log_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A store in which nothing was done has no entry, and is whole."""
    SqlBaselines(url := f"sqlite:///{tmp_path}/new.db").close()
    assert 0 == main(["baseline", "log", "--store", url])
    assert "The log has no entry yet.\n" == capsys.readouterr().out


@pytest.mark.parametrize("command", READING)
def test_a_mistyped_path_makes_no_database(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever reads from a file that does not exist is told so, and finds none there afterwards."""
    assert 1 == main([*command.split(), "--store", f"sqlite:///{tmp_path}/typo.db"])
    told = f"The database sqlite:///{tmp_path}/typo.db does not exist; correct the path, or let a watch make it."
    assert told in capsys.readouterr().err
    assert [] == list(tmp_path.iterdir())


def test_a_digest_must_be_long_enough_to_be_one(run: Run) -> None:
    """Too few digits are a mistake of whoever asks, and not one of the log."""
    status, printed = run("log", "--holds", "zz")
    assert (1, True) == (status, "--holds takes a digest or its first 8 digits or more, got 'zz'." in printed)


def test_another_name_loses_the_signature(run: Run, tmp_path: Path) -> None:
    """A baseline that is imported under another name is another one, which nobody has signed; under its own it stays signed."""
    path = tmp_path / "v2.baseline"
    portable.write(replace(BASELINE, name="v2", signature=Signature("0a" * 32, "f0" * 64)), path)
    for name in ("v2", "v3"):
        assert 0 == run("import", str(path), "--name", name)[0]
    lines = run("list")[1].splitlines()
    assert ["signed" in line for line in lines] == [False, True, False]
