"""Makes the variants of a model, sends the same inputs through all of them, and puts together what was seen."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from geluwatch.analysis.compare import call_of, compare_models, whole
from geluwatch.analysis.outputs import rows_of
from geluwatch.analysis.shadow import variants as forms
from geluwatch.analysis.shadow.measure import Candidate, Outputs, labels_of, timings, turns
from geluwatch.analysis.shadow.result import Shadow, Timing, Variant
from geluwatch.config import Config
from geluwatch.core.experiment import FEWEST_ROUNDS
from geluwatch.errors import AttachError, ConfigError
from geluwatch.records import LayerDifference

if TYPE_CHECKING:
    from torch import nn

    from geluwatch.tap.substitute import Activation, Swapped

ROUNDS = 30

TABLE_ENTRIES = 256

_TRACED = 2
"""Passes in which every layer is compared; more would say the same, and each holds all values of a pass in memory."""


def shadow(
    model: nn.Module,
    inputs: Iterable[Any],
    labels: Iterable[Any] | None = None,
    *,
    variants: Mapping[str, Callable[..., Any]] | None = None,
    rounds: int = ROUNDS,
    cost_per_hour: float | None = None,
    table_entries: int = TABLE_ENTRIES,
    call: Callable[[nn.Module, Any], Any] | None = None,
    outputs: Callable[[Any], Any] | None = None,
    config: Config | None = None,
) -> Shadow:
    """Send the same inputs through a model and through variants of it, and measure what differs and what it saves.

    The variants are the model with every GELU replaced by its tanh form, its sigmoid form ("quick"), ReLU and a lookup table, and the model
    with its linear layers in int8 ("int8", on CPUs). Where some GELU of the model is not the erf form, so is "exact".

    Args:
        model: The model; it is copied, not run, and stays as it is. Copies are run in evaluation mode, without gradients.
        inputs: What to send, one forward pass each: a mapping is given as keyword arguments, a tuple as positional ones, anything
            else as the only one.
        labels: For each pass the right answers, one for each row of its output; those below 0 stand for none.
        variants: More of them by name: a function of a tensor, or a module without children, stands in place of every GELU; a module with
            children is a model of its own, which is given the same inputs.
        rounds: Rounds of timing, each of one input through all of them in random order; 0 takes no times.
        cost_per_hour: Price of an hour of this machine.
        table_entries: Entries of the lookup table, 16 to 65,536.
        call: Makes the pass of a model and an input.
        outputs: Takes from what the model returns the tensor (..., entries) to compare; without it the tensor, its `logits`, or the first
            one. Its first dimension counts inputs; the largest entry of a row is its answer.
        config: For its `gelu_classes` and `padding`; rows of padding are not compared within the model.

    Raises:
        AttachError: The model cannot be copied, has no GELU, or none that can be replaced.
        ConfigError: There is no input, labels do not fit, no tensor is found in the output, or an argument is unusable.
    """
    import torch

    _check(rounds, cost_per_hour)
    items = list(inputs)
    if not items:
        raise ConfigError("There is no input to run the variants on; give at least one.")
    experiment = _Experiment(model, items, call or call_of, config or Config())
    with torch.no_grad():
        experiment.prepare(variants or {}, forms.check_entries(table_entries))
        experiment.send(outputs, None if labels is None else list(labels))
        return experiment.result(rounds, cost_per_hour)


def _check(rounds: int, cost_per_hour: float | None) -> None:
    if isinstance(rounds, bool) or not isinstance(rounds, int) or 0 < rounds < FEWEST_ROUNDS or rounds < 0:
        raise ConfigError(f"rounds must be 0 or a whole number of at least {FEWEST_ROUNDS}, got {rounds!r}.")
    if cost_per_hour is not None and not (cost_per_hour >= 0 and math.isfinite(cost_per_hour)):
        raise ConfigError(f"cost_per_hour must be a number of at least 0, got {cost_per_hour!r}.")


@dataclass(slots=True)
class _Shadowed:
    """A variant while it is measured."""

    name: str
    about: str
    copy: Swapped
    candidate: Candidate
    replaces: bool
    """Whether it is the model with other activations, and not a model of its own."""
    calls: int = 0
    seen: Outputs = field(default_factory=Outputs)


class _Experiment:
    """A model as it is, its variants, and what they gave."""

    def __init__(self, model: nn.Module, items: Sequence[Any], run: Callable[[nn.Module, Any], Any], config: Config) -> None:
        from geluwatch.tap.substitute import Substitute, Swapped

        self._model, self._items, self._run = model, items, run
        self._config = whole(config)
        self._classes = config.gelu_classes
        # In the variants, what was put in the place of a GELU is listened to as one.
        self._traced = Config(gelu_classes=(*config.gelu_classes, Substitute), padding=config.padding)
        self._known = Swapped(model, None, self._classes)
        self._candidate = Candidate(self._known.running, run)
        self._shadowed: list[_Shadowed] = []
        self._left_out: dict[str, str] = {}
        self._samples: list[int] = []
        self._sites, self._declared = self._heard()

    def _heard(self) -> tuple[Mapping[str, int], frozenset[str]]:
        """Return how often each GELU of the census is called in a pass of the first input, as far as it is heard, and all formulas."""
        from geluwatch.agent import SystemClock
        from geluwatch.tap.source import TorchSource

        source = TorchSource(self._known.model, self._config, SystemClock())
        try:
            self._candidate(self._items[0])
            calls = Counter(rows.layer for rows in source.drain().rows)
            sites = source.sites
        finally:
            source.close()
        return {site.layer: calls[site.layer] for site in sites}, frozenset(site.variant for site in sites)

    def prepare(self, own: Mapping[str, Callable[..., Any]], entries: int) -> None:
        """Make the variants."""
        from torch import nn

        for name, (about, function) in forms.activations(entries).items():
            self._add(name, about, function)
        if self._declared != {"erf"}:
            self._add("exact", *forms.exact())
        self._add_int8()
        for name, given in own.items():
            variant = forms.check_variant(name, given)
            if name in {each.name for each in self._shadowed}:
                raise ConfigError(f"There is a variant named {name!r} already; give it another name.")
            if isinstance(variant, nn.Module) and next(variant.children(), None) is not None:
                self._add_model(name, f"a model of its own, {type(variant).__name__}", variant)
            else:
                self._add(name, f"{_called(variant)} in place of GELU", variant)

    def _add_int8(self) -> None:
        """Add the model in int8 where there is such a copy, and it runs."""
        try:
            self._add_model("int8", *forms.quantised(self._known.model))
        except ConfigError as refused:
            self._left_out["int8"] = str(refused)
            return
        try:
            self._shadowed[-1].candidate(self._items[0])
        except Exception as failure:  # noqa: BLE001  # whatever its kernels raise: the model itself has run
            del self._shadowed[-1]
            told = " ".join(str(failure).split())
            self._left_out["int8"] = f"a pass of it fails: {type(failure).__name__}: {told}"

    def _add(self, name: str, about: str, function: Activation) -> None:
        """Add the model with a function in place of its GELUs; the calls of the first pass that it answers are counted."""
        from geluwatch.tap.substitute import Swapped

        swapped = Swapped(self._model, function, self._classes)
        candidate = Candidate(swapped.running, self._run)
        candidate(self._items[0])
        if not swapped.calls:
            reasons = "; ".join(dict.fromkeys(swapped.kept.values()))
            raise AttachError(f"No GELU of this {type(self._model).__name__} can be replaced: {reasons or 'none was called'}.")
        self._shadowed.append(_Shadowed(name, about, swapped, candidate, replaces=True, calls=swapped.calls))

    def _add_model(self, name: str, about: str, model: nn.Module) -> None:
        from geluwatch.tap.substitute import Swapped

        other = Swapped(model, None, self._classes)
        self._shadowed.append(_Shadowed(name, about, other, Candidate(other.running, self._run), replaces=False))

    def send(self, chosen: Callable[[Any], Any] | None, labels: Sequence[Any] | None) -> None:
        """Send every input through all of them, and keep what tells their outputs apart."""
        if labels is not None and len(labels) != len(self._items):
            raise ConfigError(f"There are labels for {len(labels)} passes and inputs for {len(self._items)}; give as many of both.")
        for number, item in enumerate(self._items):
            inputs, known = rows_of(self._candidate(item), chosen)
            answers = None if labels is None else labels_of(labels[number], len(known), number)
            self._samples.append(inputs)
            for each in self._shadowed:
                _, other = rows_of(each.candidate(item), chosen)
                if other.shape != known.shape:
                    shapes = (" x ".join(map(str, rows.shape)) for rows in (known, other))
                    raise ConfigError("The model's output has {} entries and that of variant {name!r} {}.".format(*shapes, name=each.name))
                each.seen.add(known, other, answers)

    def result(self, rounds: int, cost_per_hour: float | None) -> Shadow:
        """Take the times, compare the layers, and return everything."""
        taken = list(turns([self._candidate, *(each.candidate for each in self._shadowed)], self._items, rounds)) if rounds else []
        found = timings([seconds for _, seconds in taken]) if taken else [None] * len(self._shadowed)
        first = self._shadowed[0]
        accuracy = first.seen.accuracy
        return Shadow(
            model=type(self._model).__name__,
            inputs=sum(self._samples),
            rows=first.seen.rows,
            sites=len(self._sites),
            kept=tuple(first.copy.kept.items()),
            variants=tuple(self._variant(each, timing) for each, timing in zip(self._shadowed, found, strict=True)),
            left_out=tuple(self._left_out.items()),
            labelled=first.seen.labelled,
            accuracy=accuracy.known if accuracy else None,
            seconds=median(seconds[0] / max(self._samples[number], 1) for number, seconds in taken) if taken else None,
            dispatched=self._known.dispatched,
            cost_per_hour=cost_per_hour,
        )

    def _variant(self, each: _Shadowed, timing: Timing | None) -> Variant:
        seen = each.seen
        expected = sum(calls for layer, calls in self._sites.items() if layer not in each.copy.kept) if each.replaces else 0
        return Variant(
            name=each.name,
            about=each.about,
            calls=each.calls,
            expected=expected,
            relative=seen.side.relative,
            largest=seen.side.largest,
            cosine=seen.cosines / max(seen.rows, 1),
            agreement=seen.agreeing / seen.rows if seen.wide and seen.rows else None,
            accuracy=seen.accuracy,
            timing=timing,
            layers=self._layers(each),
        )

    def _layers(self, each: _Shadowed) -> tuple[LayerDifference, ...]:
        """Compare a variant with the model GELU by GELU."""
        entered = {id(copy.model): copy.running for copy in (self._known, each.copy)}

        def run(model: nn.Module, item: Any) -> object:
            with entered.get(id(model), nullcontext)():
                return self._run(model, item)

        try:
            found = compare_models(self._known.model, each.copy.model, self._items[:_TRACED], call=run, config=self._traced)
        except AttachError:  # it has no GELU, or none that can be heard
            return ()
        return tuple(layer for layer in found.layers if layer.layer in self._sites)


def _called(variant: Callable[..., Any]) -> str:
    return getattr(variant, "__name__", type(variant).__name__)
