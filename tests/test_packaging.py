"""The built distributions work where the checkout is not."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import geluwatch

ROOT = Path(__file__).resolve().parent.parent


def test_public_names_are_pinned() -> None:
    """The package exports exactly the names its users rely on, and each can be had."""
    expected = ["Baseline", "Certificate", "Config", "GeluwatchError", "Report", "Site", "Watch", "__version__", "attach"]
    assert expected == geluwatch.__all__
    for name in expected:
        assert getattr(geluwatch, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = geluwatch.nonsense


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from the sdist, without a network: with the build backend that is installed."""
    assert importlib.util.find_spec("hatchling"), "the build backend belongs to the dev extra"
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    assert [".gz", ".whl"] == sorted(path.suffix for path in out.iterdir())
    return next(out.glob("*.whl"))


def test_wheel_carries_templates_pages_and_migrations(wheel: Path) -> None:
    """The wheel holds the package data, and nothing of the tests."""
    names = zipfile.ZipFile(wheel).namelist()
    for part in (
        "geluwatch/py.typed",
        "geluwatch/web/index.html",
        "geluwatch/mixin/templates/runbooks/",
        "geluwatch/store/migrations/versions/",
        "geluwatch/analysis/report/templates/report.css",
    ):
        assert any(name.startswith(part) for name in names), f"{part} is not in the wheel"
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]


def test_wheel_renders_the_committed_artefacts(wheel: Path, tmp_path: Path) -> None:
    """Unpacked elsewhere, the wheel renders dashboards, alerts and runbooks byte for byte as committed."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    out = tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "PYTHONSAFEPATH": "1"}
    where = "import geluwatch; print(geluwatch.__file__)"
    located = subprocess.run([sys.executable, "-c", where], env=environment, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert located.stdout.startswith(str(tmp_path))
    command = [sys.executable, "-m", "geluwatch", "mixin", "render", "--out", str(out)]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True)
    for folder in ("dashboards", "alerts", "runbooks"):
        expected = {path.relative_to(ROOT): path.read_bytes() for path in (ROOT / folder).rglob("*") if path.is_file()}
        rendered = {path.relative_to(out): path.read_bytes() for path in (out / folder).rglob("*") if path.is_file()}
        assert expected
        assert expected == rendered
