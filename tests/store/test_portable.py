"""A baseline as a file: exact there and back, and refused where a single byte is not what was written."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import random
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geluwatch.errors import BaselineError
from geluwatch.records import Baseline
from geluwatch.store import SqlBaselines, portable

MUTATIONS = 10_000


def stamped(archive: bytes) -> bytes:
    """Return the file of an archive that somebody changed and whose checksum they made anew."""
    return b"geluwatch-baseline 1\n" + hashlib.sha256(archive).hexdigest().encode() + b"\n" + archive


def unstamped(content: bytes) -> bytes:
    """Return the archive in a file."""
    return content.split(b"\n", 2)[2]


def test_a_baseline_comes_back_as_it_was(baseline: Callable[..., Baseline], same: Callable[[Any, Any], bool]) -> None:
    """Every part survives, odd numbers and letters included, with or without calm scores and windows; equal ones give equal bytes."""
    for changed in (
        {},
        {"traffic": "", "provenance": None, "signature": None},
        {"calm": None},
        {"probe": None},
        {"windows": (), "histograms": {}, "references": {}},
    ):
        before = baseline(**changed)
        content = portable.dump(before)
        assert same(before, portable.load(content, "the file"))
        assert content == portable.dump(portable.load(content, "the file"))


def test_a_file_of_the_first_release_loads(baseline: Callable[..., Baseline], same: Callable[[Any, Any], bool]) -> None:
    """A file written before there were provenance, signatures, slices and probes is the baseline it was, and is written the same again."""
    content = (Path(__file__).with_name("data") / "first.baseline").read_bytes()
    before = baseline(histograms={}, windows=baseline().windows[:1], traffic="", provenance=None, signature=None, probe=None)
    assert same(before, portable.load(content, "the file"))
    assert content == portable.dump(before)


def test_the_file_is_what_its_page_says(baseline: Callable[..., Baseline]) -> None:
    """Two lines of text, then a zip archive without dates that any tool opens, with JSON and npz entries."""
    magic, digest, archive = portable.dump(baseline()).split(b"\n", 2)
    assert (b"geluwatch-baseline 1", hashlib.sha256(archive).hexdigest()) == (magic, digest.decode())
    with zipfile.ZipFile(io.BytesIO(archive)) as entries:
        assert entries.testzip() is None
        names = ["baseline.json", "references.npz", "histograms.npz", "calm.npz", "probe.npz", "windows/00000.npz", "windows/00001.npz"]
        assert names == entries.namelist()
        assert {(1980, 1, 1, 0, 0, 0)} == {entry.date_time for entry in entries.infolist()}
        assert baseline().model == json.loads(entries.read("baseline.json"))["model"]


def test_a_flipped_bit_anywhere_is_refused(baseline: Callable[..., Baseline]) -> None:
    """At each byte of a file one bit is flipped: it is refused each time with one sentence, in our own error."""
    content = bytearray(portable.dump(baseline(windows=(), histograms={})))
    chance = random.Random(0)
    for place in range(len(content)):
        bit = 1 << chance.randrange(8)
        content[place] ^= bit
        with pytest.raises(BaselineError) as caught:
            portable.load(bytes(content), "the file")
        assert str(caught.value).startswith("the file ")
        assert "\n" not in str(caught.value)
        content[place] ^= bit


def test_mutated_files_are_refused_and_leave_nothing(baseline: Callable[..., Baseline], tmp_path: Path) -> None:
    """Ten thousand files cut, grown, shuffled or changed, half of them with a checksum that fits, never crash the reader.

    Those that do not fit are refused. A change that was made fit is refused too or is a baseline that a store takes.
    """
    store = SqlBaselines(f"sqlite:///{tmp_path}/store.db")
    content = portable.dump(baseline())
    chance, taken = random.Random(1), 0
    refusals: list[str] = []
    for turn in range(MUTATIONS):
        honest = turn % 2 == 0
        mutated = mutate(content if honest else unstamped(content), chance)
        try:
            loaded = portable.load(mutated if honest else stamped(mutated), "the file")
        except BaselineError as error:
            refusals.append(str(error))
        else:
            assert not honest
            taken += 1
            store.save(replace(loaded, name=f"taken-{turn}"))
    store.close()
    assert MUTATIONS == len(refusals) + taken
    assert len(refusals) > 0.9 * MUTATIONS
    assert all(refusal.startswith("the file ") and "\n" not in refusal for refusal in refusals)


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Return other bytes than these."""
    changed = bytearray(content)
    while bytes(changed) == content:
        place = chance.randrange(len(changed))
        match chance.randrange(5):
            case 0:
                changed[place] = chance.randrange(256)
            case 1:
                del changed[place:]
            case 2:
                del changed[place : place + chance.randrange(1, 64)]
            case 3:
                changed[place:place] = chance.randbytes(chance.randrange(1, 64))
            case _:
                changed[place : place + 8] = chance.randbytes(8)
    return bytes(changed)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "the file is no exported baseline; `geluwatch baseline export` writes one."),
        (b"PK\x03\x04", "the file is no exported baseline; `geluwatch baseline export` writes one."),
        (b"geluwatch-baseline 2\n", "the file is of version 2 where this release knows 1; upgrade geluwatch."),
        (
            b"geluwatch-baseline 1\n00\n",
            "the file is not what was exported, its SHA-256 differs: it was cut off, damaged or changed; export it again.",
        ),
        (
            stamped(b"nothing"),
            "the file holds no baseline that can be kept (File is not a zip file); export it again.",
        ),
    ],
)
def test_each_refusal_says_what_is_wrong(content: bytes, sentence: str) -> None:
    """What is no such file, of a newer release, damaged, or no baseline, is refused in one sentence of its own."""
    with pytest.raises(BaselineError) as caught:
        portable.load(content, "the file")
    assert sentence == str(caught.value)


def test_a_file_is_whole_or_absent_and_never_replaced(baseline: Callable[..., Baseline], tmp_path: Path) -> None:
    """A file that exists is left as it is; where nothing can be written nothing is left behind; a missing one is named."""
    path = tmp_path / "v1.baseline"
    portable.write(baseline(), path)
    before = path.read_bytes()
    with pytest.raises(BaselineError, match="exists already, and is not written over"):
        portable.write(baseline(name="v2"), path)
    assert [(path, before)] == [(each, each.read_bytes()) for each in tmp_path.iterdir()]
    with pytest.raises(BaselineError, match=r"cannot be written \(No such file or directory\)"):
        portable.write(baseline(), tmp_path / "missing" / "v1.baseline")
    with pytest.raises(BaselineError, match=r"cannot be read \(No such file or directory\)"):
        portable.read(tmp_path / "missing.baseline")


def test_a_full_disk_leaves_nothing_behind(baseline: Callable[..., Baseline], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where writing fails half-way there is one sentence, and neither the file nor a part of it."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(BaselineError, match=r"v1\.baseline cannot be written \(No space left on device\); give another place\."):
        portable.write(baseline(), tmp_path / "v1.baseline")
    assert [] == list(tmp_path.iterdir())


def test_what_unfolds_within_counts(baseline: Callable[..., Baseline], monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive in the archive that unfolds beyond the limit is refused before it is unfolded."""
    vast, archive = io.BytesIO(), io.BytesIO()
    np.savez_compressed(vast, x=np.zeros(1 << 23))
    with zipfile.ZipFile(io.BytesIO(unstamped(portable.dump(baseline())))) as before, zipfile.ZipFile(archive, "w") as after:
        for entry in before.namelist():
            after.writestr(entry, vast.getvalue() if entry == "references.npz" else before.read(entry))
    monkeypatch.setattr(portable, "_MOST_BYTES", 1 << 24)
    with pytest.raises(BaselineError, match="it unfolds to more than 16777216 bytes"):
        portable.load(stamped(archive.getvalue()), "the file")
