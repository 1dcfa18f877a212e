"""The text that our own listener serves: what prometheus_client writes of `ReportCollector`, to the byte, in a fifth of the time.

A scrape shares the interpreter with the model. prometheus_client checks and escapes each label of each line anew; of a
hundred layers that takes a tenth of a second of the interpreter, during which the model all but stands still. Here a
label is escaped once, a line is one formatting, and the interpreter is given away every so many lines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby

from prometheus_client import utils

from geluwatch.catalog import COLLECT_SECONDS, EXPORTED_SERIES, Metric
from geluwatch.export.samples import REPORT_METRICS, constant_labels, readings_of
from geluwatch.records import Report

_number: Callable[[float], str] = utils.floatToGoString
_UNITS = ("seconds", "ratio", "bytes")
_BREATH = 512
"""Lines after which other threads may run: some millisecond."""
_NAP = 1e-6
"""Seconds; as long as the kernel makes of it, which is long enough for a thread that waits."""


def write(report: Report, *, openmetrics: bool, timer: Callable[[], float] = time.perf_counter) -> bytes:
    """Return a report's whole exposition, as text 0.0.4 or OpenMetrics 1.0.0.

    Args:
        report: What to write.
        openmetrics: Which of the two.
        timer: Seconds on a clock that never goes back.

    Raises:
        Exception: The report cannot be turned into samples.
    """
    began = timer()
    lines, series = _Lines(constant_labels(report)), 0
    text: list[str] = []
    for metric in REPORT_METRICS:
        text += _head(metric, openmetrics=openmetrics)
        for line in lines.of(metric, readings_of(report, metric)):
            text.append(line)
            series += 1
            if series % _BREATH == 0:
                time.sleep(_NAP)
    for metric, value in ((COLLECT_SECONDS, timer() - began), (EXPORTED_SERIES, series + 2.0)):
        text += _head(metric, openmetrics=openmetrics)
        text += lines.of(metric, [({}, value)])
    if openmetrics:
        text.append("# EOF\n")
    return "".join(text).encode()


def unit_of(metric: Metric) -> str:
    """Return the unit for OpenMetrics, which demands that the name ends in it; empty where it ends in none."""
    return next((unit for unit in _UNITS if metric.name.endswith(f"_{unit}")), "")


class _Lines:
    """Makes lines of readings; what their labels have in common is put together once."""

    def __init__(self, constant: Mapping[str, str]) -> None:
        self._constant = constant
        self._templates: dict[tuple[str, tuple[str, ...]], tuple[str, tuple[str, ...]]] = {}
        self._escaped: dict[str, str] = {}

    def of(self, metric: Metric, readings: Iterable[tuple[Mapping[str, str], float]]) -> Iterator[str]:
        """Yield the lines of a metric's readings, in their order."""
        if metric.kind == "histogram":
            yield from self._histogram(metric.name, readings)
            return
        name = {"counter": f"{metric.name}_total", "gauge": metric.name, "info": f"{metric.name}_info"}[metric.kind]
        for labels, value in readings:
            yield self._line(name, labels, 1.0 if metric.kind == "info" else value)

    def _histogram(self, name: str, readings: Iterable[tuple[Mapping[str, str], float]]) -> Iterator[str]:
        """Yield buckets, then their count and sum; these not where a bound is negative, as OpenMetrics has it."""
        for _, group in groupby(readings, key=lambda reading: [value for label, value in reading[0].items() if label != "le"]):
            total, last, first = None, None, None
            for labels, value in group:
                if "le" in labels:
                    first, last = first or labels["le"], (labels, value)
                    yield self._line(f"{name}_bucket", labels, value)
                else:
                    total = value
            if total is not None and last is not None and first is not None and float(first) >= 0:
                rest = {label: value for label, value in last[0].items() if label != "le"}
                yield self._line(f"{name}_count", rest, last[1])
                yield self._line(f"{name}_sum", rest, total)

    def _line(self, name: str, labels: Mapping[str, str], value: float) -> str:
        key = name, tuple(labels)
        template, order = self._templates.get(key) or self._template(*key)
        escaped = self._escaped
        values = [escaped.get(labels[label]) or self._escape(labels[label]) for label in order]
        return template % (*values, _number(value))

    def _template(self, name: str, labels: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
        """Return a line with the constant labels in it and a place for each of the others, and their order."""
        names = sorted({*self._constant, *labels})
        fixed = {label: self._escape(value).replace("%", "%%") for label, value in self._constant.items()}
        pairs = ",".join(f'{label}="{"%s" if label in labels else fixed[label]}"' for label in names)
        made = self._templates[name, labels] = (f"{name}{{{pairs}}} %s\n", tuple(label for label in names if label in labels))
        return made

    def _escape(self, value: str) -> str:
        escaped = self._escaped[value] = value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
        return escaped


def _head(metric: Metric, *, openmetrics: bool) -> Iterator[str]:
    """Yield the lines above a metric's samples."""
    explained = metric.help.replace("\\", r"\\").replace("\n", r"\n")
    if openmetrics:
        escaped = explained.replace('"', r"\"")
        yield f"# HELP {metric.name} {escaped}\n# TYPE {metric.name} {metric.kind}\n"
        if unit := unit_of(metric):
            yield f"# UNIT {metric.name} {unit}\n"
        return
    suffix, kind = {"counter": ("_total", "counter"), "info": ("_info", "gauge")}.get(metric.kind, ("", metric.kind))
    yield f"# HELP {metric.name}{suffix} {explained}\n# TYPE {metric.name}{suffix} {kind}\n"
