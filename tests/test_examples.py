"""The examples run, as programs, and do what their first lines say."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def test_training_example_learns() -> None:
    """At a sane learning rate the training example runs to its end without a non-finite pass, and the loss falls."""
    run = subprocess.run([sys.executable, EXAMPLES / "train.py", "--steps", "61"], capture_output=True, text=True, timeout=120, check=False)
    assert (0, "") == (run.returncode, run.stderr)
    losses = [float(loss) for loss in re.findall(r"loss +([\d.]+)", run.stdout)]
    assert losses[-1] < losses[0]
    assert "arose first" not in run.stdout


def test_training_example_names_the_first_layer_when_it_explodes() -> None:
    """At an absurd learning rate the example stops and names a layer of its model and the runbook."""
    run = subprocess.run(
        [sys.executable, EXAMPLES / "train.py", "--learning-rate", "1e4"], capture_output=True, text=True, timeout=120, check=False
    )
    assert (0, "") == (run.returncode, run.stderr)
    assert re.search(r"arose first in blocks\.\d\.feed_forward\.1; read: geluwatch runbook NonFiniteActivations", run.stdout)


def test_serving_example_serves_embeddings_and_metrics(tmp_path: Path) -> None:
    """The serving example answers requests, records its baseline from traffic, and exposes the metrics."""
    command = [sys.executable, EXAMPLES / "serve.py", "--port", "0", "--metrics-port", "0", "--window", "1", "--baseline-windows", "12"]
    # One thread of arithmetic: two would wait for each other where other programs hold the cores.
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        assert server.stdout is not None
        urls = dict(server.stdout.readline().split() for _ in range(2))
        deadline = time.monotonic() + 180
        answered = 0
        armed = False
        while time.monotonic() < deadline and not armed:
            for number in range(20):
                body = f"Request {answered + number} asks what the weather is like in a town by the sea. ".encode() * 3
                with urllib.request.urlopen(urllib.request.Request(urls["embeddings"], body)) as response:
                    assert 384 == len(json.load(response))
            answered += 20
            with urllib.request.urlopen(urls["geluwatch"] + "/metrics") as response:
                metrics = response.read().decode()
            armed = re.search(r"^geluwatch_baseline_armed\{.*\} 1\.0", metrics, re.MULTILINE) is not None
        assert armed, "no baseline was armed in time"
        passes = re.search(r'^geluwatch_forward_passes_total\{model="minilm",model_version="1"\} ([\d.]+)', metrics, re.MULTILINE)
        assert passes is not None
        assert 0 < float(passes[1]) <= answered
        assert (tmp_path / "geluwatch.db").exists()
    finally:
        server.send_signal(signal.SIGINT)
        assert 0 == server.wait(timeout=20)
        if server.stdout is not None:
            server.stdout.close()


def test_shadow_example_trains_to_real_accuracy_and_prints_the_table() -> None:
    """The example's transformer tells more than 95 % of digits it has not seen, and each variant has accuracy, time and samples."""
    command = [sys.executable, EXAMPLES / "shadow.py", "--rounds", "6"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert (0, "") == (run.returncode, run.stderr)
    (known,) = re.findall(r"^as it is +([\d.]+) %$", run.stdout, re.MULTILINE)
    assert 95 < float(known) < 100
    for name in ("tanh", "quick", "relu", "table", "int8", "silu"):
        (changed,) = re.findall(rf"^{name} +([\d.]+) % +[+-][\d.]+ % ", run.stdout, re.MULTILINE)
        assert float(known) - 5 < float(changed) <= 100
    assert max(map(len, run.stdout.splitlines())) <= 100
