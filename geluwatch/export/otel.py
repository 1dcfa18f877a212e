"""OpenTelemetry: observable instruments over the samples that Prometheus gets, with opentelemetry-api alone.

A layer has 46 series of `geluwatch.activation_value`, 92 in the full profile and none in the lean one, and a reader of
the SDK keeps 2,000 series of one instrument before it folds the rest into one meaningless point. The API cannot raise
that: for a model with more than 43 layers, or 21, the host gives its `MeterProvider` a
`View(instrument_name="geluwatch.*", aggregation_cardinality_limit=...)`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from weakref import WeakKeyDictionary

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from geluwatch.catalog import SUMMED, Metric
from geluwatch.errors import DetachedError
from geluwatch.export.samples import REPORT_METRICS, samples_of
from geluwatch.records import Report

_Callback = Callable[[CallbackOptions], Sequence[Observation]]


class Instruments:
    """What one watch gives to the instruments of a meter; close it to make it fall silent.

    Args:
        read: Returns the newest report.
        on_error: Told of a failed observation; must not raise.
        among: All that the same instruments observe; it takes itself off when it is closed.
    """

    def __init__(self, read: Callable[[], Report], on_error: Callable[[Exception], None], among: list[Instruments]) -> None:
        self._read: Callable[[], Report] | None = read
        self._on_error = on_error
        self._among = among

    def close(self) -> None:
        """Give nothing from now on, and let the watch go; calling it again does nothing."""
        self._read = None
        with suppress(ValueError):
            self._among.remove(self)

    def reads(self, read: Callable[[], Report]) -> bool:
        """Return whether this is what it reads."""
        return self._read == read

    def observe(self, metric: Metric, *, total: bool) -> Sequence[Observation]:
        """Return one metric, of a histogram the buckets or else the sum; never raises."""
        read = self._read
        if read is None:
            return []
        try:
            found = samples_of(read(), metric)
            if metric.kind == "histogram":
                return [Observation(each.value, dict(each.labels)) for each in found if ("le" not in each.labels) is total]
            return [Observation(sample.value, dict(sample.labels)) for sample in found]
        except DetachedError:
            self.close()
            return []
        except Exception as error:  # noqa: BLE001 - it would surface in the host's own metric reader
            self._on_error(error)
            return []


_live: WeakKeyDictionary[Meter, list[Instruments]] = WeakKeyDictionary()
"""What the instruments of each meter observe. The API cannot take an instrument back, and the SDK answers a second request for one with
the first, whose callback it keeps; so they are made once, and who comes later is observed by the callbacks that are there."""

_making = threading.Lock()


def instrument(
    read: Callable[[], Report],
    meter: Meter,
    *,
    on_error: Callable[[Exception], None] = lambda _: None,
) -> Instruments:
    """Have a watch observed by a meter: an observable instrument for every metric that a report holds.

    Any number of watches may share a meter, one after the other or at once; one that it observes already is not observed twice. A meter
    that was got before the provider was set knows nothing of another such, so the provider comes first.

    Args:
        read: Returns the newest report; called once for each instrument and collection, until it raises `DetachedError`, as
            `watch.live_report` does once the watch is off its model.
        meter: The host's meter; where its values go is the host's choice.
        on_error: Told of a failed observation; must not raise.

    Returns:
        The handle that silences it before its time.
    """
    with _making:
        if meter not in _live:
            _live[meter] = []
            _create(meter, _live[meter])
        live = _live[meter]
        made = next((each for each in live if each.reads(read)), None)
        if made is None:
            made = Instruments(read, on_error, live)
            live.append(made)
        return made


def _create(meter: Meter, live: list[Instruments]) -> None:
    """Create the instruments of a meter."""
    for metric in REPORT_METRICS:
        # The API knows no observable histogram and takes no counts made elsewhere, so a histogram is sent as what it
        # is in Prometheus: counters with the attribute `le`. An info is a gauge of 1 whose attributes tell.
        counts = metric.kind in ("counter", "histogram")
        create = meter.create_observable_counter if counts else meter.create_observable_gauge
        create(metric.otel_name, [_callback(live, metric)], unit=metric.unit, description=metric.help)
        if metric in SUMMED:
            meter.create_observable_counter(
                f"{metric.otel_name}_sum", [_callback(live, metric, total=True)], unit=metric.unit, description=f"Sum: {metric.help}"
            )


def _callback(live: list[Instruments], metric: Metric, *, total: bool = False) -> _Callback:
    return lambda _: [seen for each in tuple(live) for seen in each.observe(metric, total=total)]
