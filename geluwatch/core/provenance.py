"""Two provenances side by side, and the part of one that the core knows: the census with what was measured, and the settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from geluwatch.config import Config
from geluwatch.records import Activation, Baseline, BaselineOrigin, Parity, Provenance, Report, Site, Weights

_NAMED = 3
"""Layers named in one sentence; the others are counted."""

_ASPECTS = {"declared": "declared formula", "measured": "measured formula", "dtype": "dtype", "precision": "precision"}


def activations(sites: Sequence[Site], measured: Mapping[str, Parity | None]) -> tuple[Activation, ...]:
    """Return what each GELU declares, and what was measured there."""
    found = []
    for site in sites:
        parity = measured.get(site.layer)
        seen = {} if parity is None else {"measured": parity.variant, "dtype": parity.dtype, "precision": parity.precision}
        found.append(Activation(site.layer, site.form, site.kind, site.variant, **seen))
    return tuple(found)


def measured(report: Report) -> dict[str, Parity | None]:
    """Return what was measured at each layer of a report."""
    return {layer: seen.parity for (layer, point), seen in report.sites.items() if point == "post"}


def completed(found: Provenance, sites: Sequence[Site], report: Report, config: Config, version: str) -> Provenance:
    """Return a source's provenance with what it does not know: the census with what was measured, the settings, our own version."""
    return replace(
        found,
        activations=activations(sites, measured(report)),
        versions={**found.versions, "geluwatch": version},
        settings=settings(config),
    )


def settings(config: Config) -> dict[str, str]:
    """Return a configuration as text."""
    return {field.name: _text(getattr(config, field.name)) for field in fields(config)}


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_text, value))
    return str(getattr(value, "__qualname__", value))


def of_baseline(baseline: Baseline) -> tuple[Activation, ...]:
    """Return the activations of a baseline; one without provenance tells the declared formulas."""
    return baseline.provenance.activations if baseline.provenance else activations(baseline.sites, {})


def changes(known: Sequence[Activation], other: Sequence[Activation]) -> tuple[str, ...]:
    """Return a sentence for each aspect in which the GELUs of one model differ from those of another, with the layers.

    What was not measured on one of the two sides is no difference.
    """
    before, after = ({each.layer: each for each in side} for side in (known, other))
    told = []
    for aspect, called in _ASPECTS.items():
        moved: dict[tuple[str, str], list[str]] = {}
        for layer in before.keys() & after.keys():
            was, now = getattr(before[layer], aspect), getattr(after[layer], aspect)
            if was and now and was != now:
                moved.setdefault((was, now), []).append(layer)
        told += [f"{called} {was} became {now} at {_layers(layers, after)}" for (was, now), layers in sorted(moved.items())]
    for what, one, rest in (("gone", before, after), ("new", after, before)):
        if apart := [layer for layer in one if layer not in rest]:
            told.append(f"{_layers(apart, one)} {'is' if len(apart) == 1 else 'are'} {what}")
    return tuple(told)


def _layers(names: Sequence[str], order: Mapping[str, Any]) -> str:
    """Return the first layers by the model's order, and how many more there are."""
    ordered = sorted(names, key=list(order).index)
    more = len(ordered) - _NAMED
    return ", ".join(ordered[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def differences(known: Provenance, other: Provenance) -> tuple[str, ...]:
    """Return a sentence for each thing that matters in which two provenances differ: weights, dtypes, formulas, precision."""
    return (*_of_weights(known.weights, other.weights), *changes(known.activations, other.activations))


def surroundings(known: Provenance, other: Provenance) -> tuple[str, ...]:
    """Return a sentence for each version, machine part and kind of device in which two provenances differ."""
    pairs = {"device": (", ".join(known.weights.devices), ", ".join(other.weights.devices))}
    for one, two in ((known.versions, other.versions), (known.machine, other.machine)):
        pairs |= {name: (one.get(name, "none"), two.get(name, "none")) for name in dict.fromkeys([*one, *two])}
    return tuple(f"{name} {was or 'none'} became {now or 'none'}" for name, (was, now) in pairs.items() if was != now)


def _of_weights(known: Weights, other: Weights) -> Iterator[str]:
    if known.dtypes and other.dtypes and known.dtypes != other.dtypes:
        yield f"parameters in {', '.join(known.dtypes)} became {', '.join(other.dtypes)}"
    if known.digest and other.digest and known.digest != other.digest:
        names = list(dict.fromkeys([*known.tensors, *other.tensors]))
        differing = [name for name in names if known.tensors.get(name) != other.tensors.get(name)]
        yield f"the weights differ in {len(differing)} of {len(names)} tensors, first {differing[0]}" if differing else "the weights differ"


def origin(baseline: Baseline, *, promoted: bool) -> BaselineOrigin:
    """Return what readers are shown of a baseline's origin."""
    signer = baseline.signature.signer if baseline.signature else "none"
    found = baseline.provenance
    if found is None:
        return BaselineOrigin(signer=signer, promoted=promoted)
    weights = found.weights
    dtype, device = (next(iter(kinds), "unknown") for kinds in (weights.dtypes, weights.devices))
    return BaselineOrigin(weights.digest[:16] or "unknown", dtype, device, found.versions.get("torch", "unknown"), signer, promoted)
