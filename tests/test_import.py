"""What importing costs: nothing heavy before it is needed."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import pytest

HEAVY = [
    "torch",
    "transformers",
    "numpy",
    "scipy",
    "sqlalchemy",
    "alembic",
    "prometheus_client",
    "opentelemetry",
    "grafanalib",
    "yaml",
    "cryptography",
    "mlflow",
]


def loaded(code: str) -> set[str]:
    """Run code in a process of its own; return which heavy libraries it has loaded at the end."""
    listing = f"{code}\nimport sys\nsys.stderr.write(' '.join(name for name in {HEAVY!r} if name in sys.modules))"
    return set(subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stderr.split())


def test_importing_loads_nothing_heavy() -> None:
    """`import geluwatch`, its settings and its errors load none of the libraries the agent builds on."""
    assert set() == loaded("import geluwatch; geluwatch.Config(); geluwatch.GeluwatchError")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["demo", "--help"],
        ["mixin", "--help"],
        ["baseline", "--help"],
        ["incident", "--help"],
        ["runbook", "--help"],
    ],
)
def test_help_loads_no_torch(arguments: list[str]) -> None:
    """No help text of the command line loads torch or a model library."""
    code = f"from geluwatch.cli.main import main\ntry:\n    main({arguments!r})\nexcept SystemExit as end:\n    assert end.code == 0"
    assert not loaded(code) & {"torch", "transformers", "sqlalchemy"}


def test_the_store_and_the_readers_load_no_torch() -> None:
    """Baselines can be listed, metrics rendered and rules generated in processes without torch."""
    parts = (
        "store.memory",
        "store.baselines",
        "export.prometheus",
        "export.otel",
        "export.pages",
        "mixin.rules",
        "core.monitor",
        "testing",
    )
    assert "torch" not in loaded("\n".join(f"import geluwatch.{part}" for part in parts))


def seconds(code: str) -> float:
    """Return how long a fresh interpreter takes to run code and end."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def test_importing_is_quick() -> None:
    """Over seven paired runs `import geluwatch` takes the median interpreter less than 0.3 seconds more than nothing."""
    costs = [seconds("import geluwatch") - seconds("pass") for _ in range(7)]
    assert statistics.median(costs) < 0.3
