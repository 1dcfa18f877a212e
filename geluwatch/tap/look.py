"""What is done with one call of one GELU, however it was met: guard it, and on sampled passes capture rows.

The guard looks at every forward pass. A small output is looked at whole. A large one is left to the dense layer that
consumes it, whose first output column is non-finite in every row in which its input was: reading one element a row
instead of all of them. Where that layer does not come, or the output was written to before, it is looked at whole after all. Under
`torch.inference_mode` torch counts no writes: what a model repairs in place there, between the two, is not seen.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import torch
from torch import nn

from geluwatch.tap import guard
from geluwatch.tap._compat import capturing, dispatch_modes, function_modes, transformed, unreadable, unseen
from geluwatch.tap.rows import DTYPES, Captured, Formula, Kept, capture, rows_of, watchable
from geluwatch.tap.shared import Tap
from geluwatch.tap.state import Latest, Pending, ThreadState

LARGE = 1 << 18
"""Elements from which an output is left to its consumer; below, a second hook costs more than reading it all."""


def see(tap: Tap, state: ThreadState, site: int, args: tuple[Any, ...], output: Any, *, training: bool, relay: bool = True) -> None:
    """Watch one call: guard it, and capture rows on sampled passes.

    Args:
        tap: What the hooks of the model share.
        state: This thread's state.
        site: Position of the call site.
        args: The GELU's positional arguments, one tensor where it can be watched.
        output: Its result, of the same shape.
        training: Whether its module is in training mode.
        relay: Whether a large output may be left to the dense layer behind it.
    """
    try:
        with unseen():
            if state.replay is not None:
                state.replay.see(site, args, output)
                return
            if (site not in tap.called or type(output) is not torch.Tensor) and not admit(tap, site, args, output):
                return
            if tap.compiled:
                state.met.add(site)
            _look(tap, state, site, args[0], output, training=training, relay=relay)
    except Exception as error:  # noqa: BLE001  # nothing may leave a hook
        failed(tap, "guard", site, args, output, error)


def plainly(tap: Tap, site: int, args: tuple[Any, ...], output: Any, *, training: bool, relay: bool = True) -> bool:
    """Do what is to be done of a call in a plain pass, and return whether that was all; where not, nothing has been done.

    This is the way of nearly every call: it gave something finite, or something large that is left to its consumer. Between
    two GELUs the weights of a layer go through every cache, so what takes few lines in few functions is several times
    cheaper than the same in many. The arguments are those of `see`.
    """
    try:
        state = tap.local.state
        # Modes first, for a user's would see what is asked of a tensor.
        if not (state.plain and state.pending is None and site in tap.called) or dispatch_modes() or function_modes():
            return False
        if type(output) is not torch.Tensor or not output.is_cpu:
            return False
        if output.numel() < LARGE:
            if output.requires_grad or not guard.plainly_finite(output):
                return False
        elif not relay or site not in tap.relayed or (site, training) in tap.missed or transformed(output) or output.is_nested:
            return False
        else:
            state.pending = Pending(site, training, version(args[0]), version(output), args[0], output)
        if tap.compiled:
            state.met.add(site)
    except Exception:  # noqa: BLE001  # it comes again in the long way, where it is counted
        return False
    return True


def see_overwritten(tap: Tap, state: ThreadState, site: int, output: torch.Tensor, kept: Kept | None) -> None:
    """Watch one call that wrote its output over its input; `kept` holds the rows of the input, taken before.

    A GELU of finite values is finite, so what is non-finite in the output was so in the input.
    """
    try:
        if state.replay is not None:
            state.replay.see_overwritten(site, output, kept)
            return
        if site not in tap.called and not admit(tap, site, (output,), output):
            return
        if tap.compiled:
            state.met.add(site)
        with unseen():
            if tap.breaker.allows("guard"):
                if output.is_cpu:
                    _guard(tap, state, site, output, output)
                else:
                    _look_there(tap, state, site, output, output)
            if kept is not None and site in tap.called:
                layer, dtype = tap.sites[site].layer, DTYPES[output.dtype]
                tap.keep(state, Captured(layer, dtype, kept.rows, rows_of(output, kept.indices)))
    except Exception as error:  # noqa: BLE001  # nothing may leave a hook
        failed(tap, "guard", site, (output,), output, error)


def see_gate(tap: Tap, state: ThreadState, site: int, gate: torch.Tensor, formula: Formula) -> None:
    """Watch the half of a gated module's input that goes through the GELU, whose result is never seen by itself.

    A GELU of finite values is finite: the input alone tells whether anything is wrong, and rows of the result are made
    anew from those of the input.
    """
    try:
        if state.replay is not None:
            state.replay.see_gate(site, gate, formula)
            return
        if site not in tap.called and not admit(tap, site, (gate,), gate):
            return
        if tap.compiled:
            state.met.add(site)
        with unseen():
            if tap.breaker.allows("guard"):
                if not gate.is_cpu:
                    _look_there(tap, state, site, gate, gate)
                elif guard.suspicious(gate):
                    tap.check(state, site, gate, formula(gate.detach()))
            if state.sampled and site in tap.called and tap.breaker.allows("rows"):
                _capture(tap, state, site, gate, formula)
    except Exception as error:  # noqa: BLE001  # nothing may leave a hook
        failed(tap, "guard", site, (gate,), gate, error)


def rows_before(tap: Tap, state: ThreadState, site: int, values: torch.Tensor) -> Kept | None:
    """Return the rows of an input that is about to be overwritten; None where none are wanted."""
    try:
        if state.replay is not None:
            return state.replay.before(values)
        if not state.sampled or not tap.breaker.allows("rows") or not values.is_cpu or not admit(tap, site, (values,), values):
            return None
        with unseen():
            indices = _indices(tap, state, site, values) if _has_rows(tap, site, values) else None
            if indices is None or not indices.numel():
                return None
            return Kept(rows_of(values, indices), indices)
    except Exception as error:  # noqa: BLE001  # nothing may leave a hook
        failed(tap, "rows", site, (values,), values, error)
        return None


def admit(tap: Tap, site: int, args: tuple[Any, ...], output: Any) -> bool:
    """Note that a site runs, or why it cannot be watched; return whether it can."""
    if reason := _refusal(args, output):
        tap.unwatchable[site] = reason
        tap.called.discard(site)
        return False
    tap.unwatchable.pop(site, None)
    tap.called.add(site)
    if half := _half(args[0]):
        tap.gates[site] = half
    return True


def _half(values: torch.Tensor) -> str:
    """Return which half of a wider tensor's last dimension values are a view of, as gates are; empty where they are none."""
    width = values.shape[-1] if values.dim() > 1 else 0
    if not width or values.stride(-1) != 1 or values.stride(-2) != 2 * width or values.untyped_storage().nbytes() < 2 * values.nbytes:
        return ""
    return "second half" if values.storage_offset() % (2 * width) else "first half"


def failed(tap: Tap, part: str, site: int, args: tuple[Any, ...], output: Any, error: Exception) -> None:
    """Blame a failure on a call that cannot be watched, else on a part of the agent."""
    try:
        if not admit(tap, site, args, output):
            return
        if transformed(output):
            tap.unwatchable[site] = "inside a torch.func transform"
            tap.called.discard(site)
            return
    except Exception:  # noqa: BLE001, S110  # the failure to be counted is the first
        pass
    tap.breaker.trip(part, error)


def dense(module: nn.Module) -> bool:
    """Return whether a module is a plain floating-point dense layer, in which a non-finite input cannot get lost."""
    kind = type(module)
    if (kind is not nn.Linear and not _transposed(kind)) or "forward" in module.__dict__:
        return False
    weight = module._parameters.get("weight")  # noqa: SLF001  # by name it is searched for in three places
    # A sparse weight leaves out the products with its zeros, and with them what is non-finite there.
    return type(weight) is nn.Parameter and weight.layout is torch.strided and weight.is_floating_point() and weight.numel() > 0


def _transposed(kind: type[nn.Module]) -> bool:
    """Return whether a class is the dense layer of GPT-2, a linear one whose weights lie the other way round."""
    return kind.__name__ == "Conv1D" and kind.__module__.startswith("transformers.")


def version(tensor: torch.Tensor) -> int | None:
    """Return how often a tensor has been written to, where that is tracked."""
    return None if tensor.is_inference() else tensor._version  # noqa: SLF001  # the only name it has


def total(tensor: torch.Tensor) -> float:
    """Return a sum that tells whether a CPU tensor was changed; elsewhere reading it would mean a wait."""
    return float(tensor.detach().sum()) if tensor.is_cpu else 0.0


def _look(tap: Tap, state: ThreadState, site: int, pre: torch.Tensor, post: torch.Tensor, *, training: bool, relay: bool) -> None:
    if tap.breaker.allows("guard"):
        if state.pending is not None:
            tap.settle(state, missed=True)
        if tap.learning and state.depth:
            if state.channels is not None and pre is state.channels[0]:
                tap.channels.setdefault(site, state.channels[1])
            state.latest = Latest(site, post, total(post))
        if not post.is_cpu:
            _look_there(tap, state, site, pre, post)
        elif post.numel() < LARGE or not relay or not _relayed(tap, state, site, training=training):
            _guard(tap, state, site, pre, post)
        elif unreadable(post) or post.is_nested:
            raise RuntimeError("values that cannot be read")  # as reading a small output does
        else:
            state.pending = Pending(site, training, version(pre), version(post), pre, post)
    if (state.sampled or (not state.depth and _borrows(tap, state))) and site in tap.called and tap.breaker.allows("rows"):
        _capture(tap, state, site, pre, post)


def _borrows(tap: Tap, state: ThreadState) -> bool:
    """Return whether a thread without a pass works for a sampled one, as parallel branches do; it draws rows of its own."""
    host = tap.host(state)
    state.indices, state.choices, state.turns = {}, {}, {}
    return host is not None and host.sampled


def _guard(tap: Tap, state: ThreadState, site: int, pre: torch.Tensor, post: torch.Tensor) -> None:
    if guard.suspicious(post) or (tap.clips[site] and guard.suspicious(pre)):
        tap.check(state, site, _rowwise(tap, site, pre), _rowwise(tap, site, post))


def _rowwise(tap: Tap, site: int, values: torch.Tensor) -> torch.Tensor:
    """Return a view of values with their channels last."""
    return values.movedim(tap.channels[site], -1) if site in tap.channels and values.dim() >= -tap.channels[site] else values


def _look_there(tap: Tap, state: ThreadState, site: int, pre: torch.Tensor, post: torch.Tensor) -> None:
    if post.is_meta:
        admit(tap, site, (pre,), post)
        return
    captured = capturing(post.device)
    (tap.captured.add if captured else tap.captured.discard)(site)
    post = _rowwise(tap, site, post)
    sides = (post, _rowwise(tap, site, pre)) if tap.clips[site] else (post,)
    host = state if state.depth else tap.host(state)
    if host is None:
        tap.device_guard.look_alone(site, sides)
        return
    host.away = True
    tap.device_guard.look(site, sides, tap.mask(state, post), captured=captured, board=host.board)


def _relayed(tap: Tap, state: ThreadState, site: int, *, training: bool) -> bool:
    """Return whether a large output is left to its consumer in this pass; ask for the consumer's hook where not."""
    if site in tap.relayed:
        return bool(state.depth) and (site, training) not in tap.missed
    if not tap.clips[site]:
        tap.large.add(site)
    return False


def _capture(tap: Tap, state: ThreadState, site: int, pre: torch.Tensor, post: torch.Tensor | Formula) -> None:
    began = perf_counter()
    try:
        pre = _rowwise(tap, site, pre)
        post = _rowwise(tap, site, post) if isinstance(post, torch.Tensor) else post
        if not _has_rows(tap, site, pre):
            return
        if pre.is_cpu:
            indices = _indices(tap, state, site, pre)
            if indices.numel():
                tap.keep(state, capture(tap.sites[site].layer, pre, post, indices))
        else:
            _capture_there(tap, state, site, pre, post)
    except Exception as error:  # noqa: BLE001  # nothing may leave a hook
        failed(tap, "rows", site, (pre,), pre, error)
    finally:
        state.spent += perf_counter() - began


def _has_rows(tap: Tap, site: int, pre: torch.Tensor) -> bool:
    """Return whether a site's values are rows of channels: its last dimension has always been the same."""
    if not pre.numel() or not pre.dim():
        return False
    width = pre.shape[-1]
    known = tap.widths.setdefault(site, width)
    if width != known and site not in tap.rowless:
        tap.rowless[site] = f"guarded, but gives no rows: its last dimension varies ({known}, {width}), so it is not channels"
    return site not in tap.rowless


def _indices(tap: Tap, state: ThreadState, site: int, pre: torch.Tensor) -> torch.Tensor:
    indices = state.indices.get(pre.shape[:-1])
    if indices is None:
        mask = tap.mask(state, pre)
        indices = tap.picker.pick(pre.shape[:-1].numel(), mask, lambda valid: tap.rows_wanted(state, site, pre, valid))
        state.indices[pre.shape[:-1]] = indices
    # The same rows at every site, and an even share of those that one may give in a pass from each call of one that is called again:
    # were the first calls to give all, what a window holds would hang on how long requests are.
    state.turns[site] = turns = state.turns.get(site, 0) + 1
    return tap.picker.some(indices, max(tap.config.rows_per_forward // max(state.turns_before.get(site, 1), turns), 1))


def _capture_there(tap: Tap, state: ThreadState, site: int, pre: torch.Tensor, post: torch.Tensor | Formula) -> None:
    if capturing(pre.device):
        return
    state.away = True
    key = (pre.shape[:-1], pre.device)
    choice = state.choices.get(key)
    if choice is None:
        choice = state.choices[key] = tap.choose_there(state, site, pre)
    if choice.indices.numel():
        tap.device_rows.capture(tap.sites[site].layer, pre, post, choice)
        if not state.depth:  # the end of a pass does not come here, and more and more would be under way
            for captured in tap.device_rows.arrived():
                tap.keep(state, captured)


def _refusal(args: tuple[Any, ...], output: Any) -> str:
    """Return why a GELU's call cannot be watched, or an empty string when it can."""
    if len(args) == 1 and isinstance(args[0], torch.Tensor) and isinstance(output, torch.Tensor):
        return watchable(args[0], output)
    return "called without a single positional tensor, or returned none"
