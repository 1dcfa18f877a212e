"""`TorchSource`: puts the hooks on a model, drains what they saw, takes them off again."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from geluwatch.config import Config
from geluwatch.core.totals import add_traffic
from geluwatch.errors import AlreadyAttachedError, AttachError, NoGeluError
from geluwatch.ports import Clock
from geluwatch.records import Drained, Nonfinite, Point, Rows, Site
from geluwatch.tap import padding, usage
from geluwatch.tap._compat import compiled_before
from geluwatch.tap.discover import Found, discover, fused_parts
from geluwatch.tap.hooks import CallerBegin, CallerEnd, ConsumerHook, LearnConsumer, RootBegin, RootEnd, SiteHook, dense
from geluwatch.tap.meter import increase
from geluwatch.tap.ranges import RangeBegin, RangeEnd
from geluwatch.tap.rows import Captured
from geluwatch.tap.shared import Tap
from geluwatch.tap.state import Counters, SiteCounters
from geluwatch.tap.steps import Steps

_attached: weakref.WeakSet[nn.Module] = weakref.WeakSet()


class TorchSource:
    """The tap of one torch model, behind `ports.Source`.

    Raises:
        AttachError: The object is no module.
        NoGeluError: The model holds no known GELU module.
        AlreadyAttachedError: The model is being watched.
    """

    def __init__(self, model: nn.Module, config: Config, clock: Clock) -> None:
        if not isinstance(model, nn.Module):
            raise AttachError(f"Only a torch.nn.Module can be watched, got {type(model).__name__}; pass the model itself.")
        if model in _attached:
            raise AlreadyAttachedError(f"This {type(model).__name__} is being watched already; detach the other watch first.")
        found = discover(model, config.gelu_classes)
        if not found:
            raise NoGeluError(
                f"No GELU module was found in this {type(model).__name__}; if it has one of a class of its own, "
                "name the class in Config(gelu_classes=...)."
            )
        self._model = weakref.ref(model)
        self._tap = Tap(tuple(item.site for item in found), config, clock, padding.argument_position(model))
        self._tap.compiled = compiled_before(model)
        self._handles: list[RemovableHandle] = []
        self._learning: list[RemovableHandle] = []
        self._seen = _Seen(len(found))
        self._firsts: list[tuple[float, int]] = []
        self._closed = False
        self._steps = Steps(self._tap.breaker)
        self._put_on(model, [item for item in found if item.site.state == "observed"])
        _attached.add(model)

    @property
    def framework(self) -> str:
        """Name and version of the framework."""
        return f"torch {torch.__version__}"

    @property
    def sites(self) -> tuple[Site, ...]:
        """The census as it stands: a site that does not run, or cannot be watched, is blind with the reason."""
        tap = self._tap
        tap.follow_traces()
        ran = self._seen.gone.forwards + sum(state.counters.forwards for state in tuple(tap.states)) > 0
        reasons = [site.reason or self._blindness(site.position, ran=ran) for site in tap.sites]
        return tuple(
            replace(site, state="blind" if reason else "observed", reason=reason) for site, reason in zip(tap.sites, reasons, strict=True)
        )

    def _blindness(self, position: int, *, ran: bool) -> str:
        """Return why a site cannot be seen at present, or an empty string where it can."""
        tap = self._tap
        if not tap.breaker.allows("guard"):
            return "the guard failed repeatedly and was switched off"
        if (reason := tap.unwatchable.get(position) or tap.rowless.get(position)) is not None:
            return reason
        if position in tap.called:
            return ""
        if tap.compiled:
            return "not seen to run: code of this model has been compiled, and hooks do not run in compiled code"
        return "never executed: the forward passes so far have not called it" if ran else ""

    def drain(self) -> Drained:
        """Return what was seen since the last call; called from one thread at a time."""
        tap = self._tap
        self._settle_learning()
        rows = tuple(self._take_rows())
        before = self._seen
        self._seen = after = self._add_up()
        by_site = {
            site.layer: delta
            for site in tap.sites
            if (delta := _nonfinite_delta(before.sites[site.position], after.sites[site.position])) is not None
        }
        return Drained(
            forwards=after.total.forwards - before.total.forwards,
            sampled_forwards=after.total.sampled_forwards - before.total.sampled_forwards,
            nonfinite_forwards=after.total.nonfinite_forwards - before.total.nonfinite_forwards,
            samples=after.total.samples - before.total.samples,
            rows=rows,
            nonfinite=by_site,
            first_nonfinite=self._first(by_site),
            dropped_rows=after.total.dropped_rows - before.total.dropped_rows,
            hook_seconds=after.total.hook_seconds - before.total.hook_seconds,
            last_forward=after.total.last_forward,
            errors=_increase(before.failures, after.failures),
            disabled=tap.breaker.disabled,
            traffic=increase(before.total.traffic, after.total.traffic),
            usage=usage.read(),
            training=self._steps.drain(final=self._closed),
        )

    def note_step(self, loss: Any, scaler: Any) -> None:
        """Note that a training step is over.

        Raises:
            ConfigError: The loss is neither a number nor a tensor, or the scaler no GradScaler.
        """
        if not self._closed:
            self._steps.note(loss, scaler)

    def close(self) -> None:
        """Take every hook off."""
        if self._closed:
            return
        self._closed = True
        for handle in (*self._handles, *self._learning):
            handle.remove()
        model = self._model()
        if model is not None:
            _attached.discard(model)

    def _put_on(self, model: nn.Module, observed: list[Found]) -> None:
        if not observed:
            return  # a hook that can see nothing could still cost a fused kernel
        tap, keep = self._tap, self._handles.append
        keep(model.register_forward_pre_hook(RootBegin(tap), with_kwargs=True, prepend=True))
        by_module: dict[nn.Module, list[Found]] = {}
        for item in observed:
            by_module.setdefault(item.module, []).append(item)
        for module, items in by_module.items():
            group, shared = items[0].site.position, len(items) > 1
            keep(module.register_forward_hook(SiteHook(tap, group, clips=items[0].clips, shared=shared)))
            for item in items if shared else ():
                keep(item.caller.register_forward_pre_hook(CallerBegin(tap, group, item.site.position)))
                keep(item.caller.register_forward_hook(CallerEnd(tap, group), always_call=True))
            if tap.config.ranges:
                keep(module.register_forward_pre_hook(RangeBegin(tap, group)))
                keep(module.register_forward_hook(RangeEnd(tap, group), prepend=True, always_call=True))
        # After all others, for the model may be the GELU itself.
        keep(model.register_forward_hook(RootEnd(tap), with_kwargs=True, always_call=True))
        fused = fused_parts(model)
        self._learning = [
            module.register_forward_pre_hook(LearnConsumer(tap)) for module in model.modules() if dense(module) and module not in fused
        ]

    def _settle_learning(self) -> None:
        """After the first pass, take the learning hooks off and look at large outputs through their consumers."""
        tap = self._tap
        if tap.learning or self._closed:
            return
        tap.follow_traces()
        # Compiled code guards the number of hooks that it was compiled with: to take one off is to have it compiled again.
        if not tap.compiled or len(tap.called) == len(tap.sites):
            for handle in self._learning:
                handle.remove()
            self._learning = []
        for site in tuple(tap.large - tap.relayed):
            consumer = tap.consumers.get(site)
            if consumer is not None and dense(consumer):
                # First in line, so that no other hook has changed the output before it is looked at.
                self._handles.append(consumer.register_forward_hook(ConsumerHook(tap), prepend=True))
                tap.relayed |= {site}

    def _take_rows(self) -> Iterator[Rows]:
        tap = self._tap
        for state in tuple(tap.states):
            while state.rows:
                captured = state.rows.popleft()
                state.bytes_out += captured.nbytes
                try:
                    yield _arrays(captured)
                except Exception as error:  # noqa: BLE001  # one batch of rows must not cost the others
                    tap.breaker.trip("rows", error)

    def _add_up(self) -> _Seen:
        """Return the counters of all threads; those of threads that have ended are folded together."""
        tap = self._tap
        gone, gone_sites = self._seen.gone, self._seen.gone_sites
        for state in [state for state in tap.states if state.ended and not state.rows]:
            tap.states.remove(state)
            gone, gone_sites = _add(gone, state.counted()), _add_sites(gone_sites, state.sites)
            self._firsts += state.firsts
        total, sites = gone, gone_sites
        for state in tuple(tap.states):
            if self._closed and state.depth:
                state.end()  # its end hook has been taken off under way
            total, sites = _add(total, state.counted()), _add_sites(sites, state.sites)
        forwards, firsts, passes = tap.device_guard.counts(final=self._closed)
        sites = tuple(
            replace(site, forwards=site.forwards + more, first=site.first + first)
            for site, more, first in zip(sites, forwards, firsts, strict=True)
        )
        if tap.gradients is not None:
            backwards, nearest = tap.gradients.counts(final=self._closed)
            sites = tuple(
                replace(site, backwards=site.backwards + more, first_backward=site.first_backward + first)
                for site, more, first in zip(sites, backwards, nearest, strict=True)
            )
        total = replace(total, nonfinite_forwards=total.nonfinite_forwards + passes)
        return _Seen(len(sites), total, sites, gone, gone_sites, dict(tap.breaker.failures))

    def _first(self, by_site: dict[str, Nonfinite]) -> str | None:
        """Return the first layer of the earliest pass with a hit; where that was on a device, of the first layer that was hit."""
        firsts, self._firsts = self._firsts, []
        for state in tuple(self._tap.states):
            while state.firsts:
                firsts.append(state.firsts.popleft())
        if firsts:
            return self._tap.sites[min(firsts)[1]].layer
        return next((layer for layer, seen in by_site.items() if seen.first), None)


class _Seen:
    """Counters at one drain, to be compared with those at the next."""

    def __init__(
        self,
        count: int,
        total: Counters | None = None,
        sites: tuple[SiteCounters, ...] = (),
        gone: Counters | None = None,
        gone_sites: tuple[SiteCounters, ...] = (),
        failures: dict[str, int] | None = None,
    ) -> None:
        self.total = total or Counters()
        self.sites = sites or tuple(SiteCounters() for _ in range(count))
        self.gone = gone or Counters()
        self.gone_sites = gone_sites or tuple(SiteCounters() for _ in range(count))
        self.failures = failures or {}


def _arrays(captured: Captured) -> Rows:
    return Rows(captured.layer, captured.dtype, captured.pre.float().numpy(), captured.post.float().numpy())


def _add(left: Counters, right: Counters) -> Counters:
    last = max((t for t in (left.last_forward, right.last_forward) if t is not None), default=None)
    return Counters(
        left.forwards + right.forwards,
        left.sampled_forwards + right.sampled_forwards,
        left.nonfinite_forwards + right.nonfinite_forwards,
        left.samples + right.samples,
        left.dropped_rows + right.dropped_rows,
        left.hook_seconds + right.hook_seconds,
        last,
        add_traffic(left.traffic, right.traffic),
    )


def _add_sites(left: Iterable[SiteCounters], right: Iterable[SiteCounters]) -> tuple[SiteCounters, ...]:
    return tuple(
        SiteCounters(
            a.forwards + b.forwards,
            a.first + b.first,
            a.padding_forwards + b.padding_forwards,
            _combine(a.elements, b.elements, lambda x, y: x + y),
            a.backwards + b.backwards,
            a.first_backward + b.first_backward,
        )
        for a, b in zip(left, right, strict=True)
    )


def _nonfinite_delta(before: SiteCounters, after: SiteCounters) -> Nonfinite | None:
    """Return the increase of a site's counters, or None where nothing changed."""
    elements = {key: count for key, count in _combine(after.elements, before.elements, lambda x, y: x - y).items() if count}
    forwards, padding = after.forwards - before.forwards, after.padding_forwards - before.padding_forwards
    backwards = after.backwards - before.backwards
    if not (forwards or padding or elements or backwards):
        return None
    return Nonfinite(forwards, after.first - before.first, padding, elements, backwards, after.first_backward - before.first_backward)


def _combine(
    left: dict[tuple[Point, str], int], right: dict[tuple[Point, str], int], operation: Callable[[int, int], int]
) -> dict[tuple[Point, str], int]:
    # Copied first: the model's thread may be adding a key.
    left, right = dict(left), dict(right)
    return {key: operation(left.get(key, 0), right.get(key, 0)) for key in {**left, **right}}


def _increase(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {part: count - before.get(part, 0) for part, count in after.items() if count > before.get(part, 0)}
