"""The watch and where a baseline comes from: what is recorded, what is warned of when it is armed, and what is not armed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from scipy.special import ndtr
from torch import nn

import geluwatch
from geluwatch.config import Config
from geluwatch.errors import BaselineError, DetachedError, PromotionError, SignatureError, StoreError
from geluwatch.records import Baseline, Drained, Provenance, Rows, Site, Weights
from geluwatch.store import SqlBaselines
from geluwatch.store.signing import Keys
from geluwatch.testing import FakeClock, ListSource, MemoryBaselines
from geluwatch.watch import Watch

LAYER = "body.act"
ORIGIN = Provenance(
    Weights("ab" * 32, "", {"body.up.weight": "1", "body.down.weight": "2"}, 100, ("float32",), ("cpu",)), (), {"torch": "2.13.0"}
)


class Bench:
    """A watch over a source whose provenance is in the test's hands."""

    def __init__(self, store: MemoryBaselines, variant: str = "erf") -> None:
        self.source, self.clock, self.store = ListSource((Site(LAYER, 0, "module", "GELU", variant),)), FakeClock(), store
        self.source.origin = ORIGIN
        config = Config(window_seconds=None, minimum_rows=16, horizons=(1,))
        self.watch = Watch(self.source, store, self.clock, config, name="model", version="1", labels={})
        self.rng = np.random.default_rng(11)

    def windows(self, count: int = 40) -> None:
        """Close windows of calm traffic."""
        for _ in range(count):
            pre = self.rng.standard_normal((64, 8)).astype(np.float32)
            rows = Rows(LAYER, "float32", pre, (pre * ndtr(pre)).astype(np.float32))
            self.source.queue.append(Drained(forwards=64, rows=(rows,)))
            self.clock.advance(60.0)
            self.watch.close_window()


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A bench with windows enough to be armed."""
    made = Bench(MemoryBaselines(Keys(), "alice"))
    made.windows()
    yield made
    made.watch.detach()


def test_a_baseline_holds_where_it_comes_from(bench: Bench) -> None:
    """The source's provenance, the census as declared and measured, the settings and the slice of the traffic are recorded."""
    bench.watch.record_baseline("v1", traffic="eu")
    stored = bench.store.load("model", "1", "v1")
    origin = stored.provenance or Provenance()
    assert ("eu", ORIGIN.weights) == (stored.traffic, origin.weights)
    (act,) = origin.activations
    assert (LAYER, "erf", "erf", "float32", "float32") == (act.layer, act.declared, act.measured, act.dtype, act.precision)
    assert ("None", "16") == (origin.settings["window_seconds"], origin.settings["minimum_rows"])
    assert {"torch", "geluwatch"} == set(origin.versions)
    assert origin == bench.watch.provenance()


def test_an_armed_baseline_tells_readers(bench: Bench) -> None:
    """The report has the origin of what is armed, and whether it stood promoted; a forked child tells the same."""
    assert bench.watch.report.baseline_origin is None
    bench.watch.record_baseline("v1", arm=True)
    bench.store.promote("model", "1", "v1")
    seen = [bench.watch.report.baseline_origin]
    bench.watch.arm()
    bench.watch._forget_parent()
    for _ in range(2):
        seen.append(bench.watch.report.baseline_origin)
        bench.watch.flush()
    assert [False, True, True] == [origin is not None and origin.promoted for origin in seen]
    assert {("ab" * 8, "2.13.0", "none")} == {(origin.weights, origin.torch, origin.signer) for origin in seen if origin}
    assert ["recorded", "armed", "promoted", "armed"] == [entry.action for entry in bench.store.log()]
    bench.watch.follow_training()
    assert bench.watch.report.baseline_origin is None


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings since the last time."""
    found = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    caplog.clear()
    return found


def test_another_model_than_the_recorded_one_is_warned_of(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Formula and dtype are compared when a baseline is armed, weights once they have been read; it is armed all the same."""
    bench.watch.record_baseline("v1", arm=True)
    assert [] == warned(caplog)
    other = Bench(bench.store, variant="tanh")
    other.source.origin = replace(
        ORIGIN, weights=replace(ORIGIN.weights, digest="cd" * 32, tensors={"body.up.weight": "1"}, dtypes=("bfloat16",))
    )
    called = "geluwatch: baseline 'v1' was recorded of another model than the one that runs: "
    cheap = [f"{called}parameters in float32 became bfloat16", f"{called}declared formula erf became tanh at {LAYER}"]
    other.watch.arm()
    assert cheap == warned(caplog)
    other.watch.provenance()
    other.watch.arm("v1")
    assert sorted([*cheap, f"{called}the weights differ in 1 of 2 tensors, first body.down.weight"]) == sorted(warned(caplog))
    assert "v1" == other.watch.report.baseline
    other.watch.detach()
    with pytest.raises(DetachedError):
        other.watch.provenance()


def test_a_retired_baseline_is_not_armed(bench: Bench) -> None:
    """Arming it by name is refused, "latest" passes it by, and what was armed before stays armed."""
    bench.watch.record_baseline("v1")
    bench.watch.record_baseline("v2", arm=True)
    bench.store.retire("model", "1", "v1")
    with pytest.raises(PromotionError, match="was retired by alice, and is armed no more; arm another one"):
        bench.watch.arm("v1")
    assert "v2" == bench.watch.report.baseline
    bench.watch.arm()
    assert "v2" == bench.watch.report.baseline


def test_only_what_a_trusted_key_signed_is_armed() -> None:
    """Where keys are trusted a baseline that was just recorded unsigned is stored, and armed once it is signed."""
    private = Ed25519PrivateKey.generate()
    trusted = frozenset({private.public_key().public_bytes_raw().hex()})
    bench = Bench(MemoryBaselines(Keys(trusted=trusted), "alice"))
    bench.windows()
    with pytest.raises(SignatureError, match='"v1" of model "model" version "1" is unsigned'):
        bench.watch.record_baseline("v1", arm=True)
    assert (("v1",), None) == (bench.store.names("model", "1"), bench.watch.report.baseline)
    bench.store._keys = Keys(private, trusted)
    bench.store.sign("model", "1", "v1")
    bench.watch.arm()
    assert next(iter(trusted))[:16] == (bench.watch.report.baseline_origin.signer if bench.watch.report.baseline_origin else "")
    bench.watch.detach()


class ReadOnly(MemoryBaselines):
    """A store whose log cannot be written."""

    def note_armed(self, baseline: Baseline) -> None:
        raise StoreError(f"The log does not take {baseline.name}.")


def test_a_log_that_cannot_be_written_keeps_nobody_from_judging(caplog: pytest.LogCaptureFixture) -> None:
    """A process that may only read its baselines arms one all the same, with a warning."""
    bench = Bench(ReadOnly(Keys(), "alice"))
    bench.windows()
    bench.watch.record_baseline("v1", arm=True)
    assert ["geluwatch: baseline 'v1' is armed, but the audit log does not say so: The log does not take v1."] == warned(caplog)
    assert "v1" == bench.watch.report.baseline
    bench.watch.detach()


def test_an_unusable_slice_is_refused(bench: Bench) -> None:
    """Nothing is stored under a slice of the traffic that a database could not keep."""
    with pytest.raises(BaselineError, match="traffic of a baseline must be"):
        bench.watch.record_baseline("v1", traffic="two\nlines")
    assert () == bench.store.names("model", "1")


def test_a_torch_model_from_process_to_process(tmp_path: object) -> None:
    """Recorded of a real model, its weights are known again in the same model wrapped otherwise, and told apart from changed ones."""
    url = f"sqlite:///{tmp_path}/store.db"
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 2))
    by_hand = Config(window_seconds=None, cost_budget=None)
    with geluwatch.attach(model, name="tiny", store=url, config=by_hand) as watch, torch.no_grad():
        for _ in range(16):
            for _ in range(4):
                model(torch.randn(32, 8))
            watch.close_window()
        watch.record_baseline("v1")
    store = SqlBaselines(url)
    known = store.load("tiny", "1", "v1").provenance or Provenance()
    assert ("erf", "erf") == (known.activations[0].declared, known.activations[0].measured)
    wrapped = nn.DataParallel(model)
    with geluwatch.attach(wrapped, name="tiny", config=by_hand) as watch:
        assert known.weights == watch.provenance().weights
    with torch.no_grad():
        model[2].bias[1] += 1.0
    with geluwatch.attach(model, name="tiny", config=by_hand) as watch:
        assert known.weights.digest != watch.provenance().weights.digest
    store.close()
