"""What the stories of the rule tests are told in: moments, series, and what must fire."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from geluwatch import catalog
from geluwatch.catalog import Metric
from geluwatch.mixin.settings import MixinSettings, Tier, seconds

_STEPS_A_WINDOW = 10
_COARSE_STEPS_A_WINDOW = 2

MODEL = {"namespace": "serving", "job": "inference", "model": "minilm"}
INCIDENT = {**MODEL, "model_version": "1"}
FIRST_HOST, SECOND_HOST, THIRD_HOST = "10.0.0.7:9464", "10.0.0.8:9464", "10.0.0.9:9464"
POD = {**INCIDENT, "instance": FIRST_HOST}
OTHER_POD = {**INCIDENT, "instance": SECOND_HOST}
LAYERS = tuple(f"encoder.layer.{index}.act" for index in range(7))
TICKET_LIMIT = 6.0

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Expected:
    """One alert that must fire, with everything that tells people about it."""

    labels: Labels
    """The incident's labels, severity left out."""
    description: str
    agent: str | None = None
    """Instance whose listener the runbook link opens; None where no agent is left."""
    tier: Tier | None = None
    """Which tier of the alert; None where it has but one."""


@dataclass(frozen=True, slots=True)
class Check:
    """What fires at one moment, given in steps since the start; nothing if `expected` is empty."""

    step: int
    expected: tuple[Expected, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a query finds at one moment: the value of each series, by its name and labels; nothing if `found` is empty."""

    step: int
    query: str
    found: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """One story told by series, and what its alert and the recording rules make of it."""

    name: str
    """What the alert does, to be read after its name."""
    series: Mapping[str, str]
    checks: tuple[Check, ...]
    answers: tuple[Answer, ...] = ()


@dataclass(frozen=True, slots=True)
class Scale:
    """The time grid of the tests of some settings; a coarse one for stories that take days."""

    settings: MixinSettings
    coarse: bool = False
    step: int = field(init=False)
    """Seconds between two samples and between two evaluations."""

    def __post_init__(self) -> None:
        shortest = min(self.settings.rate_window, self.settings.burn_windows[0], key=seconds)
        step = seconds(shortest) // _COARSE_STEPS_A_WINDOW if self.coarse else seconds(self.settings.rate_window) // _STEPS_A_WINDOW
        object.__setattr__(self, "step", max(1, step))

    def steps(self, duration: str) -> int:
        """Return the steps after which a duration has passed."""
        return -(-seconds(duration) // self.step)


def silent(*steps: int) -> tuple[Check, ...]:
    """Return the checks that nothing fires at some moments."""
    return tuple(Check(step) for step in steps)


def fleet(count: int) -> tuple[Labels, ...]:
    """Return the labels of so many pods of one model version, the first being `POD`."""
    return tuple({**INCIDENT, "instance": f"10.0.0.{7 + place}:9464"} for place in range(count))


def name(metric: Metric | str, **labels: str) -> str:
    """Return a series as it is written in an exposition."""
    inside = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return f"{metric if isinstance(metric, str) else metric.series}{{{inside}}}"


def flat(value: float, steps: int) -> str:
    """Return the same value for some steps."""
    return ramp(value, 0, steps)


def ramp(start: float, slope: float, steps: int) -> str:
    """Return a value that grows evenly for some steps."""
    return f"{start:g}+{slope:g}x{steps - 1}"


def climb(*stretches: tuple[float, int], start: float = 1000) -> str:
    """Return a counter that grows by so much a step for so many steps, one stretch after the other."""
    parts: list[str] = []
    for slope, steps in stretches:
        parts.append(ramp(start + slope, slope, steps))
        start += slope * steps
    return " ".join(parts)


def gone(steps: int) -> str:
    """Return no value for some steps, told at once as a failed scrape tells it."""
    return f"stale _x{steps - 1}"


def absent(steps: int) -> str:
    """Return no value for some steps before there was one."""
    return f"_x{steps}"


def merged(parts: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return the series of all parts, such as pods or layers, in their order."""
    return {series: values for part in parts for series, values in part.items()}


def agent(values: str, pod: Labels = POD) -> dict[str, str]:
    """Return the series that says an agent is there."""
    return {name(catalog.BUILD_INFO, **pod, version="1.0.0", framework="torch"): values}


def layer_indices(steps: int) -> dict[str, str]:
    """Return the series that give the first pod's layers their order."""
    return {name(catalog.LAYER_INDEX, **POD, layer=layer): flat(index, steps) for index, layer in enumerate(LAYERS)}
