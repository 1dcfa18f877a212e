"""Stories of `GeluwatchCostUp`: what the same traffic costs, on an ordinary week."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.rules.alerting import Alert
from geluwatch.mixin.ruletests.grammar import (
    FIRST_HOST,
    INCIDENT,
    MODEL,
    OTHER_POD,
    POD,
    Answer,
    Case,
    Check,
    Expected,
    Labels,
    Scale,
    absent,
    agent,
    climb,
    flat,
    gone,
    merged,
    name,
    silent,
)

_SAMPLES_A_STEP = 120
_UPGRADED = {**INCIDENT, "model_version": "2", "instance": FIRST_HOST}
_COST, _SAMPLES = "model:geluwatch_cost_per_million:ratio", "model:geluwatch_samples:rate"


def cases(_: Alert, scale: Scale) -> tuple[Case, ...]:
    """Return the stories of the alert."""
    stories = _Stories(scale)
    return (
        stories.upgrade(),
        stories.no_upgrades(),
        stories.shards(),
    )


class _Stories:
    """A million samples cost more from `start` on, after a week and a bit; the pods of a story cost an hour what is told."""

    def __init__(self, scale: Scale) -> None:
        settings = scale.settings
        self.scale = scale
        self.day, self.week = scale.steps(settings.usual_range), scale.steps(settings.compare_offset)
        self.window, self.hold = scale.steps(settings.rate_window), scale.steps(settings.service_for)
        self.kept = scale.steps(settings.keep_firing_for)
        self.start = self.week + 2 * self.hold + self.window
        self.due = self.start + 2 * self.hold + self.window
        self.end = self.due + 2
        self.run = self.end + self.hold + self.window + self.kept + 6

    def pod(self, cost: str, samples: str, pod: Labels = POD) -> dict[str, str]:
        return {name(catalog.COST, **pod): cost, name(catalog.SAMPLES, **pod): samples}

    def steady(self, slope: float = _SAMPLES_A_STEP) -> str:
        return climb((slope, self.run))

    def price(self, before: float, after: float) -> str:
        return f"{flat(before, self.start)} {flat(after, self.end - self.start)} {flat(before, self.run - self.end)}"

    def million(self, hourly: float, slope: float = _SAMPLES_A_STEP) -> float:
        """Return what a million samples cost."""
        return hourly / 3600 / (slope / self.scale.step) * 1e6

    def says(self, now: float, before: float, versions: str, traffic: float = _SAMPLES_A_STEP) -> tuple[Expected, ...]:
        day, week = self.scale.settings.usual_range, self.scale.settings.compare_offset
        a_second = f"{traffic / self.scale.step:.4g}"
        text = (
            f"A million inferences of model minilm cost {self.million(now, traffic):.4g}, at the same time "
            f"{self.million(before, traffic):.4g} {day} before and {self.million(before, traffic):.4g} {week} before. "
            f"Samples a second: {a_second} now, {a_second} {day} before, {a_second} {week} before. {versions}"
        )
        return (Expected(MODEL, text, FIRST_HOST),)

    def agents(self) -> dict[str, str]:
        return agent(flat(1, self.run))

    def upgrade(self) -> Case:
        left = self.run - self.start
        old = self.pod(f"{flat(2, self.start)} {gone(left)}", f"{climb((_SAMPLES_A_STEP, self.start))} {gone(left)}")
        new = self.pod(
            f"{absent(self.start)} {flat(16, self.end - self.start)} {flat(2, self.run - self.end)}",
            f"{absent(self.start)} {climb((_SAMPLES_A_STEP, left))}",
            _UPGRADED,
        )
        builds = {
            name(catalog.BUILD_INFO, **POD, version="1.0.0", framework="torch 2.6"): f"{flat(1, self.start)} {gone(left)}",
            name(catalog.BUILD_INFO, **_UPGRADED, version="1.0.0", framework="torch 2.7"): f"{absent(self.start)} {flat(1, left)}",
        }
        runs = f"It runs version 2 (torch 2.7); {self.scale.settings.usual_range} before it ran version 1 (torch 2.6)."
        over = self.end + self.hold + self.window + self.kept + 3
        checks = (*silent(self.start - 1, self.start + self.hold - 1), Check(self.due, self.says(16, 2, runs)), Check(over))
        return Case(
            "tickets after the wait, not before, says what ran before and what runs now, and resolves", {**old, **new, **builds}, checks
        )

    def quiet_at(self, *moments: int) -> str:
        """Return the samples of a day that is quiet around some moments, while the pods cost the same."""
        half = self.hold + self.window + 2
        stretches: list[tuple[float, int]] = []
        at = 0
        for moment in moments:
            stretches += [(_SAMPLES_A_STEP, moment - half - at), (_SAMPLES_A_STEP * 0.6, 2 * half)]
            at = moment + half
        return climb(*stretches, (_SAMPLES_A_STEP, max(1, self.run - at)))

    def no_upgrades(self) -> Case:
        night, left = self.due + self.hold, self.run - self.start
        born = self.run - self.week + 2
        dearer, unborn = f"{flat(2, self.start - born)} {flat(16, left)}", absent(born)
        models = {
            "a little dearer": (self.price(2, 2.375), self.steady()),
            "every night": (flat(2, self.run), self.quiet_at(night - self.week, night - self.day, night)),
            "quiet week ago": (flat(2, self.run), self.quiet_at(night - self.week, night)),
            "quiet yesterday": (flat(2, self.run), self.quiet_at(night - self.day, night)),
            "young": (f"{unborn} {dearer}", f"{unborn} {climb((_SAMPLES_A_STEP, self.run - born))}"),
            "idle": (self.price(2, 16), climb((_SAMPLES_A_STEP, self.start), (0, left))),
        }
        series = merged(self.pod(cost, samples, {**POD, "model": model}) for model, (cost, samples) in models.items())
        return Case(
            "is silent for a little more, in a quiet night that is like others, without a week before, and without traffic",
            {**self.agents(), **series},
            silent(self.due, self.end - 1, night - self.hold, night, night + self.hold, self.run - 1),
        )

    def shards(self) -> Case:
        pods = (POD, "0"), (OTHER_POD, "1"), ({**POD, "instance": "10.0.0.9:9464"}, "0")
        series = merged(self.pod(flat(1, self.window * 4), climb((120, self.window * 4)), {**pod, "shard": shard}) for pod, shard in pods)
        at, rate = 3 * self.window, f"{_SAMPLES}{self.scale.settings.rate_window}"
        a_second = 240 / self.scale.step
        readings = (
            Answer(at, f"round({rate}, 0.001)", {name("", **INCIDENT): round(a_second, 3)}),
            Answer(at, f"round({_COST}, 0.001)", {name("", **INCIDENT): round(3 / 3600 / a_second * 1e6, 3)}),
        )
        return Case("is silent, counts the samples of a sharded model once, and the cost of every pod", series, silent(at), readings)
