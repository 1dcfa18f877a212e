"""The chain of the log: whatever is changed, removed or inserted is found and named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from geluwatch.errors import ConfigError
from geluwatch.records import Baseline
from geluwatch.store import SqlBaselines, audit
from geluwatch.store.audit import START, Entry, chained, flaws
from geluwatch.store.engine import for_writing, make_engine

CHANGES = {
    "time": 5.0,
    "actor": "mallory",
    "action": "promoted",
    "model": "gpt2",
    "model_version": "2",
    "name": "v9",
    "detail": {"reason": "none"},
    "previous": "f" * 64,
    "digest": "e" * 64,
}


def chain(length: int) -> list[Entry]:
    """Return a log as it is written."""
    log: list[Entry] = []
    for place in range(length):
        entry = Entry(float(place) / 3, f"actor {place % 3}", "recorded", "minilm", "1", f"v{place}", {"windows": place})
        log.append(chained(entry, log[-1].digest if log else START))
    return log


def test_a_log_as_written_is_whole() -> None:
    """Nothing is found in it, however long it is, and an empty one is whole too."""
    assert [] == [flaw for length in (0, 1, 2, 50) for flaw in flaws(chain(length))]


@given(length=st.integers(2, 8), data=st.data())
def test_any_change_is_named(length: int, data: st.DataObject) -> None:
    """One field of one entry is another: the entry is named, with what it says of itself."""
    log, place, name = chain(length), data.draw(st.integers(0, length - 1)), data.draw(st.sampled_from(sorted(CHANGES)))
    log[place] = replace(log[place], **{name: CHANGES[name]})
    found = list(flaws(log))
    assert found[0].startswith(f"entry {place + 1} (")
    assert any("was changed" in flaw for flaw in found)


@given(length=st.integers(2, 8), data=st.data())
def test_any_removal_is_named(length: int, data: st.DataObject) -> None:
    """One entry that is not the last is gone: the one behind it is named."""
    log, place = chain(length), data.draw(st.integers(0, length - 2))
    del log[place]
    before = f"entry {place} (actor" if place else "the beginning"
    (found,) = flaws(log)
    assert found.startswith(f"entry {place + 1} (")
    assert f"does not follow {before}" in found


@given(length=st.integers(1, 8), data=st.data())
def test_any_insertion_is_named(length: int, data: st.DataObject) -> None:
    """An entry between two others, in itself in order, is named or the one behind it is."""
    log, place = chain(length), data.draw(st.integers(0, length - 1))
    forged = Entry(9.0, "mallory", "promoted", "minilm", "1", "v0")
    log.insert(place, chained(forged, log[place].previous))
    assert [f"entry {place + 2} ("] == [flaw[: len(f"entry {place + 2} (")] for flaw in flaws(log)]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE geluwatch_audit SET actor = 'mallory' WHERE id = 2", "entry 2 (mallory promoted minilm 1 v1) was changed"),
        ("UPDATE geluwatch_audit SET detail = '{}' WHERE id = 1", "entry 1 (alice recorded minilm 1 v1) was changed"),
        ("DELETE FROM geluwatch_audit WHERE id = 2", "entry 2 (alice retired minilm 1 v1) does not follow entry 1 (alice recorded"),
        ("DELETE FROM geluwatch_audit WHERE id = 1", "entry 1 (alice promoted minilm 1 v1) does not follow the beginning"),
    ],
)
def test_what_is_done_in_the_database_is_found(url: str, baseline: Callable[..., Baseline], statement: str, said: str) -> None:
    """Rows changed or removed behind the store's back are named; what is left says who did what."""
    store = SqlBaselines(url, actor="alice")
    store.save(baseline(signature=None, certificate=replace(baseline().certificate, armed=True)))
    store.promote("minilm", "1", "v1")
    store.retire("minilm", "1", "v1")
    assert [] == list(flaws(store.log()))
    with for_writing(make_engine(url)).begin() as connection:
        connection.execute(text(statement))
    assert next(flaws(store.log())).startswith(said)


def test_the_actor() -> None:
    """The variable names whoever acts, else the user and the host do; what no entry could hold is refused."""
    assert "ci, for alice" == audit.actor({"GELUWATCH_ACTOR": "  ci, for alice "})
    user, _, host = audit.actor({}).partition("@")
    assert user
    assert host
    for wrong in ("two\nlines", "x" * 256):
        with pytest.raises(ConfigError, match="GELUWATCH_ACTOR must be at most 255 printable characters"):
            audit.actor({"GELUWATCH_ACTOR": wrong})


def test_a_user_without_a_name_acts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container whose user has no entry among the accounts, the number stands for it."""

    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(audit.getpass, "getuser", nobody)
    assert audit.actor({}).startswith("uid")
