"""Pods that fill their buckets evenly, for the stories of distances between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from geluwatch import catalog
from geluwatch.mixin.ruletests.grammar import LAYERS, Labels, Scale, absent, flat, gone, name, ramp

_LONG_AGO = -1_000_000
_HELD = 1_000_000
_A_STEP = 6000
_UPPER = {"1.0": 0.9, "+Inf": 1.0}

Shares = Mapping[str, float]
"""Shares of a distribution by the edges at which they are."""


def at_zero(share: float) -> dict[str, float]:
    """Return a distribution that has so much at or below zero."""
    return {"0.0": share, **_UPPER}


@dataclass(frozen=True, slots=True)
class Filling:
    """Pods of a story that runs so many steps; each has the distributions given, at its first layers before the GELU."""

    scale: Scale
    run: int

    def pod(self, labels: Labels, *shares: Shares, values: float = _A_STEP) -> dict[str, str]:
        """Return the series of a pod that was always there, with so many values a step."""
        attached = {name(catalog.ATTACHED, **labels): flat(_LONG_AGO, self.run)}
        return attached | _buckets(labels, shares, lambda share: ramp(_HELD * share, values * share, self.run))

    def restarted(self, labels: Labels, at: int, before: Shares, after: Shares) -> dict[str, str]:
        """Return the series of a pod whose counters begin anew at a step, with another distribution from there on."""
        rest = self.run - at
        old = _buckets(labels, (before,), lambda share: ramp(_HELD * share, _A_STEP * share, at))
        new = _buckets(labels, (after,), lambda share: ramp(0, _A_STEP * share, rest))
        either = old | new
        values = {key: f"{old.get(key, absent(at))} {new.get(key, gone(rest))}" for key in either}
        attached = f"{flat(_LONG_AGO, at)} {flat(at * self.scale.step, rest)}"
        return {name(catalog.ATTACHED, **labels): attached, **values}

    def visitor(self, labels: Labels, come: int, leave: int, *shares: Shares, values: float = _A_STEP) -> dict[str, str]:
        """Return the series of a pod that comes with a window's values, and leaves."""
        stay, after = leave - come, self.run - leave

        def there(values: str) -> str:
            return f"{absent(come)} {values} {gone(after)}"

        attached = {name(catalog.ATTACHED, **labels): there(flat(come * self.scale.step, stay))}
        return attached | _buckets(labels, shares, lambda share: there(ramp(10 * values * share, values * share, stay)))


def _buckets(labels: Labels, shares: tuple[Shares, ...], values: Callable[[float], str]) -> dict[str, str]:
    return {
        name(catalog.VALUES, **labels, layer=layer, point="pre", le=le): values(share)
        for layer, of_layer in zip(LAYERS, shares, strict=False)
        for le, share in of_layer.items()
    }
