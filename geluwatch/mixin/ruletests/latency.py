"""Stories of `GeluwatchLatencySpike`."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.rules.alerting import Alert
from geluwatch.mixin.rules.usual import step
from geluwatch.mixin.ruletests.grammar import (
    FIRST_HOST,
    INCIDENT,
    OTHER_POD,
    POD,
    SECOND_HOST,
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
from geluwatch.mixin.ruletests.traffic import LATE, PROMPT, passes

_MANY, _FEW = 40, 1
_P95 = "model:geluwatch_forward_seconds:p95"
_USUAL = "model:geluwatch_forward_seconds:usual"
NEXT = {**INCIDENT, "model_version": "2"}
"""The version after the first."""


def cases(_: Alert, scale: Scale) -> tuple[Case, ...]:
    """Return the stories of the alert."""
    stories = _Stories(scale)
    return (
        stories.tickets(),
        stories.resolves(),
        stories.slow_pod(),
        stories.new_version(),
        stories.no_spikes(),
    )


class _Stories:
    """Passes are late from `start` on; until then the model has run for longer than what is usual is told by.

    At `due` the alert may fire, from `told` on the rate window holds nothing but late passes.
    """

    def __init__(self, scale: Scale) -> None:
        self.window, self.kept = scale.steps(scale.settings.rate_window), scale.steps(scale.settings.keep_firing_for)
        self.usual = scale.steps(scale.settings.usual_range)
        # The past is looked at in steps, so it has to reach back one more of them.
        self.start = self.usual + scale.steps(f"{step(scale.settings.usual_range)}s") + 4
        self.due = self.start + scale.steps(scale.settings.service_for)
        self.told = max(self.due, self.start + self.window)
        self.end = self.told + self.window
        self.run = self.end + self.window + self.kept + 4
        self.agent = agent(flat(1, self.run))

    def spike(self, pod: Labels = POD, many: float = _MANY) -> dict[str, str]:
        return passes((many, 0, self.start), (0, many, self.run - self.start), pod=pod)

    def says(self, rest: str = "", version: str = "1", usually: str = PROMPT) -> tuple[Expected, ...]:
        text = f"95 % of the passes of model minilm version {version} take up to {LATE}, usually {usually}.{rest}"
        return (Expected({**INCIDENT, "model_version": version}, text, FIRST_HOST),)

    def tickets(self) -> Case:
        spent = {name(catalog.GELU_SECONDS, **POD, layer=layer): climb((0.5, self.run)) for layer in ("a", "b")}
        timed = {name(catalog.TIMED_SECONDS, **POD): climb((4, self.run))}
        rounded = (
            Answer(self.told, f"round({_P95}, 0.0001)", {name("", **INCIDENT): 0.4875}),
            Answer(self.told, f"round({_USUAL}, 0.0001)", {name("", **INCIDENT): 0.0975}),
        )
        return Case(
            "tickets after the wait, not before, and says what is usual and what GELU takes",
            {**self.agent, **self.spike(), **spent, **timed},
            (Check(self.start - 1), Check(self.due - 1), Check(self.told, self.says(" GELU takes 25% of the time of a pass."))),
            rounded,
        )

    def resolves(self) -> Case:
        series = passes((_MANY, 0, self.start), (0, _MANY, self.end - self.start))
        last = self.end + self.window - 2
        return Case(
            "keeps firing for a while after the traffic has gone, then resolves and stays silent while idle",
            {**self.agent, **series},
            (Check(last + self.kept - 1, self.says()), *silent(last + self.kept + 3, self.run - 1)),
        )

    def slow_pod(self) -> Case:
        fast = passes((_MANY, 0, self.run), pod=POD)
        said = self.says(f" Slowest pod: {SECOND_HOST}, {LATE}.")[0]
        text = said.description.replace(f"up to {LATE}", "up to 475ms")
        return Case(
            "names the slowest pod where there are several, as on new nodes",
            {**self.agent, **fast, **self.spike(OTHER_POD)},
            (Check(self.told, (Expected(INCIDENT, text, FIRST_HOST),)),),
        )

    def new_version(self) -> Case:
        pod = {**NEXT, "instance": FIRST_HOST}
        before = passes((_MANY, 0, self.start))
        born = {series: f"{absent(self.start)} {values}" for series, values in passes((0, _MANY, self.run - self.start), pod=pod).items()}
        return Case(
            "holds a new version to what its model usually was: one that is slow from its first minute is told",
            {**agent(flat(1, self.run), pod), **before, **born},
            (Check(self.start), Check(self.told + 2, self.says(version="2"))),
        )

    def no_spikes(self) -> Case:
        born = self.run - self.usual + 2
        prompt = self.start - born + 2
        young = passes((_MANY, 0, prompt), (0, _MANY, self.run - born - prompt), pod={**POD, "model": "young"})
        lives = (passes((_MANY, 0, steps), pod={**POD, "model": "restarted"}) for steps in (self.start, self.run - self.start))
        first, second = lives
        return Case(
            "is silent for a version that always was slower than the other, for a handful of slow passes, "
            "while nobody knows yet what is usual, and after a restart that sets the counters back",
            {
                **self.agent,
                **passes((_MANY, 0, self.run)),
                **passes((0, _MANY, self.run), pod={**NEXT, "instance": SECOND_HOST}),
                **self.spike({**POD, "model": "rare"}, many=_FEW),
                **{series: f"{absent(born)} {values}" for series, values in young.items()},
                **{series: f"{values} {second[series]}" for series, values in first.items()},
            },
            silent(self.usual - 1, self.start, self.due, self.told + 2, self.run - 1),
        )
