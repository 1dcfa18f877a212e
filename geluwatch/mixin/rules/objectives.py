"""Service level objectives: latency and availability of forward passes, their error budgets, and how fast these are burnt.

An error of `slo="latency"` is a pass that returned later than users are content with, one of `slo="availability"` a pass
that raised. All pods and shards of a model version are summed: each shard's part of a pass counts as a pass of its own.

Burn rate is the share of errors over the share that the objective allows; at 1 a budget lasts just as long as its range.
The ratios over the three shortest windows come from the counters. The longer ones are put together from tiles, the
recorded rates of one short window after the other: errors and passes are summed apart and divided then, so an hour
counts for as much as it had traffic, however uneven that is, and pods may come and go. A mean of the recorded ratios
would let a night of few passes weigh as much as the day. Where a range had no passes there is no ratio.
"""

from __future__ import annotations

from collections.abc import Callable

from geluwatch import catalog
from geluwatch.mixin import queries
from geluwatch.mixin.queries import GROUP
from geluwatch.mixin.rules.alerting import SUBJECT, Alert, Recording, asked
from geluwatch.mixin.settings import MixinSettings, Tier, seconds
from geluwatch.mixin.thresholds import FASTEST_BURN

SLO = "slo"
"""The label that tells the objectives apart."""

_SHORTEST, _HALF_HOUR, _HOUR, _TWO_HOURS, _QUARTER, _DAY, _LONGEST = range(7)
"""Places in `MixinSettings.burn_windows`, named after what the default has there."""

_TILES = {_HOUR: _SHORTEST, _TWO_HOURS: _SHORTEST, _QUARTER: _SHORTEST, _DAY: _HALF_HOUR, _LONGEST: _HALF_HOUR}
"""The window whose recorded rates a longer one is put together from: short enough to end near now, long enough to be few."""
BURNS: dict[Tier, tuple[tuple[float, int, int], ...]] = {
    "page": ((FASTEST_BURN, _HOUR, _SHORTEST), (6, _QUARTER, _HALF_HOUR)),
    "ticket": ((2, _HOUR, _SHORTEST), (3, _DAY, _TWO_HOURS), (1, _LONGEST, _QUARTER)),
    "notice": (),
}
"""For each tier the burn rates that are too high, each over a long window and, so that it ends soon, over a short one.

The pairs are those of the workbook on site reliability; twice the budget for an hour is ours, and opens a ticket long
before the day is up.
"""

_LEAST_ERRORS = 10
"""Errors within the long window below which nothing is told: of few passes a single one that fails is a high share."""


def recordings(settings: MixinSettings) -> tuple[Recording, ...]:
    """Return the recording rules."""
    rates = [record(settings, place) for place in (_SHORTEST, _HALF_HOUR) for record in (passes_recording, errors_recording)]
    ratios = [ratio_recording(settings, place) for place in range(len(settings.burn_windows))]
    return (*rates, objective_recording(settings), *ratios, remaining_recording(settings))


def alerts(settings: MixinSettings) -> tuple[Alert, ...]:
    """Return the alerts."""
    return (_burn(settings, "page"), _burn(settings, "ticket"))


def passes_recording(settings: MixinSettings, place: int = _SHORTEST) -> Recording:
    """Return the rule that records the passes a second that an objective is about, over the burn window at a place."""
    window = settings.burn_windows[place]
    return Recording(name=f"model_slo:geluwatch_passes:rate{window}", expr=_passes(settings, window))


def errors_recording(settings: MixinSettings, place: int = _SHORTEST) -> Recording:
    """Return the rule that records those of them that were errors."""
    window = settings.burn_windows[place]
    return Recording(name=f"model_slo:geluwatch_errors:rate{window}", expr=_errors(settings, window))


def objective_recording(settings: MixinSettings) -> Recording:
    """Return the rule that records the share of passes that should be no errors."""
    model = queries.by(*GROUP)
    objectives = (
        f"{objective:g} * group {model} ({queries.series(catalog.FORWARDS, settings.selector)})"
        for objective in _objectives(settings).values()
    )
    return Recording(name="model_slo:geluwatch_objective:ratio", expr=_both(*objectives))


def ratio_recording(settings: MixinSettings, place: int) -> Recording:
    """Return the rule that records the share of errors over the burn window at a place."""
    window = settings.burn_windows[place]
    if place in (_SHORTEST, _HALF_HOUR):
        errors, passes = errors_recording(settings, place).name, passes_recording(settings, place).name
    elif place == _HOUR:
        errors, passes = f"(\n{_errors(settings, window)}\n)", f"(\n{_passes(settings, window)}\n)"
    else:
        errors, passes = _tiled(errors_recording, settings, place), _tiled(passes_recording, settings, place)
    return Recording(name=f"model_slo:geluwatch_errors:ratio{window}", expr=queries.chain(errors, "/", f"({passes} > 0)"))


def remaining_recording(settings: MixinSettings) -> Recording:
    """Return the rule that records the share of the longest window's error budget that is left; below zero it is overspent."""
    burnt = burn_rate(settings, _LONGEST)
    return Recording(name="model_slo:geluwatch_error_budget:remaining", expr=f"1 - {burnt}")


def burn_rate(settings: MixinSettings, place: int, where: str = "") -> str:
    """Return how many times faster than it lasts a budget is burnt, over the burn window at a place."""
    matched = f"{{{where}}}" if where else ""
    ratio, objective = ratio_recording(settings, place).name, objective_recording(settings).name
    return f"{ratio}{matched} / (1 - {objective}{matched})"


def _burn(settings: MixinSettings, tier: Tier) -> Alert:
    limits = "\nor\n".join(f"(\n{_too_fast(settings, *limit)}\n)" for limit in BURNS[tier])
    return Alert(
        name="GeluwatchErrorBudgetBurn",
        tier=tier,
        owner="infrastructure",
        summary="A model spends its error budget too fast.",
        description=_text(settings),
        expr=f"(\n{limits}\n)\nunless on ({', '.join(GROUP)})\n  {_in_training(settings)}",
        hold=settings.page_for if tier == "page" else settings.service_for,
        keep_firing_for=settings.keep_firing_for,
        labels=(*GROUP, SLO),
    )


def _too_fast(settings: MixinSettings, factor: float, long: int, short: int) -> str:
    """Return the burn rate over a long window where it is too high there, over a short window, and for more than a few errors."""
    errors = f"{_tiled(errors_recording, settings, long)} * {seconds(settings.burn_windows[_TILES[long]])}"
    return queries.chain(
        f"({burn_rate(settings, long)} > {factor:g})",
        "and",
        f"({burn_rate(settings, short)} > {factor:g})",
        "and",
        f"({errors} >= {_LEAST_ERRORS})",
    )


def _in_training(settings: MixinSettings) -> str:
    """Return the model versions that are being trained: nobody waits for their passes."""
    return f"({queries.total(queries.series(catalog.TRAINING_STEPS, settings.selector), *GROUP)} > 0)"


def _text(settings: MixinSettings) -> str:
    """Return the template that says how fast the budget is burnt, how much of it is left, and when it is gone."""
    hour, longest = settings.burn_windows[_HOUR], settings.burn_windows[_LONGEST]
    objectives = {slo: f"{objective * 100:g}%" for slo, objective in _objectives(settings).items()}
    late = f"{objectives['latency']} of passes should return within {settings.thresholds.latency_seconds:g} s"
    failed = f"{objectives['availability']} of passes should return"
    ratio, left = f"{ratio_recording(settings, _HOUR).name}{{%s}}", f"{remaining_recording(settings).name}{{%[1]s}}"
    last = f"{left} * {seconds(longest)} / ({burn_rate(settings, _HOUR, '%[1]s')} > 0) > 0"
    share = "{{ . | first | value | humanizePercentage }}"
    gone = f"; at the rate of the last {hour} that is gone in {{{{ . | first | value | humanizeDuration }}}}"
    remaining = f"{share} of the budget of {longest} is left{{{{ with {asked(last)} }}}}{gone}{{{{ end }}}}."
    return (
        f"{SUBJECT} burns its error budget for {{{{ $labels.slo }}}} "
        "{{ $value | printf `%.1f` }} times as fast as it lasts: "
        f"{{{{ if eq $labels.slo `latency` }}}}{late}{{{{ else }}}}{failed}{{{{ end }}}}"
        f"{{{{ with {asked(ratio)} }}}}, and in the last {hour} {share} did not{{{{ end }}}}. "
        f"{{{{ with {asked(f'{left} > 0')} }}}}{remaining}{{{{ else }}}}Nothing of the budget of {longest} is left.{{{{ end }}}}"
    )


def _objectives(settings: MixinSettings) -> dict[str, float]:
    limits = settings.thresholds
    return {"latency": limits.latency_objective, "availability": limits.availability_objective}


def _passes(settings: MixinSettings, window: str) -> str:
    """Return the passes a second by objective: of latency those that returned, of availability all."""
    returned = queries.series(catalog.FORWARD_SECONDS, settings.selector, 'le="+Inf"')
    begun = queries.series(catalog.FORWARDS, settings.selector)
    return _both(*(queries.total(f"rate({passes}[{window}])", *GROUP) for passes in (returned, begun)))


def _errors(settings: MixinSettings, window: str) -> str:
    """Return the passes a second that were errors. Ranges that end unevenly could leave a little less than none late."""
    returned, in_time = (
        queries.total(f"rate({queries.series(catalog.FORWARD_SECONDS, settings.selector, le)}[{window}])", *GROUP)
        for le in ('le="+Inf"', _edge(settings.thresholds.latency_seconds))
    )
    failed = queries.total(f"rate({queries.series(catalog.FAILED_FORWARDS, settings.selector)}[{window}])", *GROUP)
    return _both(f"clamp_min({returned} - {in_time}, 0)", failed)


def _edge(value: float) -> str:
    """Return the matcher of a bucket; some write a whole number with a decimal point and some without."""
    return f'le=~"{value:.0f}([.]0)?"' if value == int(value) else f'le="{value:g}"'


def _both(latency: str, availability: str) -> str:
    """Return the expressions of both objectives as one, told apart by their label."""
    return "\nor\n".join(
        f'label_replace({expression}, "{SLO}", "{slo}", "", "")'
        for slo, expression in (("latency", latency), ("availability", availability))
    )


def _tiled(record: Callable[[MixinSettings, int], Recording], settings: MixinSettings, place: int) -> str:
    """Return the sum of a recorded rate over a burn window, looked at once for each of its tiles, so that each pass counts once."""
    tile = _TILES[place]
    return f"sum_over_time({record(settings, tile).name}[{settings.burn_windows[place]}:{settings.burn_windows[tile]}])"
