"""PromQL, written from the catalogue's names and the settings' durations; nothing else in the mixin spells a metric.

Every function returns one expression that Prometheus 2.42 and later understand alike. `where` are matchers without
braces, added to every selector of an expression.
"""

from __future__ import annotations

from textwrap import indent

from geluwatch import catalog
from geluwatch.catalog import Metric
from geluwatch.mixin.settings import MixinSettings, seconds

JOB = ("cluster", "namespace", "job")
"""What one job is. Labels that a setup lacks fall away in `by` and match as empty in `on`."""

TARGET = (*JOB, "instance")
"""What one target is."""

MODEL_GROUP = (*JOB, "model")
"""What one model is, over all its versions and pods."""

GROUP = (*MODEL_GROUP, "model_version", "region")
"""What one incident is: a model version in one region, over all its pods and shards."""

METRIC_PREFIX = "geluwatch_"

POD = (*GROUP, "instance")
"""What one pod's model version is."""


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
    scrape and then crashes would never be seen. So a counter above zero counts in full when its series was not seen in
    the window before (looking at one moment of it would take a scrape that failed then for a birth now), unless its agent
    was attached long before (then the server was blind, and the count is old); and when
    the agent was attached anew within the window, which shows a restart even where the counter has come back to the
    very value it had, or the pod was gone for longer than a window.

    Of pods' counters the server remembers more, as long as the grace: what one gained while nobody scraped it counts when
    it is seen again, and what it had before does not count again. Of layers' there are too many for that.
    """
    window = settings.rate_window
    counter = series(metric, settings.selector)
    attached = series(catalog.ATTACHED, settings.selector)
    match = f" ignoring ({', '.join(metric.labels)})" if metric.labels else ""
    memory = window if metric.labels else settings.grace
    born = [
        f"({counter} > 0)",
        "unless",
        _seen_before(counter, memory, window),
        f"unless{match}",
        f"(time() - {attached} > {seconds(settings.grace)})",
    ]
    anew = f"changes({attached}[{window}]) > 0 or time() - {attached} < {seconds(window)}"
    later = f"{attached} > {_last_before(attached, settings.grace, window)}"
    restarted = [f"({counter} > 0)", f"and{match}", f"({anew} or {later})"]
    ways = [f"    (increase({counter}[{window}]) > 0)", chain(*born), chain(*restarted)]
    if not metric.labels:
        ways.append(f"    ({counter} - {_last_before(counter, memory, window)} > 0)")
    return "\nor\n".join(ways)


def timely(expression: str, settings: MixinSettings) -> str:
    """Return what agents say of traffic that there is: a pod without any for long stands by its last judgement, whatever has come of it."""
    idle = f"(increase({series(catalog.FORWARDS, settings.selector)}[{settings.idle_after}]) == 0)"
    return f"({expression} unless on ({', '.join(POD)}) {idle})"


def by_host(targets: str) -> str:
    """Return series of targets with the host of each as one more label."""
    return f'label_replace({targets}, "host", "$1", "instance", "(.+?)(?::[0-9]+)?")'


def grown(metric: Metric, window: str, where: str) -> str:
    """Return how much a counter grew per series within a window, what it held when its series was born included."""
    counter = series(metric, where)
    return f"(increase({counter}[{window}]) > 0) or (({counter} > 0) unless {_seen_before(counter, window, window)})"


def _seen_before(counter: str, memory: str, window: str) -> str:
    """Return the series of a counter that there were at some time before the present window, as far back as is remembered."""
    return f"present_over_time({counter}[{memory}] offset {window})"


def _last_before(series: str, memory: str, window: str) -> str:
    """Return what series last were before the present window, as far back as is remembered."""
    return f"last_over_time({series}[{memory}] offset {window})"


def quantile(share: float, buckets: str) -> str:
    """Return a quantile of a histogram's buckets, to within the width of one; absent where there was nothing to count."""
    return f"histogram_quantile({share:g}, {buckets}) > -Inf"


def known(metric: Metric, where: str = "", *matchers: str) -> str:
    """Return a gauge without its NaNs, one of which would turn the average of all pods into NaN."""
    return f"{series(metric, where, *matchers)} > -Inf"


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


def chain(*parts: str) -> str:
    """Return operands and the operators between them, each on a line of its own."""
    return "\n".join(f"{'' if place % 2 else '  '}  {part}" for place, part in enumerate(parts))
