"""The files from which a replay takes its inputs, whole and damaged."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from geluwatch.analysis.incident import inputs
from geluwatch.errors import IncidentError


@pytest.mark.parametrize("size", [0, 3, 4, 100, 300])
def test_a_file_that_was_cut_off_holds_no_inputs(size: int, tmp_path: Path) -> None:
    """Wherever it ends, that is our own error, which names the file and how to write one."""
    path = tmp_path / "inputs.npz"
    np.savez_compressed(path, ids=np.arange(200.0))
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(IncidentError, match=r"inputs\.npz holds no inputs \(.+\); write one array for each argument with numpy\.savez"):
        inputs.from_file(path)


def test_bytes_that_changed_hold_no_inputs(tmp_path: Path) -> None:
    """Whatever one byte becomes, the file is read or refused in a sentence: zip, zlib and numpy each fail in a way of their own."""
    path = tmp_path / "inputs.npz"
    np.savez_compressed(path, ids=np.arange(20.0))
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with suppress(IncidentError):
            inputs.from_file(path)
