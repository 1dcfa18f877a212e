"""The passes of stories: a latency histogram of those that come in time and those that come late."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.ruletests.grammar import POD, Labels, climb, name

Stretch = tuple[float, float, int]
"""Passes in time and passes that are late in each of so many steps."""

PROMPT, LATE = "97.5ms", "487.5ms"
"""The 95 % quantile where all passes are in time and where all are late: that far into their bucket."""


def passes(*stretches: Stretch, pod: Labels = POD) -> dict[str, str]:
    """Return the histogram of a pod's passes, those in time within 0.1 s, the late ones within 0.5 s."""
    nothing = climb((0, sum(steps for _, _, steps in stretches)))
    prompt = climb(*((prompt, steps) for prompt, _, steps in stretches))
    whole = climb(*((prompt + late, steps) for prompt, late, steps in stretches))
    buckets = {"0.05": nothing, "0.1": prompt, "0.25": prompt, "0.5": whole, "+Inf": whole}
    return {name(catalog.FORWARD_SECONDS, **pod, le=edge): values for edge, values in buckets.items()}


def attempts(*stretches: Stretch, pod: Labels = POD) -> dict[str, str]:
    """Return the counters of a pod's passes that returned and of those that failed."""
    return {
        name(catalog.FORWARDS, **pod): climb(*((fine + failed, steps) for fine, failed, steps in stretches)),
        name(catalog.FAILED_FORWARDS, **pod): climb(*((failed, steps) for _, failed, steps in stretches)),
    }
