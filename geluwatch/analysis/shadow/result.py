"""What a shadow experiment found."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from geluwatch.analysis.compare import TOLERANCE
from geluwatch.core.experiment import Accuracy, Span
from geluwatch.records import LayerDifference

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Timing:
    """The time of a pass, over that of the model as it is in the same round."""

    rounds: int
    ratio: float
    """Median over the rounds."""
    interval: Span
    """95 % interval of the median."""

    @property
    def resolved(self) -> bool:
        """Whether the interval leaves out 1, so that one of the two is quicker."""
        return not self.interval.holds(1.0)


@dataclass(frozen=True, slots=True)
class Variant:
    """One variant beside the model as it is, on the same inputs."""

    name: str
    about: str
    """What it is, in words."""
    calls: int
    """Calls of GELU that a pass made and the variant answered; 0 where it is a model of its own."""
    expected: int
    """Calls of GELU that the model as it is makes in the same pass, as far as they can be heard."""
    relative: float
    """Difference of the outputs: root mean squared difference over the root mean square of the model's own."""
    largest: float
    """Largest absolute difference of an output."""
    cosine: float
    """Mean cosine between the output rows."""
    agreement: float | None
    """Share of output rows whose largest entry is the same; None where rows have one entry."""
    accuracy: Accuracy | None
    """None without labels."""
    timing: Timing | None
    """None without rounds."""
    layers: tuple[LayerDifference, ...]
    """At each GELU of the model, in its order; empty where the variant cannot be listened to."""

    @property
    def complete(self) -> bool:
        """Whether it answered every call of GELU that was heard; a model of its own has none to answer."""
        return self.calls == self.expected

    @property
    def enters(self) -> str:
        """The first GELU whose output differs, or an empty string."""
        return next((each.layer for each in self.layers if each.after > TOLERANCE), "")


@dataclass(frozen=True, slots=True)
class Shadow:
    """A model and its variants on the same inputs. `str()` is a table of at most 100 columns."""

    model: str
    """Class name of the model."""
    inputs: int
    """Inputs sent: the first dimension of the outputs, added up."""
    rows: int
    """Output rows compared: all dimensions but the last."""
    sites: int
    """GELU call sites in the census."""
    kept: tuple[tuple[str, str], ...]
    """Sites in whose place nothing can be put, with the reason; they compute as they did in every variant."""
    variants: tuple[Variant, ...]
    left_out: tuple[tuple[str, str], ...]
    """Variants that cannot be made here, with the reason."""
    labelled: int
    """Rows whose answer is known."""
    accuracy: float | None
    """Accuracy of the model as it is; None without labels."""
    seconds: float | None
    """Time of the model as it is for one input, median over the rounds; None without rounds."""
    dispatched: bool
    """Whether GELUs are met where torch dispatches them, on a way that takes time of its own, in the model as it is as in every variant."""
    cost_per_hour: float | None

    def variant(self, name: str) -> Variant:
        """Return a variant by name.

        Raises:
            KeyError: There is none of that name.
        """
        return next((each for each in self.variants if each.name == name), None) or _missing(name)

    def cost(self, timing: Timing | None = None) -> float | None:
        """Return what a million inputs cost at the price of an hour, of the model as it is or with a variant's time; None if unknown."""
        if self.cost_per_hour is None or self.seconds is None:
            return None
        return self.cost_per_hour / 3600 * self.seconds * (timing.ratio if timing else 1.0) * MILLION

    def document(self) -> dict[str, Any]:
        """Return all of it as plain JSON values; what is not finite is null."""
        told: dict[str, Any] = _plain(asdict(self))
        told["cost_per_million"] = self.cost()
        for entry, variant in zip(told["variants"], self.variants, strict=True):
            entry |= {"enters": variant.enters, "complete": variant.complete}
            if variant.timing is not None:
                entry["timing"] |= {"resolved": variant.timing.resolved, "cost_per_million": self.cost(variant.timing)}
            if (found := variant.accuracy) is not None:
                entry["accuracy"] |= {"change": found.change, "interval": list(found.interval), "probability": found.probability}
                entry["accuracy"] |= {"samples_per_arm": found.per_arm, "sample_pairs": found.pairs}
        return told

    def __str__(self) -> str:
        from geluwatch.analysis.shadow.table import table

        return table(self)


def _missing(name: str) -> Variant:
    raise KeyError(name)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
