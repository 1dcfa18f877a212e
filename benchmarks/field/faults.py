"""Which layer came first, and what changed: faults planted in every layer of real models, and what the reports say of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from geluwatch import Config
from geluwatch.records import Baseline
from geluwatch.store.memory import MemoryBaselines
from geluwatch.tap.source import TorchSource
from geluwatch.testing import FakeClock
from geluwatch.watch import Watch

from . import ours
from .book import Book
from .real import TEXTS, Real, subjects
from .run import Run, enter
from .streams import Halves
from .subjects import Change, Subject, Texts

MOST = 12
"""Windows that a fault is given to be seen in."""

WORDS = {
    "shift": ("values moved by",),
    "scale": ("as spread out as", "times as much as in the baseline"),
    "dead channels": ("no longer vary",),
    "precision": ("significant bits", "coarser grid"),
    "saturation": ("the gate is closed",),
    "tail": ("0.1 % and 99.9 % quantiles",),
    "new mode": ("apart from the others",),
}
"""How each kind of cause is worded."""


def shift(spread: float, _: np.random.Generator) -> Change:
    """Move every channel by a quarter of the layer's deviation, as an added bias does."""
    return lambda values: values + 0.25 * spread


def scale(_: float, order: np.random.Generator) -> Change:
    """Multiply every value, as a gain that is off does."""
    factor = float(order.choice([0.8, 1.25]))
    return lambda values: values * factor


def dead(_: float, order: np.random.Generator) -> Change:
    """Give one value for ever in one channel of twenty."""
    share = order.random()
    return lambda values: torch.where(_channels(values, 0.05, share), torch.zeros_like(values), values)


def precision(_: float, __: np.random.Generator) -> Change:
    """Keep four significant bits, as float8 e4m3 does."""

    def change(values: torch.Tensor) -> torch.Tensor:
        mantissa, exponent = torch.frexp(values)
        return torch.ldexp(torch.round(mantissa * 16) / 16, exponent)

    return change


def saturation(spread: float, order: np.random.Generator) -> Change:
    """Push one channel of five far below zero."""
    share = order.random()
    return lambda values: torch.where(_channels(values, 0.2, share), values - 3.0 - 3.0 * spread, values)


def tail(_: float, order: np.random.Generator) -> Change:
    """Make one value in a hundred five times as large; which ones follows from the values."""
    salt = float(order.integers(1 << 20))
    return lambda values: torch.where(torch.frac(torch.abs(values * 1e4 + salt) * 0.61803) < 0.01, 5.0 * values, values)


FAULTS = {"shift": shift, "scale": scale, "dead channels": dead, "precision": precision, "saturation": saturation, "tail": tail}


NONFINITE = "non-finite"


def _channels(values: torch.Tensor, share: float, start: float) -> torch.Tensor:
    """Return which channels a fault is in: evenly spread over the layer, so that a sample of them holds as many."""
    places = torch.arange(values.shape[-1], dtype=torch.float32)
    return torch.frac(places * 0.61803 + start) < share


@dataclass(frozen=True)
class Seen:
    """What was said of one planted fault."""

    seed: int
    delay: int | None
    first: str
    cause: str
    """The kind that the sentence names; empty where none is named."""


def plant(real: Real, texts: Texts, kind: str, layer: int, seed: int, baseline: Baseline) -> Seen:
    """Return what is said of one fault in one layer, at the first alarm."""
    subject = real.subject
    if kind == NONFINITE:
        return spoil(subject, texts, layer, seed)
    order = np.random.default_rng([61, seed, layer])
    spread = float(np.std(np.load(real.known(0)["sample"])[2 * layer].astype(np.float32)))
    change = FAULTS[kind](spread, order)

    def windows() -> Iterator[Halves]:
        with subject.changed(layer, change):
            for number in range(MOST):
                yield _calm(subject, texts, number, seed)

    seen = ours.watch(windows(), baseline, real.layers, 0.0, until_alarm=True)
    if not seen.tickets[-1]:
        return Seen(seed, None, "", "")
    return Seen(seed, len(seen.tickets), seen.first[-1], named(seen.causes[-1]))


def spoil(subject: Subject, texts: Texts, layer: int, seed: int) -> Seen:
    """Return what the whole agent, hooks and all, says of one value of one pass that is not finite; the delay is in flushes."""
    order, clock = np.random.default_rng([62, seed, layer]), FakeClock(0.0)
    watch = Watch(TorchSource(subject.model, Config(), clock), MemoryBaselines(), clock, Config(), name="field", version="1", labels={})
    value, place = float(order.choice([np.nan, np.inf, -np.inf])), int(order.integers(1 << 30))

    def change(values: torch.Tensor) -> torch.Tensor:
        flat = values.clone().flatten()
        flat[place % values[0, 0].numel()] = value  # in the first token of the first text, which is no padding
        return flat.view_as(values)

    try:
        with torch.inference_mode(), subject.changed(layer, change):
            subject.forward(texts[seed * 2 : seed * 2 + 2])
        clock.advance(Config().flush_seconds)
        watch.tick()
        report = watch.report
    finally:
        watch.detach()
    first = next((site.position for site in report.sites.values() if site.layer == report.first_nonfinite), None)
    return Seen(seed, None, "", "") if first is None else Seen(seed, 1, f"layer.{first}", NONFINITE)


def _calm(subject: Subject, texts: Texts, number: int, seed: int) -> Halves:
    start = (seed * MOST + number) * TEXTS
    return subject.window([texts[index % len(texts)] for index in range(start, start + TEXTS)], 1_000 * seed + number)


def named(sentence: str) -> str:
    """Return the kind of cause that a sentence names."""
    return next((kind for kind, words in WORDS.items() if any(each in sentence for each in words)), "")


def cell(found: list[Seen], kind: str, place: int) -> dict[str, Any]:
    """Return a cell of the book."""
    return {"kind": kind, "layer": place, "seen": [vars(each) for each in found]}


def faults(run: Run, book: Book) -> None:
    """Plant faults in every layer of two real models, and note which layer is called the first and what the cause."""
    for subject, texts in subjects(run.cache, run.scale.steps, run.scale.files):
        traffic = Real(subject, texts, run.size, run.cache)
        for kind in (*FAULTS, NONFINITE):
            for layer in range(len(traffic.layers)):
                name = f"{subject.name} | {kind} | {traffic.layers[layer]}"
                if run.wants(book, name):
                    known = traffic.baseline(0)
                    found = [plant(traffic, texts.unseen, kind, layer, seed, known) for seed in range(run.scale.seeds)]
                    enter(book, name, {"model": subject.name, **cell(found, kind, layer)})
