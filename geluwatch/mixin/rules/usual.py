"""What is usual: the level of a recorded series over the stretch of the past that the settings name."""

from __future__ import annotations

from geluwatch.mixin import queries
from geluwatch.mixin.queries import GROUP, MODEL_GROUP
from geluwatch.mixin.settings import MixinSettings, seconds

MODEL = (*MODEL_GROUP, "region")
"""What a model is in one region over all its versions: what a new version has to stand comparison with."""

_STEPS = 48


def usual(recorded: str, settings: MixinSettings) -> str:
    """Return the usual level of a recorded series of model versions: its median over `usual_range`.

    A median keeps its level through trouble that lasts less than half of the time in which there was traffic. A version
    that is younger than the range is held to what its model usually was, whichever versions ran, so that a new version
    that is worse from its first minute is seen. A model that is younger has no usual level, and nothing is returned.

    Args:
        recorded: Name of a recorded series with the labels of `GROUP`.
        settings: How far back to look.
    """
    of_model = f"({queries.mean(recorded, *MODEL)})"
    young = queries.chain(f"0 * {recorded}", f"+ on ({', '.join(MODEL)}) group_left ()", f"({_level(of_model, settings)})")
    return f"({_level(recorded, settings)})\nor on ({', '.join(GROUP)})\n({young})"


def _level(expression: str, settings: MixinSettings) -> str:
    """Return the median of an expression over the range, where the expression had a value before the range as well."""
    stretch = f"{expression}[{settings.usual_range}:{step(settings.usual_range)}s]"
    return f"quantile_over_time(0.5, {stretch}) and count_over_time({stretch} offset {settings.usual_range})"


def step(duration: str) -> int:
    """Return the seconds between two looks at a series over a long stretch, at every sample of which would cost too much."""
    return max(1, seconds(duration) // _STEPS)
