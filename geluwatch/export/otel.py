"""OpenTelemetry: observable instruments over the samples that Prometheus gets, with opentelemetry-api alone.

A layer has 46 series of `geluwatch.activation_value`, 92 in the full profile and none in the lean one, and a reader of
the SDK keeps 2,000 series of one instrument before it folds the rest into one meaningless point. The API cannot raise
that: for a model with more than 43 layers, or 21, the host gives its `MeterProvider` a
`View(instrument_name="geluwatch.*", aggregation_cardinality_limit=...)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from geluwatch.catalog import SUMMED, Metric
from geluwatch.export.samples import REPORT_METRICS, samples_of
from geluwatch.records import Report

_Callback = Callable[[CallbackOptions], Sequence[Observation]]


class Instruments:
    """The instruments of one watch; close it to make them fall silent.

    Args:
        read: Returns the newest report.
        on_error: Told of a failed observation; must not raise.
    """

    def __init__(self, read: Callable[[], Report], on_error: Callable[[Exception], None]) -> None:
        self._read: Callable[[], Report] | None = read
        self._on_error = on_error

    def close(self) -> None:
        """Observe nothing from now on; calling it again does nothing.

        The API cannot take an instrument back, so the callbacks stay and return nothing, and the watch is let go.
        """
        self._read = None

    def callback(self, metric: Metric, *, total: bool = False) -> _Callback:
        """Return the callback that observes one metric, of a histogram the buckets or else the sum, and never raises."""

        def observe(_: CallbackOptions) -> Sequence[Observation]:
            read = self._read
            if read is None:
                return []
            try:
                found = samples_of(read(), metric)
                if metric.kind == "histogram":
                    return [Observation(each.value, dict(each.labels)) for each in found if ("le" not in each.labels) is total]
                return [Observation(sample.value, dict(sample.labels)) for sample in found]
            except Exception as error:  # noqa: BLE001 - it would surface in the host's own metric reader
                self._on_error(error)
                return []

        return observe


def instrument(
    read: Callable[[], Report],
    meter: Meter,
    *,
    on_error: Callable[[Exception], None] = lambda _: None,
) -> Instruments:
    """Create an observable instrument on a meter for every metric that a report holds.

    Args:
        read: Returns the newest report; called once for each instrument and collection.
        meter: The host's meter; where its values go is the host's choice.
        on_error: Told of a failed observation; must not raise.

    Returns:
        The handle that silences them.
    """
    instruments = Instruments(read, on_error)
    for metric in REPORT_METRICS:
        # The API knows no observable histogram and takes no counts made elsewhere, so a histogram is sent as what it
        # is in Prometheus: counters with the attribute `le`. An info is a gauge of 1 whose attributes tell.
        counts = metric.kind in ("counter", "histogram")
        create = meter.create_observable_counter if counts else meter.create_observable_gauge
        create(metric.otel_name, [instruments.callback(metric)], unit=metric.unit, description=metric.help)
        if metric in SUMMED:
            meter.create_observable_counter(
                f"{metric.otel_name}_sum", [instruments.callback(metric, total=True)], unit=metric.unit, description=f"Sum: {metric.help}"
            )
    return instruments
