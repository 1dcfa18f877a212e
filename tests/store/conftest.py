"""Baselines to store, a PostgreSQL server of the tests' own, and every kind of store."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import numpy as np
import psycopg
import pytest

from geluwatch.ports import BaselineStore
from geluwatch.records import (
    Activation,
    Baseline,
    Bfloat16,
    Calm,
    Certificate,
    Histogram,
    Moments,
    Nonfinite,
    PointWindow,
    Probe,
    ProbeInput,
    Provenance,
    Reference,
    Rows,
    Signature,
    Site,
    Weights,
    Window,
)
from geluwatch.store import MemoryBaselines, SqlBaselines

PASSWORD = "p@ss/wörd"  # noqa: S105


@pytest.fixture(scope="session")
def same() -> Callable[[Any, Any], bool]:
    """Compares two records exactly: every field, every array's dtype and bits."""
    return _same


@pytest.fixture(scope="session")
def baseline() -> Callable[..., Baseline]:
    """Makes a small baseline; any of its fields can be given."""
    return _baseline


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server of this session's own on a loopback port."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if not found:
        if "CI" in os.environ:
            pytest.fail("PostgreSQL's initdb is not installed; CI needs Debian's package postgresql")
        pytest.skip("PostgreSQL's initdb is not installed")
    with tempfile.TemporaryDirectory(prefix="geluwatch-") as folder:
        started = Server.start(found[-1].parent, Path(folder))
        yield started
        started.stop()


@pytest.fixture(params=["memory", "sqlite-memory", "sqlite-file", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    """The URL of a new database of each kind, and None for a store without one."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("server").new_database())
    return {"memory": None, "sqlite-memory": "sqlite://", "sqlite-file": f"sqlite:///{tmp_path}/store.db"}[request.param]


@pytest.fixture
def store(place: str | None) -> Iterator[BaselineStore]:
    """Every baseline store there is, empty."""
    with closing(MemoryBaselines() if place is None else SqlBaselines(place)) as opened:
        yield opened


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new database that other processes can open, of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    return str(request.getfixturevalue("server").new_database())


@dataclass(frozen=True)
class Server:
    """A running PostgreSQL cluster."""

    binaries: Path
    data: Path
    port: int

    @classmethod
    def start(cls, binaries: Path, folder: Path) -> Server:
        """Make a cluster in a folder and start it."""
        secret = folder / "secret"
        secret.write_text(PASSWORD, encoding="utf-8")
        account = _account()
        for path in (folder, secret):
            os.chown(path, account.pw_uid, account.pw_gid)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            made = cls(binaries, folder / "data", probe.getsockname()[1])
        made._run("initdb", "-U", "gelu", "-A", "scram-sha-256", "--pwfile", str(secret), "-E", "UTF8", "--locale=C", "--no-sync")
        options = f"-p {made.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        made._run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
        return made

    def stop(self) -> None:
        """Stop the server at once."""
        self._run("pg_ctl", "-m", "immediate", "stop")

    def url(self, database: str, password: str = PASSWORD) -> str:
        """Return the SQLAlchemy URL of a database."""
        return f"postgresql://gelu:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"store_{uuid4().hex}"
        settings = f"host=127.0.0.1 port={self.port} user=gelu dbname=postgres"
        with psycopg.connect(settings, password=PASSWORD, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def _run(self, program: str, *arguments: str) -> None:
        account = _account()
        rights: dict[str, Any] = {} if os.geteuid() else {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        command: list[str | Path] = [self.binaries / program, "-D", self.data, *arguments]
        done = subprocess.run(command, check=False, cwd=self.data.parent, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **rights)
        assert 0 == done.returncode, done.stderr.decode()


def _account() -> pwd.struct_passwd:
    # PostgreSQL refuses to run as root.
    names = {account.pw_name for account in pwd.getpwall()}
    return pwd.getpwuid(os.geteuid()) if os.geteuid() else pwd.getpwnam("postgres" if "postgres" in names else "nobody")


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if is_dataclass(one):
        return all(_same(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
    if isinstance(one, np.ndarray):
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(_same, one, other))
    # By their text, which tells -0.0 from 0.0 and takes NaN for NaN.
    return repr(one) == repr(other)


def _baseline(
    model: str = "minilm", model_version: str = "1", name: str = "v1", created: float = 1_700_000_000.125, **changed: Any
) -> Baseline:
    parts: dict[str, Any] = {
        "sites": _sites(),
        "windows": (_window(0), _light(_window(1))),
        "certificate": _certificate(),
        "references": {("encoder.0.act", "pre"): _reference(0), ("encoder.0.act", "post"): _reference(1)},
        "histograms": {("encoder.0.act", "pre"): _histogram(2), ("encoder.0.act", "post"): _histogram(3)},
        "calm": _calm(),
        "traffic": "eu – 界",
        "provenance": _provenance(),
        "signature": Signature("0a" * 32, "f0" * 64),
        "probe": _probe(),
    }
    return Baseline(model, model_version, name, created, **parts | changed)


def _sites() -> tuple[Site, ...]:
    return (
        Site("encoder.0.act", 0, "module", "GELUActivation", "erf"),
        Site("encoder.1.act", 1, "module", "GELUActivation", "tanh", "blind", 'not "executed"\n∞ – 界'),
    )


def _window(index: int) -> Window:
    random = np.random.default_rng(index)
    moments = Moments(2048, random.normal(size=8), random.exponential(size=8))
    return Window(
        started=1000.1 + index,
        ended=1060.7 + index,
        forwards=2**40,
        sampled_forwards=17,
        points={("encoder.0.act", "post"): PointWindow(_histogram(index), moments, 0.1, 1e300, float("inf"))},
        nonfinite={"encoder.0.act": Nonfinite(3, 2, 1, {("post", "nan"): 5, ("pre", "posinf"): 7})},
        first_nonfinite="encoder.0.act",
        blind=("encoder.1.act",),
        thinned=True,
    )


def _light(window: Window) -> Window:
    """Return a window as a baseline holds it: the values are pooled elsewhere, and moments may be anything."""
    ((key, point),) = window.points.items()
    odd = Moments(2048, np.array([np.nan, -np.inf, -0.0, 5e-324]), np.array([np.inf, -np.nan, 0.0, 1e308]))
    empty = Histogram(24 + 64 * 119, np.empty(0, np.int32), np.empty(0, np.int64))
    return replace(window, points={key: replace(point, histogram=empty, moments=odd)})


def _histogram(seed: int) -> Histogram:
    random = np.random.default_rng(seed)
    cells = np.unique(random.integers(-20_000, 20_000, 50)).astype(np.int32)
    return Histogram(16, cells, random.integers(1, 10**12, len(cells)), nan=3, posinf=1, neginf=2, lossless=False)


def _reference(seed: int) -> Reference:
    random = np.random.default_rng(seed)
    mean, variance = random.normal(size=16).astype(np.float32), random.exponential(size=16).astype(np.float32)
    mean[:3] = np.nan, -0.0, np.inf
    return Reference(mean, variance, 2048.5, 20_000, 31.5)


def _calm() -> Calm:
    scores = np.random.default_rng(4).exponential(size=(5, 3, 2, 3)).astype(np.float32)
    scores[0, ..., 1:] = np.nan
    ended = np.array([1_700_000_000.1 + 60.0 * index for index in range(5)])
    return Calm((("encoder.0.act", "pre"), ("encoder.0.act", "post")), (1, 4, 16), ended, scores)


def _provenance() -> Provenance:
    return Provenance(
        Weights("ab" * 32, "", {"b.weight": "0" * 16, "a.weight": "1" * 16}, 22_713_216, ("float32", "int8"), ("cuda", "cpu")),
        (
            Activation("encoder.0.act", "module", "GELUActivation", "erf", "erf", "float32", "bfloat16"),
            Activation("encoder.1.act", "module", "GELUActivation", "tanh"),
        ),
        {"torch": "2.13.0", "python": "3.11.7"},
        {"platform": "Linux", "cpu": "AVX2"},
        {"horizons": "1, 4, 16"},
    )


def _probe() -> Probe:
    odd = {"a": [True, 2**70, -0.0, float("nan"), float("-inf"), None, "界"], "b": ({}, [])}
    empty, scalar = np.empty((0, 3), np.int16), np.array(2.5, np.float64)
    one = ProbeInput((np.array([[1, 2], [3, 4]]), odd, empty), {"bits": Bfloat16(np.array([1, 65535], np.uint16)), "x": scalar})
    two = ProbeInput((), {"input_ids": np.array([[True]]), "z": np.array([1 + 2j], np.complex64), "attention_mask": None})
    values = np.array([[np.nan, -0.0, 1e-45], [np.inf, 2.0, 3.0]], np.float32)
    pairs = (Rows("encoder.0.act", "bfloat16", values, -values), Rows("encoder.1.act", "float64", values[:0], values[:0], derived=True))
    return Probe(1_700_000_000.25, (one, two), (pairs, pairs[:1]), 21_845, "bfloat16")


def _certificate() -> Certificate:
    return Certificate(
        windows=100,
        left_out=3,
        seconds=5940.25,
        horizons=(1, 16),
        looks=8.7,
        strata=24,
        tickets_per_month=2.0,
        pages_per_quarter=1.0,
        ticket_limit=7.1,
        page_limit=float("inf"),
        replayed=100,
        requested=10.0,
        observed=0,
        interval=(0.0, float("inf")),
        armed=False,
        reason="12 more windows are needed",
        paging_reason="too few looks – 界",
    )
