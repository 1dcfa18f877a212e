"""`TorchSource`: puts the hooks on a model, drains what they saw, takes them off again."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from geluwatch.config import Config
from geluwatch.errors import AlreadyAttachedError, AttachError, NoGeluError, ProbeError
from geluwatch.ports import Clock
from geluwatch.records import Drained, Nonfinite, ProbeInput, Provenance, Rows, Site, Totals
from geluwatch.tap import functional, inputs, origin, padding, ranks, runtime, usage
from geluwatch.tap._compat import compiled_before
from geluwatch.tap.adding import add, add_sites, at, increase_of, nonfinite_delta
from geluwatch.tap.discover import discover, strangers
from geluwatch.tap.meter import increase
from geluwatch.tap.replay import Replayer, parameters_of
from geluwatch.tap.rows import Captured
from geluwatch.tap.seen import Seen, called_alone, gaps
from geluwatch.tap.shared import Tap
from geluwatch.tap.steps import Steps
from geluwatch.tap.wiring import Wiring

_GAPS = (
    "not met in every pass: compiled code without hooks ran instead, which torch chooses for them where "
    "torch._dynamo.config.skip_nnmodule_hook_guards is left as it is"
)

_OFF = "the agent is switched off, by GELUWATCH_OFF in the environment or by Config(enabled=False)"

_CAPTURED = "recorded into a CUDA graph, whose replays call no hook: faults are counted on the device, and told when the watch comes off"

_PARTS_ONLY = "guarded, but without rows: the model itself is not called, only its forward or parts of it; attach to what is called"

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
        unknown = strangers(found)
        if all(item.site.kind in unknown for item in found):
            named = f"name it: Config(gelu_classes=({', '.join(unknown)},))" if unknown else "name the class in Config(gelu_classes=...)"
            raise NoGeluError(
                f"No GELU was found in this {type(model).__name__}, neither a module nor a call in its code; if it has one of a "
                f"class of its own, {named}."
            )
        if not config.enabled:
            found = tuple(replace(item, site=replace(item.site, state="blind", reason=_OFF)) for item in found)
        self._model = weakref.ref(model)
        sites = tuple(item.site for item in found)
        clips = tuple(item.clips for item in found)
        self._tap = Tap(sites, clips, config, clock, padding.argument_position(model))
        self._tap.compiled = compiled_before(model)
        self._seen = Seen()
        self._firsts: list[tuple[float, int]] = []
        self._gaps: frozenset[int] = frozenset()
        """Sites that passes of compiled code did not show lately."""
        self._alone: frozenset[int] = frozenset()
        """Sites called lately, but not in a pass of the model."""
        self._wiring = Wiring(self._tap, model, found)
        self._replayer = Replayer(self._tap, self._wiring.ear)
        self._settling = threading.Lock()
        """Held by whoever changes which calls the census has: the drain, and a replay."""
        self._steps = Steps(self._tap.breaker)
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
        begun = self._seen.gone.forwards + sum(state.counters.forwards + state.depth for state in tuple(tap.states))
        ran, alone = begun > 0, frozenset[int]() if begun > self._seen.total.forwards else self._alone
        sites = tap.sites
        reasons = [site.reason or self._blindness(site, ran=ran, alone=site.position in alone) for site in sites]
        return tuple(
            replace(
                site,
                state="blind" if reason else "observed",
                reason=reason,
                variant=tap.variants.get(site.position, site.variant),  # where it is an argument, only the call tells
                gate=tap.gates.get(site.position, ""),
            )
            for site, reason in zip(sites, reasons, strict=True)
        )

    def _blindness(self, site: Site, *, ran: bool, alone: bool) -> str:
        """Return why a site cannot be seen at present, or an empty string where it can.

        Args:
            site: The site.
            ran: Whether the model has ever run.
            alone: Whether, lately, only the site has.
        """
        tap, position = self._tap, site.position
        if not tap.breaker.allows("guard"):
            return "the guard failed repeatedly and was switched off"
        if (reason := tap.unwatchable.get(position) or tap.rowless.get(position)) is not None:
            return reason
        if self._wiring.replaced(position):
            return "its module is no longer in the model: attach again to watch the one in its place"
        if position in tap.captured:
            return _CAPTURED
        if position in tap.called:
            return _PARTS_ONLY if alone or not ran else _GAPS if position in self._gaps else ""
        if tap.compiled:
            return "not seen to run: code of this model has been compiled, and hooks do not run in compiled code"
        if ran and site.form == "fused":
            return "not seen to run: never called, or its fused kernel applies the GELU by itself"
        return "never executed: the forward passes so far have not called it" if ran else ""

    def drain(self) -> Drained:
        """Return what was seen since the last call; called from one thread at a time."""
        tap = self._tap
        self._settle()
        rows = tuple(self._take_rows())
        before = self._seen
        self._seen = after = self._add_up()
        self._gaps = gaps(before, after, self._gaps)
        passed = after.total.forwards > before.total.forwards or any(state.depth for state in tuple(tap.states))
        self._alone = frozenset() if passed else self._alone | called_alone(before, after)
        by_site = {
            site.layer: delta
            for site in tap.sites
            if (delta := nonfinite_delta(at(before.sites, site.position), at(after.sites, site.position))) is not None
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
            timed_seconds=after.total.timed_seconds - before.total.timed_seconds,
            op_seconds={
                site.layer: spent
                for site in tap.sites
                if (spent := at(after.sites, site.position).op_seconds - at(before.sites, site.position).op_seconds)
            },
            last_forward=after.total.last_forward,
            errors=increase_of(before.failures, after.failures),
            disabled=tap.breaker.disabled,
            traffic=increase(before.total.traffic, after.total.traffic),
            usage=usage.read(),
            training=self._steps.drain(final=tap.closed),
            evidence=tuple(sorted(tap.evidence.take(tap), key=lambda kept: kept.time)),
            traces=tuple(tap.profiling.take()),
        )

    def profile(self, passes: int) -> None:
        """Have the next forward passes profiled, each in the thread that runs it."""
        self._tap.profiling.ask(passes)

    def runtime(self) -> dict[str, object]:
        """Return under what the model runs: versions, seed, flags, threads, dtypes, devices."""
        return runtime.read(self._model())

    def gather(self, totals: Totals) -> list[Totals]:
        """Return the counters that every rank has given; a collective that all ranks have to call."""
        return ranks.gather(totals)

    def provenance(self, *, digest: bool = True) -> Provenance:
        """Return what the model is and runs on (see `origin.read`)."""
        return origin.read(self._model(), digest=digest)

    def start_anew(self) -> None:
        """Forget what was seen, as a forked child has to: it was seen by the parent, which reports it."""
        self._tap.forget(self._steps)
        self._settling = threading.Lock()
        self._seen, self._firsts, self._steps = Seen(), [], Steps(self._tap.breaker)

    def note_step(self, loss: Any, scaler: Any) -> None:
        """Note that a training step is over.

        Raises:
            ConfigError: The loss is neither a number nor a tensor, or the scaler no GradScaler.
        """
        if not self._tap.closed:
            self._steps.note(loss, scaler)

    @property
    def parameters(self) -> str:
        """The dtype of the model's first floating-point parameter, "" where it has none."""
        model = self._model()
        return "" if model is None else parameters_of(model)

    def keep(self, item: object) -> ProbeInput:
        """Return what a pass is sent as a record.

        Raises:
            ProbeError: It holds what a probe cannot keep.
        """
        return inputs.kept(item)

    def captured_inputs(self) -> tuple[ProbeInput, ...]:
        """Return the sample of the passes' inputs; empty where none is taken."""
        return self._tap.inputs.sample() if self._tap.inputs is not None else ()

    def replay(self, given: Sequence[ProbeInput], values: int, parameters: str = "", *, gently: bool = False) -> list[tuple[Rows, ...]]:
        """Return the rows of each input's pass through the model in evaluation mode; these passes are no traffic (see `ports.Source`)."""
        model = self._model()
        if model is None or self._tap.closed or not self._tap.config.enabled:
            raise ProbeError("The model is gone or no longer watched, so no probe can be replayed through it; attach to it again.")
        rows = self._replayer.replay(model, given, values, parameters, gently=gently)
        if self._take_in_strays(model):  # calls that no code showed; the hooks that tell whose they are were not on yet
            rows = self._replayer.replay(model, given, values, parameters, gently=gently)
        if self._tap.closed:
            raise ProbeError("The watch came off the model while the probe was replayed.")
        return rows

    def close(self) -> None:
        """Take every hook off."""
        if self._tap.closed:
            return
        model = self._model()
        own, threads = getattr(self._tap.local, "state", None), tuple(self._tap.states)
        self._tap.profiling.close(own, threads)
        functional.close(self._wiring.ear, own, threads)
        self._wiring.remove(model)
        if model is not None:
            _attached.discard(model)

    def _settle(self) -> None:
        """Finish what only a pass can tell: consumers of large outputs, calls that no code showed, modules that were exchanged."""
        tap, model = self._tap, self._model()
        if tap.closed or model is None:
            return
        if not tap.learning:
            tap.follow_traces()
            self._wiring.settle_learning()
        self._take_in_strays(model)
        self._wiring.find_replaced(model)

    def _take_in_strays(self, model: nn.Module) -> bool:
        """Take calls that were heard but not known into the census; return whether there were any."""
        with self._settling:
            found = not all(tuple(self._tap.strays.values()))
            if found:
                self._wiring.take_in_strays(model)
            return found

    def _take_rows(self) -> Iterator[Rows]:
        tap = self._tap
        for state in tuple(tap.states):
            whole = state.bytes_in if tap.closed else state.whole_bytes()
            while state.rows and state.bytes_out < whole:
                captured = state.rows.popleft()
                state.bytes_out += captured.nbytes
                try:
                    yield _arrays(captured)
                except Exception as error:  # noqa: BLE001  # one batch of rows must not cost the others
                    tap.breaker.trip("rows", error)

    def _add_up(self) -> Seen:
        """Return the counters of all threads; those of threads that have ended are folded together."""
        tap = self._tap
        gone, gone_sites = self._seen.gone, self._seen.gone_sites
        for state in [state for state in tap.states if state.ended and not state.rows]:
            tap.states.remove(state)
            gone, gone_sites = add(gone, state.counted()), add_sites(gone_sites, state.sites)
            self._firsts += state.firsts
        total, sites = gone, gone_sites
        for state in tuple(tap.states):
            if self._tap.closed and state.depth:
                state.end()  # its end hook has been taken off under way
            total, sites = add(total, state.counted()), add_sites(sites, state.sites)
        forwards, firsts, passes = tap.device_guard.counts(final=tap.closed)
        sites = tuple(
            replace(at(sites, position), forwards=at(sites, position).forwards + more, first=at(sites, position).first + first)
            for position, (more, first) in enumerate(zip(forwards, firsts, strict=True))
        )
        if tap.gradients is not None:
            backwards, nearest = tap.gradients.counts(final=tap.closed)
            sites = tuple(
                replace(site, backwards=site.backwards + more, first_backward=site.first_backward + first)
                for site, more, first in zip(sites, backwards, nearest, strict=True)
            )
        total = replace(total, nonfinite_forwards=total.nonfinite_forwards + passes)
        return Seen(total, sites, gone, gone_sites, dict(tap.breaker.failures))

    def _first(self, by_site: dict[str, Nonfinite]) -> str | None:
        """Return the first layer of the earliest pass with a hit; where that was on a device, of the first layer that was hit."""
        firsts, self._firsts = self._firsts, []
        for state in tuple(self._tap.states):
            while state.firsts:
                firsts.append(state.firsts.popleft())
        if firsts:
            return self._tap.sites[min(firsts)[1]].layer
        return next((layer for layer, seen in by_site.items() if seen.first), None)


def _arrays(captured: Captured) -> Rows:
    return Rows(captured.layer, captured.dtype, captured.pre.float().numpy(), captured.post.float().numpy(), captured.derived)
