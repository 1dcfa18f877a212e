"""Runs again what a bundle holds: the GELU on the rows that were kept, or the model on the inputs of the failing pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geluwatch.analysis.incident import inputs as inputs_of
from geluwatch.analysis.incident import kinds
from geluwatch.analysis.incident.inputs import Inputs
from geluwatch.bundles.bundle import Bundle, read
from geluwatch.errors import IncidentError
from geluwatch.records import Evidence, Nonfinite, Point

if TYPE_CHECKING:
    import torch
    from torch import nn

_Found = Mapping[str, Mapping[tuple[Point, str], int]]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a replay met."""

    first: str | None
    """The first layer with a NaN or an Inf; None where there was none."""
    nonfinite: _Found
    """Elements by layer, then by (point, kind); no kinds where they are on an accelerator."""

    def __str__(self) -> str:
        if self.first is None:
            return "no NaN or Inf at any GELU"
        at = self.nonfinite[self.first]
        return f"NaN or Inf first at {self.first}: before the GELU {kinds.told(at, 'pre')}, after it only {kinds.told(at, 'post')}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a replay says of a bundle."""

    reproduced: bool
    whole: bool
    """Whether a whole pass was run, or the GELU on the rows."""
    how: str
    """What was run, in words."""
    seen: Seen
    expected: Seen
    """What the bundle holds."""


def replayed(bundle: Bundle, model: nn.Module | None = None, inputs: Inputs | None = None) -> Outcome:
    """Run a bundle again in the way that says most: the whole pass where there are a model and inputs, else the GELU on its rows.

    Args:
        bundle: As it was read.
        model: The model, in the state that failed or a mended one.
        inputs: What to call it with; the inputs of the bundle where none are given.

    Raises:
        IncidentError: What there is does not suffice; the message says what is wanting and how to get it.
    """
    if not bundle.evidence and bundle.manifest["kind"] != "nonfinite":
        raise IncidentError(
            f"{bundle.path} holds no NaN and no Inf, and only these are replayed; `geluwatch incident show` says what it is of."
        )
    expected = _expected(bundle)
    whole = model is not None and (inputs is not None or any(_is_whole(kept) for kept in bundle.evidence))
    if whole and model is not None:
        seen, how = run_pass(bundle, model, inputs), "one pass of the model"
    elif _has_arisen(bundle):
        seen, how = run_rows(bundle, model), "the model's own layer on the rows" if model is not None else "the declared GELU on the rows"
    elif model is not None:
        raise IncidentError(inputs_of.wanting(bundle))
    else:
        raise IncidentError(
            f"The rows of {bundle.path} were not finite before the GELU already, or are not there, so the layers before it have to run; "
            "give --model package.module:function."
        )
    return Outcome(_is_same(seen, expected), whole, how, seen, expected)


def run_pass(bundle: Bundle | Path | str, model: nn.Module, inputs: Inputs | None = None) -> Seen:
    """Run one watched forward pass with the seed, the flags and the mode of a bundle, and return what it met.

    Args:
        bundle: A bundle, or the path of one.
        model: The model. Its training mode, its buffers and the state of torch are put back afterwards.
        inputs: (args, kwargs); the inputs of the bundle where none are given.

    Raises:
        IncidentError: The bundle cannot be read or holds no inputs and none are given, or the pass raised before any NaN or Inf.
    """
    from geluwatch.agent import SystemClock
    from geluwatch.config import Config
    from geluwatch.tap.source import TorchSource

    found = _bundle(bundle)
    args, kwargs = inputs_of.given(found, model) if inputs is None else inputs
    source = TorchSource(model, Config(window_seconds=None, cost_budget=None), SystemClock())
    raised: Exception | None = None
    try:
        with _as_recorded(found, model):
            model(*args, **kwargs)
    except Exception as failure:  # noqa: BLE001  # it is the user's code, which may raise anything, and may raise for the very NaN
        raised = failure
    finally:
        source.close()
    drained = source.drain()
    if raised is not None and drained.first_nonfinite is None:
        raise IncidentError(f"The pass raised {raised!r}, so nothing can be compared; mend the call or the model first.") from raised
    return Seen(drained.first_nonfinite, {layer: seen.elements for layer, seen in drained.nonfinite.items() if _met(seen)})


def run_rows(bundle: Bundle | Path | str, model: nn.Module | None = None) -> Seen:
    """Run the GELU on the rows before it that a bundle holds, in their own dtype, and return what came out.

    Args:
        bundle: A bundle, or the path of one.
        model: Where one is given, its own module of the layer is run; else torch's GELU by the formula that the layer declares.

    Raises:
        IncidentError: There are no such rows, the layer declares no known formula, or the model has no such module.
    """
    import torch

    found = _bundle(bundle)
    rows = found.evidence[0].bad if found.evidence else None
    if rows is None or rows.pre is None:
        raise IncidentError(f"{found.path} holds no rows before the GELU; replay the whole pass with --model and --inputs.")
    pre = torch.from_numpy(rows.pre).to(getattr(torch, rows.dtype))
    with torch.no_grad():
        post = _gelu(found, rows.layer, model)(pre)
    wide = (side if side.dtype is torch.float64 else side.float() for side in (pre, post))
    before, after = (side.numpy() for side in wide)
    counted = _counted(before, after)
    return Seen(rows.layer if counted else None, {rows.layer: counted} if counted else {})


def _gelu(bundle: Bundle, layer: str, model: nn.Module | None) -> Any:
    """Return what computes the GELU of a layer."""
    from geluwatch.tap.names import stable
    from geluwatch.tap.wiring import FORMULAS

    variant = next((site.variant for site in bundle.sites if site.layer == layer), "other")
    if model is not None:
        modules = {stable(name): module for name, module in model.named_modules(remove_duplicate=False)}
        if layer in modules:
            return modules[layer]
    if variant not in FORMULAS:
        raise IncidentError(
            f"The formula of {layer} is not one that geluwatch knows; give --model package.module:function to run its module."
        )
    return FORMULAS[variant]


def _counted(pre: Any, post: Any) -> dict[tuple[Point, str], int]:
    from geluwatch.records import KeptRows

    counted = kinds.count(KeptRows("", "float64", np.arange(len(post)), pre, post))
    return {key: count for key, count in counted.items() if key[0] == "post"}  # what came in is not the GELU's doing


def _expected(bundle: Bundle) -> Seen:
    """Return what a bundle holds of its first layer."""
    kept = bundle.evidence[0] if bundle.evidence else None
    layer = bundle.manifest["layer"] if kept is None else kept.bad.layer
    return Seen(layer, {} if layer is None else {layer: {} if kept is None else kinds.count(kept.bad)})


def _is_same(seen: Seen, expected: Seen) -> bool:
    """Return whether the same layer is first, with values of the kinds that the bundle has; where kinds are unknown, the layer decides."""
    if seen.first is None or seen.first != expected.first:
        return False
    now, then = seen.nonfinite[seen.first], expected.nonfinite[seen.first]
    return not now or set(then) <= set(now)


def _has_arisen(bundle: Bundle) -> bool:
    return bool(bundle.evidence) and bool(kinds.arose_after(bundle.evidence[0].bad).any())


def _is_whole(kept: Evidence) -> bool:
    return kept.called is not None and kept.called.whole


def _met(seen: Nonfinite) -> bool:
    return seen.forwards > 0


def _bundle(bundle: Bundle | Path | str) -> Bundle:
    return bundle if isinstance(bundle, Bundle) else read(Path(bundle))


@contextmanager
def _as_recorded(bundle: Bundle, model: nn.Module) -> Iterator[None]:
    """Run what is inside with the seed, flags and mode of a bundle; put everything back."""
    import torch

    runtime, mode = bundle.runtime, bundle.evidence[0].mode if bundle.evidence else {}
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    deterministic, warn_only = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())), _kept_as_it_is(model), ExitStack() as modes:
            torch.manual_seed(runtime.get("seed", 0))
            torch.use_deterministic_algorithms(
                runtime.get("deterministic", deterministic), warn_only=runtime.get("deterministic_warn_only", warn_only)
            )
            torch.set_float32_matmul_precision(runtime.get("matmul_precision", precision))
            torch.set_num_threads(runtime.get("threads", threads))
            if model.training != runtime.get("training", model.training):  # else parts that are frozen stay so
                model.train(not model.training)
            for context in _modes(mode):
                modes.enter_context(context)
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.set_float32_matmul_precision(precision)
        torch.set_num_threads(threads)


@contextmanager
def _kept_as_it_is(model: nn.Module) -> Iterator[None]:
    """Put back each module's mode, and the buffers, which a pass in training mode may have written to."""
    import torch

    training = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode
        with torch.inference_mode():  # in which tensors of either kind may be written to
            for buffer, value in buffers:
                buffer.copy_(value)


def _modes(mode: Mapping[str, Any]) -> Iterator[torch.autograd.grad_mode.inference_mode | torch.autocast | torch.set_grad_enabled]:
    import torch

    if mode.get("inference"):
        yield torch.inference_mode()
    else:
        yield torch.set_grad_enabled(bool(mode.get("grad", False)))
    if mode.get("autocast"):
        yield torch.autocast("cpu", dtype=getattr(torch, mode["autocast"]))
