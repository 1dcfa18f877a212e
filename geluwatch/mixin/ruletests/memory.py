"""Stories of `GeluwatchMemoryPressure`."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.rules.alerting import Alert
from geluwatch.mixin.ruletests.episode import Episode
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
    flat,
    fleet,
    merged,
    name,
    silent,
)

_GIGABYTE = 10**9
_RECORDED = "instance_model:geluwatch_memory_used:ratio"


def cases(_: Alert, scale: Scale) -> tuple[Case, ...]:
    """Return the stories of the alert."""
    stories = _Stories(scale, start=4, wait=scale.settings.service_for)
    return (
        stories.tickets(),
        stories.device(),
        stories.resolves(),
        stories.restart(),
        stories.many_pods(),
        stories.enough_left(),
        stories.without_limit(),
    )


class _Stories(Episode):
    """Memory is nearly used up for a while."""

    def host(self, share: float, pod: Labels = POD) -> dict[str, str]:
        return {
            name(catalog.MEMORY_USED, **pod): self.during(_GIGABYTE, share * 8 * _GIGABYTE),
            name(catalog.MEMORY_LIMIT, **pod): flat(8 * _GIGABYTE, self.run),
        }

    def card(self, share: float, device: str, pod: Labels = POD) -> dict[str, str]:
        return {
            name(catalog.DEVICE_MEMORY, **pod, device=device): self.during(_GIGABYTE, share * 16 * _GIGABYTE),
            name(catalog.DEVICE_LIMIT, **pod, device=device): flat(16 * _GIGABYTE, self.run),
        }

    def says(self, *lines: str) -> tuple[Expected, ...]:
        head = "Model minilm version 1 has nearly used up its memory, the fullest first:"
        return (Expected(INCIDENT, "\n".join([head, *lines]), FIRST_HOST),)

    def tickets(self) -> Case:
        used = {name(_RECORDED, **POD): 0.9375}
        return Case(
            "tickets after the wait, not before, for the memory of a host",
            {**self.agent, **self.host(0.9375)},
            (Check(self.start), Check(self.due - 1), Check(self.due, self.says(f"{FIRST_HOST} host memory: 93.75%"))),
            (Answer(self.due, _RECORDED, used),),
        )

    def device(self) -> Case:
        cards = {**self.card(0.95, "cuda:0"), **self.card(0.5, "cuda:1"), **self.card(0.96875, "cuda:1", OTHER_POD)}
        return Case(
            "tickets once for the devices of all pods, and names the fullest first",
            {**self.agent, **self.host(0.25), **cards},
            (Check(self.due, self.says(f"{SECOND_HOST} cuda:1: 96.88%", f"{FIRST_HOST} cuda:0: 95%")),),
        )

    def resolves(self) -> Case:
        return Case(
            "keeps firing after memory was freed, then resolves",
            {**self.agent, **self.host(0.9375)},
            (Check(self.cleared - 2, self.says(f"{FIRST_HOST} host memory: 93.75%")), Check(self.cleared + 2)),
        )

    def restart(self) -> Case:
        low, high = _GIGABYTE, 7.5 * _GIGABYTE
        times = (low, self.start), (high, self.due - self.start - 2), (low, 2), (high, self.run - self.due)
        used = " ".join(flat(value, steps) for value, steps in times)
        return Case(
            "starts to wait anew when a restart has freed the memory",
            {**self.agent, **self.host(0.5), name(catalog.MEMORY_USED, **POD): used},
            silent(self.due - 1, self.due, self.due + 1),
        )

    def many_pods(self) -> Case:
        series = merged(self.host(0.9375 + place / 128, pod) for place, pod in enumerate(fleet(7)))
        shares = ("98.44%", "97.66%", "96.88%", "96.09%", "95.31%")
        lines = [f"10.0.0.{13 - place}:9464 host memory: {share}" for place, share in enumerate(shares)]
        return Case("lists five pods", {**self.agent, **series}, (Check(self.due, self.says(*lines)),))

    def enough_left(self) -> Case:
        return Case(
            "is silent while enough is left",
            {**self.agent, **self.host(0.875), **self.card(0.875, "cuda:0")},
            silent(0, self.due, self.run - 1),
        )

    def without_limit(self) -> Case:
        used = {
            name(catalog.MEMORY_USED, **POD): flat(64 * _GIGABYTE, self.run),
            name(catalog.DEVICE_MEMORY, **POD, device="cuda:0"): flat(_GIGABYTE, self.run),
        }
        no_limit = {name(catalog.DEVICE_LIMIT, **POD, device="cuda:0"): flat(0, self.run)}
        return Case(
            "is silent where no limit is known, or none is set", {**self.agent, **used, **no_limit}, silent(0, self.due, self.run - 1)
        )
