"""Passes of stored inputs through the watched model, which are no traffic: they leave rows behind and nothing else.

In the thread that replays, a state of its own stands in for the thread's: the hooks find it, hand what they see to it, and
look no further. So no counter, no pace and no breaker knows of these passes, whatever other threads do meanwhile, and they
see nothing of theirs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from geluwatch.errors import ProbeBusyError, ProbeError
from geluwatch.records import ProbeInput, Rows
from geluwatch.tap import functional, inputs, padding, ranks
from geluwatch.tap._compat import capturing, rerun
from geluwatch.tap.ear import Ear
from geluwatch.tap.rows import DTYPES, Formula, Kept, rows_of, watchable
from geluwatch.tap.shared import Tap
from geluwatch.tap.state import ThreadState
from geluwatch.tap.token import Token


class Listener:
    """What the hooks hand to in the passes of a replay.

    Args:
        tap: What the hooks share.
        values: Most values taken of one call on each side.
    """

    def __init__(self, tap: Tap, values: int) -> None:
        self._tap, self._values = tap, values
        self._mask: torch.Tensor | None = None
        self._rows: list[Rows] = []
        self._failure: Exception | None = None

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note what the next pass is called with."""
        self._mask = padding.from_call(args, kwargs, self._tap.config.padding, self._tap.mask_position)
        self._rows = []

    def end(self) -> tuple[Rows, ...]:
        """Return the rows of the pass, in the order of the calls."""
        if self._failure is not None:
            raise self._failure
        return tuple(self._rows)

    def see(self, site: int, args: tuple[Any, ...], output: Any) -> None:
        """Take the rows of a call."""
        with self._noting():
            if len(args) == 1 and isinstance(args[0], torch.Tensor) and isinstance(output, torch.Tensor):
                indices = self._chosen(args[0], output)
                if indices is not None:
                    self._take(site, rows_of(args[0], indices), rows_of(output, indices))

    def see_gate(self, site: int, gate: torch.Tensor, formula: Formula) -> None:
        """Take the rows of a gated module's call, whose output is made anew."""
        with self._noting():
            indices = self._chosen(gate, gate)
            if indices is not None:
                rows = rows_of(gate, indices)
                self._take(site, rows, formula(rows), derived=True)

    def before(self, values: torch.Tensor) -> Kept | None:
        """Return the rows of an input that is about to be overwritten."""
        try:
            indices = self._chosen(values, values)
            return None if indices is None else Kept(rows_of(values, indices), indices)
        except Exception as error:  # noqa: BLE001  # as in `_noting`
            self._failure = error
            return None

    def see_overwritten(self, site: int, output: torch.Tensor, kept: Kept | None) -> None:
        """Take the rows of a call that wrote its output over its input."""
        with self._noting():
            if kept is not None:
                self._take(site, kept.rows, rows_of(output, kept.indices))

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Keep a failure for the end of the pass, which the model goes through all the same."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  # told by `end`
            self._failure = error

    def _chosen(self, values: torch.Tensor, output: torch.Tensor) -> torch.Tensor | None:
        """Return the numbers of the rows that are taken, evenly over the valid ones; None where values are no rows."""
        if watchable(values, output) or not values.dim() or not values.numel():
            return None
        rows, width = values.shape[:-1].numel(), values.shape[-1]
        mask = padding.for_rows(self._mask, values.shape)
        valid = torch.arange(rows, device=values.device) if mask is None else mask.to(values.device).nonzero().squeeze(1)
        return valid[_evenly(len(valid), max(self._values // width, 1) if self._values else 0, values.device)]

    def _take(self, site: int, pre: torch.Tensor, post: torch.Tensor, *, derived: bool = False) -> None:
        columns = _evenly(pre.shape[-1], self._values or pre.shape[-1], pre.device)
        before, after = (side.detach().index_select(-1, columns).float().cpu().numpy() for side in (pre, post))
        self._rows.append(Rows(self._tap.sites[site].layer, DTYPES[pre.dtype], before, after, derived))


class Replayer:
    """Replays inputs through one watched model."""

    def __init__(self, tap: Tap, ear: Ear) -> None:
        self._tap, self._ear = tap, ear

    def replay(
        self, model: nn.Module, given: Sequence[ProbeInput], values: int, parameters: str, *, gently: bool
    ) -> list[tuple[Rows, ...]]:
        """Return the rows of each input's pass.

        Args:
            model: The watched model.
            given: The inputs, one pass each.
            values: Most values taken of one call on each side; 0 takes rows of no length from all.
            parameters: dtype of the model's parameters that the inputs were made for; "" for the present one.
            gently: Whether to leave alone a model that is in training, or whose passes are recorded.

        Raises:
            ProbeBusyError: Its passes, in this thread or in others, do not allow it now.
            ProbeError: A pass raised, or wrote to a buffer.
        """
        device = device_of(model)
        self._refuse_if_busy(model, device, gently=gently)
        cast = _cast(parameters, parameters_of(model))
        listener = Listener(self._tap, values)
        before = _buffers(model)
        with _standing_in(self._tap, listener, self._ear), _evaluating(model), _plainly(device):
            rows = [self._pass(model, number, inputs.given(item, device, cast), listener) for number, item in enumerate(given, 1)]
        written = next((name for name, state in _buffers(model).items() if before.get(name) != state), None)
        if written is not None:
            raise ProbeError(
                f"The model's passes write to its buffer {written!r}, so a replay beside traffic would change what the next request "
                "is told; record the baseline without a probe."
            )
        return rows

    def _pass(self, model: nn.Module, number: int, call: tuple[tuple[Any, ...], dict[str, Any]], listener: Listener) -> tuple[Rows, ...]:
        args, kwargs = call
        generators = _generators(device_of(model))
        try:
            listener.begin(args, kwargs)
            model(*args, **kwargs)
            return listener.end()
        except Exception as error:
            first, *_ = *str(error).strip().splitlines(), ""
            reason = f"{type(error).__name__}: {first}".rstrip(": ")
            raise ProbeError(f"Input {number} cannot be sent through the model ({reason}); give inputs that it takes here.") from error
        finally:
            if not _same(generators, _generators(device_of(model))) and _draws(model, args, kwargs):
                _restore(generators)

    def _refuse_if_busy(self, model: nn.Module, device: torch.device, *, gently: bool) -> None:
        own = getattr(self._tap.local, "state", None)
        others = any(state.depth for state in tuple(self._tap.states) if state is not own)
        training = any(module.training for module in model.modules())
        # A loop that trains is most of its time in backward passes and steps: what counts is that it runs passes at all.
        beside = any(state.counters.forwards for state in tuple(self._tap.states) if state is not own and not state.ended)
        if (own is not None and own.depth) or rerun():
            raise ProbeBusyError("A probe cannot be replayed within a forward or a backward pass of this thread; call it between passes.")
        if gently and ranks.rank() is not None:
            raise ProbeBusyError(
                "This process is one of several ranks, and a pass of one alone would answer to the others' collectives; call watch.probe() "
                "on all of them, between the same two passes."
            )
        if capturing(device) or (gently and self._tap.captured):
            raise ProbeBusyError(
                "A probe is not replayed while passes are recorded into CUDA graphs; call watch.probe() when they are not."
            )
        if training and (gently or others or beside):
            raise ProbeBusyError(
                "The model is in training mode, and a replay in evaluation mode beside its passes would change them; call watch.probe() "
                "in the thread that trains, between two steps."
            )
        if gently and others and device.type != "cpu":
            raise ProbeBusyError("Other threads run the model on an accelerator; the probe is replayed when they do not.")


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's first parameter or buffer; the CPU's where it has none."""
    first = next(itertools.chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def parameters_of(model: nn.Module) -> str:
    """Return the dtype of a model's first floating-point parameter as "float32", "" where it has none."""
    return next((str(each.dtype).removeprefix("torch.") for each in model.parameters() if each.is_floating_point()), "")


def _buffers(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Return which tensor each buffer is, and how often it has been written to."""
    return {name: (id(each), 0 if each.is_inference() else each._version) for name, each in model.named_buffers()}  # noqa: SLF001  # torch's word for it


def _cast(before: str, now: str) -> tuple[torch.dtype, torch.dtype] | None:
    """Return the dtypes from which and to which inputs are cast, where the model's parameters have been."""
    return None if not before or not now or before == now else (getattr(torch, before), getattr(torch, now))


def _evenly(count: int, most: int, device: torch.device) -> torch.Tensor:
    """Return at most so many of the numbers from 0 on, ascending, evenly over all of them."""
    taken = min(count, most)
    return torch.as_tensor(np.arange(taken, dtype=np.int64) * count // max(taken, 1), device=device)


@contextmanager
def _standing_in(tap: Tap, listener: Listener, ear: Ear) -> Iterator[None]:
    """Have a state of the replay's own stand in for this thread's."""
    before, token = getattr(tap.local, "state", None), Token()
    tap.local.state = state = ThreadState(len(tap.sites), token, listener)
    try:
        yield
    finally:
        functional.end(state, ear, wholly=True)  # a pass that was interrupted has not
        if before is None:
            del tap.local.state
        else:
            tap.local.state = before


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode by its flags alone: a module's own `train` may do more, as merging adapters' weights."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _plainly(device: torch.device) -> Iterator[None]:
    """Compute without a graph and in the model's own precision, whatever the thread that calls is set to."""
    with torch.inference_mode(mode=False), torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


class _Draws(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Notes whether an operation of this thread draws random numbers."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.any = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # torch gives it
        """Note it, and let the operation run."""
        self.any |= torch.Tag.nondeterministic_seeded in func.tags
        return func(*args, **(kwargs or {}))


def _draws(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether it was this pass that drew from torch's generators, which other threads draw from as well."""
    mode = _Draws()
    try:
        with mode:
            model(*args, **kwargs)
    except Exception:  # noqa: BLE001  # it has raised before, and is told
        return mode.any
    return mode.any


def _generators(device: torch.device) -> dict[torch.device, torch.Tensor]:
    """Return the states of torch's generators that a pass may draw from."""
    states = {torch.device("cpu"): torch.get_rng_state()}
    if device.type == "cuda":
        states[device] = torch.cuda.get_rng_state(device)
    return states


def _same(one: dict[torch.device, torch.Tensor], other: dict[torch.device, torch.Tensor]) -> bool:
    return all(torch.equal(state, other[device]) for device, state in one.items())


def _restore(states: dict[torch.device, torch.Tensor]) -> None:
    for device, state in states.items():
        if device.type == "cuda":
            torch.cuda.set_rng_state(state, device)
        else:
            torch.set_rng_state(state)
