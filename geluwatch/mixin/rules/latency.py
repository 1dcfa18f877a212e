"""How long forward passes take, and passes that take far longer than they usually do."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin import queries
from geluwatch.mixin.queries import GROUP
from geluwatch.mixin.rules.alerting import Alert, Recording, asked
from geluwatch.mixin.rules.usual import usual
from geluwatch.mixin.settings import MixinSettings

_QUANTILES = (0.5, 0.95, 0.99)
_TAIL = 0.95

_LEAST_PASSES = 20
"""Passes within the rate window from which a quantile of 95 % is more than the slowest one."""


def recordings(settings: MixinSettings) -> tuple[Recording, ...]:
    """Return the recording rules."""
    return (*(quantile_recording(settings, share) for share in _QUANTILES), usual_recording(settings))


def alerts(settings: MixinSettings) -> tuple[Alert, ...]:
    """Return the alerts."""
    return (_spike(settings),)


def quantile_recording(settings: MixinSettings, share: float) -> Recording:
    """Return the rule that records a quantile of latency by model version, over all pods and shards.

    The shards of a model each run their part of every pass, and each part counts as a pass of its own.
    """
    buckets = queries.total(_rate(settings), *GROUP, "le")
    return Recording(name=f"model:{catalog.FORWARD_SECONDS.name}:p{share * 100:g}", expr=queries.quantile(share, buckets))


def usual_recording(settings: MixinSettings) -> Recording:
    """Return the rule that records what the 95 % quantile of latency usually is."""
    recorded = quantile_recording(settings, _TAIL).name
    return Recording(name=f"model:{catalog.FORWARD_SECONDS.name}:usual", expr=usual(recorded, settings))


def _spike(settings: MixinSettings) -> Alert:
    now, before = quantile_recording(settings, _TAIL).name, usual_recording(settings).name
    seconds = "{{ . | first | value | humanizeDuration }}"
    usually = f"{{{{ with {asked(f'{before}{{%s}}')} }}}}, usually {seconds}{{{{ end }}}}"
    return Alert(
        name="GeluwatchLatencySpike",
        tier="ticket",
        owner="infrastructure",
        summary="Forward passes of a model take far longer than usual.",
        description=(
            f"95 % of the passes of model {{{{ $labels.model }}}} version {{{{ $labels.model_version }}}} take up to "
            f"{{{{ $value | humanizeDuration }}}}{usually}.{_slowest(settings)}{_share_of_gelu(settings)}"
        ),
        expr=queries.chain(
            f"({now} > {settings.thresholds.latency_factor:g} * {before})",
            f"and on ({', '.join(GROUP)})",
            f"({queries.total(_passes(settings), *GROUP)} >= {_LEAST_PASSES})",
        ),
        hold=settings.service_for,
        keep_firing_for=settings.keep_firing_for,
    )


def _slowest(settings: MixinSettings) -> str:
    """Return a template that names the slowest of several pods."""
    buckets = queries.series(catalog.FORWARD_SECONDS, "%s")
    pods = f"histogram_quantile({_TAIL}, sum by (instance, le) (rate({buckets}[{settings.rate_window}]))) > -Inf"
    named = "{{ with first . }} Slowest pod: {{ .Labels.instance }}, {{ .Value | humanizeDuration }}.{{ end }}"
    return f"{{{{ with {asked(f'sort_desc({pods})')} }}}}{{{{ if gt (len .) 1 }}}}{named}{{{{ end }}}}{{{{ end }}}}"


def _share_of_gelu(settings: MixinSettings) -> str:
    """Return a template that says how much of the passes' time goes into GELUs, where that is timed."""
    spent, timed = (
        f"sum(rate({queries.series(metric, '%[1]s')}[{settings.rate_window}]))" for metric in (catalog.GELU_SECONDS, catalog.TIMED_SECONDS)
    )
    share = "{{ . | first | value | humanizePercentage }}"
    return f"{{{{ with {asked(f'{spent} / ({timed} > 0)')} }}}} GELU takes {share} of the time of a pass.{{{{ end }}}}"


def _rate(settings: MixinSettings) -> str:
    return f"rate({queries.series(catalog.FORWARD_SECONDS, settings.selector)}[{settings.rate_window}])"


def _passes(settings: MixinSettings) -> str:
    whole = queries.series(catalog.FORWARD_SECONDS, settings.selector, 'le="+Inf"')
    return f"increase({whole}[{settings.rate_window}])"
