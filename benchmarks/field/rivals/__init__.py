"""The rivals: one small script each, run in an environment of its own, and told apart by what they read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Rival:
    """A tool that people would pick instead."""

    name: str
    script: str
    environment: str
    """Its file of pinned requirements."""
    reads: Literal["values", "summaries"]
    ladder: bool = False
    """Whether scores are numbers of settings rather than measurements; limits are not extrapolated then."""
    most: int | None = None
    """Windows of calm that it is given at most, for it takes its time; None for all."""
    trials: int | None = None
    """Trials of each shift that it is given at most."""
    tuned: bool = True
    """Whether its scores can be tuned, and so be compared in delay."""


RIVALS = (
    Rival("KS, p < .05 (scipy)", "ks", "scipy", "values"),
    Rival("mean + 3 sigma", "three_sigma", "scipy", "summaries"),
    Rival("CUSUM, block-calibrated", "cusum", "scipy", "summaries"),
    Rival("EWMA, block-calibrated", "ewma", "scipy", "summaries"),
    Rival("ADWIN (river)", "adwin", "river", "summaries", ladder=True),
    Rival("Page-Hinkley (river)", "page_hinkley", "river", "summaries", ladder=True),
    Rival("KSWIN (river)", "kswin", "river", "summaries", ladder=True, most=1_440, trials=6),
    Rival("evidently", "evidently_preset", "evidently", "values", trials=6),
    Rival("alibi-detect KSDrift", "alibi_ks", "alibi-detect", "values", trials=6),
    Rival("frouros KSTest", "frouros_ks", "frouros", "values", most=1_440, trials=6),
    Rival("whylogs", "whylogs_ks", "whylogs", "values", most=1_440, trials=6),
    Rival("DataSketches ks_test", "datasketches_ks", "datasketches", "values", ladder=True),
    Rival("driftfdr", "driftfdr_monitor", "driftfdr", "summaries", most=10_080),
    Rival("driftdep, block permutation", "driftdep_blocks", "driftdep", "summaries", most=30, tuned=False),
    Rival("driftdep, effective sample", "driftdep_ess", "driftdep", "summaries", most=1_440, trials=6),
    Rival("always", "always", "scipy", "summaries", ladder=True),
    Rival("never", "never", "scipy", "summaries", ladder=True),
)


@dataclass(frozen=True)
class Answer:
    """What a rival said of a job."""

    scores: list[npt.NDArray[np.float64]]
    """One array (n,) for each stream."""
    limit: float
    """The score from which on it alarms by default."""
    milliseconds: float
    """What a window took."""


class Environments:
    """Virtual environments under one folder, made when first asked for; marked when complete, so a broken one is made again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def python(self, name: str) -> Path:
        """Return the interpreter of the environment with the pins of `environments/NAME.txt`."""
        pins = HERE / "environments" / f"{name}.txt"
        home, mark = self._folder / name, self._folder / f"{name}.pins"
        found = home / "bin" / "python"
        if not mark.exists() or mark.read_text() != pins.read_text():
            print(f"installing {name} into {home}", file=sys.stderr, flush=True)
            venv.create(home, with_pip=True, clear=True)
            subprocess.run([found, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", pins], check=True)
            mark.write_text(pins.read_text())
        return found


def ask(rival: Rival, job: Path, streams: Sequence[dict[str, object]], baselines: Sequence[dict[str, str]], python: Path) -> Answer:
    """Run a rival over streams of windows in a folder of its own.

    Args:
        rival: Whom to ask.
        job: The folder; made when it is not there.
        streams: `file`, `baseline` (its place) and `most` windows to read, of each stream.
        baselines: `sample` and `summaries` files of each.
        python: The interpreter of its environment.
    """
    job.mkdir(parents=True, exist_ok=True)
    (job / "job.json").write_text(json.dumps({"baselines": list(baselines), "streams": list(streams)}))
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    quiet.pop("PYTHONPATH", None)
    ran = subprocess.run([python, HERE / f"{rival.script}.py", job], env=quiet, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"{rival.name} failed:\n{ran.stderr[-2000:]}")
    said = json.loads((job / "said.json").read_text())
    scores = [np.load(job / f"scores-{number}.npy") for number in range(len(streams))]
    return Answer(scores, said["limit"], said["milliseconds"])
