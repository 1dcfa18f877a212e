"""Stories of `GeluwatchTrainingFault`."""

from __future__ import annotations

from geluwatch import catalog
from geluwatch.mixin.rules.alerting import Alert
from geluwatch.mixin.ruletests.episode import Sudden
from geluwatch.mixin.ruletests.grammar import FIRST_HOST, INCIDENT, LAYERS, POD, Case, Check, Expected, Scale, flat, name, silent


def cases(_: Alert, scale: Scale) -> tuple[Case, ...]:
    """Return the stories of the alert."""
    stories = _Stories(scale)
    return (stories.losses(), stories.skips(), stories.gradients(), stories.all_at_once(), stories.few_skips(), stories.scaled())


class _Stories(Sudden):
    """Something is wrong with training from `start` on."""

    def told(self, *lines: str) -> tuple[Expected, ...]:
        head = f"Model minilm version 1 has not trained as it should within {self.window}:"
        return (Expected(INCIDENT, "\n".join([head, *lines]), FIRST_HOST),)

    def bad_losses(self, count: int) -> dict[str, str]:
        return {name(catalog.NONFINITE_LOSSES, **POD): self.jump(100, count)}

    def skipped(self, in_a_row: int) -> dict[str, str]:
        return {name(catalog.SKIPPED_IN_A_ROW, **POD): self.jump(0, in_a_row)}

    def bad_gradients(self) -> dict[str, str]:
        counts = {LAYERS[1]: 2, LAYERS[3]: 5}
        return {name(catalog.SITE_FIRST_GRADIENTS, **POD, layer=layer): self.jump(100, count) for layer, count in counts.items()}

    def losses(self) -> Case:
        end = self.start + self.cleared
        said = self.told("steps with a NaN or an Inf as loss: 3")
        return Case(
            "opens a ticket at once for losses that are no number, keeps it, then resolves",
            {**self.agent(), **self.bad_losses(3)},
            (Check(self.start - 1), Check(self.start, said), Check(end - 2, said), Check(end + 2)),
        )

    def skips(self) -> Case:
        return Case(
            "opens a ticket for sixteen skipped steps in a row",
            {**self.agent(), **self.skipped(16)},
            (Check(self.start - 1), Check(self.start, self.told("steps skipped in a row: 16"))),
        )

    def gradients(self) -> Case:
        said = self.told(f"backward passes with a NaN or an Inf in a gradient: 7, most of them first at layer {LAYERS[3]}")
        return Case(
            "opens a ticket for gradients where there is no loss scaler, and names the layer",
            {**self.agent(), **self.bad_gradients()},
            (Check(self.start - 1), Check(self.start, said)),
        )

    def all_at_once(self) -> Case:
        said = self.told(
            "steps with a NaN or an Inf as loss: 3",
            "steps skipped in a row: 40",
            f"backward passes with a NaN or an Inf in a gradient: 7, most of them first at layer {LAYERS[3]}",
        )
        series = {**self.bad_losses(3), **self.skipped(40), **self.bad_gradients()}
        return Case("is one ticket for everything", {**self.agent(), **series}, (Check(self.start, said),))

    def few_skips(self) -> Case:
        return Case(
            "is silent for the few steps that a loss scaler skips now and then",
            {**self.agent(), **self.skipped(8), **self.bad_losses(0)},
            silent(self.start, self.run - 1),
        )

    def scaled(self) -> Case:
        scale = {name(catalog.LOSS_SCALE, **POD): flat(1024, self.run)}
        return Case(
            "is silent for gradients that a loss scaler is there to catch",
            {**self.agent(), **self.bad_gradients(), **scale},
            silent(self.start, self.run - 1),
        )
