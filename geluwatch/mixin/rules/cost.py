"""What inferences cost, where the application says what an hour of its process costs; and that they cost more than they did.

The pods of a shard share the samples, so these are summed; the shards of a model all see the same samples, which count
once, at the shard that saw most (one that is being restarted sees fewer). Every pod of every shard costs, so cost is summed
over all.
"""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin import queries
from geluwatch.mixin.links import EXECUTIVE
from geluwatch.mixin.queries import GROUP
from geluwatch.mixin.rules.alerting import Alert, Recording, asked
from geluwatch.mixin.rules.usual import MODEL
from geluwatch.mixin.settings import MixinSettings, seconds

_SHARD = "shard"
_MILLION_AN_HOUR = "1e6 / 3600"
"""Turns what an hour costs over samples a second into what a million samples cost."""

_LOOKS = 10
_TRAFFIC_LEFT = 0.5


def recordings(settings: MixinSettings) -> tuple[Recording, ...]:
    """Return the recording rules."""
    return (samples_recording(settings), hourly_recording(settings), cost_recording(settings))


def alerts(settings: MixinSettings) -> tuple[Alert, ...]:
    """Return the alerts."""
    return (_cost_up(settings),)


def samples_recording(settings: MixinSettings) -> Recording:
    """Return the rule that records the samples a second of a model version, each once however many shards saw it."""
    rate = f"rate({queries.series(catalog.SAMPLES, settings.selector)}[{settings.rate_window}])"
    expr = queries.largest(queries.total(rate, *GROUP, _SHARD), *GROUP)
    return Recording(name=f"model:{catalog.SAMPLES.name}:rate{settings.rate_window}", expr=expr)


def hourly_recording(settings: MixinSettings) -> Recording:
    """Return the rule that records what all pods of a model version cost an hour."""
    return Recording(name=f"model:{catalog.COST.name}:sum", expr=queries.total(queries.known(catalog.COST, settings.selector), *GROUP))


def cost_recording(settings: MixinSettings) -> Recording:
    """Return the rule that records what a million inferences of a model version cost; absent without traffic."""
    hourly, samples = hourly_recording(settings).name, samples_recording(settings).name
    return Recording(name="model:geluwatch_cost_per_million:ratio", expr=f"{_MILLION_AN_HOUR} * {hourly} / ({samples} > 0)")


def _cost_up(settings: MixinSettings) -> Alert:
    return Alert(
        name="GeluwatchCostUp",
        tier="ticket",
        owner="infrastructure",
        summary="A million inferences of a model cost more than they did.",
        description=_cost_text(settings),
        expr=_dearer(settings),
        hold=settings.service_for,
        keep_firing_for=settings.keep_firing_for,
        labels=MODEL,
        dashboard=EXECUTIVE,
    )


def _dearer(settings: MixinSettings) -> str:
    """Return the models whose samples cost more than they did, by what a million costs now.

    A night with few samples and idle pods is dear and no upgrade. So cost is compared with the same time of the day
    before and of the week before, and has to be up on both: on one of them the traffic may have been unlike today's.
    Where less than half of the samples of those times are left, the traffic has gone and the pods have not yet.
    """
    factor, on_model = f"{settings.thresholds.cost_factor:g}", f"on ({', '.join(MODEL)})"
    samples = samples_recording(settings).name
    past = (settings.usual_range, settings.compare_offset)
    parts = [f"(\n{_cost_at(settings)}\n)"]
    for back in past:
        parts += [f"> {on_model}", f"{factor} * (\n{_cost_at(settings, back)}\n)"]
    for back in past:
        parts += [f"and {on_model}", f"({_summed(samples, settings)} > {_TRAFFIC_LEFT:g} * {_summed(samples, settings, back)})"]
    return queries.chain(*parts)


def _cost_at(settings: MixinSettings, back: str | None = None, where: str = "") -> str:
    """Return what a million inferences of a model cost, over all its versions.

    Args:
        settings: For how long, and of which past.
        back: How long ago; None is now.
        where: Matchers of the model, for a template.
    """
    hourly, samples = (
        _summed(recording.name, settings, back, where) for recording in (hourly_recording(settings), samples_recording(settings))
    )
    return queries.chain(f"{_MILLION_AN_HOUR} * {hourly}", "/", f"({samples} > 0)")


def _summed(recorded: str, settings: MixinSettings, back: str | None = None, where: str = "") -> str:
    """Return the sum of a recorded series over a while, by model; its length falls out of the quotient of two."""
    selector = f"{recorded}{{{where}}}" if where else recorded
    offset = f" offset {back}" if back else ""
    return queries.total(f"sum_over_time({selector}[{settings.service_for}:{_pause(settings)}s]{offset})", *MODEL)


def _pause(settings: MixinSettings) -> int:
    """Return the seconds between two of the looks that a sum over a while is made of."""
    return max(1, seconds(settings.service_for) // _LOOKS)


def _cost_text(settings: MixinSettings) -> str:
    """Return the template that says what has become dearer, beside how much, under what traffic, and running what."""
    day, week = settings.usual_range, settings.compare_offset
    agents = queries.series(catalog.BUILD_INFO, "%s")
    cost_then = [f"{_number(_cost_at(settings, back, '%[1]s'))} {back} before" for back in (day, week)]
    traffic = [_number(f"avg_over_time({_samples_a_second(settings)}{offset})") for offset in ("", f" offset {day}", f" offset {week}")]
    return (
        f"A million inferences of model {{{{ $labels.model }}}} cost {{{{ $value | printf `%.4g` }}}}, "
        f"at the same time {' and '.join(cost_then)}. "
        f"Samples a second: {traffic[0]} now, {traffic[1]} {day} before, {traffic[2]} {week} before. "
        f"It runs {_versions(agents)}; {day} before it ran "
        f"{_versions(f'last_over_time({agents}[{settings.rate_window}] offset {day})')}."
    )


def _samples_a_second(settings: MixinSettings) -> str:
    return f"sum({samples_recording(settings).name}{{%[1]s}})[{settings.service_for}:{_pause(settings)}s]"


def _number(expression: str) -> str:
    question = asked(" ".join(expression.split()))
    return f"{{{{ with {question} }}}}{{{{ . | first | value | printf `%.4g` }}}}{{{{ else }}}}?{{{{ end }}}}"


def _versions(agents: str) -> str:
    """Return a template that lists versions with what they run on, those of most pods first."""
    found = asked(f"sort_desc(count by (model_version, framework) ({agents}))")
    listed = "{{ if $place }}, {{ end }}version {{ $seen.Labels.model_version }} ({{ $seen.Labels.framework }})"
    return f"{{{{ range $place, $seen := {found} }}}}{listed}{{{{ else }}}}?{{{{ end }}}}"
