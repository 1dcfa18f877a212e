"""Outputs side by side, and times by turns."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from geluwatch.analysis.shadow.result import Timing
from geluwatch.core.experiment import Accuracy, median_interval
from geluwatch.core.paired import Side
from geluwatch.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

_WARM_UP = 2
"""Rounds that are not counted."""

IGNORED = 0
"""Labels below this stand for rows without an answer, as torch's losses have -100."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model to run, and how a pass of it is made."""

    entered: Callable[[], AbstractContextManager[nn.Module]]
    run: Callable[[nn.Module, Any], Any]

    def __call__(self, item: Any) -> Any:
        """Return what the model gives for an input."""
        with self.entered() as model:
            return self.run(model, item)


@dataclass(slots=True)
class Outputs:
    """A variant's outputs beside those of the model as it is, added up pass by pass."""

    side: Side = field(default_factory=Side)
    rows: int = 0
    wide: bool = False
    """Whether rows have more than one entry."""
    cosines: float = 0.0
    agreeing: int = 0
    labelled: int = 0
    right: int = 0
    other_right: int = 0
    lost: int = 0
    won: int = 0

    def add(self, known: np.ndarray, other: np.ndarray, labels: np.ndarray | None) -> None:
        """Take the outputs (rows, entries) of one pass of both."""
        self.side.add(known, other)
        self.rows += len(known)
        self.cosines += float(_cosines(known, other).sum())
        chosen, others = known.argmax(axis=1), other.argmax(axis=1)
        self.wide = self.wide or known.shape[1] > 1
        self.agreeing += int((chosen == others).sum())
        if labels is not None:
            answered = labels >= IGNORED
            one, two = (chosen == labels)[answered], (others == labels)[answered]
            self.labelled += len(one)
            self.right += int(one.sum())
            self.other_right += int(two.sum())
            self.lost += int((one & ~two).sum())
            self.won += int((two & ~one).sum())

    @property
    def accuracy(self) -> Accuracy | None:
        """What the labels say, None without any."""
        total = self.labelled
        return Accuracy(total, self.right / total, self.other_right / total, self.lost, self.won) if total else None


def _cosines(known: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of rows; 1 where both are zero, 0 where one is, or something is not finite."""
    with np.errstate(all="ignore"):
        norms = np.linalg.norm(known, axis=1) * np.linalg.norm(other, axis=1)
        found = np.where(norms > 0, (known * other).sum(axis=1) / norms, (known == other).all(axis=1))
    cosines: np.ndarray = np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)
    return cosines


def labels_of(given: Any, rows: int, number: int) -> np.ndarray:
    """Return the labels (rows,) of one pass.

    Raises:
        ConfigError: There are more or fewer than rows of the output.
    """
    labels = np.asarray(given.cpu() if hasattr(given, "cpu") else given).reshape(-1)
    if len(labels) != rows:
        raise ConfigError(f"Input {number} has {len(labels)} labels and {rows} rows of output; give one label a row, -100 for none.")
    return labels


def turns(candidates: Sequence[Candidate], items: Sequence[Any], rounds: int) -> Iterator[tuple[int, list[float]]]:
    """Yield for each round the number of the input and the seconds that each candidate took for it, in an order drawn anew each time."""
    order = random.Random(0)  # noqa: S311  # no secret is drawn
    wait = _waiting()
    for number in range(-_WARM_UP, rounds):
        item = items[number % len(items)]
        seconds = [0.0] * len(candidates)
        for place in order.sample(range(len(candidates)), len(candidates)):
            with candidates[place].entered() as model:
                wait()
                began = perf_counter()
                candidates[place].run(model, item)
                wait()
                seconds[place] = perf_counter() - began
        if number >= 0:
            yield number % len(items), seconds


def timings(taken: Sequence[Sequence[float]]) -> list[Timing]:
    """Return each candidate's time over that of the first, from the seconds of all in each round."""
    found = []
    for place in range(1, len(taken[0])):
        ratio, interval = median_interval([seconds[place] / seconds[0] for seconds in taken])
        found.append(Timing(len(taken), ratio, interval))
    return found


def _waiting() -> Callable[[], None]:
    """Return what waits until the device has done what it was given."""
    import torch

    return torch.accelerator.synchronize if torch.accelerator.is_available() else lambda: None
