"""Stories of `GeluwatchAccuracyDrop`."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.rules.alerting import Alert
from geluwatch.mixin.ruletests.grammar import (
    FIRST_HOST,
    INCIDENT,
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
    name,
    silent,
)

_WRONG = "model:geluwatch_wrong_predictions:ratio"


def cases(_: Alert, scale: Scale) -> tuple[Case, ...]:
    """Return the stories of the alert."""
    stories = _Stories(scale)
    return (
        stories.evaluation_drops(),
        stories.resolves(),
        stories.more_wrong(),
        stories.by_chance(),
        stories.small_drop(),
        stories.new_version(),
        stories.first_day(),
        stories.silence(),
        stories.restart(),
    )


class _Stories:
    """The model is right less often from `start` until `end`."""

    def __init__(self, scale: Scale) -> None:
        self.window, self.kept = scale.steps(scale.settings.rate_window), scale.steps(scale.settings.keep_firing_for)
        self.usual = scale.steps(scale.settings.usual_range)
        self.start = self.usual + 4
        self.due = self.start + scale.steps(scale.settings.service_for)
        self.end = self.due + self.window + 2
        self.run = self.end + self.kept + 6
        self.agent = agent(flat(1, self.run))

    def accuracy(self, before: float, during: float, pod: Labels = POD) -> dict[str, str]:
        values = f"{flat(before, self.start)} {flat(during, self.end - self.start)} {flat(before, self.run - self.end)}"
        return {name(catalog.ACCURACY, **pod): values}

    def predictions(self, number: float, before: float, during: float, pod: Labels = POD) -> dict[str, str]:
        return {
            name(catalog.PREDICTIONS, **pod): climb((number, self.run)),
            name(catalog.WRONG_PREDICTIONS, **pod): climb((before, self.start), (during, self.run - self.start)),
        }

    def says(self, *lines: str, version: str = "1") -> tuple[Expected, ...]:
        text = " ".join([f"Model minilm version {version} is right less often than usual.", *lines])
        return (Expected({**INCIDENT, "model_version": version}, text, FIRST_HOST),)

    def evaluated(self, version: str = "1") -> tuple[Expected, ...]:
        return self.says("The last evaluation found an accuracy of 87.5%, usually 93.75%.", version=version)

    def evaluation_drops(self) -> Case:
        return Case(
            "tickets after the wait, not before, where evaluations find a lower accuracy than usual, on average of the pods",
            {**self.agent, **self.accuracy(0.9375, 0.8125), **self.accuracy(0.9375, 0.9375, OTHER_POD)},
            (Check(self.start), Check(self.due - 1), Check(self.due, self.evaluated())),
        )

    def resolves(self) -> Case:
        return Case(
            "keeps firing after the accuracy is back, then resolves",
            {**self.agent, **self.accuracy(0.9375, 0.875)},
            (Check(self.end + self.kept - 2, self.evaluated()), Check(self.end + self.kept + 2)),
        )

    def more_wrong(self) -> Case:
        said = self.says(
            "The last evaluation found an accuracy of 93.75%, usually 93.75%.",
            "Of its predictions in traffic these were wrong: 25%, usually 10%.",
        )
        return Case(
            "tickets for wrong predictions in traffic, although the last evaluation found nothing",
            {**self.agent, **self.predictions(100, 10, 25), **self.accuracy(0.9375, 0.9375)},
            (Check(self.start), Check(self.end - 1, said)),
            (Answer(self.end - 1, f"round({_WRONG}, 0.0001)", {name("", **INCIDENT): 0.25}),),
        )

    def by_chance(self) -> Case:
        return Case(
            "is silent where so few predictions may be wrong by chance, also for one that never was wrong",
            {**self.agent, **self.predictions(10, 1, 2), **self.predictions(1, 0, 0.25, {**OTHER_POD, "model": "other"})},
            silent(self.start, self.due, self.end - 1, self.run - 1),
        )

    def small_drop(self) -> Case:
        return Case(
            "is silent for a drop that is within what is allowed",
            {**self.agent, **self.accuracy(0.9375, 0.921875), **self.predictions(1e6, 1e5, 1.15e5)},
            silent(self.start, self.due, self.run - 1),
        )

    def new_version(self) -> Case:
        old = {name(catalog.ACCURACY, **POD): flat(0.9375, self.start)}
        pod = {**INCIDENT, "model_version": "2", "instance": FIRST_HOST}
        new = {name(catalog.ACCURACY, **pod): f"{absent(self.start)} {flat(0.875, self.run - self.start)}"}
        return Case(
            "holds a new version to what its model usually was",
            {**agent(flat(1, self.run), pod), **old, **new},
            (Check(self.due - 1), Check(self.due, self.evaluated("2"))),
        )

    def first_day(self) -> Case:
        early = self.usual - (self.due - self.start) - 4
        values = f"{flat(0.9375, early)} {flat(0.5, self.usual - early)}"
        return Case(
            "is silent while nobody knows yet what is usual",
            {**self.agent, name(catalog.ACCURACY, **POD): values},
            silent(self.usual - 2, self.usual - 1),
        )

    def silence(self) -> Case:
        told = {name(catalog.PREDICTIONS, **POD): climb((100, self.start), (0, self.run - self.start))}
        wrong = {name(catalog.WRONG_PREDICTIONS, **POD): climb((10, self.start), (0, self.run - self.start))}
        return Case(
            "is silent for an idle model of which nothing is learned any more",
            {**self.agent, **told, **wrong, **self.accuracy(0.9375, 0.9375)},
            silent(self.start, self.due, self.run - 1),
        )

    def restart(self) -> Case:
        lives = {name(metric, **POD): slope for metric, slope in ((catalog.PREDICTIONS, 100), (catalog.WRONG_PREDICTIONS, 10))}
        series = {
            counter: f"{climb((slope, self.start))} {climb((slope, self.run - self.start), start=0)}" for counter, slope in lives.items()
        }
        gauge = f"{flat(0.9375, self.start)} {absent(2)} {flat(0.9375, self.run - self.start - 2)}"
        return Case(
            "is silent after a restart that forgets what was told",
            {**self.agent, **series, name(catalog.ACCURACY, **POD): gauge},
            silent(self.start, self.due, self.run - 1),
        )
