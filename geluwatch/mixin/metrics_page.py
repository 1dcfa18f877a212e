"""The page of all metrics, as Markdown: what each is, what it costs, and which alerts and dashboards read it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from geluwatch import catalog
from geluwatch.catalog import EDGES, EXPOSITION_METRICS, FULL_EDGES, METRICS, MODEL_LABELS, SUMMED, Metric
from geluwatch.mixin.cardinality import most_series, sample_limit
from geluwatch.mixin.queries import chain, series, total
from geluwatch.mixin.rulefile import GENERATED
from geluwatch.mixin.rules import alerts, recordings
from geluwatch.mixin.settings import MixinSettings
from geluwatch.profiles import PROFILES

_SECTIONS: Mapping[str, Metric] = {
    "Traffic": catalog.FORWARDS,
    "What the application reports": catalog.PREDICTIONS,
    "Process and devices": catalog.CPU_SECONDS,
    "Non-finite values": catalog.NONFINITE_FORWARDS,
    "Training": catalog.SITE_GRADIENTS,
    "Distribution since attach": catalog.VALUES,
    "The last closed window": catalog.WINDOW_MEAN,
    "The last replay of the probe": catalog.PROBE_MOVED,
    "Census and baseline": catalog.LAYER_INDEX,
    "The agent itself": catalog.ATTACHED,
}
"""Each section with its first metric, in the catalogue's order."""

_EXAMPLES = (6, 48)
"""Layers of the models that serve as examples: a small encoder, a large language model."""

_NAME = re.compile(r"[a-zA-Z_:][\w:]*")

_INTRODUCTION = """\
# Metrics

Every metric that a watch exports. The page is made from the same list as the exporters, the dashboards and the alerts.

Every series carries `{model_labels}`, and besides them the constant labels that were given to `attach`, for example
`labels={{"region": "eu", "shard": "0", "track": "canary"}}`. Three of these mean something to the rules:

- `region`: one incident is one model version in one region. Without the label the whole fleet is one region.
- `shard`: tells apart parts of one model that are served by different processes. It does not split incidents.
- `track`: `canary` marks a canary, which is held against everything else.

In a distributed run `rank` is added. `job` and `instance` come from Prometheus.

Gauges are absent while there is nothing to tell: no window closed yet, no baseline armed, nothing reported. Counters start
from 0 with the process, a forked child's too; those of the application appear with its first report.

In OpenTelemetry names have dots and neither unit nor `total`. A histogram is sent as counters with the attribute `le`.
"""

_SUM_AND_COUNT = """\
### No `_sum` and no `_count`

`{series}` has edges below zero. OpenMetrics forbids a sum there, and the Prometheus client then
leaves out the count as well. So there is no `{name}_sum` and no `{name}_count`; these stand
in for them.

Values sampled a second, by layer; the bucket at `+Inf` counts all but NaN:

```promql
{count}
```

The mean of the values sampled:

```promql
{mean}
```
"""

_PROFILES = """\
## Profiles: how many series

`geluwatch.attach(model, ..., config=geluwatch.Config(profile="lean"))` chooses how much is exported, to Prometheus and to
OpenTelemetry alike. What is computed and judged does not depend on it.

{profiles}

The most series of one watch in a process with one device, when the model trains and everything is wrong at once; a calm one in
service has fewer:

{counts}

`{exported}` is the number there really is. Give scrapes a `sample_limit`, so that no mistake can flood the
server; a target beyond it is not scraped at all, so the columns on the right have twice the most.

The lean profile has all that alerts read, save the comparison of whole distributions (canary against stable, pod against
fleet, baselines with other edges) and the alert on saturated gates. Pods of different profiles can be one fleet: standard
and full agree at the edges of standard. An edge that only full has is counted by the full pods alone, so it is to be
summed over them only.
"""

_EDGES = """\
## Bucket edges

Where `{series}` and `{baseline}` are cut. Edges in bold are those of the
full profile alone. Each is a number that every dtype holds, so that counts are exact.

{edges}
"""


def metrics_page(settings: MixinSettings, dashboards: Iterable[bytes]) -> bytes:
    """Return the page.

    Args:
        settings: Those that the alerts are rendered with.
        dashboards: The rendered dashboards.
    """
    readers = _readers(settings, dashboards)
    starts = {first: heading for heading, first in _SECTIONS.items()}
    parts = [_INTRODUCTION.format(model_labels="` and `".join(MODEL_LABELS)), _profiles(), _edges()]
    for metric in METRICS:
        parts += [f"## {starts[metric]}\n"] if metric in starts else []
        parts.append(_entry(metric, readers))
        parts += [_sum_and_count()] if metric is catalog.SQUARES else []
    return "\n".join([*parts, f"<!-- {GENERATED} -->\n"]).encode()


def _entry(metric: Metric, readers: Mapping[str, tuple[str, ...]]) -> str:
    facts = [f"{metric.kind}{f', unit `{metric.unit}`' if metric.unit else ''}"]
    labels = [*metric.labels, *(["le"] if metric.kind == "histogram" else [])]
    facts.append(f"labels {_listed(labels)}" if labels else "no labels of its own")
    facts += ["with `_sum` and `_count`"] if metric in SUMMED else []
    facts.append("not in OpenTelemetry" if metric in EXPOSITION_METRICS else f"in OpenTelemetry `{metric.otel_name}`")
    facts.append("in every profile" if metric.profile == "lean" else f"from the profile {metric.profile} on")
    read = [f"{who}: {', '.join(names)}" for who in ("alerts", "dashboards") if (names := _reading(metric, who, readers))]
    return "\n".join([f"### `{metric.series}`\n", f"{metric.help}\n", f"- {'; '.join(facts)}", *(f"- {line}" for line in read), ""])


def _reading(metric: Metric, who: str, readers: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return the alerts or the dashboards that read any series of a metric, each once."""
    names = [metric.series, *([f"{metric.name}_sum", f"{metric.name}_count"] if metric in SUMMED else [])]
    return list(dict.fromkeys(reader for name in names for reader in readers.get(f"{who} {name}", ())))


def _readers(settings: MixinSettings, dashboards: Iterable[bytes]) -> dict[str, tuple[str, ...]]:
    """Return which alerts, and which dashboards, read each series, recorded ones being followed to their sources."""
    recorded = {recording.name: recording.expr for recording in recordings(settings)}
    found: dict[str, tuple[str, ...]] = {}
    asked = [("alerts", f"[{alert.name}](../runbooks/{alert.name}.md)", f"{alert.expr} {alert.description}") for alert in alerts(settings)]
    asked += [("dashboards", json.loads(content)["title"], content.decode()) for content in dashboards]
    for who, reader, text in asked:
        for name in sorted(_sources(text, recorded)):
            have = found.get(f"{who} {name}", ())
            found[f"{who} {name}"] = have if reader in have else (*have, reader)
    return found


def _sources(text: str, recorded: Mapping[str, str]) -> set[str]:
    names = set(_NAME.findall(text))
    return names.union(*(_sources(recorded[name], recorded) for name in names & recorded.keys()))


def _profiles() -> str:
    rows = [["Profile", "per model", "per layer", *(f"{layers} layers" for layers in _EXAMPLES), *_limits_head()]]
    for profile in PROFILES:
        per_layer = most_series(profile, 2) - most_series(profile, 1)
        counts = [most_series(profile, 1) - per_layer, per_layer, *(most_series(profile, layers) for layers in _EXAMPLES)]
        rows.append([f"`{profile}`", *(f"{count:,}" for count in counts), *(f"{sample_limit(profile, layers):,}" for layers in _EXAMPLES)])
    return _PROFILES.format(
        profiles="\n".join(f"- `{profile}`: {meaning}." for profile, meaning in PROFILES.items()),
        counts=_table(rows),
        exported=catalog.EXPORTED_SERIES.series,
    )


def _limits_head() -> list[str]:
    return [f"`sample_limit` for {layers}" for layers in _EXAMPLES]


def _edges() -> str:
    lines = [
        f'- `point="{point}"`: {", ".join(f"{edge:g}" if edge in EDGES[point] else f"**{edge:g}**" for edge in edges)}, +Inf'
        for point, edges in FULL_EDGES.items()
    ]
    return _EDGES.format(series=catalog.VALUES.series, baseline=catalog.BASELINE_CDF.series, edges="\n".join(lines))


def _sum_and_count() -> str:
    by = ("model", "layer", "point")
    asked = [(catalog.VALUES, 'le="+Inf"'), (catalog.ABS_SUM, 'sign="pos"'), (catalog.ABS_SUM, 'sign="neg"')]
    count, positive, negative = (total(f"rate({series(metric, matcher)}[5m])", *by) for metric, matcher in asked)
    mean = chain(f"({positive} - {negative})", "/", f"({count} > 0)")
    return _SUM_AND_COUNT.format(series=catalog.VALUES.series, name=catalog.VALUES.name, count=count, mean=mean)


def _listed(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _table(rows: list[list[str]]) -> str:
    head, *body = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---", *["---:"] * (len(head) - 1)], *body])
