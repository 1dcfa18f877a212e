"""Readers of what a report says about passes, training steps, the application, the process and its devices.

`samples` puts metric and constant labels to them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

from prometheus_client.utils import floatToGoString

from geluwatch import catalog
from geluwatch.catalog import BATCH_EDGES, LATENCY_EDGES, Metric
from geluwatch.records import Application, DeviceUsage, Report, Traffic, Training, Usage

Reading = tuple[dict[str, str], float]
Reader = Callable[[Report], Iterator[Reading]]


def le_texts(edges: tuple[float, ...]) -> tuple[str, ...]:
    """Return the `le` label at each edge, then at +Inf."""
    return tuple(floatToGoString(edge) for edge in (*edges, math.inf))  # type: ignore[no-untyped-call]  # it has no annotations


def _histogram(edges: tuple[float, ...], counts: Callable[[Traffic], tuple[int, ...]], total: Callable[[Report], float]) -> Reader:
    texts = le_texts(edges)

    def read(report: Report) -> Iterator[Reading]:
        held = counts(report.totals.traffic) or (0,) * len(texts)
        for le, count in zip(texts, accumulate(held), strict=True):
            yield {"le": le}, count
        yield {}, total(report)

    return read


def _of_traffic(value: Callable[[Traffic], float | None]) -> Reader:
    def read(report: Report) -> Iterator[Reading]:
        found = value(report.totals.traffic)
        if found is not None:
            yield {}, found

    return read


def _of_training(value: Callable[[Training], float | None]) -> Reader:
    def read(report: Report) -> Iterator[Reading]:
        found = None if report.totals.training is None else value(report.totals.training)
        if found is not None:
            yield {}, found

    return read


def _of_application(value: Callable[[Application], float | None]) -> Reader:
    def read(report: Report) -> Iterator[Reading]:
        found = value(report.totals.application)
        if found is not None:
            yield {}, found

    return read


def _of_process(value: Callable[[Usage], float | None]) -> Reader:
    def read(report: Report) -> Iterator[Reading]:
        found = None if report.usage is None else value(report.usage)
        if found is not None:
            yield {}, found

    return read


def _of_device(value: Callable[[DeviceUsage], float | None]) -> Reader:
    def read(report: Report) -> Iterator[Reading]:
        for device in report.usage.devices if report.usage is not None else ():
            found = value(device)
            if found is not None:
                yield {"device": device.device}, found

    return read


READERS: Mapping[Metric, Reader] = {
    catalog.FORWARD_SECONDS: _histogram(LATENCY_EDGES, lambda traffic: traffic.latencies, lambda report: report.totals.traffic.seconds),
    catalog.BATCH_SIZE: _histogram(BATCH_EDGES, lambda traffic: traffic.batches, lambda report: report.totals.samples),
    catalog.TOKENS: _of_traffic(lambda traffic: traffic.tokens),
    catalog.FAILED_FORWARDS: _of_traffic(lambda traffic: traffic.failed),
    catalog.OUT_OF_MEMORY: _of_traffic(lambda traffic: traffic.out_of_memory),
    catalog.FIRST_FORWARD: _of_traffic(lambda traffic: traffic.first and traffic.first.seconds),
    catalog.COLD_START: _of_traffic(lambda traffic: traffic.first and traffic.first.since_attach),
    catalog.TRAINING_STEPS: _of_training(lambda training: training.steps),
    catalog.NONFINITE_LOSSES: _of_training(lambda training: training.nonfinite_losses),
    catalog.SKIPPED_STEPS: _of_training(lambda training: None if training.scale is None else training.skipped_steps),
    catalog.SKIPPED_IN_A_ROW: _of_training(lambda training: None if training.scale is None else training.skipped_in_a_row),
    catalog.LOSS_SCALE: _of_training(lambda training: training.scale),
    catalog.PREDICTIONS: _of_application(lambda said: said.predictions),
    catalog.WRONG_PREDICTIONS: _of_application(lambda said: said.wrong if said.predictions is None else said.wrong or 0),
    catalog.ACCURACY: _of_application(lambda said: said.accuracy),
    catalog.QUANTIZED_DELTA: _of_application(lambda said: said.quantized_accuracy_delta),
    catalog.COST: _of_application(lambda said: said.cost_per_hour),
    catalog.CPU_SECONDS: _of_process(lambda usage: usage.cpu_seconds),
    catalog.RESIDENT: _of_process(lambda usage: usage.resident),
    catalog.MEMORY_USED: _of_process(lambda usage: usage.used),
    catalog.MEMORY_LIMIT: _of_process(lambda usage: usage.limit),
    catalog.THREADS: _of_process(lambda usage: usage.threads),
    catalog.DEVICE_MEMORY: _of_device(lambda device: device.allocated),
    catalog.DEVICE_PEAK: _of_device(lambda device: device.peak),
    catalog.DEVICE_LIMIT: _of_device(lambda device: device.limit),
    catalog.DEVICE_BUSY: _of_device(lambda device: device.utilization),
}
