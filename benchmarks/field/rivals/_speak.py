"""What a rival's process and the driver say to each other: files of numbers in a folder. Needs numpy alone.

The folder holds `job.json`, which names for each baseline a sample of its values and the summaries of all its windows, and for each
stream its windows, the first `skip` of which are left out. A rival gives every window a score that grows with drift, and says from
which score on it alarms by itself.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Baseline:
    """What is known of calm; S series are the layers, each before and behind its GELU."""

    sample: np.ndarray
    """(S, R, C) rows drawn evenly from the baseline's windows, float32."""
    summaries: np.ndarray
    """(n, S, 2, C) each window's channel means and logarithms of channel deviations."""
    file: Path
    """Where the summaries lie; what is dear to learn from them may be kept beside."""


Scores = Callable[[np.ndarray], np.ndarray]
"""Maps a stream's windows to their scores (n,): values (n, S, R, C), or summaries (n, S, 2, C)."""


def serve(fit: Callable[[Baseline], Scores], limit: float) -> None:
    """Answer the job in the folder named on the command line.

    Args:
        fit: Called anew for each stream, as a detector that remembers starts anew with each.
        limit: The score from which on the rival alarms by default.
    """
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text())
    known = [
        Baseline(np.load(each["sample"]).astype(np.float32), np.load(each["summaries"]), Path(each["summaries"]))
        for each in job["baselines"]
    ]
    took, count = 0.0, 0
    for number, stream in enumerate(job["streams"]):
        windows = np.load(stream["file"], mmap_mode="r")[: stream["most"]]
        skipped = stream["skip"]
        judge = fit(known[stream["baseline"]])
        began = time.perf_counter()
        scores = np.asarray(judge(windows[skipped:]), np.float64)
        took, count = took + time.perf_counter() - began, count + len(scores)
        np.save(folder / f"scores-{number}.npy", np.concatenate([np.zeros(skipped), scores]))
    (folder / "said.json").write_text(json.dumps({"limit": limit, "milliseconds": 1e3 * took / max(count, 1)}))


def pooled(window: np.ndarray) -> np.ndarray:
    """Return the values of each series (S, n) of one window (S, R, C), float32."""
    return np.asarray(window, np.float32).reshape(len(window), -1)


def each_window(see: Callable[[np.ndarray], float]) -> Scores:
    """Return scores of a judge of single windows of values (S, R, C)."""
    return lambda windows: np.array([see(np.asarray(window, np.float32)) for window in windows])


def layer_series(summaries: np.ndarray) -> np.ndarray:
    """Return for each window (n, S, 2, C) the mean and the log deviation of each series, averaged over channels (n, 2S)."""
    return summaries.mean(axis=-1, dtype=np.float64).reshape(len(summaries), -1)
