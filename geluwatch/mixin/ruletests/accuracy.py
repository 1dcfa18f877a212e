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
        stories.new_version(),
        stories.no_drops(),
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

    def new_version(self) -> Case:
        old = {name(catalog.ACCURACY, **POD): flat(0.9375, self.start)}
        pod = {**INCIDENT, "model_version": "2", "instance": FIRST_HOST}
        new = {name(catalog.ACCURACY, **pod): f"{absent(self.start)} {flat(0.875, self.run - self.start)}"}
        return Case(
            "holds a new version to what its model usually was",
            {**agent(flat(1, self.run), pod), **old, **new},
            (Check(self.due - 1), Check(self.due, self.evaluated("2"))),
        )

    def no_drops(self) -> Case:
        few, never, small, young, idle, restarted = (
            {**POD, "model": model} for model in ("few", "never", "small", "young", "idle", "restarted")
        )
        left, born = self.run - self.start, self.run - self.usual + 2
        known = f"{absent(born)} {flat(0.9375, self.start - born)} {flat(0.5, left)}"
        told = ((catalog.PREDICTIONS, 100), (catalog.WRONG_PREDICTIONS, 10))
        return Case(
            "is silent for what chance may do, for a small drop, while nobody knows yet what is usual, while idle, and after a restart",
            {
                **self.agent,
                **self.predictions(10, 1, 2, few),
                **self.predictions(1, 0, 0.25, never),
                **self.predictions(1e6, 1e5, 1.15e5, small),
                **self.accuracy(0.9375, 0.921875, small),
                name(catalog.ACCURACY, **young): known,
                **{name(metric, **idle): climb((slope, self.start), (0, left)) for metric, slope in told},
                **{name(metric, **restarted): f"{climb((slope, self.start))} {climb((slope, left), start=0)}" for metric, slope in told},
                name(catalog.ACCURACY, **restarted): f"{flat(0.9375, self.start)} {absent(2)} {flat(0.9375, left - 2)}",
            },
            silent(self.start, self.due, self.end - 1, self.run - 1),
        )
