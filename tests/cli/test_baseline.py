"""`geluwatch baseline`: what it prints of real baselines, recorded, calibrated and stored."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from geluwatch.cli.main import main
from geluwatch.config import Config
from geluwatch.core import histogram
from geluwatch.core.recorder import Recorder
from geluwatch.records import Activation, Baseline, Moments, PointWindow, Provenance, Signature, Site, Weights, Window
from geluwatch.store import SqlBaselines
from geluwatch.store.audit import Entry

SITES = (
    Site("encoder.0.act", 0, "module", "GELUActivation", "erf"),
    Site("encoder.1.act", 1, "module", "GELUActivation", "erf", "blind", "never ran"),
)
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

Show = Callable[[Baseline], list[str]]


def record(windows: int, seconds: float = MINUTE, left_out: int = 0) -> Baseline:
    """Return a calibrated baseline of windows in which nothing changes but the texts."""
    random = np.random.default_rng(0)
    recorder = Recorder(Config())
    values = histogram.from_values(random.normal(size=256).astype(np.float32))
    for index in range(windows + left_out):
        points = {
            ("encoder.0.act", point): PointWindow(values, Moments(512, random.normal(size=8) / 23, 512 * random.uniform(0.9, 1.1, 8)))
            for point in ("pre", "post")
        }
        ended = 1_700_000_000.0 + seconds * index
        recorder.add(Window(ended - seconds, ended, 10, 10, points, thinned=index >= windows), ("encoder.0.act",))  # type: ignore[arg-type]
    return recorder.baseline(model="minilm", model_version="1", name="v1", created=1_700_000_000.0, sites=SITES)


@pytest.fixture
def show(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Show:
    """Stores a baseline and returns the lines that `baseline show` prints of it."""
    url = f"sqlite:///{tmp_path}/store.db"
    monkeypatch.setenv("GELUWATCH_ACTOR", "alice")

    def lines(baseline: Baseline) -> list[str]:
        store = SqlBaselines(url)
        store.save(baseline)
        store.close()
        assert 0 == main(["baseline", "show", "minilm", baseline.name, "--store", url])
        printed = capsys.readouterr()
        assert "" == printed.err
        assert max(map(len, printed.out.splitlines())) <= 140
        return printed.out.splitlines()

    return lines


def test_a_baseline_of_an_hour_and_a_half(show: Show) -> None:
    """Everything the certificate says is there in words, with what more it takes to page."""
    baseline = record(100, left_out=2)
    certificate = baseline.certificate
    assert certificate.armed
    assert not certificate.paging
    low, high = certificate.interval
    horizons, limit = ", ".join(map(str, certificate.horizons)), certificate.ticket_limit
    *lines, verdict = show(baseline)
    missing, *rest = textwrap.wrap(f"cannot be armed: {certificate.paging_reason}", 128)
    assert [
        "v1: model minilm, version 1, recorded 2023-11-14 22:13:20Z",
        "  standing  recorded by alice; not signed",
        "  windows   100 used, 2 left out (non-finite values, silent sites, dropped rows or too few of them)",
        "  sites     2, 1 of them blind",
        "  time      1 h 39 min from first to last; a rhythm longer than that, such as day and night, is not in it",
        "  hours     all judged alike; three days of traffic tell the hours of the day apart, three weeks those of the week",
        f"  horizons  windows averaged: {horizons}; {certificate.looks:.1f} independent looks at the one that has fewest",
        f"  tickets   can be armed: drift opens a ticket from a surprise of {limit:.2f} on (probability {10**-limit:.1e} a look)",
        "            budget 2 false tickets a model-month",
        f"  pages     {missing}",
        *(f"            {line}" for line in rest),
        "            budget 1 false page a model-quarter",
        "  replay    100 windows, each quarter judged by limits from the others, loosened enough to count alarms",
    ] == lines
    seen = f"{certificate.requested:.1f} asked for, {certificate.observed} seen (95 % interval {low:.1f} to {high:.1f}): "
    assert verdict.startswith(f"            false alarms: {seen}")


def test_a_baseline_that_is_too_small(show: Show) -> None:
    """What is missing is said once, and nothing is shown that was not calibrated."""
    baseline = record(9)
    assert [
        "  standing  recorded by alice; not signed",
        "  windows   9 used, 0 left out",
        "  sites     2, 1 of them blind",
        "  time      8 min 0 s from first to last; a rhythm longer than that, such as day and night, is not in it",
        f"  tickets   cannot be armed: {baseline.certificate.reason}",
        "            budget 2 false tickets a model-month",
        "  pages     cannot be armed: drift pages only where it also opens tickets",
        "            budget 1 false page a model-quarter",
    ] == show(baseline)[1:]


@pytest.mark.parametrize(
    ("windows", "seconds", "time", "hours"),
    [
        (
            473,
            HOUR / 8,
            "2 d 11 h from first to last; a rhythm longer than that, such as the week,",
            "each hour of the day by itself; three weeks",
        ),
        (1801, HOUR / 4, "18 d 18 h from first to last; a rhythm longer than that, such as the month,", "each hour of the week by itself"),
    ],
)
def test_hours_told_apart(show: Show, windows: int, seconds: float, time: str, hours: str) -> None:
    """A longer baseline says which rhythms it knows and which it still does not."""
    lines = show(record(windows, seconds))
    assert any(line.startswith(f"  time      {time}") for line in lines)
    assert any(line.startswith(f"  hours     {hours}") for line in lines)


def test_paging(show: Show) -> None:
    """Where drift may page, its limit stands beside the ticket's."""
    baseline = record(100)
    certificate = replace(baseline.certificate, paging=True, paging_reason="", page_limit=7.0, pages_per_quarter=2.0)
    lines = show(replace(baseline, certificate=certificate))
    assert "  pages     can be armed: drift pages from a surprise of 7.00 on (probability 1.0e-07 a look)" in lines
    assert "            budget 2 false pages a model-quarter" in lines


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ((15.2, 33.8), "more than asked for; record longer, on steadier traffic"),
        ((0.0, 3.7), "fewer than asked for; limits err on the quiet side"),
        ((10.0, 20.0), "in keeping"),
    ],
)
def test_what_the_replay_means(show: Show, interval: tuple[float, float], said: str) -> None:
    """Requested and observed false alarms are compared for the reader, by the interval."""
    baseline = record(100)
    certificate = replace(baseline.certificate, requested=10.0, observed=7, interval=interval)
    expected = f"            false alarms: 10.0 asked for, 7 seen (95 % interval {interval[0]:.1f} to {interval[1]:.1f}): {said}"
    assert expected == show(replace(baseline, certificate=certificate))[-1]


def test_a_baseline_of_an_earlier_release(show: Show) -> None:
    """Without calm scores nothing is shown but what is known, and what will happen to it."""
    baseline = record(100)
    certificate = replace(baseline.certificate, seconds=0.0, looks=0.0, ticket_limit=math.inf, replayed=0)
    assert [
        "  standing  recorded by alice; not signed",
        "  windows   100 used, 0 left out",
        "  sites     2, 1 of them blind",
        f"  horizons  windows averaged: {', '.join(map(str, certificate.horizons))}",
        "  tickets   can be armed",
        "            budget 2 false tickets a model-month",
        "            so said the earlier release that stored it; arming calibrates it anew from its windows",
    ] == show(replace(baseline, certificate=certificate, calm=None, references={}, histograms={}))[1:]


def test_latest_is_shown_by_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a name the newest baseline is shown; the list has them all, with all windows used."""
    url = f"sqlite:///{tmp_path}/store.db"
    store = SqlBaselines(url)
    store.save(record(9))
    store.save(replace(record(200), name="v2", created=1_700_000_001.0))
    assert 0 == main(["baseline", "show", "minilm", "--store", url])
    assert capsys.readouterr().out.startswith("v2: model minilm, version 1, ")
    assert 0 == main(["baseline", "list", "--store", url])
    assert [
        "minilm  1  v1  2023-11-14 22:13:20Z  9 windows  2 sites  too small to arm  recorded",
        "minilm  1  v2  2023-11-14 22:13:21Z  200 windows  2 sites  armable  recorded",
    ] == capsys.readouterr().out.splitlines()


def test_mistakes_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty store says how to fill it, and a baseline that is not there is named, with exit status 1."""
    url = f"sqlite:///{tmp_path}/store.db"
    SqlBaselines(url).close()
    assert 0 == main(["baseline", "list", "--store", url])
    assert "No baseline is stored there yet; Watch.record_baseline makes one.\n" == capsys.readouterr().out
    assert 1 == main(["baseline", "show", "minilm", "v9", "--store", url])
    assert capsys.readouterr().err.startswith('geluwatch: No baseline is stored for model "minilm" version "1"')


def logged(url: str) -> tuple[Entry, ...]:
    """Return the log of a store."""
    store = SqlBaselines(url)
    found = store.log()
    store.close()
    return found


def test_where_it_comes_from(show: Show) -> None:
    """Weights, formulas with how many layers have each, versions, machine and the slice of the traffic are shown."""
    acts = tuple(Activation(f"layer.{place}", "module", "GELU", "erf", "erf", "float32", "float32") for place in range(6))
    origin = Provenance(
        Weights("ab" * 32, "", {"a": "1", "b": "2"}, 22_713_216, ("float32", "int8"), ("cuda", "cpu")),
        (*acts, Activation("head", "functional", "Head", "tanh")),
        {"torch": "2.13.0", "python": "3.11"},
        {"platform": "Linux", "cpu": "AVX2"},
    )
    baseline = replace(record(9), provenance=origin, traffic="eu", signature=Signature("0a" * 32, "f0" * 64))
    assert [
        "  standing  recorded by alice; signed by key 0a0a0a0a0a0a0a0a",
        "  traffic   eu",
        "  weights   abababababababab over 2 tensors; 22,713,216 parameters in float32 and int8 on cuda and cpu",
        "  formulas  6 declare erf, measured erf in float32; 1 declares tanh, not measured",
        "  versions  python 3.11, torch 2.13.0",
        "  machine   Linux, AVX2",
    ] == show(baseline)[1:7]
    unknown = replace(origin, weights=replace(origin.weights, digest="", tensors={}, reason="sharded"))
    assert (
        "  weights   unknown: sharded; 22,713,216 parameters in float32 and int8 on cuda and cpu"
        == show(replace(baseline, name="v2", provenance=unknown))[3]
    )


def test_a_baseline_goes_from_store_to_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exported, imported and shown it is the same; a second import, a second export and a changed file are refused, and leave nothing."""
    one, other, path = f"sqlite:///{tmp_path}/one.db", f"sqlite:///{tmp_path}/other.db", tmp_path / "v1.baseline"
    store = SqlBaselines(one)
    store.save(record(windows=40))
    store.close()
    export = ["baseline", "export", "minilm", "--store", one, "--output", str(path)]
    assert 0 == main(export)
    called = 'Baseline "v1" of model "minilm" version "1"'
    said = f"{called} is in {path}, {path.stat().st_size:,} bytes; `geluwatch baseline import` takes it.\n"
    assert said == capsys.readouterr().out
    assert 0 == main(["baseline", "import", str(path), "--store", other])
    assert f"{called} is stored, with its certificate and 40 windows.\n" == capsys.readouterr().out
    shown = []
    for url in (one, other):
        assert 0 == main(["baseline", "show", "minilm", "--store", url])
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert "exported" == logged(one)[-1].action
    assert ("imported", str(path)) == (logged(other)[0].action, logged(other)[0].detail["from"])
    assert 1 == main(["baseline", "import", str(path), "--store", other])
    assert "is stored already" in capsys.readouterr().err
    assert 0 == main(["baseline", "import", str(path), "--store", other, "--name", "v1-eu"])
    assert 1 == main(export)
    assert f"geluwatch: {path} exists already, and is not written over; give another name or remove it.\n" == capsys.readouterr().err
    path.write_bytes(path.read_bytes()[:-1])
    assert 1 == main(["baseline", "import", str(path), "--store", f"sqlite:///{tmp_path}/third.db"])
    assert "its SHA-256 differs" in capsys.readouterr().err
    assert not (tmp_path / "third.db").exists()
