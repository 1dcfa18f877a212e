"""When a bundle is due, how many there are, and what a watch does around them."""

from __future__ import annotations

import io
import json
import math
import os
import re
import stat
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtr

from geluwatch.bundles import bundle, environment, folder, recorder
from geluwatch.config import LEAST_BUNDLE, MOST_PROFILED, Config
from geluwatch.errors import ConfigError, DetachedError, IncidentError
from geluwatch.records import Called, Drained, Evidence, Headroom, KeptRows, Nonfinite, PointReport, Report, Rows, Site
from geluwatch.testing import FakeClock, ListSource, MemoryBaselines
from geluwatch.watch import Watch

LAYER, OTHER = "body.act", "head.act"
SITES = (Site(LAYER, 0, "module", "GELU", "erf"), Site(OTHER, 1, "module", "GELU", "erf"))


def rows(layer: str = LAYER, count: int = 32, scale: float = 1.0, width: int = 4) -> Rows:
    """Return rows of a layer."""
    pre = (scale * np.random.default_rng(3).standard_normal((count, width))).astype(np.float32)
    return Rows(layer, "float32", pre, (pre * ndtr(pre)).astype(np.float32))


def hit(layer: str = LAYER, width: int = 4, when: float = 1.0) -> Evidence:
    """Return evidence of a NaN at a layer."""
    pre = np.ones((1, width), np.float32)
    post = pre.copy()
    post[0, 1] = math.nan
    return Evidence(when, (8, width), 1, KeptRows(layer, "float32", np.array([5]), pre, post))


def nan(layer: str = LAYER, **others: Any) -> Drained:
    """Return a drained batch with one non-finite pass."""
    counted = {layer: Nonfinite(1, 1, 0, {("post", "nan"): 1})}
    return Drained(forwards=1, nonfinite_forwards=1, nonfinite=counted, first_nonfinite=layer, evidence=(hit(layer),), **others)


class Bench:
    """A watch with its source and clock laid open, and a folder."""

    def __init__(self, place: Path | None, **settings: Any) -> None:
        self.clock, self.source, self.place = FakeClock(), ListSource(SITES), place
        config = Config(**{"window_seconds": None, "minimum_rows": 16, "flush_seconds": 3600.0, "incidents": place, **settings})
        self.watch = Watch(self.source, MemoryBaselines(), self.clock, config, name="the model", version="7", labels={"region": "eu"})

    def flush(self, *batches: Drained) -> None:
        """Have batches seen, and the background thread's turn come."""
        for batch in batches:
            self.source.queue.append(batch)
            self.watch.flush()
        self.clock.advance(1.0)
        self.watch.tick()

    def close(self, *batches: Drained) -> None:
        """Close a window that holds these, and have the background thread's turn come."""
        self.source.queue.extend(batches[:1])
        self.watch.close_window()
        self.clock.advance(60.0)
        self.watch.tick()

    @property
    def bundles(self) -> list[bundle.Bundle]:
        """What is in the folder, oldest first."""
        assert self.place is not None
        return [bundle.read(path) for path in folder.bundles(self.place)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return a watch with a folder."""
    return Bench(tmp_path / "incidents")


def test_a_page_leaves_one_bundle_until_it_has_ended(bench: Bench) -> None:
    """The first report that pages makes a bundle, those of the same trouble none, and the next trouble makes its own."""
    bench.close(Drained(rows=(rows(),)))
    bench.flush(nan(), nan(), nan(OTHER))
    assert 1 == len(bench.bundles)
    bench.close(nan())
    assert "page" == bench.watch.report.verdict
    assert 1 == len(bench.bundles)
    bench.close()
    assert "page" != bench.watch.report.verdict
    bench.flush(nan(OTHER))
    first, second = bench.bundles
    assert [(LAYER, "nonfinite"), (OTHER, "nonfinite")] == [(found.manifest["layer"], found.manifest["kind"]) for found in (first, second)]
    assert [LAYER] == [found.bad.layer for found in first.evidence]
    assert [OTHER] == [found.bad.layer for found in second.evidence], "evidence of the last trouble is not the new one's"


def test_a_worse_trouble_on_top_of_one_has_its_own_bundle(bench: Bench) -> None:
    """A NaN during a gross fault makes a bundle; the gross fault that comes after a NaN makes none."""
    dead = Drained(rows=(replace(rows(), post=np.zeros((32, 4), np.float32)), rows(OTHER)))
    bench.close(dead)
    bench.close(replace(nan(OTHER), rows=dead.rows))
    bench.close(dead)
    assert ["gross", "nonfinite"] == [found.manifest["kind"] for found in bench.bundles]
    assert [LAYER, OTHER] == [found.manifest["layer"] for found in bench.bundles]
    assert () == bench.bundles[0].evidence
    assert f"A gross fault: {LAYER} (post): dead." == bench.bundles[0].manifest["reason"]


def test_evidence_of_an_older_trouble_is_in_no_bundle(bench: Bench) -> None:
    """A NaN during a gross fault is told by its own rows, and not by those of a NaN of last week."""
    dead = Drained(rows=(replace(rows(), post=np.zeros((32, 4), np.float32)), rows(OTHER)))
    bench.flush(nan())
    bench.close()
    bench.close()
    bench.close(dead)
    bench.close(replace(nan(OTHER), rows=dead.rows))
    assert ["nonfinite", "gross", "nonfinite"] == [found.manifest["kind"] for found in bench.bundles]
    assert [OTHER] == [kept.bad.layer for kept in bench.bundles[-1].evidence]


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("drift", {"drifting": (OTHER, LAYER), "cause": f"{OTHER}: wider."}, f"Drift, first at {OTHER}. {OTHER}: wider."),
        ("overflow", {"sites": {(OTHER, "pre"): PointReport(OTHER, "pre", 1, "observed", headroom=Headroom(alarm="page"))}}, "ahead at"),
    ],
)
def test_what_pages_without_a_nan(kind: str, changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    """Drift that pages, and an overflow ahead, each make a bundle that names the layer and says why."""
    keeper = recorder.Recorder(Config(incidents=tmp_path), FakeClock(), lambda: SITES, dict)
    report = replace(Report("m", "1", 0.0, "page", {}), **changes)
    keeper.write(report)
    keeper.write(report)
    keeper.close()
    (path,) = folder.bundles(tmp_path)
    manifest = bundle.read(path).manifest
    assert (kind, OTHER) == (manifest["kind"], manifest["layer"])
    assert reason in manifest["reason"]


def test_what_is_in_a_bundle(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the model, layer and reason, and holds rows, windows in order, census and report; of the environment what is listed."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a secret of the host")
    for _ in range(3):
        bench.close(Drained(forwards=1, sampled_forwards=1, rows=(rows(), rows(OTHER))))
    bench.flush(nan(OTHER))
    (found,) = bench.bundles
    said = found.manifest
    assert ("the model", "7", {"region": "eu"}, OTHER) == (said["model"], said["model_version"], said["labels"], said["layer"])
    assert f"NaN or Inf, first at {OTHER}." == said["reason"]
    assert bench.watch.sites == found.sites
    assert 3 == len(found.windows)
    ended = [window.ended for window in found.windows]
    assert sorted(ended) == ended
    assert 32 == found.windows[-1].points[OTHER, "pre"].moments.rows
    assert ("page", OTHER) == (found.report["verdict"], found.report["first_nonfinite"])
    (kept,) = found.evidence
    np.testing.assert_array_equal(hit().bad.post, kept.bad.post)
    assert ([5], (8, 4)) == (list(kept.bad.places), kept.shape)
    assert "1" == found.environment["variables"]["OMP_NUM_THREADS"]
    with zipfile.ZipFile(found.path) as file:
        assert not any(b"a secret of the host" in file.read(name) for name in file.namelist())


def test_a_bundle_is_the_owners_alone_and_whole(bench: Bench) -> None:
    """Its mode is 0600, its folder's 0700, and no part of a file is left beside it."""
    bench.flush(nan())
    (path,) = bench.place.iterdir() if bench.place else ()
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert 0o700 == stat.S_IMODE(path.parent.stat().st_mode)
    assert path.name.startswith("incident-20231114T221320Z-the-model-nonfinite-")


def test_only_so_many_are_kept(tmp_path: Path) -> None:
    """The oldest go, and what else is in the folder stays."""
    bench = Bench(tmp_path, incidents_kept=3)
    (tmp_path / "notes.zip").write_text("of somebody else")
    for place in range(5):
        bench.flush(nan())
        bench.close()
        bench.close()
        assert min(place + 1, 3) == len(bench.bundles)
    assert (tmp_path / "notes.zip").exists()
    times = [found.manifest["time"] for found in bench.bundles]
    assert bench.clock.time() - 400 < min(times)


def test_nothing_is_written_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `Config(incidents=...)` a page leaves nothing on the disk."""
    monkeypatch.chdir(tmp_path)
    bench = Bench(None)
    bench.flush(nan())
    bench.watch.detach()
    assert [] == list(tmp_path.iterdir())


def test_a_folder_that_fails_costs_the_watch_nothing(tmp_path: Path) -> None:
    """A bundle that cannot be written is counted under its part, leaves no part of a file, and windows go on."""
    bench = Bench(tmp_path / "incidents")
    (tmp_path / "incidents").write_text("a file in its place")
    bench.flush(nan())
    assert 1 == bench.watch.flush().totals.errors["incident"]
    assert ["incidents"] == [path.name for path in tmp_path.iterdir()]
    bench.close()
    assert 1 == bench.watch.report.totals.windows


def test_a_folder_that_cannot_be_is_refused_when_the_watch_starts(tmp_path: Path) -> None:
    """Attaching says so at once, and not in the night of the first page."""
    (tmp_path / "incidents").write_text("a file in its place")
    with pytest.raises(IncidentError, match="give another folder"):
        Bench(tmp_path / "incidents" / "below").watch.start()


def test_a_pending_bundle_is_written_when_the_watch_comes_off(bench: Bench) -> None:
    """A page in the last flush leaves its bundle, with no other turn of the background thread."""
    bench.source.queue.append(nan())
    bench.watch.detach()
    assert 1 == len(bench.bundles)


def test_a_bundle_that_is_asked_for(tmp_path: Path, bench: Bench) -> None:
    """It is there when the call returns, whatever the verdict, with the given reason, and in the given folder."""
    bench.close(Drained(rows=(rows(),)))
    path = bench.watch.capture_incident("before the restart", tmp_path / "elsewhere")
    found = bundle.read(path)
    assert ("asked", "before the restart", "") == tuple(found.manifest[name] for name in ("kind", "reason", "layer"))
    assert 1 == len(found.windows)
    assert bench.place is not None
    assert bench.place == bench.watch.capture_incident("again").parent


def test_a_bundle_waits_for_its_traces_but_not_for_ever(bench: Bench) -> None:
    """With `profile_steps` it is written when the last trace has come, or a minute later with those that have."""
    path = bench.watch.capture_incident("slow", profile_steps=2)
    bench.flush(Drained(traces=(b"one",)))
    assert not path.exists()
    bench.flush(Drained(traces=(b"two",)))
    assert ("traces/0.json.gz", "traces/1.json.gz") == bundle.read(path).traces
    late = bench.watch.capture_incident("slow", profile_steps=2)
    bench.flush(Drained(traces=(b"one",)))
    bench.clock.advance(recorder.PATIENCE)
    bench.flush()
    assert ("traces/0.json.gz",) == bundle.read(late).traces
    assert ["Of 2 passes to be profiled 1 were: no more came in time, or another profiler ran."] == bundle.read(late).manifest["missing"][
        -1:
    ]


@pytest.mark.parametrize("steps", [-1, MOST_PROFILED + 1, 1.5, True])
def test_a_number_of_passes_out_of_range_is_refused(steps: Any, bench: Bench) -> None:
    """One sentence says the range."""
    with pytest.raises(ConfigError, match=f"from 0 to {MOST_PROFILED}"):
        bench.watch.capture_incident("x", profile_steps=steps)


def test_what_cannot_be_asked_for(tmp_path: Path) -> None:
    """Without any folder, or after detach, a bundle is refused; so is one that cannot be written."""
    bench = Bench(None)
    with pytest.raises(ConfigError, match="give a directory"):
        bench.watch.capture_incident("x")
    (tmp_path / "taken").write_text("")
    with pytest.raises(IncidentError, match="give another folder"):
        bench.watch.capture_incident("x", tmp_path / "taken")
    bench.watch.detach()
    with pytest.raises(DetachedError):
        bench.watch.capture_incident("x", tmp_path)


def test_windows_that_wait_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more windows are held than a number and their bytes allow, and only the last one without a folder."""
    held, lone = Bench(tmp_path), Bench(None)
    for _ in range(recorder.WINDOWS + 3):
        for bench in (held, lone):
            bench.close(Drained(rows=(rows(),)))
    assert (recorder.WINDOWS, 1) == (len(held.watch._incidents._windows), len(lone.watch._incidents._windows))
    monkeypatch.setattr(recorder, "WINDOW_BYTES", 1)
    held.close(Drained(rows=(rows(),)))
    assert 1 == len(held.watch._incidents._windows)


@pytest.mark.parametrize("most", [LEAST_BUNDLE, 1 << 19])
def test_a_bundle_keeps_to_its_bytes(most: int, tmp_path: Path) -> None:
    """What does not fit is left out, the least important first, and named; the file stays below the limit and opens."""
    bench = Bench(tmp_path, incident_bytes=most)
    rng = np.random.default_rng(1)
    for _ in range(8):
        wide = rng.standard_normal((64, 4096)).astype(np.float32)
        bench.close(Drained(rows=(Rows(LAYER, "float32", wide, np.maximum(wide, 0.0)),)))
    noise = rng.standard_normal((8, 4096)).astype(np.float32)
    bad = KeptRows(LAYER, "float32", np.arange(8), noise, np.full_like(noise, math.nan))
    bench.flush(replace(nan(), evidence=(Evidence(1.0, (8, 4096), 8, bad),)))
    (path,) = tmp_path.iterdir()
    found = bundle.read(path)
    assert path.stat().st_size <= most
    assert found.manifest["left_out"]
    assert not [name for name in found.manifest["left_out"] if name in zipfile.ZipFile(path).namelist()]
    assert "report.json" in zipfile.ZipFile(path).namelist()
    if most > LEAST_BUNDLE:
        assert 8 == len(found.evidence[0].bad.post)
        assert found.windows[-1].ended > 0, "the newest windows stay"


def test_what_is_missing_says_why(bench: Bench) -> None:
    """A hit on an accelerator has counts but no elements and no rows, and the bundle says that; so does one without a window."""
    away = Drained(forwards=1, nonfinite_forwards=1, nonfinite={LAYER: Nonfinite(1, 1)}, first_nonfinite=LAYER)
    bench.flush(away)
    assert [
        f"There are no rows of {LAYER}: the values are on an accelerator, where looking at a row would stall it.",
        "No window had been closed.",
    ] == bench.bundles[0].manifest["missing"]


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _flipped(content: bytes) -> bytes:
    place = content.index(b"report.json") + 60
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


def _newer(content: bytes) -> bytes:
    return _with_manifest({"format": "geluwatch-incident", "version": 99})


def _foreign(content: bytes) -> bytes:
    return _with_manifest({"format": "something else", "version": 1})


def _with_manifest(manifest: dict[str, Any]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("manifest.json", json.dumps(manifest))
    return content.getvalue()


@pytest.mark.parametrize("harm", [_cut, _flipped, _newer, _foreign, lambda _: b"", lambda _: b"no zip at all"])
def test_a_damaged_bundle_is_one_sentence(harm: Callable[[bytes], bytes], bench: Bench) -> None:
    """Whatever happened to the file, reading it is an error of ours that says what to do."""
    bench.flush(nan())
    path = bench.bundles[0].path
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(IncidentError, match=r"copy it again|upgrade geluwatch") as caught:
        bundle.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_background_thread_writes_it(tmp_path: Path) -> None:
    """With a thread that would not come for an hour, a page found by the caller's flush is on the disk within moments."""
    bench = Bench(tmp_path)
    bench.watch.start()
    bench.source.queue.append(nan())
    bench.watch.flush()
    until = time.monotonic() + 10
    while not folder.bundles(tmp_path) and time.monotonic() < until:
        time.sleep(0.01)
    assert 1 == len(bench.bundles)
    bench.watch.detach()


def test_the_page_on_bundles_lists_every_variable_that_is_told() -> None:
    """The documented list of variables is the one in the code, and its entries are those that are written."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "incident-bundle.md").read_text()
    section = page.split("**Variables**")[1].split("**Personal data.**")[0]
    assert list(environment.VARIABLES) == re.findall(r"`([A-Z0-9_]+)`", section)


def test_a_manifest_that_lacks_something_is_one_sentence(tmp_path: Path) -> None:
    """A file with our format's name and little else is refused with what it lacks."""
    path = tmp_path / "incident.zip"
    path.write_bytes(_with_manifest({"format": "geluwatch-incident", "version": 1}))
    with pytest.raises(IncidentError, match="its manifest lacks inputs, kind, labels, layer"):
        bundle.read(path)


def test_only_entries_of_known_names_are_unfolded(bench: Bench) -> None:
    """What is not named as a window's archive is not looked into, so that its size cannot pass unseen."""
    bench.flush(nan())
    path = bench.bundles[0].path
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("windows/000", b"PK no archive at all")
    assert () == bundle.read(path).windows


def test_rows_whose_head_had_no_room_are_left_out_with_it(tmp_path: Path) -> None:
    """The rest of the bundle can be read: its report, its census, its windows."""
    bench = Bench(tmp_path, incident_bytes=LEAST_BUNDLE, incident_inputs=True)
    noise = "".join(map(chr, np.random.default_rng(0).integers(33, 0x3000, 100_000)))
    called = Called({"args": [{"type": "str", "value": noise}], "kwargs": {}}, {}, whole=True)
    bench.flush(replace(nan(), evidence=(replace(hit(), called=called),)))
    (found,) = bench.bundles
    assert ["rows/0.json", "rows/0.npz"] == found.manifest["left_out"][:2]
    assert () == found.evidence
    assert "page" == found.report["verdict"]


def test_one_that_cannot_be_written_does_not_cost_the_others(bench: Bench, tmp_path: Path) -> None:
    """Of two bundles that wait when the watch comes off, the second is written though the first one's folder is gone."""
    gone = tmp_path / "gone"
    first = bench.watch.capture_incident("one", directory=gone, profile_steps=1)
    second = bench.watch.capture_incident("two", profile_steps=1)
    gone.rmdir()
    gone.write_text("a file in its place")
    bench.watch.detach()
    assert not first.exists()
    assert second.exists()


def test_the_newest_stays_and_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    """Names of one second sort by kind, so that the newest need not be the last; parts of files are removed when they are old."""
    newest, other = (tmp_path / f"incident-20231114T221320Z-m-{kind}-00000{kind[0]}.zip" for kind in ("asked", "drift"))
    part, fresh = (tmp_path / f".{newest.name}.{name}" for name in ("dead", "busy"))
    for path in (newest, other, part, fresh):
        path.write_text("")
    os.utime(part, (0.0, 0.0))
    folder.prune(tmp_path, 1, newest=newest)
    assert {newest, fresh} == {*tmp_path.iterdir()}


def test_inputs_that_were_too_large_are_not_called_kept(bench: Bench) -> None:
    """The manifest says what there is room for, in place of "kept"."""
    large = Bench(bench.place, incident_inputs=True)
    called = Called({"args": [{"type": "tensor", "dtype": "float32", "shape": [9]}], "kwargs": {}}, {}, whole=False)
    large.flush(replace(nan(), evidence=(replace(hit(), called=called),)))
    assert large.bundles[0].manifest["inputs"].startswith("not kept whole: of a call there is room for 4 MiB")
