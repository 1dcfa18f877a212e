"""The streams of drawn traffic as files: what every rival reads, and what ours reads with them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geluwatch.records import Baseline

from . import ours
from .rivals import Rival
from .shifts import PLACES, Shift, planted
from .streams import LAYERS, Halves, Null, Singles, Stream, served, summaries

LEAD = 24
"""Calm windows before each change, so that averages are full."""
SAMPLED = 640
"""Rows of the baseline that tools which keep values are given: 40,960 values a series, ten windows' worth."""
LAYER_NAMES = ours.names(LAYERS)

_CALM, _TUNE, _TRIALS = 1, 2, 10
"""Parts of a stream, beside 0, the baseline."""


def slug(name: str) -> str:
    """Return a name that may be a file's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@dataclass(frozen=True)
class Size:
    """How much of everything; the windows that a rival may be given fewer of are its own affair."""

    values: int
    """Windows of calm with all values."""
    summaries: int
    """Windows of calm with channel means and deviations only."""
    baselines: int
    trials: int
    after: int
    """Windows after a change."""


class Traffic:
    """The files of one kind of calm traffic, made when first asked for."""

    def __init__(self, null: Null, size: Size, cache: Path) -> None:
        self.null = null
        self._size = size
        self._folder = cache / "streams" / slug(null.name)
        self._folder.mkdir(parents=True, exist_ok=True)

    def baseline(self, seed: int) -> Baseline:
        """Return our baseline; with it are written those of the rivals."""
        return ours.kept(self._folder / f"baseline-{seed}.pickle", lambda: self._record(seed))

    def _record(self, seed: int) -> Baseline:
        known: list[Singles] = []
        sampled: list[Halves] = []
        every = max(self.null.baseline // SAMPLED, 1)

        def passed() -> Iterator[Halves]:
            for chunk in Stream(self.null, seed, 0).chunks(self.null.baseline):
                series = served(chunk)
                known.append(summaries(series))
                sampled.append(series[::every, :, 0].copy())
                yield series

        found = ours.record(passed(), LAYER_NAMES)
        np.save(self._folder / f"summaries-{seed}.npy", np.concatenate(known))
        np.save(self._folder / f"sample-{seed}.npy", np.concatenate(sampled)[:SAMPLED].swapaxes(0, 1))
        return found

    def known(self, seed: int) -> dict[str, str]:
        """Return the files that a rival learns the baseline from."""
        self.baseline(seed)
        return {part: str(self._folder / f"{part}-{seed}.npy") for part in ("sample", "summaries")}

    def calm(self, rival: Rival, *, tune: bool) -> dict[str, Any]:
        """Return a rival's stream of calm windows: the one it is judged by, or the one it is tuned on."""
        return {"file": str(self._calm(rival.reads, tune=tune)), "baseline": 0, "most": rival.most, "skip": 0}

    def calm_values(self) -> Halves:
        """Return the calm windows with all values that are judged."""
        found: Halves = np.load(self._calm("values", tune=False), mmap_mode="r")
        return found

    def _calm(self, reads: str, *, tune: bool) -> Path:
        path = self._folder / f"{'tune' if tune else 'calm'}.{reads}.npy"
        if not path.exists():
            stream = Stream(self.null, 0, _TUNE if tune else _CALM)
            chunks = stream.chunks(self._size.values if reads == "values" else self._size.summaries)
            made = [served(chunk) if reads == "values" else summaries(served(chunk)) for chunk in chunks]
            np.save(path, np.concatenate(made))
        return path

    def trials(self, shift: Shift, place: str) -> list[tuple[int, Halves]]:
        """Return a planted shift's trials: the baseline's seed, and windows of which the first `LEAD` are calm."""
        return [(trial % self._size.baselines, np.load(path, mmap_mode="r")) for trial, path in enumerate(self._planted(shift, place))]

    def planted(self, rival: Rival, shift: Shift, place: str) -> list[dict[str, Any]]:
        """Return the trials as a rival's streams."""
        paths = self._planted(shift, place)[: rival.trials]
        skip = LEAD if rival.reads == "values" else 0  # tests of single windows remember nothing
        found = []
        for trial, path in enumerate(paths):
            file = path if rival.reads == "values" else path.with_suffix(".summaries.npy")
            if not file.exists():
                np.save(file, summaries(np.load(path)))
            found.append({"file": str(file), "baseline": trial % self._size.baselines, "most": None, "skip": skip})
        return found

    def _planted(self, shift: Shift, place: str) -> list[Path]:
        paths = [self._folder / f"{slug(shift.name)}-{slug(place)}-{trial}.npy" for trial in range(self._size.trials)]
        for trial, path in enumerate(paths):
            if not path.exists():
                values = Stream(self.null, trial % self._size.baselines, _TRIALS + trial).take(LEAD + self._size.after)
                rng = np.random.default_rng([33, trial])
                values[LEAD:] = planted(values[LEAD:], shift, PLACES[place], rng)
                np.save(path, served(values))
        return paths
