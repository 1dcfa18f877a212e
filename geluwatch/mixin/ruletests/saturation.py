"""Stories of `GeluwatchSaturation`."""

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
    Case,
    Check,
    Expected,
    Labels,
    Scale,
    flat,
    gone,
    merged,
    name,
    silent,
)

_USUAL = 0.25


def cases(_: Alert, scale: Scale) -> tuple[Case, ...]:
    """Return the stories of the alert."""
    stories = _Stories(scale)
    return (
        stories.tickets_after_the_wait(),
        stories.resolves(),
        stories.open_gates(),
        stories.one_pod_of_four(),
        stories.reading_missing(),
        stories.many_layers(),
        stories.usual_for_the_model(),
        stories.not_armed(),
        stories.idle(),
        stories.restarts(),
    )


class _Stories(Episode):
    """The stories of gates that are stuck for a while; in the baseline a quarter is closed and a quarter open."""

    def __init__(self, scale: Scale) -> None:
        super().__init__(scale, start=4, wait=scale.settings.drift_for)

    def gates(self, layer: str, closed: float = _USUAL, opened: float = _USUAL, pod: Labels = POD) -> dict[str, str]:
        shares = {catalog.GATE_CLOSED: closed, catalog.GATE_OPEN: opened}
        return {name(metric, **pod, layer=layer): self.during(_USUAL, share) for metric, share in shares.items()}

    def baseline(self, layer: str, pod: Labels = POD, closed: float = _USUAL, opened: float = _USUAL) -> dict[str, str]:
        shares = {("pre", "-3.0"): closed, ("pre", "3.0"): 1 - opened, ("post", "3.0"): 0.875}
        return {
            name(catalog.BASELINE_CDF, **pod, layer=layer, point=point, le=edge): flat(share, self.run)
            for (point, edge), share in shares.items()
        }

    def layer(self, layer: str, closed: float = _USUAL, opened: float = _USUAL, pod: Labels = POD) -> dict[str, str]:
        return {**self.gates(layer, closed, opened, pod), **self.baseline(layer, pod)}

    def says(self, *lines: str, count: int | None = None) -> tuple[Expected, ...]:
        head = (
            f"Model minilm version 1 saturates in {len(lines) if count is None else count} of its layers. "
            "Shares of closed and of open gates, with their change since the baseline, by the model's order:"
        )
        return (Expected(INCIDENT, "\n".join([head, *lines]), FIRST_HOST),)

    def tickets_after_the_wait(self) -> Case:
        said = self.says(
            f"{LAYERS[2]}: closed 0.75 (+0.50), open 0.25 (+0.00)",
            f"{LAYERS[5]}: closed 0.50 (+0.25), open 0.25 (+0.00)",
        )
        return Case(
            "opens one ticket for all layers after the wait, not before",
            {**self.agent, **self.layer(LAYERS[5], 0.5), **self.layer(LAYERS[2], 0.75), **self.layer(LAYERS[1])},
            (Check(self.start), Check(self.due - 1), Check(self.due, said)),
        )

    def resolves(self) -> Case:
        said = self.says(f"{LAYERS[2]}: closed 0.75 (+0.50), open 0.25 (+0.00)")
        return Case(
            "keeps firing after the gates move again, then resolves",
            {**self.agent, **self.layer(LAYERS[2], 0.75)},
            (Check(self.cleared - 2, said), Check(self.cleared + 2)),
        )

    def open_gates(self) -> Case:
        said = self.says(f"{LAYERS[2]}: closed 0.12 (-0.12), open 0.50 (+0.25)")
        return Case(
            "opens a ticket for gates that are all open, where the GELU is the identity",
            {**self.agent, **self.layer(LAYERS[2], 0.125, 0.5)},
            (Check(self.due - 1), Check(self.due, said)),
        )

    def one_pod_of_four(self) -> Case:
        others = ({**POD, "instance": f"10.0.0.{place}:9464"} for place in (8, 9, 10))
        pods = merged((self.layer(LAYERS[2], 0.75), *(self.layer(LAYERS[2], pod=pod) for pod in others)))
        return Case("is silent for one pod of four", {**self.agent, **pods}, silent(self.due, self.end - 1))

    def reading_missing(self) -> Case:
        missing = {name(catalog.GATE_CLOSED, **OTHER_POD, layer=LAYERS[2]): f"NaN+0x{self.run - 1}", **self.baseline(LAYERS[2], OTHER_POD)}
        said = self.says(f"{LAYERS[2]}: closed 0.75 (+0.50), open 0.25 (+0.00)")
        return Case(
            "averages the pods that have a reading",
            {**self.agent, **self.layer(LAYERS[2], 0.75), **missing},
            (Check(self.due, said),),
        )

    def many_layers(self) -> Case:
        layers = merged(self.layer(layer, 0.75) for layer in LAYERS)
        lines = (f"{layer}: closed 0.75 (+0.50), open 0.25 (+0.00)" for layer in LAYERS[:5])
        return Case("lists five layers", {**self.agent, **layers}, (Check(self.due, self.says(*lines, count=7)),))

    def usual_for_the_model(self) -> Case:
        usual = self.baseline(LAYERS[2], closed=0.875, opened=0.0625)
        return Case(
            "is silent for gates that are closed for most values in the baseline as well, and for a little more",
            {**self.agent, **self.gates(LAYERS[2], 0.9375, 0.0625), **usual, **self.layer(LAYERS[3], 0.375, 0.375)},
            silent(self.due, self.end - 1),
        )

    def not_armed(self) -> Case:
        return Case("is silent without a baseline", {**self.agent, **self.gates(LAYERS[2], 0.75)}, silent(self.due, self.end - 1))

    def idle(self) -> Case:
        return Case(
            "is silent for a model without any traffic, which has no window to read from",
            {**self.agent, **self.baseline(LAYERS[2])},
            silent(0, self.due, self.run - 1),
        )

    def restarts(self) -> Case:
        early = self.due - self.start - 1
        fresh = f"{flat(_USUAL, self.start)} {flat(0.75, early)} {gone(2)} {flat(_USUAL, self.run)}"
        return Case(
            "is silent for a pod that starts over before the wait is over and is well then",
            {**self.agent, **self.baseline(LAYERS[2]), name(catalog.GATE_CLOSED, **POD, layer=LAYERS[2]): fresh},
            silent(self.due - 1, self.due, self.end),
        )
