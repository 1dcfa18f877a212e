"""What runs inside the model: hooks on the root, on every GELU, and on the dense layers behind them.

Every hook is an object that knows its `Tap`; a deepcopy or pickle of a watched model carries inert hooks instead,
so copies are unwatched and independent. No hook raises, waits for a device, or takes a lock. Under a compiler a hook
is traced as nothing; in a recomputation for a backward pass it stands aside.

The guard looks at every forward pass. A small GELU output is looked at whole. A large one is left to the dense
layer that consumes it, whose first output column is non-finite in every row in which its input was: reading one
element a row instead of all of them. Where that layer does not come, the output is looked at whole after all.
"""

from __future__ import annotations

from contextlib import nullcontext
from time import perf_counter
from typing import Any, TypeGuard

import torch
from torch import nn

from geluwatch.tap import guard
from geluwatch.tap._compat import calls_under_way, modes, note_trace, rerun, transformed, unseen
from geluwatch.tap.deferred import Choice
from geluwatch.tap.rows import capture, watchable
from geluwatch.tap.shared import Tap
from geluwatch.tap.state import Latest, Pending, ThreadState

LARGE = 1 << 18
"""Elements from which an output is left to its consumer; below, a second hook costs more than reading it all."""

_LEARNING_PASSES = 3
"""Learning ends with the first pass that returns something, at the latest with this one."""


class _Hook:
    """A hook whose copies do nothing."""

    def __init__(self, tap: Tap) -> None:
        self.tap = tap

    def __reduce__(self) -> tuple[Any, ...]:
        # Takes anything and returns None, and is the standard library's: a model saved while it was watched loads without geluwatch.
        return (getattr, (nullcontext(), "__exit__"))


class RootBegin(_Hook):
    """Forward pre-hook of the root: a forward pass begins."""

    # Hooks with a flag (kwargs) are put on and taken off in two steps, and a pass between them calls without the flag's argument.
    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
        if torch.compiler.is_compiling():
            note_trace()
            return
        tap = self.tap
        try:
            if rerun() or not tap.breaker.allows("root"):
                return
            state = tap.state()
            if state.depth:
                self._mend(state, module)
            state.depth += 1
            if state.depth == 1:
                state.begin(args, kwargs or {}, sampled=tap.pacer.take(tap.clock.monotonic()))
                state.meter.begin()
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            tap.breaker.trip("root", error)

    @staticmethod
    def _mend(state: ThreadState, module: nn.Module) -> None:
        """Finish a pass that was cut off without its end hook: torch runs none on KeyboardInterrupt and its like."""
        outer = max(calls_under_way(module) - 1, 0)
        if outer < state.depth:
            state.depth = outer
            if not outer:
                state.end()


class RootEnd(_Hook):
    """Forward hook of the root, called also when the forward raised: the pass ends."""

    def __call__(self, _module: nn.Module, args: tuple[Any, ...], *rest: Any) -> None:
        if torch.compiler.is_compiling():
            note_trace()
            return
        tap = self.tap
        try:
            if rerun():
                return
            state = tap.state()
            if state.depth > 1:
                state.depth -= 1
            elif state.depth == 1:
                self._end(tap, state, args, rest)
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            tap.breaker.trip("root", error)

    @staticmethod
    def _end(tap: Tap, state: ThreadState, args: tuple[Any, ...], rest: tuple[Any, ...]) -> None:
        raised = rest[-1] is None
        tap.measure(state, args, rest[0] if len(rest) > 1 else {})
        try:
            if state.pending is not None:
                with unseen():
                    tap.settle(state, missed=not raised)
            if state.away:
                tap.device_guard.end_pass()
                for captured in tap.device_rows.arrived():
                    tap.keep(state, captured)
            if state.sampled:
                hold = min(tap.config.flush_seconds, 1.0) if state.cramped else 0.0
                tap.pacer.spent(tap.clock.monotonic(), state.spent, state.had, state.taken, hold)
        finally:
            state.end()
            tap.learning = tap.learning and raised and state.counters.forwards < _LEARNING_PASSES
            state.counters.last_forward = tap.clock.time()


class CallerBegin(_Hook):
    """Forward pre-hook of a module that shares its GELU with others: the GELU's next calls are its."""

    def __init__(self, tap: Tap, group: int, site: int) -> None:
        super().__init__(tap)
        self.group, self.site = group, site

    def __call__(self, _module: nn.Module, _args: tuple[Any, ...]) -> None:
        if not torch.compiler.is_compiling():
            # The group is a site number, not the GELU's id: replicas of a module have other ids and the same hooks.
            self.tap.enter_caller(self.group, self.site)


class CallerEnd(_Hook):
    """Forward hook of such a module, called also when it raised: the GELU's calls are the outer caller's again."""

    def __init__(self, tap: Tap, group: int) -> None:
        super().__init__(tap)
        self.group = group

    def __call__(self, _module: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
        if not torch.compiler.is_compiling():
            self.tap.leave_caller(self.group)


class SiteHook(_Hook):
    """Forward hook of a GELU: guards it, and on sampled forwards captures rows."""

    def __init__(self, tap: Tap, site: int, *, clips: bool, shared: bool) -> None:
        super().__init__(tap)
        self.site, self.clips, self.shared = site, clips, shared

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if torch.compiler.is_compiling():
            note_trace()
            return
        tap = self.tap
        site = self.site
        try:
            state = tap.state()
            if self.shared and (callers := state.callers.get(site)):
                site = callers[-1]
            if tap.gradients is not None:  # in a recomputation too: of a reentrant checkpoint, only that has a graph
                tap.gradients.follow(site, output)
            if not state.depth and rerun():
                return
            if (site not in tap.called or type(output) is not torch.Tensor) and not self._admit(site, args, output):
                return
            if modes():
                with unseen():
                    self._look(tap, state, site, module, args[0], output)
            else:
                self._look(tap, state, site, module, args[0], output)
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            self._failed("guard", site, args, output, error)

    def _admit(self, site: int, args: tuple[Any, ...], output: Any) -> bool:
        """Note that a site runs, or why it cannot be watched; return whether it can."""
        if reason := _refusal(args, output):
            self.tap.unwatchable[site] = reason
            self.tap.called.discard(site)
            return False
        self.tap.unwatchable.pop(site, None)
        self.tap.called.add(site)
        return True

    def _failed(self, part: str, site: int, args: tuple[Any, ...], output: Any, error: Exception) -> None:
        """Blame a failure on a call that cannot be watched, else on a part of the agent."""
        try:
            if not self._admit(site, args, output):
                return
            if transformed(output):
                self.tap.unwatchable[site] = "inside a torch.func transform"
                self.tap.called.discard(site)
                return
        except Exception:  # noqa: BLE001, S110  # the failure to be counted is the first
            pass
        self.tap.breaker.trip(part, error)

    def _look(self, tap: Tap, state: ThreadState, site: int, module: nn.Module, pre: torch.Tensor, post: torch.Tensor) -> None:
        if tap.breaker.allows("guard"):
            if state.pending is not None:
                tap.settle(state, missed=True)
            if tap.learning:
                state.latest = Latest(site, post, _total(post))
            if not post.is_cpu:
                self._look_there(tap, state, site, pre, post)
            elif post.numel() < LARGE or not self._relayed(tap, state, site, module.training):
                if guard.suspicious(post) or (self.clips and guard.suspicious(pre)):
                    tap.check(state, site, pre, post)
            else:
                state.pending = Pending(site, module.training, _version(post), pre, post)
        if state.sampled and site in tap.called and tap.breaker.allows("rows"):
            self._capture(tap, state, site, pre, post)

    def _look_there(self, tap: Tap, state: ThreadState, site: int, pre: torch.Tensor, post: torch.Tensor) -> None:
        if post.is_meta:
            self._admit(site, (pre,), post)
        else:
            state.away = True
            tap.device_guard.look(site, (post, pre) if self.clips else (post,), tap.mask(state, post.shape))

    def _relayed(self, tap: Tap, state: ThreadState, site: int, training: bool) -> bool:
        """Return whether a large output is left to its consumer in this pass; ask for the consumer's hook where not."""
        if site in tap.relayed:
            return bool(state.depth) and (site, training) not in tap.missed
        if not self.clips:
            tap.large.add(site)
        return False

    def _capture(self, tap: Tap, state: ThreadState, site: int, pre: torch.Tensor, post: torch.Tensor) -> None:
        began = perf_counter()
        try:
            if not pre.numel() or not pre.dim() or not self._fixed_width(tap, site, pre.shape[-1]):
                return
            if pre.is_cpu:
                self._capture_here(tap, state, site, pre, post)
            else:
                self._capture_there(tap, state, site, pre, post)
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            self._failed("rows", site, (pre,), post, error)
        finally:
            state.spent += perf_counter() - began

    @staticmethod
    def _fixed_width(tap: Tap, site: int, width: int) -> bool:
        """Return whether a site's last dimension has always been the same, as that of channels is."""
        known = tap.widths.setdefault(site, width)
        if width != known and site not in tap.rowless:
            tap.rowless[site] = f"guarded, but gives no rows: its last dimension varies ({known}, {width}), so it is not channels"
        return site not in tap.rowless

    @staticmethod
    def _capture_here(tap: Tap, state: ThreadState, site: int, pre: torch.Tensor, post: torch.Tensor) -> None:
        indices = state.indices.get(pre.shape[:-1])
        if not isinstance(indices, torch.Tensor):
            mask = tap.mask(state, pre.shape)
            indices = tap.picker.pick(pre.shape[:-1].numel(), mask, lambda valid: tap.rows_wanted(state, site, pre, valid))
            state.indices[pre.shape[:-1]] = indices
        if indices.numel():
            tap.keep(state, capture(tap.sites[site].layer, pre, post, indices))

    @staticmethod
    def _capture_there(tap: Tap, state: ThreadState, site: int, pre: torch.Tensor, post: torch.Tensor) -> None:
        state.away = True
        choice = state.indices.get(pre.shape[:-1])
        if not isinstance(choice, Choice):
            choice = tap.choose_there(state, site, pre)
            state.indices[pre.shape[:-1]] = choice
        if choice.indices.numel():
            tap.device_rows.capture(tap.sites[site].layer, pre, post, choice)


class ConsumerHook(_Hook):
    """Forward hook of the dense layer behind a GELU: one column of its output stands for the GELU's whole output."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        tap = self.tap
        try:
            state = tap.state()
            pending = state.pending
            if pending is None or not args or args[0] is not pending.post:
                return
            if not dense(module) or type(output) is not torch.Tensor or _version(pending.post) != pending.version:
                return  # left pending, so that it is looked at whole
            with unseen():
                state.pending = None
                if guard.suspicious_column(output):
                    tap.check(state, pending.site, pending.pre, pending.post)
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            tap.breaker.trip("guard", error)


class LearnConsumer(_Hook):
    """Forward pre-hook of every dense layer during the first pass: whose output does it take, just as it left the GELU?"""

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if torch.compiler.is_compiling():
            return
        tap = self.tap
        if not tap.learning:
            return
        try:
            latest = tap.state().latest
            if latest is None or not args or args[0] is not latest.post or not dense(module):
                return
            with unseen():
                if _total(latest.post) == latest.total:
                    tap.consumers[latest.site] = module
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            tap.breaker.trip("guard", error)


def dense(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Return whether a module is a plain floating-point dense layer, in which a non-finite input cannot get lost."""
    if type(module) is not nn.Linear or "forward" in module.__dict__ or not module.out_features:
        return False
    return type(module.weight) is nn.Parameter and module.weight.is_floating_point()


def _refusal(args: tuple[Any, ...], output: Any) -> str:
    """Return why a GELU's call cannot be watched, or an empty string when it can."""
    if len(args) == 1 and isinstance(args[0], torch.Tensor) and isinstance(output, torch.Tensor):
        return watchable(args[0], output)
    return "called without a single positional tensor, or returned none"


def _version(tensor: torch.Tensor) -> int | None:
    """Return how often a tensor has been written to, where that is tracked."""
    return None if tensor.is_inference() else tensor._version  # noqa: SLF001  # the only name it has


def _total(tensor: torch.Tensor) -> float:
    """Return a sum that tells whether a CPU tensor was changed; elsewhere reading it would mean a wait."""
    return float(tensor.detach().sum()) if tensor.is_cpu else 0.0
