"""Real traffic: prose through a real model, and what changes it: other texts, other weights, another kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import corpus
import numpy as np
import torch

from .cells import CALM, LEAD, Case, Size, Traffic, save_whole
from .streams import Halves
from .subjects import Subject, Texts, gpt, minilm

TEXTS = 32
"""Texts in a window."""
BASELINE = 100
_CHUNK = 20


def subjects(cache: Path, steps: int, files: int | None) -> list[tuple[Subject, corpus.Split]]:
    """Return both models, and texts for a baseline, unseen ones and code, of which no file is in two parts.

    The GPT learns from the baseline's, in so many steps; `files` are read at most.
    """
    torch.set_num_threads(1)
    texts = corpus.split(corpus.load(files), BASELINE * TEXTS, 0).shuffled(0)
    return [(gpt(texts.baseline, cache / "gpt.pt", steps), texts), (minilm(), texts)]


class Real(Traffic):
    """A real model's traffic."""

    def __init__(self, subject: Subject, texts: corpus.Split, size: Size, cache: Path) -> None:
        super().__init__(subject.name, subject.layers, BASELINE, size, cache)
        self.subject = subject
        self._texts = texts

    @property
    def cases(self) -> list[Case]:
        """What changes: texts, the weights before the first, the middle and the last GELU, the kernel of the middle one."""
        last = len(self.layers) - 1
        weights = [Case(f"weights x {factor}", self.layers[place]) for factor in (1.05, 1.15) for place in (0, last // 2, last)]
        return [
            Case("source code", "texts"),
            Case("10 % source code", "texts"),
            *weights,
            Case("kernel: sigmoid form", self.layers[last // 2]),
        ]

    def _windows(self, texts: Texts, seed: int, count: int) -> Iterator[Halves]:
        for start in range(0, count, _CHUNK):
            yield np.stack([self._window(texts, place, seed) for place in range(start, min(start + _CHUNK, count))])

    def _window(self, texts: Texts, place: int, seed: int) -> Halves:
        chosen = [texts[index % len(texts)] for index in range(place * TEXTS, (place + 1) * TEXTS)]
        return self.subject.window(chosen, 1_000 * seed + place)

    def _baseline(self, seed: int) -> Iterator[Halves]:
        return self._windows(self._texts.baseline, seed, BASELINE)

    def _calm(self, part: int, reads: str, seed: int) -> Iterator[Halves]:  # noqa: ARG002  # there is one baseline
        """Yield windows of one half of the unseen texts: false alarms are counted in one, limits tuned on the other."""
        half = len(self._texts.unseen) // 2
        texts = self._texts.unseen[:half] if part == CALM else self._texts.unseen[half:]
        most = self.size.values if reads == "values" else self.size.summaries
        return self._windows(texts, part, min(most, len(texts) // TEXTS))

    def _trial(self, case: Case, trial: int) -> Halves:
        count = LEAD + self.size.after
        places = range(trial * count * TEXTS, (trial + 1) * count * TEXTS)
        texts, code = ([part[place % len(part)] for place in places] for part in (self._texts.unseen, self._texts.code))
        if case.place == "texts":
            share = 1.0 if case.shift == "source code" else 0.1
            order = np.random.default_rng([52, trial])
            texts = [code[at] if at >= LEAD * TEXTS and order.random() < share else text for at, text in enumerate(texts)]
        before = self._lead(texts, trial)
        with self._change(case):
            return np.concatenate([before, [self._window(texts, place, trial) for place in range(LEAD, count)]])

    def _lead(self, texts: Texts, trial: int) -> Halves:
        """Return the calm windows before a change, which all cases share."""
        path = self._folder / f"lead-{trial}.npy"
        if not path.exists():
            save_whole(path, np.stack([self._window(texts, place, trial) for place in range(LEAD)]))
        found: Halves = np.load(path)
        return found

    def _change(self, case: Case) -> AbstractContextManager[None]:
        if case.place == "texts":
            return self.subject.calm()
        layer = self.layers.index(case.place)
        if case.shift.startswith("kernel"):
            return self.subject.other_kernel(layer)
        factor = float(case.shift.rpartition(" ")[2])
        return self.subject.changed(layer, lambda values: factor * values)
