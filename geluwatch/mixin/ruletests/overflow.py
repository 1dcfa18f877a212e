"""Stories of `GeluwatchOverflowAhead`, in both tiers."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.rules.alerting import Alert, lasting
from geluwatch.mixin.ruletests.episode import Episode
from geluwatch.mixin.ruletests.grammar import (
    FIRST_HOST,
    INCIDENT,
    LAYERS,
    OTHER_POD,
    POD,
    Case,
    Check,
    Expected,
    Labels,
    Scale,
    flat,
    merged,
    name,
    ramp,
    silent,
)
from geluwatch.mixin.settings import Tier

_NEAR = {"page": "very close", "ticket": "on its way"}


def cases(_: Alert, scale: Scale) -> tuple[Case, ...]:
    """Return the stories of the alert."""
    stories = _Stories(scale)
    return (
        stories.pages(),
        stories.is_over(),
        stories.tickets(),
        stories.without_a_trend(),
        stories.one_pod_of_two(),
        stories.many_layers(),
        stories.come_true(),
        stories.roomy(),
    )


class _Stories(Episode):
    """The stories of an overflow that lies ahead for a while; a page has its ticket beside it, for both look at one series."""

    def __init__(self, scale: Scale) -> None:
        super().__init__(
            scale,
            start=2 * scale.steps(scale.settings.rate_window),
            wait=scale.settings.page_for,
            keep=lasting(scale.settings, 3),
        )
        self.ticket_cleared = self.end + scale.steps(lasting(scale.settings, 2))

    def ahead(self, layer: str, tier: Tier, pod: Labels = POD, value: float = 1) -> dict[str, str]:
        return {
            name(catalog.OVERFLOW, **pod, layer=layer, point="pre", tier=tier): self.during(0, value),
            name(catalog.HEADROOM, **pod, layer=layer, point="pre"): self.during(12, 4.25),
            name(catalog.HEADROOM, **pod, layer=layer, point="post"): self.during(12.5, 4.75),
        }

    def in_minutes(self, layer: str) -> dict[str, str]:
        return {name(catalog.OVERFLOW_TIME, **POD, layer=layer, point="pre"): flat(600, self.run)}

    def says(self, tier: Tier, *layers: str, when: str = "") -> Expected:
        lines = [f"{layer}: 4.2 bits of headroom left{when}" for layer in layers]
        head = f"Model minilm version 1 is {_NEAR[tier]} to an overflow, by the model's order:"
        return Expected(INCIDENT, "\n".join([head, *lines]), FIRST_HOST, tier)

    def pages(self) -> Case:
        series = {**self.agent, **self.ahead(LAYERS[2], "page"), **self.in_minutes(LAYERS[2])}
        when = ", none in about 10m 0s at the present rate"
        said = tuple(self.says(tier, LAYERS[2], when=when) for tier in ("page", "ticket"))
        return Case(
            "pages when it is near, after the wait and not before, with the time that is left",
            series,
            (Check(self.start), Check(self.due - 1), Check(self.due, said)),
        )

    def is_over(self) -> Case:
        said = tuple(self.says(tier, LAYERS[2]) for tier in ("page", "ticket"))
        return Case(
            "ends some time after the danger has passed, the ticket before the page that keeps it quiet",
            {**self.agent, **self.ahead(LAYERS[2], "page")},
            (Check(self.end - 1, said), Check(self.ticket_cleared + 2, said[:1]), Check(self.cleared + 2)),
        )

    def tickets(self) -> Case:
        series = {
            **self.agent,
            **self.ahead(LAYERS[5], "ticket"),
            **self.ahead(LAYERS[2], "ticket"),
            **self.ahead(LAYERS[1], "ticket", value=0),
        }
        return Case(
            "tickets after the wait, not before, once for all layers",
            series,
            (Check(self.start), Check(self.due - 1), Check(self.due, (self.says("ticket", LAYERS[2], LAYERS[5]),))),
        )

    def without_a_trend(self) -> Case:
        said = self.says("ticket", LAYERS[2])
        return Case(
            "says no time where there is no trend, and keeps firing for a while",
            {**self.agent, **self.ahead(LAYERS[2], "ticket")},
            (Check(self.ticket_cleared - 2, (said,)), Check(self.ticket_cleared + 2)),
        )

    def one_pod_of_two(self) -> Case:
        return Case(
            "tickets for one pod of two",
            {**self.agent, **self.ahead(LAYERS[2], "ticket"), **self.ahead(LAYERS[2], "ticket", OTHER_POD, 0)},
            (Check(self.due, (self.says("ticket", LAYERS[2]),)),),
        )

    def many_layers(self) -> Case:
        ahead = merged(self.ahead(layer, "ticket") for layer in LAYERS)
        return Case("lists five layers", {**self.agent, **ahead}, (Check(self.due, (self.says("ticket", *LAYERS[:5]),)),))

    def come_true(self) -> Case:
        passes = f"{flat(1000, self.start)} {ramp(1010, 10, self.run - self.start)}"
        return Case(
            "is silent once there are NaN or Inf, which page by themselves",
            {**self.agent, **self.ahead(LAYERS[2], "page"), name(catalog.NONFINITE_FORWARDS, **POD): passes},
            silent(self.due, self.end - 1),
        )

    def roomy(self) -> Case:
        return Case(
            "is silent while no overflow lies ahead, however little headroom there is",
            {**self.agent, **self.ahead(LAYERS[2], "ticket", value=0), **self.ahead(LAYERS[3], "page", value=0)},
            silent(0, self.due, self.run - 1),
        )
