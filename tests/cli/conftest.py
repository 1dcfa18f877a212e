"""Parts of the demonstration that are dear to load, and reports made by hand."""

from __future__ import annotations

import pytest

from geluwatch.cli.demo import model, texts
from geluwatch.records import PointKey, PointReport, Report, Totals


@pytest.fixture(scope="session")
def encoder() -> model.Encoder:
    """The demonstration's model, as its package delivers it."""
    return model.load()


@pytest.fixture(scope="session")
def corpus() -> texts.Texts:
    """A small share of the demonstration's texts."""
    return texts.load(baseline=64, held_out=128, code=64)


@pytest.fixture
def overflowing() -> Report:
    """A report of three layers: one calm, one in drift, one with the first NaN."""
    calm = {"rows": 256, "mean": -0.741, "std": 1.05, "ks": 0.0041, "ks_upper": 0.0063, "score": 1.1, "surprise": 3.0, "horizon": 1}
    sites: dict[PointKey, PointReport] = {}
    for position, changes in enumerate(
        ({"evidence": 0.44}, {"evidence": 1.75, "alarm": "ticket"}, {"evidence": 7e74, "alarm": "ticket", "mean": -1e35, "nonfinite": 310})
    ):
        layer = f"blocks.{position}.mlp.act"
        sites[layer, "pre"] = PointReport(layer, "pre", position, "observed", **{**calm, **changes})  # type: ignore[arg-type]
        sites[layer, "post"] = PointReport(layer, "post", position, "observed", **{**calm, "evidence": 0.25})  # type: ignore[arg-type]
    return Report(
        "tiny",
        "1",
        1_700_000_000.0,
        "page",
        sites,
        first_nonfinite="blocks.2.mlp.act",
        drifting=("blocks.1.mlp.act", "blocks.2.mlp.act"),
        totals=Totals(forwards=12, windows=3),
    )
