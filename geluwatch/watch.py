"""One watched model, as its users have it: what they may ask of it, note, record, arm and serve."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from geluwatch import log
from geluwatch.core import application
from geluwatch.core.totals import merged
from geluwatch.cycle import Cycle
from geluwatch.errors import BaselineError, StoreError
from geluwatch.records import Baseline, Certificate, ProbeInput, ProbeResult, Provenance, Report, Totals


class Watch(Cycle):
    """One watched model. Made by `attach`; a context manager that detaches at the end."""

    def census(self) -> str:
        """Return the census as a table of text: a line for each call site, with the reason where it is blind."""
        from geluwatch.export.census import table

        return table(self.sites)

    def flush(self) -> Report:
        """Fold what the tap has seen into the open window now, and publish a report."""
        with self._lock:
            self._fold()
            return self._publish()

    def gather(self) -> Totals:
        """Return the counters of all ranks of a distributed run together; every rank has to call it, and gets the same.

        Alone, they are this process's own. What was seen until now is in them.
        """
        totals = self.flush().totals
        return merged(self._source.gather(totals))

    def close_window(self) -> Report:
        """End the window now, judge it, and return the report; what was seen until now is in it.

        Raises:
            DetachedError: The watch has been detached.
        """
        with self._lock:
            self._refuse_if_detached()
            self._fold()
            return self._close()

    def provenance(self) -> Provenance:
        """Return what the model is now: weights, formulas, versions, machine, settings.

        All weights are read, in this thread and piece by piece, about a gigabyte a second; they should not change meanwhile.

        Raises:
            DetachedError: The watch has been detached.
        """
        self._refuse_if_detached()
        return self._origins.read(self.sites, self._report)

    def record_baseline(self, name: str, *, arm: bool = False, traffic: str = "", probe: Iterable[object] | None = None) -> Certificate:
        """Store the windows closed so far as a baseline, with the model's provenance, calibrate it, and arm it if asked.

        Windows with non-finite values, silent sites, dropped rows or too few rows are left out and counted.
        Where the agent is switched off, nothing is recorded, and the certificate says so.

        Args:
            name: What to call it.
            arm: Whether to arm it as well.
            traffic: Which slice of the traffic it is of, for example "eu"; for people, nothing is judged by it.
            probe: Inputs of passes to keep with what the model makes of them, as `compare_models` takes them; None for `captured_inputs`.

        Raises:
            BaselineError: There is no window, over a tenth is unfit, the name is taken, or arming needs more windows or calmer ones.
            SignatureError: It is stored but not armed, for keys are trusted and none of them signed it.
            ProbeError: The probe cannot be made; then nothing is stored.
            StoreError: The database cannot be used.
        """
        if name == "latest":
            raise BaselineError('A baseline cannot be called "latest", which means the newest one; choose another name.')
        if not self._config.enabled:
            return self._switched_off("recorded")
        # Neither under the lock, for each may take seconds.
        origin = self.provenance()
        made = self._probing.record(probe)
        with self._lock:
            self._refuse_if_detached()
            self._fold()
            baseline = self._monitor.make_baseline(name, self._clock.time(), made)
            if arm and not baseline.certificate.armed:
                raise BaselineError(f"Baseline {name!r} is neither stored nor armed: {baseline.certificate.reason}")
            self._baselines.save(replace(baseline, provenance=origin, traffic=traffic))
            return self.arm(name) if arm else baseline.certificate

    def arm(self, name: str = "latest") -> Certificate:
        """Arm a stored baseline of this model and version; "latest" is the newest promoted one, or where none is, the newest not retired.

        Where the baseline was recorded of another model than this one (formula, dtype, or weights, if `provenance` has read them),
        that is a warning in the log of the process. Where the agent is switched off, nothing is armed, and the certificate says so.

        Raises:
            UnknownBaselineError: There is no such baseline.
            BaselineError: It is too small to be armed, holds an incident, was retired, belongs to another model, or its signature is
                refused.
            StoreError: The database cannot be used.
        """
        if not self._config.enabled:
            return self._switched_off("armed")
        with self._lock:
            self._refuse_if_detached()
            baseline = self._baselines.load(self._name, self._version, name)
            certificate = self._monitor.arm(baseline, promoted=self._baselines.promoted(baseline))
            self._publish()
            self._say_armed(baseline)
            return certificate

    def probe(self) -> ProbeResult:
        """Replay the armed baseline's probe now, in this thread, and say whether the model is the one that it was recorded on.

        It costs a forward pass for each input of the probe. The passes are no traffic, and leave the model as it was.

        Raises:
            ProbeError: There is no probe, or it cannot be replayed (`ProbeBusyError`: not at this moment).
            DetachedError: The watch has been detached.
        """
        self._refuse_if_detached()
        return self._probing.replay()

    def captured_inputs(self) -> tuple[ProbeInput, ...]:
        """Return the inputs of passes sampled so far; none unless `Config.capture_inputs` asks for them."""
        return tuple(self._source.captured_inputs())

    def note_step(self, loss: object = None, scaler: object = None) -> None:
        """Note that a step of the training loop is over; call it after `scaler.update()` where there is a scaler.

        Nothing waits: a loss or a scale on an accelerator is copied in the background and read at a later call. After
        `detach` it does nothing, so that the loop may stay as it is.

        Args:
            loss: The step's loss, as a tensor or a number; a NaN or an Inf is counted.
            scaler: The `torch.amp.GradScaler`: its scale is exported, and steps it skipped are counted, from the second noted step on.

        Raises:
            ConfigError: The loss is neither a number nor a tensor, or the scaler no GradScaler.
        """
        self._source.note_step(loss, scaler)

    def note(
        self,
        *,
        predictions: int | None = None,
        wrong: int | None = None,
        accuracy: float | None = None,
        quantized_accuracy_delta: float | None = None,
        cost_per_hour: float | None = None,
    ) -> None:
        """Note numbers that only the application knows; the next report and its metrics have them.

        Any of them may be left out. Nothing waits, and any thread may call it. After `detach` it does nothing.

        Args:
            predictions: Predictions of which it is now known whether they were right; they are added up.
            wrong: Of these, predictions that were wrong; they are added up as well.
            accuracy: Accuracy of an evaluation, 0 to 1; the last one given holds.
            quantized_accuracy_delta: Accuracy of the quantised model minus that of the original on the same data, -1 to 1.
            cost_per_hour: What an hour of this process costs, in a currency of your own, the same for all processes.

        Raises:
            ConfigError: A value is no number or out of its range; then nothing of the call is taken.
        """
        if not self._detached:
            self._inbox.note(application.said(predictions, wrong, accuracy, quantized_accuracy_delta, cost_per_hour))

    def follow_training(self, windows: int = 16, lag: int = 4) -> None:
        """Judge each window against earlier windows of this run, for a model in training, whose activations move on purpose.

        The reference is a stretch of windows that ended `lag` windows ago; it moves along, so ordinary learning is no
        drift, and a layer that dies, jumps in scale or collapses is. No budget of false alarms is promised, and none
        pages. It takes the place of an armed baseline until `arm` is called.

        Args:
            windows: Windows in the stretch, at least 8.
            lag: Windows between it and the one that is judged, at least 1.

        Raises:
            ConfigError: An argument is out of its range.
            DetachedError: The watch has been detached.
        """
        with self._lock:
            self._refuse_if_detached()
            self._monitor.follow(windows, lag)
            self._publish()

    def capture_incident(self, reason: str, directory: str | os.PathLike[str] | None = None, profile_steps: int = 0) -> Path:
        """Write a bundle of evidence, whatever the verdict, and return its path; `geluwatch incident show` reads it.

        Args:
            reason: Why, in a sentence for its readers.
            directory: Where; the folder of `Config.incidents` where none is given.
            profile_steps: Next forward passes that are to be profiled, at most 16. The bundle is then written by the background
                thread once they have run, without what is missing a minute later.

        Raises:
            ConfigError: There is no folder, or the number of passes is out of its range.
            IncidentError: The bundle cannot be written.
            DetachedError: The watch has been detached.
        """
        with self._lock:
            self._refuse_if_detached()
            self._fold()
            path = self._incidents.ask(reason, directory, profile_steps, self._publish())
        if profile_steps:
            self._source.profile(profile_steps)
        self._incidents.save()
        return path

    def serve(self, host: str = "127.0.0.1", port: int = 0, *, allow_remote: bool = False) -> str:
        """Serve /metrics, the live page and the runbooks; return the base URL, the same one if it is served already.

        Args:
            host: Address to listen on; only loopback is accepted unless `allow_remote` is set.
            port: Port to listen on; 0 takes a free one.
            allow_remote: Whether other machines may connect; there is no authentication.

        Raises:
            ListenError: The address is refused or the port is taken.
        """
        from geluwatch.export.listener import Listener
        from geluwatch.export.pages import routes
        from geluwatch.mixin import handbook, links

        with self._lock:
            self._refuse_if_detached()
            if self._listener is None:
                texts = {group: {name: handbook.page(name) for name in names} for group, names in handbook.contents().items()}
                pages = routes(lambda: self._report, texts["Runbooks"], links.RUNBOOKS, texts["Playbooks"], self.report_seconds)
                listener = Listener(pages, host=host, port=port, allow_remote=allow_remote, on_error=self._inbox.page_failed)
                listener.start()
                self._listener = listener
            return self._listener.start()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.detach()

    def __repr__(self) -> str:
        state = "detached" if self._detached else self._report.verdict
        return f"<geluwatch.Watch of {self._name!r} version {self._version!r}: {len(self.sites)} sites, {state}>"

    def _switched_off(self, what: str) -> Certificate:
        """Return what stands for a certificate where the agent is off: a switch that is thrown in an emergency must stop no service."""
        reason = f"The agent is switched off, so no baseline is {what}."
        log.say(log.WARNING, "%s", reason)
        budgets = self._config.tickets_per_month, self._config.pages_per_quarter
        return Certificate(0, 0, 0.0, (), 0.0, 1, *budgets, math.inf, math.inf, reason=reason)

    def _say_armed(self, baseline: Baseline) -> None:
        """Warn where an armed baseline is of another model than this one, and note in the store that it is armed."""
        for difference in self._origins.differences(baseline, self.sites, self._report):
            log.say(log.WARNING, "baseline %r was recorded of another model than the one that runs: %s", baseline.name, difference)
        try:
            self._baselines.note_armed(baseline)
        except StoreError as error:  # a process that may only read its baselines is to judge by them all the same
            log.say(log.WARNING, "baseline %r is armed, but the audit log does not say so: %s", baseline.name, error)
