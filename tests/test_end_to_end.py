"""The main job on real parts: a trained transformer, Prometheus, Alertmanager, a webhook, runbooks that open, a bundle that is replayed."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import planted
import pytest
import torch
from torch import nn

import geluwatch
from geluwatch.analysis.incident import show
from geluwatch.bundles import bundle, folder
from geluwatch.cli.demo import model as demo_model
from geluwatch.cli.demo import texts as demo_texts
from geluwatch.cli.demo.monitoring import SETTINGS
from geluwatch.cli.demo.servers import Alertmanager, Prometheus, find, get
from geluwatch.cli.demo.webhook import Alert, WebhookReceiver
from geluwatch.cli.main import main
from geluwatch.errors import MissingPartError
from geluwatch.mixin.rulefile import rule_file

pytestmark = pytest.mark.e2e

CALM_WINDOWS = 40
TEXTS_A_WINDOW = 32
BATCH = 8


class Trainer(nn.Module):
    """A small network to be trained to death."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class Traffic:
    """Serves texts through the encoder, a window at a time."""

    def __init__(self, encoder: demo_model.Encoder, watch: geluwatch.Watch) -> None:
        self.encoder, self.watch = encoder, watch

    def window(self, texts: Iterator[str]) -> geluwatch.Report:
        for _ in range(TEXTS_A_WINDOW // BATCH):
            self.encoder.forward(list(itertools.islice(texts, BATCH)))
        return self.watch.close_window()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A watched MiniLM with an armed baseline of prose, scraped by Prometheus, whose alerts reach a webhook."""
    try:
        find("prometheus"), find("alertmanager", "prometheus-alertmanager")
    except MissingPartError as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))
    place = tmp_path_factory.mktemp("stage")
    corpus, encoder = demo_texts.load(), demo_model.load()
    config = geluwatch.Config(
        window_seconds=None, flush_seconds=0.5, cost_budget=None, rows_per_forward=256, incidents=place / "bundles", incident_inputs=True
    )
    with (
        geluwatch.attach(encoder.model, name="minilm", store=f"sqlite:///{place / 'baselines.db'}", config=config) as watch,
        WebhookReceiver() as inbox,
        Alertmanager(place / "alertmanager", inbox.url) as alertmanager,
        Prometheus(place / "prometheus", rule_file(SETTINGS), alertmanager.url) as prometheus,
    ):
        traffic = Traffic(encoder, watch)
        prose = iter(corpus.baseline)
        for _ in range(CALM_WINDOWS):
            traffic.window(prose)
        watch.record_baseline("prose", arm=True)
        prometheus.scrape({"serving": watch.serve()})
        assert prometheus.wait_until_scraped("serving")
        yield SimpleNamespace(
            corpus=corpus,
            encoder=encoder,
            watch=watch,
            traffic=traffic,
            inbox=inbox,
            prometheus=prometheus,
            calm=itertools.cycle(corpus.held_out),
            bundles=place / "bundles",
        )


def opens(alert: Alert) -> str:
    """Return the text of the runbook that an alert links to, which has to be that alert's own."""
    status, body = get(alert.runbook_url)
    assert 200 == status
    page = body.decode()
    assert alert.runbook_url.endswith(f"/runbooks/{alert.name}")
    assert f"<h1>{alert.name}</h1>" in page
    return page


def leaves_evidence(place: Path, layer: str) -> None:
    """See that the page left a bundle with the NaN in it, whose replay meets it again in the broken model and not in the mended one."""
    (path,) = (found for found in folder.bundles(place) if "-nonfinite-" in found.name)
    found = bundle.read(path)
    assert layer == found.manifest["layer"] == found.evidence[0].bad.layer
    assert not np.isfinite(found.evidence[0].bad.post).all(axis=1).any()
    assert np.isnan(found.evidence[0].bad.post).any()
    assert "GeluwatchNonFiniteActivations" in "\n".join(show.lines(found))
    assert 0 == main(["incident", "replay", str(path), "--model", "planted:broken"])
    assert 1 == main(["incident", "replay", str(path), "--model", "planted:mended"])


def test_main_job(stage: SimpleNamespace) -> None:
    """Calm traffic alerts nobody; a drift ticket, a NaN page and a training NaN page arrive, each with a runbook that opens."""
    # Calm, for longer than any of the incidents below takes.
    calm_began = time.time()
    while time.time() - calm_began < 30:
        assert "ok" == stage.traffic.window(stage.calm).verdict
    assert () == stage.inbox.alerts
    calm_seconds = time.time() - calm_began

    code = itertools.cycle(stage.corpus.code)
    began, ticket = time.time(), None
    while ticket is None and time.time() - began < 90:
        report = stage.traffic.window(code)
        ticket = stage.inbox.find("GeluwatchActivationDrift", "minilm")
    assert "ticket" == report.verdict
    assert ticket is not None
    assert "warning" == ticket.severity
    assert "first at layer encoder.layer." in ticket.annotations["description"]
    assert "the traffic is likelier to have changed than the model" in ticket.annotations["description"]
    assert "traffic" == report.scope
    opens(ticket)
    drift_seconds = time.time() - began

    began = time.time()
    with planted.planted(stage.encoder.model):
        report = stage.traffic.window(stage.calm)
    layer = planted.LAYER
    assert ("page", layer) == (report.verdict, report.first_nonfinite)
    page = stage.inbox.wait("GeluwatchNonFiniteActivations", "minilm", timeout=60)
    assert page is not None
    assert "critical" == page.severity
    assert f"first at layer {layer}" in page.annotations["description"]
    opens(page)
    nan_seconds = time.time() - began
    leaves_evidence(stage.bundles, layer)

    torch.manual_seed(0)
    trainer = Trainer()
    optimizer = torch.optim.SGD(trainer.parameters(), lr=1e6)
    with geluwatch.attach(trainer, name="trainer", config=geluwatch.Config(flush_seconds=0.5)) as watch:
        stage.prometheus.scrape({"serving": stage.watch.serve(), "training": watch.serve()})
        assert stage.prometheus.wait_until_scraped("training")
        began = time.time()
        for _ in range(50):
            loss = (trainer(torch.randn(16, 8)) - 1).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert not loss.isfinite()
        page = stage.inbox.wait("GeluwatchNonFiniteActivations", "trainer", timeout=60)
        assert page is not None
        assert "first at layer body." in page.annotations["description"]
        opens(page)
    training_seconds = time.time() - began
    seen = f"drift {drift_seconds:.1f}, NaN {nan_seconds:.1f}, training NaN {training_seconds:.1f}; calm {calm_seconds:.1f}"
    print(f"\nseconds to the webhook: {seen}")
    assert calm_seconds >= max(nan_seconds, training_seconds)
    expected = {
        ("GeluwatchActivationDrift", "minilm"),
        ("GeluwatchNonFiniteActivations", "minilm"),
        ("GeluwatchNonFiniteActivations", "trainer"),
    }
    assert expected == {(alert.name, alert.model) for alert in stage.inbox.alerts}
