"""PromQL, written from the catalogue's names and the settings' durations; nothing else in the mixin spells a metric.

Every function returns one expression that Prometheus 2.42 and later understand alike. `where` are matchers without
braces, added to every selector of an expression.
"""

from __future__ import annotations

from textwrap import indent

from geluwatch import catalog
from geluwatch.catalog import Metric
from geluwatch.mixin.settings import MixinSettings, Tier, seconds

JOB = ("cluster", "namespace", "job")
"""What one job is. Labels that a setup lacks fall away in `by` and match as empty in `on`."""

TARGET = (*JOB, "instance")
"""What one target is."""

MODEL_GROUP = (*JOB, "model")
"""What one model is, over all its versions and pods."""

GROUP = (*MODEL_GROUP, "model_version")
"""What one incident is: a model version in one place, over all its pods."""

METRIC_PREFIX = "geluwatch_"

POD = (*GROUP, "instance")
"""What one pod's model version is."""

_MEMORY_STEPS = 288
_SKIPPED_IN_A_ROW = 16
"""Halvings after which a loss scale of 65536, the default, is 1: what is still not finite is no overflow of scaled gradients."""
_LEAST_PODS = 3


def by(*labels: str) -> str:
    """Return the `by (...)` clause of an aggregation."""
    return f"by ({', '.join(labels)})"


def series(metric: Metric, where: str = "", *matchers: str) -> str:
    """Return the selector of a metric."""
    inside = ",".join(part for part in (where, *matchers) if part)
    return f"{metric.series}{{{inside}}}" if inside else metric.series


def recent(metric: Metric, settings: MixinSettings) -> str:
    """Return how much a counter grew per series within the rate window, leaving out what did not grow.

    `increase` alone is blind to what a counter brings along when it is born: a pod that meets a NaN before its first
    scrape and then crashes would never be seen. So a counter above zero counts in full when its series did not exist
    a window ago, unless its agent was attached long before (then the server was blind, and the count is old); and when
    the agent was attached anew within the window, which shows a restart even where the counter has come back to the
    very value it had.
    """
    window = settings.rate_window
    counter = series(metric, settings.selector)
    attached = series(catalog.ATTACHED, settings.selector)
    match = f" ignoring ({', '.join(metric.labels)})" if metric.labels else ""
    born = [
        f"({counter} > 0)",
        "unless",
        f"({counter} offset {window})",
        f"unless{match}",
        f"(time() - {attached} > {seconds(settings.grace)})",
    ]
    restarted = [f"({counter} > 0)", f"and{match}", f"(changes({attached}[{window}]) > 0)"]
    return "\n".join([f"    (increase({counter}[{window}]) > 0)", "or", _chain(*born), "or", _chain(*restarted)])


def grown(metric: Metric, window: str, where: str) -> str:
    """Return how much a counter grew per series within a window, what it held when its series was born included."""
    counter = series(metric, where)
    return f"(increase({counter}[{window}]) > 0) or (({counter} > 0) unless ({counter} offset {window}))"


def quantile(share: float, buckets: str) -> str:
    """Return a quantile of a histogram's buckets, to within the width of one; absent where there was nothing to count."""
    return f"histogram_quantile({share:g}, {buckets}) > -Inf"


def known(metric: Metric, where: str = "", *matchers: str) -> str:
    """Return a gauge without its NaNs, one of which would turn the average of all pods into NaN."""
    return f"{series(metric, where, *matchers)} > -Inf"


# A pod that is far out by itself must not carry the mean of its fleet: what a pod counts for is capped at about twice the
# limits, which lie between 5 and 8. Smaller surprises only make the mean more cautious.
_MOST_EVIDENCE = 2
_MOST_SURPRISE = 15


def total(expression: str, *labels: str) -> str:
    """Return the sum of an expression by some labels."""
    return _aggregate("sum", expression, labels)


def mean(expression: str, *labels: str) -> str:
    """Return the average of an expression by some labels."""
    return _aggregate("avg", expression, labels)


def largest(expression: str, *labels: str) -> str:
    """Return the maximum of an expression by some labels."""
    return _aggregate("max", expression, labels)


def smallest(expression: str, *labels: str) -> str:
    """Return the minimum of an expression by some labels."""
    return _aggregate("min", expression, labels)


def number(expression: str, *labels: str) -> str:
    """Return how many series an expression has by some labels."""
    return _aggregate("count", expression, labels)


def _aggregate(operator: str, expression: str, labels: tuple[str, ...]) -> str:
    head = f"{operator} {by(*labels)}" if labels else operator
    return f"{head} (\n{indent(expression, '  ')}\n)" if "\n" in expression else f"{head} ({expression})"


def _chain(*parts: str) -> str:
    """Return operands and the operators between them, each on a line of its own."""
    return "\n".join(f"{'' if place % 2 else '  '}  {part}" for place, part in enumerate(parts))


def nonfinite_passes(settings: MixinSettings) -> str:
    """Return the forward passes with a NaN or an Inf within the rate window, by model version; absent when none."""
    return total(recent(catalog.NONFINITE_FORWARDS, settings), *GROUP)


def first_nonfinite_passes(settings: MixinSettings) -> str:
    """Return the same by the layer in which the values appeared first."""
    return total(recent(catalog.SITE_FIRST_NONFINITE, settings), *GROUP, "layer")


def out_of_memory_passes(settings: MixinSettings) -> str:
    """Return the forward passes that ran out of memory within the rate window, by pod; absent when none."""
    return total(recent(catalog.OUT_OF_MEMORY, settings), *POD)


def nonfinite_losses(settings: MixinSettings) -> str:
    """Return the training steps with a loss that was no number within the rate window, by model version; absent when none."""
    return total(recent(catalog.NONFINITE_LOSSES, settings), *GROUP)


def first_nonfinite_gradients(settings: MixinSettings) -> str:
    """Return the backward passes with a non-finite gradient within the rate window, by the layer where it was first met."""
    return total(recent(catalog.SITE_FIRST_GRADIENTS, settings), *GROUP, "layer")


def skipped_in_a_row(where: str) -> str:
    """Return the steps that loss scalers have skipped in a row, where that is too many."""
    return f"{series(catalog.SKIPPED_IN_A_ROW, where)} >= {_SKIPPED_IN_A_ROW}"


def training_faults(settings: MixinSettings, losses: str, gradients: str) -> str:
    """Return the model versions whose training goes wrong.

    Non-finite gradients are a fault only where no loss scaler is there to skip the step: with one they are its daily bread.

    Args:
        settings: Which targets to look at.
        losses: The recorded series of `nonfinite_losses`.
        gradients: The recorded series of `first_nonfinite_gradients`.
    """
    skipped = largest(skipped_in_a_row(settings.selector), *GROUP)
    scaled = f"unless on ({', '.join(GROUP)}) {largest(series(catalog.LOSS_SCALE, settings.selector), *GROUP)}"
    return f"({losses} > 0)\nor\n{skipped}\nor\n(({total(gradients, *GROUP)} > 0) {scaled})"


def drift_evidence(settings: MixinSettings) -> str:
    """Return the evidence of drift by layer and point, averaged over the pods of a model version; no pod counts for more than two."""
    return mean(f"clamp_max({known(catalog.EVIDENCE, settings.selector)}, {_MOST_EVIDENCE})", *GROUP, "layer", "point")


def drift_surprise(settings: MixinSettings) -> str:
    """Return the surprise by layer and point, averaged over the pods of a model version; no pod counts for more than two."""
    return mean(f"clamp_max({known(catalog.SURPRISE, settings.selector)}, {_MOST_SURPRISE})", *GROUP, "layer", "point")


def drift_limit(settings: MixinSettings, tier: Tier) -> str:
    """Return the surprise from which a model version's drift belongs to a tier; absent where no baseline arms it."""
    return largest(series(catalog.LIMIT, settings.selector, f'tier="{tier}"'), *GROUP)


def drift_beyond(settings: MixinSettings, surprise: str, tier: Tier) -> str:
    """Return the model versions whose mean surprise has reached a tier's limit.

    Args:
        settings: Which targets to look at.
        surprise: The recorded series of `drift_surprise`.
        tier: Whose limit.
    """
    return largest(_chain(surprise, f">= on ({', '.join(GROUP)}) group_left ()", drift_limit(settings, tier)), *GROUP)


def stray_pods(settings: MixinSettings, evidence: str) -> str:
    """Return the pods that drift while their model version as a whole does not, by how much they pass their limit.

    With N pods there are N chances for one to stray, which costs log10(N) of surprise; one more leaves a margin, for
    the pods' traffic is not the same. Of two pods neither is the odd one out.

    Args:
        settings: Which targets to look at.
        evidence: The recorded series of `drift_evidence`.
    """
    surprise = known(catalog.SURPRISE, settings.selector)
    limit = largest(series(catalog.LIMIT, settings.selector, 'tier="ticket"'), *POD)
    pods = number(surprise, *GROUP, "layer", "point")
    beyond = [
        f"({surprise}) - on ({', '.join(POD)}) group_left () {limit}",
        f">= on ({', '.join(GROUP)}, layer, point) group_left ()",
        f"(1 + log10({pods} >= {_LEAST_PODS}))",
    ]
    return f"{largest(_chain(*beyond), *POD)}\nunless on ({', '.join(GROUP)})\n  ({largest(evidence, *GROUP)} >= 1)"


def gross_faults(settings: MixinSettings, nonfinite: str) -> str:
    """Return the model versions with a layer that is grossly wrong.

    A fault that the baseline has as well is not news; the agent knows, and its verdict is then no page. Where there
    is a NaN or an Inf, that is the cause, pages already, and leaves the layers behind it looking dead.

    Args:
        settings: Which targets to look at.
        nonfinite: The recorded series of `nonfinite_passes`.
    """
    fault = f"({series(catalog.GROSS, settings.selector)} == 1)"
    verdict = series(catalog.VERDICT, settings.selector, 'verdict="page"')
    news = _chain(fault, f"and on ({', '.join(POD)})", f"({verdict} == 1)")
    return f"{largest(news, *GROUP)}\nunless\n  ({nonfinite} > 0)"


def kernel_mismatches(settings: MixinSettings) -> str:
    """Return the model versions with a layer whose kernel is not the one that it declares."""
    return largest(f"{series(catalog.KERNEL_MISMATCH, settings.selector)} == 1", *GROUP)


def overflow_ahead(settings: MixinSettings, nonfinite: str, tier: Tier) -> str:
    """Return the model versions with an overflow ahead; as a page those where it is near.

    Once there is a NaN or an Inf it has come, and pages by that.

    Args:
        settings: Which targets to look at.
        nonfinite: The recorded series of `nonfinite_passes`.
        tier: How near.
    """
    near = ('tier="page"',) if tier == "page" else ()
    return f"{largest(f'{series(catalog.OVERFLOW, settings.selector, *near)} == 1', *GROUP)}\nunless\n  ({nonfinite} > 0)"


def agents_seen(settings: MixinSettings) -> str:
    """Return the agents that were there at some time within `agent_memory`, by target and model version."""
    agent = series(catalog.BUILD_INFO, settings.selector)
    return largest(f"max_over_time({agent}[{settings.agent_memory}:{memory_step(settings)}s])", *TARGET, "model", "model_version")


def agents_missing(settings: MixinSettings, seen: str) -> str:
    """Return the models that lost agents, and with `expected_targets` the jobs whose targets never had one.

    Job names are not known, so absence is told by memory. An agent that was seen is missed where its target is still
    there without any agent; and where its model has none left at all while its job has a target without one (a new
    pod that forgot to attach). A target that left service discovery is not missed, nor is a model that was scaled to
    zero, renamed or replaced. Traffic plays no part.

    Args:
        settings: Which targets to look at.
        seen: The recorded series of `agents_seen`.
    """
    agent = series(catalog.BUILD_INFO, settings.selector)
    on_target, on_model, on_job = (f"on ({', '.join(labels)})" for labels in (TARGET, MODEL_GROUP, JOB))
    target = f"up{{{settings.selector}}}" if settings.selector else "up"
    bare = f"({target} unless {on_target} {agent})"
    stripped = _chain(seen, f"and {on_target}", bare)
    vanished = _chain(f"({seen} unless {on_model} {agent})", f"and {on_job}", bare)
    lost = f"{stripped}\nor\n{vanished}"
    missing = number(lost, *MODEL_GROUP)
    if not settings.expected_targets:
        return missing
    matchers = ",".join(part for part in (settings.selector, settings.expected_targets) if part)
    never = f"(up{{{matchers}}} == 1) unless {on_target} {seen}"
    return f"{missing}\nor\n{number(never, *JOB)}"


def memory_step(settings: MixinSettings) -> int:
    """Return the seconds between two looks back for agents, a day of which at every scrape would cost too much."""
    return max(1, seconds(settings.agent_memory) // _MEMORY_STEPS)


def baseline_missing(settings: MixinSettings) -> str:
    """Return how many agents of a model version take traffic without an armed baseline."""
    unarmed = f"{series(catalog.BASELINE_ARMED, settings.selector)} == 0"
    traffic = f"increase({series(catalog.FORWARDS, settings.selector)}[{settings.baseline_missing_for}]) > 0"
    return number(_chain(f"({unarmed})", "and", f"({traffic})"), *GROUP)
