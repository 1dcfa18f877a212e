"""Streams as files: what every rival reads, and what ours reads with them."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geluwatch.records import Baseline

from . import ours
from .rivals import Rival
from .shifts import PLACES, SHIFTS, planted
from .streams import LAYERS, Halves, Null, Singles, Stream, served, summaries

LEAD = 24
"""Calm windows before each change, so that averages are full."""
SAMPLED = 640
"""Rows of the baseline that tools which keep values are given: of drawn traffic 40,960 values a series, ten windows' worth."""

CALM, TUNE = 1, 2
"""Parts of a stream: what false alarms are counted in, and what limits are tuned on. The baseline is 0."""
_TRIALS = 10


def slug(name: str) -> str:
    """Return a name that may be a file's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


@dataclass(frozen=True)
class Size:
    """How much of everything; slow rivals are given less."""

    values: int
    """Windows of calm with all values."""
    summaries: int
    """Windows of calm with channel means and deviations only."""
    baselines: int
    trials: int
    after: int
    """Windows after a change."""


@dataclass(frozen=True)
class Case:
    """A change to be seen; `most` is the median delay in windows that is promised, 0 where none is."""

    shift: str
    place: str
    most: int = 0


def save_whole(path: Path, values: npt.NDArray[Any]) -> None:
    """Write a file whole or not at all: a run that is broken off must not leave half of a stream for the next one."""
    part = path.with_name(f".{path.name}.{os.getpid()}.npy")
    np.save(part, values)
    part.replace(path)


class Traffic(ABC):
    """One kind of traffic and its changes, as files made when first asked for."""

    def __init__(self, name: str, layers: list[str], recorded: int, size: Size, cache: Path) -> None:
        self.name = name
        self.layers = layers
        self.size = size
        self._recorded = recorded
        self._folder = cache / "streams" / slug(name)
        self._folder.mkdir(parents=True, exist_ok=True)

    @property
    @abstractmethod
    def cases(self) -> list[Case]:
        """The changes."""

    @abstractmethod
    def _baseline(self, seed: int) -> Iterator[Halves]:
        """Yield the baseline's windows in chunks (n, 2L, R, C)."""

    @abstractmethod
    def _calm(self, part: int, reads: str, seed: int) -> Iterator[Halves]:
        """Yield calm windows in chunks, of the model of a baseline."""

    @abstractmethod
    def _trial(self, case: Case, trial: int) -> Halves:
        """Return the windows (n, 2L, R, C) of a trial, of which the first `LEAD` are calm."""

    def baseline(self, seed: int) -> Baseline:
        """Return our baseline; with it are written those of the rivals."""
        return ours.kept(self._folder / f"baseline-{seed}.pickle", lambda: self._record(seed))

    def _record(self, seed: int) -> Baseline:
        known: list[Singles] = []
        sampled: list[Halves] = []
        rows = max(SAMPLED // self._recorded, 1)
        every = max(self._recorded // SAMPLED, 1)

        def passed() -> Iterator[Halves]:
            for series in self._baseline(seed):
                known.append(summaries(series))
                sampled.append(series[::every, :, :rows].copy())
                yield series

        found = ours.record(passed(), self.layers)
        save_whole(self._folder / f"summaries-{seed}.npy", np.concatenate(known))
        together = np.concatenate(sampled).swapaxes(0, 1)
        save_whole(self._folder / f"sample-{seed}.npy", together.reshape(len(together), -1, together.shape[-1])[:, :SAMPLED])
        return found

    def known(self, seed: int) -> dict[str, str]:
        """Return the files that a rival learns the baseline from."""
        self.baseline(seed)
        return {part: str(self._folder / f"{part}-{seed}.npy") for part in ("sample", "summaries")}

    def calm(self, rival: Rival, part: int, seed: int = 0) -> dict[str, Any]:
        """Return a rival's stream of calm windows, of the model of a baseline."""
        return {"file": str(self._written(part, rival.reads, seed)), "baseline": seed, "most": rival.most, "skip": 0}

    def calm_values(self) -> Halves:
        """Return the calm windows with all values that false alarms are counted in."""
        found: Halves = np.load(self._written(CALM, "values", 0), mmap_mode="r")
        return found

    def month(self) -> Iterable[Halves]:
        """Return as many calm windows with all values as there are with summaries, one by one."""
        return (window for chunk in self._calm(CALM, "summaries", 0) for window in chunk)

    def _written(self, part: int, reads: str, seed: int) -> Path:
        path = self._folder / f"{'tune' if part == TUNE else 'calm'}-{seed}.{reads}.npy"
        if not path.exists():
            save_whole(path, np.concatenate([chunk if reads == "values" else summaries(chunk) for chunk in self._calm(part, reads, seed)]))
        return path

    def trials(self, case: Case) -> list[tuple[int, Halves]]:
        """Return a case's trials: the baseline's seed, and the windows."""
        return [(trial % self.size.baselines, np.load(path, mmap_mode="r")) for trial, path in enumerate(self._trials(case))]

    def planted(self, rival: Rival, case: Case) -> list[dict[str, Any]]:
        """Return the trials as a rival's streams."""
        skip = LEAD if rival.reads == "values" else 0  # tests of single windows remember nothing
        found = []
        for trial, path in enumerate(self._trials(case)[: rival.trials]):
            file = path if rival.reads == "values" else path.with_suffix(".summaries.npy")
            if not file.exists():
                save_whole(file, summaries(np.load(path)))
            found.append({"file": str(file), "baseline": trial % self.size.baselines, "most": None, "skip": skip})
        return found

    def _trials(self, case: Case) -> list[Path]:
        paths = [self._folder / f"{slug(case.shift)}-{slug(case.place)}-{trial}.npy" for trial in range(self.size.trials)]
        for trial, path in enumerate(paths):
            if not path.exists():
                save_whole(path, self._trial(case, trial))
        return paths


class Drawn(Traffic):
    """Drawn traffic."""

    def __init__(self, null: Null, size: Size, cache: Path) -> None:
        super().__init__(null.name, ours.names(LAYERS), null.baseline, size, cache)
        self._null = null

    @property
    def cases(self) -> list[Case]:
        """Every shift, in one layer and in all."""
        return [Case(shift.name, place, shift.most) for shift in SHIFTS for place in PLACES]

    def _baseline(self, seed: int) -> Iterator[Halves]:
        return map(served, Stream(self._null, seed, 0).chunks(self._recorded))

    def _calm(self, part: int, reads: str, seed: int) -> Iterator[Halves]:
        return map(served, Stream(self._null, seed, part).chunks(self.size.values if reads == "values" else self.size.summaries))

    def _trial(self, case: Case, trial: int) -> Halves:
        values = Stream(self._null, trial % self.size.baselines, _TRIALS + trial).take(LEAD + self.size.after)
        shift = next(shift for shift in SHIFTS if shift.name == case.shift)
        values[LEAD:] = planted(values[LEAD:], shift, PLACES[case.place], np.random.default_rng([33, trial]))
        return served(values)
