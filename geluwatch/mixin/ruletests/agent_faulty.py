"""Stories of `GeluwatchAgentFaulty`."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.rules.alerting import Alert
from geluwatch.mixin.ruletests.episode import Episode
from geluwatch.mixin.ruletests.grammar import (
    FIRST_HOST,
    INCIDENT,
    LAYERS,
    OTHER_POD,
    POD,
    SECOND_HOST,
    Case,
    Check,
    Expected,
    Labels,
    Scale,
    flat,
    name,
    ramp,
    silent,
)
from geluwatch.mixin.settings import seconds

_WINDOWS = 100
_STEPS_A_WINDOW = 10


def cases(_: Alert, scale: Scale) -> tuple[Case, ...]:
    """Return the stories of the alert."""
    switched, stalled = _Stories(scale), _Stalled(scale)
    return (
        switched.parts(),
        switched.errors(),
        switched.dropped(),
        switched.stands_still(),
        switched.healthy(),
        switched.switched_off(),
        switched.idle(),
        switched.restarts(),
        stalled.tickets(),
        stalled.thin_traffic(),
        stalled.failing(),
        stalled.idle(),
        stalled.every_moment(),
        stalled.restarted(),
    )


class _Told(Episode):
    def says(self, *lines: str) -> tuple[Expected, ...]:
        head = "Model minilm version 1 is watched by agents that are out of order:"
        return (Expected(INCIDENT, "\n".join([head, *lines]), FIRST_HOST),)


class _Stories(_Told):
    """The stories of agents that are out of order from `start` to `end`; counts are `steady` once a whole window is."""

    def __init__(self, scale: Scale) -> None:
        self.window = scale.settings.rate_window
        super().__init__(scale, start=scale.steps(self.window) + 2, wait=scale.settings.blind_for)
        self.steady = self.due + scale.steps(self.window)
        self.long = self.steady + 4

    def part(self, values: str, part: str = "rows", pod: Labels = POD) -> dict[str, str]:
        return {name(catalog.PART_DISABLED, **pod, part=part): values}

    def growing(self, metric: catalog.Metric, slope: float, pod: Labels = POD, **labels: str) -> dict[str, str]:
        values = f"{flat(1000, self.start)} {ramp(1000 + slope, slope, self.long - self.start)}"
        return {name(metric, **pod, **labels): values}

    def parts(self) -> Case:
        pods = {
            **self.part(self.during(0, 1), "rows", OTHER_POD),
            **self.part(self.during(0, 1), "sink"),
            **self.part(flat(0, self.run), "guard"),
        }
        said = self.says(f"{FIRST_HOST}: sink is switched off", f"{SECOND_HOST}: rows is switched off")
        return Case(
            "opens one ticket that names pods and parts after the wait, not before, and resolves once all work again",
            {**self.agent, **pods},
            (Check(self.start), Check(self.due - 1), Check(self.due, said), Check(self.end)),
        )

    def errors(self) -> Case:
        said = self.says(f"{FIRST_HOST}: 10 errors in sink within {self.window}")
        return Case(
            "opens a ticket for errors that go on, and counts them",
            {**self.agent, **self.growing(catalog.ERRORS, 1, part="sink"), **self.growing(catalog.ERRORS, 0, part="rows")},
            (Check(self.due - 1), Check(self.steady, said)),
        )

    def dropped(self) -> Case:
        said = self.says(f"{FIRST_HOST}: 20 rows dropped within {self.window}")
        return Case(
            "opens a ticket for rows that go on being dropped, and counts them",
            {**self.agent, **self.growing(catalog.DROPPED_ROWS, 2)},
            (Check(self.due - 1), Check(self.steady, said)),
        )

    def stands_still(self) -> Case:
        flushes = f"{ramp(10, 1, self.start)} {flat(self.start + 9, self.long - self.start)}"
        stopped = self.says(f"{FIRST_HOST}: its background thread stands still")
        return Case(
            "opens a ticket for an agent whose background thread has come to an end, though nothing grows but time",
            {**self.agent, name(catalog.FLUSH_SECONDS, **POD): flushes, name(catalog.FORWARDS, **POD): flat(1000, self.long)},
            (Check(self.due), Check(self.long - 1, stopped)),
        )

    def switched_off(self) -> Case:
        blind = {name(catalog.SITE_OBSERVED, **POD, layer=layer): flat(0, self.long) for layer in LAYERS}
        return Case(
            "is silent for an agent that is switched off, which sees no site and has no thread to stand still",
            {**self.agent, **blind, name(catalog.FLUSH_SECONDS, **POD): flat(0, self.long)},
            silent(self.due, self.long - 1),
        )

    def healthy(self) -> Case:
        still = {**self.growing(catalog.ERRORS, 0, part="sink"), **self.growing(catalog.DROPPED_ROWS, 0), **self.part(flat(0, self.long))}
        return Case(
            "is silent for an agent that once had errors and works",
            {**self.agent, **still, name(catalog.FLUSH_SECONDS, **POD): ramp(10, 0.001, self.long)},
            silent(0, self.due, self.steady),
        )

    def idle(self) -> Case:
        flushes = {name(catalog.FLUSH_SECONDS, **POD): ramp(10, 0.001, self.long)}
        traffic = {name(catalog.FORWARDS, **POD): flat(1000, self.long), name(catalog.WINDOWS, **POD): flat(0, self.long)}
        return Case("is silent without any traffic", {**self.agent, **flushes, **traffic}, silent(0, self.due, self.steady))

    def restarts(self) -> Case:
        lasted = self.due - self.start - 1
        return Case(
            "is silent for a part that was off for less than the wait, until the pod started over",
            {**self.agent, **self.part(f"{flat(0, self.start)} {flat(1, lasted)} {flat(0, self.run)}")},
            silent(self.due - 1, self.due, self.end),
        )


class _Stalled(_Told):
    """The stories of an agent that has closed a window every few steps, the last one at step 0; a step later than ten such it is missed."""

    def __init__(self, scale: Scale) -> None:
        super().__init__(scale, start=10 * _STEPS_A_WINDOW + 1, wait=scale.settings.blind_for)
        self.step, self.window = scale.step, scale.settings.rate_window

    def series(self, slope: float, attached: float = -_WINDOWS * _STEPS_A_WINDOW) -> dict[str, str]:
        return {
            **self.agent,
            name(catalog.ATTACHED, **POD): flat(attached * self.step, self.run),
            name(catalog.WINDOW_END, **POD): flat(0, self.run),
            name(catalog.WINDOWS, **POD): flat(_WINDOWS, self.run),
            name(catalog.FORWARDS, **POD): ramp(10 * _WINDOWS * _STEPS_A_WINDOW, slope, self.run),
        }

    def age(self, step: int) -> str:
        hours, rest = divmod(step * self.step, 3600)
        minutes, left = divmod(rest, 60)
        return f"{hours}h {minutes}m {left}s" if hours else f"{minutes}m {left}s"

    def tickets(self) -> Case:
        said = self.says(f"{FIRST_HOST}: no window for {self.age(self.due)}")
        return Case(
            "opens a ticket for windows that no longer close under the usual traffic, not before ten of them are missed for the wait",
            self.series(10),
            (Check(self.due - 1), Check(self.due, said)),
        )

    def thin_traffic(self) -> Case:
        return Case("is silent where there is too little traffic to fill a window", self.series(2), silent(self.due, self.run - 1))

    def failing(self) -> Case:
        failed = {name(catalog.FAILED_FORWARDS, **POD): ramp(100, 10, self.run)}
        said = "is silent where passes raise, which is told elsewhere and fills no window"
        return Case(said, {**self.series(10), **failed}, silent(self.due, self.run - 1))

    def idle(self) -> Case:
        return Case("is silent where windows have ended with the traffic", self.series(0), silent(self.due, self.run - 1))

    def every_moment(self) -> Case:
        often = {
            name(catalog.WINDOW_END, **POD): ramp(-seconds(self.window) / 2, self.step, self.run),
            name(catalog.WINDOWS, **POD): ramp(1e6, 1000, self.run),
        }
        return Case(
            "is silent where windows are closed faster than they are scraped", {**self.series(10), **often}, silent(self.due, self.run - 1)
        )

    def restarted(self) -> Case:
        series = {key: values for key, values in self.series(10).items() if catalog.WINDOW_END.name not in key}
        return Case("is silent for an agent that has yet to close its first window", series, silent(self.due, self.run - 1))
