"""Rollouts: a new version of a model has just come up where another one ran. Nobody is told; tickets are kept quiet by it."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin import queries
from geluwatch.mixin.queries import GROUP, MODEL_GROUP
from geluwatch.mixin.rules.alerting import Alert, Recording, asked
from geluwatch.mixin.settings import MixinSettings

REGIONAL_MODEL = (*MODEL_GROUP, "region")
"""What is rolled out at once: a model in one region, over its versions."""


def recordings(settings: MixinSettings) -> tuple[Recording, ...]:
    """Return the recording rules."""
    return (earlier_recording(settings), new_recording(settings))


def alerts(settings: MixinSettings) -> tuple[Alert, ...]:
    """Return the alerts."""
    return (_rollout(settings),)


def earlier_recording(settings: MixinSettings) -> Recording:
    """Return the rule that tells which versions ran a rollout's time ago.

    It looks back over a range, so that a pod that was starting over at that very moment does not count as new.
    """
    agent = (
        f"last_over_time({queries.series(catalog.BUILD_INFO, settings.selector)}[{settings.rate_window}] offset {settings.rollout_window})"
    )
    return Recording(name=f"model:{catalog.BUILD_INFO.series}:earlier", expr=queries.largest(agent, *GROUP))


def new_recording(settings: MixinSettings) -> Recording:
    """Return the rule that tells which versions run now and did not then."""
    now = queries.largest(queries.series(catalog.BUILD_INFO, settings.selector), *GROUP)
    expr = queries.chain(now, f"unless on ({', '.join(GROUP)})", earlier_recording(settings).name)
    return Recording(name=f"model:{catalog.BUILD_INFO.series}:new", expr=expr)


def _rollout(settings: MixinSettings) -> Alert:
    new, earlier = new_recording(settings).name, earlier_recording(settings).name
    return Alert(
        name="GeluwatchRollout",
        tier="notice",
        owner="model",
        summary="A new version of a model has just come up.",
        description=(
            f"Model {{{{ $labels.model }}}} of job {{{{ $labels.job }}}} has had a new version for less than {settings.rollout_window}: "
            f"{_versions(new)}, after {_versions(earlier)}. Tickets that come with a rollout are kept quiet meanwhile; pages are not."
        ),
        expr=_rolled_out(new, earlier),
        hold="0m",
        labels=REGIONAL_MODEL,
    )


def _versions(recorded: str) -> str:
    """Return the template that lists the versions of a recorded series."""
    found = f"{asked(f'{recorded}{{%s}}')} | sortByLabel `model_version`"
    return f"{{{{ range $place, $one := {found} }}}}{{{{ if $place }}}}, {{{{ end }}}}{{{{ $one.Labels.model_version }}}}{{{{ end }}}}"


def _rolled_out(new: str, earlier: str) -> str:
    """Return how many new versions a model has that had another one before.

    A model that was not there at all is no rollout, and nothing is known about the time before the server looked; nor
    is more of a version that was there, or that version started over.

    Args:
        new: The recorded series of `new_recording`.
        earlier: That of `earlier_recording`.
    """
    counted = (queries.number(recorded, *REGIONAL_MODEL) for recorded in (new, earlier))
    return queries.chain(next(counted), f"and on ({', '.join(REGIONAL_MODEL)})", next(counted))
