"""`TorchSource`: puts the hooks on a model, drains what they saw, takes them off again."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from geluwatch.config import Config
from geluwatch.errors import AlreadyAttachedError, AttachError, NoGeluError
from geluwatch.ports import Clock
from geluwatch.records import Drained, Nonfinite, Point, Rows, Site
from geluwatch.tap.discover import discover, fused_parts
from geluwatch.tap.hooks import CallerBegin, ConsumerHook, LearnConsumer, RootBegin, RootEnd, SiteHook, Tap, dense
from geluwatch.tap.rows import Captured
from geluwatch.tap.state import Counters, SiteCounters

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
        self._tap = Tap(found, config, clock)
        self._handles: list[RemovableHandle] = []
        self._learning: list[RemovableHandle] = []
        self._guarded: set[int] = set()
        self._seen = _Seen(len(found))
        self._closed = False
        self._put_on(model)
        _attached.add(model)

    @property
    def framework(self) -> str:
        """Name and version of the framework."""
        return f"torch {torch.__version__}"

    @property
    def sites(self) -> tuple[Site, ...]:
        """The census as it stands: a site that does not run, or cannot be watched, is blind with the reason."""
        forwards = sum(state.counters.forwards for state in self._tap.states) + self._seen.gone.forwards
        return tuple(self._state_of(item.site, forwards) for item in self._tap.found)

    def _state_of(self, site: Site, forwards: int) -> Site:
        tap = self._tap
        if site.state == "blind":
            return site
        if not tap.breaker.allows("guard"):
            return replace(site, state="blind", reason="the guard failed repeatedly and was switched off")
        if site.position in tap.unwatchable:
            return replace(site, state="blind", reason=tap.unwatchable[site.position])
        if forwards and site.position not in tap.called:
            return replace(site, state="blind", reason="never executed: unused, or compiled so that its hooks do not run")
        return site

    def drain(self) -> Drained:
        """Return what was seen since the last call; called from one thread at a time."""
        tap = self._tap
        self._settle_learning()
        rows = tuple(_arrays(captured) for captured in self._take_rows())
        before = self._seen
        self._seen = after = self._add_up()
        by_site = {
            item.site.layer: delta
            for item in tap.found
            if (delta := _nonfinite_delta(before.sites[item.site.position], after.sites[item.site.position])) is not None
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
        )

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

    def _put_on(self, model: nn.Module) -> None:
        tap = self._tap
        self._handles += [
            model.register_forward_pre_hook(RootBegin(tap), with_kwargs=True, prepend=True),
            model.register_forward_hook(RootEnd(tap), with_kwargs=True, always_call=True),
        ]
        observed = [item for item in tap.found if item.site.state == "observed"]
        by_module: dict[nn.Module, list[int]] = {}
        for item in observed:
            by_module.setdefault(item.module, []).append(item.site.position)
        for module, positions in by_module.items():
            shared = len(positions) > 1
            hook = SiteHook(tap, positions[0], clips=tap.found[positions[0]].clips, shared=shared)
            self._handles.append(module.register_forward_hook(hook))
            for position in positions if shared else ():
                self._handles.append(tap.found[position].caller.register_forward_pre_hook(CallerBegin(tap, id(module), position)))
        fused = fused_parts(model)
        self._learning = [
            module.register_forward_pre_hook(LearnConsumer(tap)) for module in model.modules() if dense(module) and module not in fused
        ]

    def _settle_learning(self) -> None:
        """After the first pass, take the learning hooks off and look at large outputs through their consumers."""
        tap = self._tap
        if tap.learning or self._closed:
            return
        for handle in self._learning:
            handle.remove()
        self._learning = []
        for site in tuple(tap.wants_consumer_hook - self._guarded):
            self._guarded.add(site)
            consumer = tap.consumers.get(site)
            if consumer is not None and dense(consumer):
                # First in line, so that no other hook has changed the output before it is looked at.
                self._handles.append(consumer.register_forward_hook(ConsumerHook(tap), prepend=True))

    def _take_rows(self) -> Iterable[Captured]:
        for state in tuple(self._tap.states):
            while state.rows:
                captured = state.rows.popleft()
                self._tap.pending_bytes -= captured.nbytes
                yield captured

    def _add_up(self) -> _Seen:
        """Return the counters of all threads; those of threads that have ended are folded together."""
        tap = self._tap
        gone, gone_sites = self._seen.gone, self._seen.gone_sites
        for state in [state for state in tap.states if not state.thread.is_alive() and not state.rows]:
            tap.states.remove(state)
            gone, gone_sites = _add(gone, state.counters), _add_sites(gone_sites, state.sites)
        total, sites = gone, gone_sites
        for state in tuple(tap.states):
            total, sites = _add(total, state.counters), _add_sites(sites, state.sites)
        forwards, firsts, passes = tap.device_guard.counts(final=self._closed)
        sites = tuple(
            replace(site, forwards=site.forwards + more, first=site.first + first)
            for site, more, first in zip(sites, forwards, firsts, strict=True)
        )
        total = replace(total, nonfinite_forwards=total.nonfinite_forwards + passes)
        return _Seen(len(sites), total, sites, gone, gone_sites, dict(tap.breaker.failures))

    def _first(self, by_site: dict[str, Nonfinite]) -> str | None:
        """Return the first layer of the earliest pass among several: the queue's head, else the earliest that was first."""
        heads = [state.firsts.popleft() for state in tuple(self._tap.states) if state.firsts]
        for state in tuple(self._tap.states):
            state.firsts.clear()
        if heads:
            return self._tap.found[heads[0]].site.layer
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
    )


def _add_sites(left: Iterable[SiteCounters], right: Iterable[SiteCounters]) -> tuple[SiteCounters, ...]:
    return tuple(
        SiteCounters(
            a.forwards + b.forwards,
            a.first + b.first,
            a.padding_forwards + b.padding_forwards,
            _combine(a.elements, b.elements, lambda x, y: x + y),
        )
        for a, b in zip(left, right, strict=True)
    )


def _nonfinite_delta(before: SiteCounters, after: SiteCounters) -> Nonfinite | None:
    """Return the increase of a site's counters, or None where nothing changed."""
    elements = {key: count for key, count in _combine(after.elements, before.elements, lambda x, y: x - y).items() if count}
    forwards, padding = after.forwards - before.forwards, after.padding_forwards - before.padding_forwards
    if not (forwards or padding or elements):
        return None
    return Nonfinite(forwards, after.first - before.first, padding, elements)


def _combine(
    left: dict[tuple[Point, str], int], right: dict[tuple[Point, str], int], operation: Callable[[int, int], int]
) -> dict[tuple[Point, str], int]:
    # Copied first: the model's thread may be adding a key.
    left, right = dict(left), dict(right)
    return {key: operation(left.get(key, 0), right.get(key, 0)) for key in {**left, **right}}


def _increase(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {part: count - before.get(part, 0) for part, count in after.items() if count > before.get(part, 0)}
