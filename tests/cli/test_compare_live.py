"""`geluwatch compare` of two running processes, each with a real agent that serves its report."""

from __future__ import annotations

import copy
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import geluwatch
from geluwatch.cli.gates import live
from geluwatch.cli.main import main


class Pair:
    """Two models with one baseline, served on loopback."""

    def __init__(self, store: str) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 4))
        config = geluwatch.Config(window_seconds=None, cost_budget=None)
        self.models = [model, copy.deepcopy(model)]
        self.watches = [geluwatch.attach(each, name="tiny", config=config, store=store) for each in self.models]
        for _ in range(60):
            self.serve(0)
        self.watches[0].record_baseline("v1", arm=True, probe=[torch.randn(8, 16)])
        self.watches[1].arm("v1")
        self.urls = [watch.serve() for watch in self.watches]

    def serve(self, number: int, shift: float = 0.0) -> None:
        """Send traffic through one, and close its window."""
        for _ in range(8):
            with torch.no_grad():
                self.models[number](torch.randn(32, 16) + shift)
        self.watches[number].close_window()

    def close(self) -> None:
        """Take both watches off."""
        for watch in self.watches:
            watch.detach()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Two such processes."""
    made = Pair(f"sqlite:///{tmp_path}/store.db")
    yield made
    made.close()


def test_two_processes_are_held_against_each_other(pair: Pair, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Without traffic nothing is said; calm, they are the same, with bounds on their distance; then the second drifts, and is named."""
    pair.serve(0)
    assert 1 == main(["compare", *pair.urls])
    assert "The other one is not judged, so nothing can be said: it is warming" in capsys.readouterr().out

    pair.serve(1)
    assert 0 == main(["compare", *pair.urls, "--json", f"{tmp_path}/found.json"])
    lines = capsys.readouterr().out.splitlines()
    assert f"tiny 1 at {pair.urls[1]} against tiny 1 at {pair.urls[0]}" == lines[0]
    assert "The same: neither has drifted from its baseline." == lines[-1]
    low, high = json.loads((tmp_path / "found.json").read_text())["layers"][0]["ks"]["pre"]
    assert 0 <= low <= high < 0.2

    pair.serve(1, shift=3.0)
    assert 1 == main(["compare", *pair.urls, "--junit", f"{tmp_path}/found.xml"])
    assert "The other one has drifted in 1 layers where the known one has not, first in 1" in capsys.readouterr().out
    assert '<failure type="drift"' in (tmp_path / "found.xml").read_text()


def test_other_weights_under_the_same_traffic_are_found_by_the_probe(
    pair: Pair, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A weight that drift does not see moves the probe of the second: the gate fails, and names the layer, in the JUnit report too."""
    with torch.no_grad():
        pair.models[1][0].weight[3, 3] += 0.02
    for number in (0, 1):
        pair.serve(number)
    assert 0 == main(["compare", *pair.urls])
    pair.watches[1].probe()
    report = pair.watches[1].flush()
    assert ("ticket", ()) == (report.verdict, report.drifting)
    capsys.readouterr()
    assert 1 == main(["compare", *pair.urls, "--junit", f"{tmp_path}/found.xml"])
    assert "The probe of the other one says that it is not the model of its baseline: it moved, first in 1." in capsys.readouterr().out
    assert 'message="the probe moved here first"' in (tmp_path / "found.xml").read_text()


def test_a_junit_report_fails_where_no_layer_is_to_blame(pair: Pair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An alarm that no layer explains fails every case, so that the report does not say that all is well."""
    pair.serve(0), pair.serve(1)
    fetched = live._fetch
    monkeypatch.setattr(live, "_fetch", lambda url: {**fetched(url), "verdict": "page" if url == pair.urls[1] else "ok"})
    assert 1 == main(["compare", *pair.urls, "--junit", f"{tmp_path}/found.xml"])
    text = (tmp_path / "found.xml").read_text()
    assert 'failures="1"' in text
    assert '<failure type="differs" message="The verdict of the other one is page, that of the known one ok' in text


def test_what_speaks_no_http_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """A port of another protocol, one at which the other end hangs up, and one that is no number, are one sentence each."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def greet(greeting: bytes) -> None:
            connection, _ = server.accept()
            connection.sendall(greeting)
            connection.close()

        for greeting in (b"SSH-2.0-OpenSSH_9.6\r\n", b""):
            thread = threading.Thread(target=greet, args=(greeting,))
            thread.start()
            assert 1 == main(["compare", f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port}"])
            thread.join()
            told = capsys.readouterr().err
            assert told.startswith(f"geluwatch: http://127.0.0.1:{port}/report.json gave no report (")
            assert 1 == told.count("\n")
    assert 1 == main(["compare", "http://127.0.0.1:port", "http://127.0.0.1:9"])
    assert "gave no report (nonnumeric port: 'port'); give the address" in capsys.readouterr().err


def test_what_serves_no_report_is_named(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    """An address at which nobody listens, and one that serves something else, are one sentence each."""
    for address, reason in (("http://127.0.0.1:9", "9/report.json gave no report ("), (f"{pair.urls[0]}/nowhere", "gave no report (")):
        assert 1 == main(["compare", pair.urls[0], address])
        assert reason in capsys.readouterr().err
