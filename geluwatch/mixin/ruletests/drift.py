"""Stories of `GeluwatchActivationDrift`, in both tiers."""

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
    TICKET_LIMIT,
    Case,
    Check,
    Expected,
    Labels,
    Scale,
    flat,
    fleet,
    merged,
    name,
    ramp,
    silent,
)
from geluwatch.mixin.settings import Tier

PAGE_LIMIT = 7.5
_NO_PROBE = "No probe has been replayed since it began: watch.probe() tells whether the data changed or the model."
_SCOPES = {
    "traffic": "Most layers moved alike, so the traffic is likelier to have changed than the model.",
    "model": "The other layers did not move alike, so the model is likelier to have changed than the traffic.",
    "unknown": "The layers do not tell whether the traffic changed or the model.",
}


def cases(_: Alert, scale: Scale) -> tuple[Case, ...]:
    """Return the stories of the alert."""
    stories = _Stories(scale)
    return (
        stories.tickets_after_the_wait(),
        stories.resolves(),
        stories.first_of_many_pods(),
        stories.untold_scope(),
        stories.one_pod_of_two(),
        stories.one_strong_pod_of_four(),
        stories.one_weak_pod_of_twenty(),
        stories.reading_missing(),
        stories.many_layers(),
        stories.probe_the_same(),
        stories.probe_before(),
        stories.probe_moved(),
        stories.overflow(),
        stories.pages(),
        stories.page_resolves(),
        stories.page_of_four_pods(),
        stories.page_not_armed(),
        stories.calm(),
        stories.idle(),
        stories.drained(),
        stories.diluted(),
    )


class _Stories(Episode):
    """The stories of drift that is there for a while: at `paged` the page is due, at `due` the ticket."""

    def __init__(self, scale: Scale) -> None:
        super().__init__(scale, start=4, wait=scale.settings.drift_for)
        self.step = scale.step
        self.paged = self.start + scale.steps(scale.settings.page_for)

    def reading(self, metric: catalog.Metric, calm: float, value: float, layer: str, pod: Labels) -> dict[str, str]:
        return {name(metric, **pod, layer=layer, point="pre"): self.during(calm, value)}

    def drift(self, surprise: float, layer: str, pod: Labels = POD) -> dict[str, str]:
        evidence = self.reading(catalog.EVIDENCE, 0.5, surprise / TICKET_LIMIT, layer, pod)
        return {**self.reading(catalog.SURPRISE, 3, surprise, layer, pod), **evidence}

    def limits(self, *tiers: Tier, pod: Labels = POD) -> dict[str, str]:
        levels = {"ticket": TICKET_LIMIT, "page": PAGE_LIMIT}
        return {name(catalog.LIMIT, **pod, tier=tier): flat(levels[tier], self.run) for tier in tiers}

    def distance(self, value: float, layer: str) -> dict[str, str]:
        return {name(catalog.KS, **POD, layer=layer, point="pre"): flat(value, self.run)}

    def began(self, layer: str, scope: str, pod: Labels = POD) -> dict[str, str]:
        return {name(catalog.FIRST_DRIFT, **pod, layer=layer, scope=scope): flat(1, self.run)}

    def says(
        self, *lines: str, where: str = "", count: int | None = None, first: str = "", tier: Tier = "ticket", probe: str = _NO_PROBE
    ) -> Expected:
        beyond = " far enough to page" if tier == "page" else ""
        drifted = f"Model minilm version 1 has drifted from its baseline{beyond}{where}"
        head = f"{drifted}{first or '.'} {probe} It drifts in {len(lines) if count is None else count} of its layers, by the model's order:"
        return Expected(INCIDENT, "\n".join([head, *lines]), FIRST_HOST, tier)

    def two_layers(self) -> dict[str, str]:
        later = self.drift(18, LAYERS[5]) | self.distance(0.0625, LAYERS[5])
        earlier = self.drift(7.5, LAYERS[2]) | self.distance(0.0125, LAYERS[2])
        return {**self.agent, **later, **earlier, **self.drift(4.5, LAYERS[0]), **self.began(LAYERS[2], "model")}

    def says_two(self) -> tuple[Expected, ...]:
        lines = f"{LAYERS[2]}: evidence 1.25, KS 0.0125", f"{LAYERS[5]}: evidence 3, KS 0.0625"
        return (self.says(*lines, first=f", first at layer {LAYERS[2]}. {_SCOPES['model']}"),)

    def tickets_after_the_wait(self) -> Case:
        return Case(
            "opens one ticket after the wait, not before, names the first layer and lists all by the model's order",
            self.two_layers(),
            (Check(self.start), Check(self.due - 1), Check(self.due, self.says_two())),
        )

    def resolves(self) -> Case:
        return Case(
            "keeps firing after the evidence has gone, then resolves",
            self.two_layers(),
            (Check(self.cleared - 2, self.says_two()), Check(self.cleared + 2)),
        )

    def first_of_many_pods(self) -> Case:
        pods = fleet(4)
        series = merged(self.drift(9, LAYERS[3], pod) for pod in pods)
        series |= self.began(LAYERS[1], "model", pods[0])
        series |= merged(self.began(LAYERS[3], "traffic", pod) for pod in pods[1:])
        said = self.says(
            f"{LAYERS[3]}: evidence 1.5, KS ?", where=" on 4 of 4 pods", first=f", first at layer {LAYERS[3]}. {_SCOPES['traffic']}"
        )
        return Case("names the first layer that most pods name", {**self.agent, **series}, (Check(self.due, (said,)),))

    def untold_scope(self) -> Case:
        series = {**self.agent, **self.drift(9, LAYERS[1]), **self.began(LAYERS[1], "unknown")}
        said = self.says(f"{LAYERS[1]}: evidence 1.5, KS ?", first=f", first at layer {LAYERS[1]}. {_SCOPES['unknown']}")
        return Case("blames neither the traffic nor the model where the layers do not tell", series, (Check(self.due, (said,)),))

    def one_pod_of_two(self) -> Case:
        return Case(
            "takes the average of the pods: one straying pod of two is no drift of the model",
            {**self.agent, **self.drift(7.5, LAYERS[0]), **self.drift(3, LAYERS[0], OTHER_POD)},
            silent(self.due, self.end - 1),
        )

    def one_bad(self, count: int, surprise: float) -> dict[str, str]:
        bad, *good = fleet(count)
        calm = merged(self.drift(3, LAYERS[0], pod) for pod in good)
        return {**self.agent, **self.drift(surprise, LAYERS[0], bad), **calm}

    def one_strong_pod_of_four(self) -> Case:
        return Case(
            "is silent for one pod of four however far out it is: no pod counts for more than two",
            {**self.one_bad(4, 300), **self.limits("ticket", "page")},
            silent(self.paged, self.due, self.end - 1),
        )

    def one_weak_pod_of_twenty(self) -> Case:
        return Case(
            "is silent for one straying pod of twenty, in both tiers",
            {**self.one_bad(20, 24), **self.limits("ticket", "page")},
            silent(self.paged, self.due, self.end - 1),
        )

    def reading_missing(self) -> Case:
        nothing = {name(catalog.EVIDENCE, **OTHER_POD, layer=LAYERS[1], point="pre"): " ".join(["NaN"] * self.run)}
        return Case(
            "is not blinded by a pod that has no reading yet, nor by a distance that is not known",
            {**self.agent, **self.drift(9, LAYERS[1]), **nothing},
            (Check(self.due, (self.says(f"{LAYERS[1]}: evidence 1.5, KS ?"),)),),
        )

    def many_layers(self) -> Case:
        series = merged(self.drift(12, layer) for layer in LAYERS)
        lines = [f"{layer}: evidence 2, KS ?" for layer in LAYERS[:5]]
        return Case("lists five layers and counts the rest", {**self.agent, **series}, (Check(self.due, (self.says(*lines, count=7),)),))

    def probed(self, ago: int, moved: str = "") -> dict[str, str]:
        """Return the series of a drift that began two steps after the start, and of a probe replayed some steps after that."""
        began = (self.start + 2.0) * self.step
        first = {name(catalog.PROBE_FIRST, **POD, layer=moved, point="pre"): flat(0.25, self.run)} if moved else {}
        return {
            **self.agent,
            **self.drift(9, LAYERS[1]),
            name(catalog.ONSET, **POD, layer=LAYERS[1]): flat(began, self.run),
            name(catalog.PROBE_TIME, **POD): flat(began + ago * self.step, self.run),
            **first,
        }

    def probe_the_same(self) -> Case:
        said = self.says(f"{LAYERS[1]}: evidence 1.5, KS ?", probe="The probe says: the data changed, the model did not.")
        return Case("says that the data changed where a probe gave the same since", self.probed(1), (Check(self.due, (said,)),))

    def probe_before(self) -> Case:
        said = self.says(f"{LAYERS[1]}: evidence 1.5, KS ?")
        return Case("does not believe a probe from before the drift", self.probed(-1), (Check(self.due, (said,)),))

    def probe_moved(self) -> Case:
        model = f"The probe says: the model changed, first at layer {LAYERS[0]}."
        said = self.says(f"{LAYERS[1]}: evidence 1.5, KS ?", probe=model)
        return Case("says that the model changed where the probe moved", self.probed(1, LAYERS[0]), (Check(self.due, (said,)),))

    def overflow(self) -> Case:
        said = self.says(f"{LAYERS[1]}: evidence 1e+75, KS ?")
        return Case("writes a huge number short", {**self.agent, **self.drift(6e75, LAYERS[1])}, (Check(self.due, (said,)),))

    def says_pages(self, where: str = "") -> tuple[Expected, ...]:
        return (self.says(f"{LAYERS[2]}: evidence 1.5, KS ?", where=where, tier="page"),)

    def pages(self) -> Case:
        ticket = self.says(f"{LAYERS[2]}: evidence 1.5, KS ?")
        return Case(
            "pages after the page's shorter wait where the page limit is reached, and opens the ticket as well",
            {**self.agent, **self.drift(9, LAYERS[2]), **self.limits("ticket", "page")},
            (
                Check(self.start),
                Check(self.paged - 1),
                Check(self.paged, self.says_pages()),
                Check(self.due, (*self.says_pages(), ticket)),
                # The page that keeps its ticket quiet has to outlast it.
                Check(self.cleared + 2, self.says_pages()),
            ),
        )

    def page_resolves(self) -> Case:
        return Case(
            "does not page below the page limit",
            {**self.agent, **self.drift(7.25, LAYERS[2]), **self.limits("ticket", "page")},
            (Check(self.paged), Check(self.due, (self.says(f"{LAYERS[2]}: evidence 1.21, KS ?"),)), Check(self.cleared + 2)),
        )

    def page_of_four_pods(self) -> Case:
        pods = fleet(4)
        series = merged(self.drift(9, LAYERS[2], pod) for pod in pods)
        limits = {**self.limits("ticket", "page"), **self.limits("ticket", pod=pods[1])}
        return Case(
            "pages once for four pods, although a limit is known of one alone",
            {**self.agent, **series, **limits},
            (Check(self.paged - 1), Check(self.paged, self.says_pages(" on 4 of 4 pods"))),
        )

    def page_not_armed(self) -> Case:
        ticket = self.says(f"{LAYERS[2]}: evidence 50, KS ?")
        return Case(
            "never pages where the baseline is too short for a page limit, however strong the drift",
            {**self.agent, **self.drift(300, LAYERS[2]), **self.limits("ticket")},
            (Check(self.paged), Check(self.due, (ticket,)), Check(self.end - 1, (ticket,))),
        )

    def calm(self) -> Case:
        return Case(
            "is silent for a calm model, however far its distance",
            {**self.agent, **self.drift(5.25, LAYERS[0]), **self.distance(0.5, LAYERS[0]), **self.limits("ticket", "page")},
            silent(0, self.paged, self.due, self.run - 1),
        )

    def drained(self) -> Case:
        return Case(
            "is silent for a pod that has had no traffic for long, however its last judgement stands",
            {
                **self.agent,
                **self.drift(9, LAYERS[2]),
                **self.limits("ticket", "page"),
                name(catalog.FORWARDS, **POD): flat(1000, self.run),
            },
            silent(self.paged, self.due, self.end - 1),
        )

    def diluted(self) -> Case:
        busy, *idle = fleet(3)
        series = self.drift(9, LAYERS[2], busy) | merged(self.drift(2, LAYERS[2], pod) for pod in idle)
        traffic = {name(catalog.FORWARDS, **pod): ramp(1000, 10 if pod is busy else 0, self.run) for pod in (busy, *idle)}
        return Case(
            "pages for the one pod that has traffic, whatever was last said on those that have none",
            {**self.agent, **series, **self.limits("ticket", "page"), **traffic},
            (Check(self.paged - 1), Check(self.paged, self.says_pages(" on 1 of 3 pods"))),
        )

    def idle(self) -> Case:
        return Case(
            "is silent for a model that has closed no window",
            {**self.agent, name(catalog.BASELINE_ARMED, **POD): flat(1, self.run), **self.limits("ticket", "page")},
            silent(0, self.due, self.run - 1),
        )
