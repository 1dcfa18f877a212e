"""`geluwatch compare`: what it prints, writes and exits with, of baselines in files and in stores."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from geluwatch.cli.main import main
from geluwatch.config import Config
from geluwatch.core import histogram
from geluwatch.core.recorder import Recorder
from geluwatch.records import POINTS, Baseline, Moments, PointWindow, Provenance, Site, Weights, Window
from geluwatch.store import SqlBaselines, portable

LAYERS = ("encoder.0.act", "encoder.1.act", "encoder.2.act")

Compare = Callable[..., tuple[int, str, str]]


def recorded(name: str, by: float = 0.0, rows: int = 512) -> Baseline:
    """Return a baseline of windows of so many rows in which nothing changes but the texts; layer 1 may have moved."""
    chance, recorder = np.random.default_rng(len(name)), Recorder(Config(minimum_rows=min(rows, 64)))
    for index in range(60):
        points: dict[Any, PointWindow] = {}
        for layer in LAYERS:
            shift = by if layer == LAYERS[1] else 0.0
            for point in POINTS:
                values = histogram.from_values((chance.normal(size=1024) + shift).astype(np.float32))
                mean = chance.normal(size=48) / np.sqrt(rows) + shift
                points[layer, point] = PointWindow(values, Moments(rows, mean, rows * chance.uniform(0.9, 1.1, 48)))
        ended = 1_700_000_000.0 + 60.0 * index
        recorder.add(Window(ended - 60.0, ended, 10, 10, points), LAYERS)
    sites = tuple(Site(layer, position, "module", "GELUActivation", "erf") for position, layer in enumerate(LAYERS))
    return recorder.baseline(model="minilm", model_version="1", name=name, created=1_700_000_000.0, sites=sites)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a store and the same baselines as files."""
    directory = tmp_path_factory.mktemp("kept")
    store = SqlBaselines(f"sqlite:///{directory}/store.db")
    moved = recorded("moved-1", by=0.1)
    swapped = replace(
        recorded("swapped"), sites=tuple(replace(site, variant="tanh") if site.position == 2 else site for site in moved.sites)
    )
    for baseline in (recorded("good"), recorded("alike"), moved, swapped):
        store.save(baseline)
        portable.write(baseline, directory / f"{baseline.name}.baseline")
    store.close()
    return directory


@pytest.fixture
def compare(kept: Path, capsys: pytest.CaptureFixture[str]) -> Compare:
    """Runs the command over stored names and returns exit status, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(["compare", *arguments, "--store", f"sqlite:///{kept}/store.db", "--model", "minilm"])
        return status, *capsys.readouterr()

    return run


def test_the_same_passes(compare: Compare) -> None:
    """What the known baseline calls normal exits with 0 and says so, a line for each layer."""
    status, printed, errors = compare("good", "alike")
    assert (0, "") == (status, errors)
    lines = printed.splitlines()
    assert "minilm 1 alike against minilm 1 good: 60 windows judged" == lines[0]
    assert ["same"] * 3 == [line.split()[1] for line in lines[3:6]]
    assert "Same: what the one holds, the other calls normal." == lines[-1]


def test_drift_fails_and_names_the_layer(compare: Compare) -> None:
    """A layer that moved exits with 1, is named, and is the only one."""
    status, printed, errors = compare("good", "moved-1")
    assert (1, "") == (status, errors)
    assert ["same", "drift", "same"] == [line.split()[1] for line in printed.splitlines()[3:6]]
    assert printed.splitlines()[-1].startswith("Drift, first at encoder.1.act: it enters there.")


def test_windows_of_few_rows_are_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was recorded with a smaller minimum than the default is judged like the rest: the same passes, and drift fails."""
    for name, by in (("good", 0.0), ("alike", 0.0), ("moved", 1.0)):
        portable.write(recorded(name, by, rows=32), tmp_path / name)
    assert 0 == main(["compare", str(tmp_path / "good"), str(tmp_path / "alike"), "--json", str(tmp_path / "found.json")])
    assert all(layer["evidence"] > 0 for layer in json.loads((tmp_path / "found.json").read_text())["layers"])
    assert 1 == main(["compare", str(tmp_path / "good"), str(tmp_path / "moved")])
    assert "Drift, first at encoder.1.act" in capsys.readouterr().out


def test_another_formula_fails_and_says_which(compare: Compare) -> None:
    """A layer whose formula changed exits with 1 and says from what to what."""
    status, printed, _ = compare("good", "swapped")
    assert 1 == status
    assert "its formula was erf, and is tanh" in printed
    assert "The census differs at 1 of 3 layers, first at encoder.2.act." == printed.splitlines()[-1]


def test_models_that_differ_are_told(kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where both say what they were recorded of, weights, formulas and surroundings that differ are named; they decide nothing."""
    origin = Provenance(Weights("ab" * 32, "", {"a": "1", "b": "2"}, 9, ("float32",), ("cpu",)), (), {"torch": "2.13.0"}, {"cpu": "AVX2"})
    moved = replace(origin.weights, digest="cd" * 32, tensors={"a": "1", "b": "9"}, devices=("cuda",))
    good = portable.read(kept / "good.baseline")
    for name, found in (("one", origin), ("other", replace(origin, weights=moved, versions={"torch": "2.14.0"}))):
        portable.write(replace(good, name=name, provenance=found), tmp_path / name)
    assert 0 == main(["compare", str(tmp_path / "one"), str(tmp_path / "other"), "--json", str(tmp_path / "found.json")])
    assert [
        "Same: what the one holds, the other calls normal.",
        "They were recorded of different models: the weights differ in 1 of 2 tensors, first b.",
        "And elsewhere: device cpu became cuda; torch 2.13.0 became 2.14.0.",
    ] == capsys.readouterr().out.splitlines()[-3:]
    document = json.loads((tmp_path / "found.json").read_text())
    assert ["the weights differ in 1 of 2 tensors, first b"] == document["differences"]
    assert ["device cpu became cuda", "torch 2.13.0 became 2.14.0"] == document["surroundings"]


def test_files_serve_as_well(compare: Compare, kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exported files give the same as stored names, without a store."""
    _, stored, _ = compare("good", "moved-1")
    assert 1 == main(["compare", f"{kept}/good.baseline", f"{kept}/moved-1.baseline"])
    assert stored == capsys.readouterr().out


def test_machines_read_json_and_junit(compare: Compare, tmp_path: Path) -> None:
    """JSON holds outcome, first layer and each layer's distances; the JUnit report fails one case, that of the layer."""
    compare("good", "moved-1", "--json", f"{tmp_path}/found.json", "--junit", f"{tmp_path}/found.xml")
    found = json.loads((tmp_path / "found.json").read_text())
    assert ("drift", "encoder.1.act", "model", 60) == tuple(found[key] for key in ("outcome", "first_layer", "scope", "windows"))
    assert [*LAYERS] == [layer["layer"] for layer in found["layers"]]
    low, high = found["layers"][1]["ks"]["pre"]
    assert 0.02 < low <= high < 0.08
    suite = ElementTree.parse(tmp_path / "found.xml").getroot()  # noqa: S314  # our own file
    assert {"tests": "3", "failures": "1", "errors": "0"}.items() <= suite.attrib.items()
    assert ["encoder.1.act"] == [case.attrib["name"] for case in suite if case.find("failure") is not None]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["missing", "good"], "missing is no file; for the name of a stored baseline, give --store and --model."),
        (["missing", "good", "--store", "sqlite://", "--model", "minilm"], "No baseline is stored for model"),
    ],
)
def test_what_cannot_be_found_is_refused(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A name without a store, and one that the store lacks, are one sentence and exit status 1."""
    assert 1 == main(["compare", *arguments])
    assert capsys.readouterr().err.startswith(f"geluwatch: {sentence}")


def test_a_report_that_cannot_be_written_is_refused(compare: Compare, tmp_path: Path) -> None:
    """A place that cannot be written to is named."""
    status, _, errors = compare("good", "alike", "--json", f"{tmp_path}/missing/found.json")
    assert (1, f"geluwatch: {tmp_path}/missing/found.json cannot be written (No such file or directory); give another place.\n") == (
        status,
        errors,
    )
