"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from geluwatch import files

Write = Callable[..., None]


@pytest.mark.parametrize("write", [files.replace, files.create])
def test_a_new_file_has_its_content_and_its_mode(write: Write, tmp_path: Path) -> None:
    """The content is there with the mode asked for, and nothing beside it."""
    write(tmp_path / "a", b"one", mode=0o600)
    write(tmp_path / "b", b"two")
    found = {path.name: (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) for path in tmp_path.iterdir()}
    assert {"a": (b"one", 0o600), "b": (b"two", 0o644)} == found


def test_what_is_there_is_replaced_or_left_alone(tmp_path: Path) -> None:
    """One takes the place of a file, the other refuses to."""
    path = tmp_path / "a"
    files.create(path, b"one")
    with pytest.raises(FileExistsError):
        files.create(path, b"two")
    assert b"one" == path.read_bytes()
    files.replace(path, b"three")
    assert [b"three"] == [each.read_bytes() for each in tmp_path.iterdir()]


@pytest.mark.parametrize("write", [files.replace, files.create])
def test_a_full_disk_leaves_what_was_there(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where writing fails half-way, an old file is whole, and no part of the new one is left."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "old").write_bytes(b"old")
    monkeypatch.setattr("os.fsync", full)
    for name in ("old", "new"):
        with pytest.raises(OSError, match="No space left"):
            write(tmp_path / name, b"new")
    assert {"old": b"old"} == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
