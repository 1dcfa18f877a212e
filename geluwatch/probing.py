"""What a watch does about probes: makes one for a baseline, replays it when asked or on a schedule, and says what follows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

from geluwatch import log
from geluwatch.background import Background
from geluwatch.core import probe as core
from geluwatch.errors import ProbeBusyError, ProbeError
from geluwatch.ports import Clock, Source
from geluwatch.records import Baseline, Probe, ProbeInput, ProbeResult, Rows


class Probing:
    """Probes of one watched model; replays wait for each other, and never for the watch.

    Args:
        source: The model's tap.
        clock: The time.
        seconds: Time between two scheduled replays; None for none.
        armed: Returns the armed baseline.
        note: Told what each replay showed, and None of a scheduled one that failed.
    """

    def __init__(
        self,
        source: Source,
        clock: Clock,
        seconds: float | None,
        armed: Callable[[], Baseline | None],
        note: Callable[[ProbeResult | None], None],
    ) -> None:
        self._source, self._clock = source, clock
        self._armed, self._note = armed, note
        self._background = Background(self.tick, lambda: None, seconds) if seconds is not None else None
        if self._background is not None:
            self._background.on_fork = self.forget_parent
        self._lock = threading.Lock()
        self._broken = False

    def record(self, given: Iterable[object] | None) -> Probe | None:
        """Return a probe of inputs, or of those that traffic was sampled for; None where there are neither.

        The passes are made three times: to count what they give, to take rows of it, and to see that the same comes again.

        Raises:
            ProbeError: There is no input, it cannot be kept or sent, or a replay differs from the one before it.
        """
        inputs = self._captured() if given is None else tuple(map(self._source.keep, given))
        if not inputs:
            if given is None:
                return None
            raise ProbeError("There is no input to make a probe of; give at least one, or None to record the baseline without.")
        _refuse_large(inputs)
        with self._lock:
            calls = sum(map(len, self._source.replay(inputs, 0)))
            if not calls:
                raise ProbeError("No GELU gave rows for the probe's inputs; the census says why (`print(watch.census())`).")
            values = core.allowance(calls)
            if not values:
                raise ProbeError(f"The inputs make {calls} calls of a GELU, more than a probe has room for; give fewer inputs.")
            rows = tuple(self._source.replay(inputs, values))
            probe = Probe(self._clock.time(), inputs, rows, values, self._source.parameters)
            again = core.compare(probe, self._source.replay(inputs, values), _layers(rows))
        if again.moved:
            raise ProbeError(
                f"The model gives other values for the same inputs in evaluation mode ({again.sentence}), so a probe would say nothing; "
                "make it deterministic, or record the baseline without."
            )
        return probe

    def _captured(self) -> tuple[ProbeInput, ...]:
        """Return the captured inputs that the model takes: a request that it refused may be among them."""
        captured = tuple(self._source.captured_inputs())
        found, refused = [], ""
        with self._lock:
            for item in captured:
                try:
                    self._source.replay((item,), 0)
                    found.append(item)
                except ProbeBusyError:
                    raise
                except ProbeError as error:
                    refused = str(error)
        if refused:
            log.say(log.WARNING, "%d of %d captured inputs are not in the probe: %s", len(captured) - len(found), len(captured), refused)
        return tuple(found)

    def replay(self, *, gently: bool = False) -> ProbeResult:
        """Replay the armed baseline's probe, and return what that shows.

        Raises:
            ProbeBusyError: What the model is doing does not allow it now.
            ProbeError: There is no baseline or no probe, or it cannot be replayed.
        """
        baseline = self._armed()
        if baseline is None:
            raise ProbeError("No baseline is armed, so there is no probe to replay; arm one that was recorded with a probe.")
        probe = baseline.probe
        if probe is None:
            raise ProbeError(f"Baseline {baseline.name!r} has no probe; record the next one with record_baseline(name, probe=inputs).")
        with self._lock:
            time = self._clock.time()
            rows = self._source.replay(probe.inputs, probe.values, probe.parameters, gently=gently)
        sites = self._source.sites
        blind = {site.layer for site in sites if site.state == "blind"}
        result = core.compare(probe, rows, {site.layer for site in sites}, blind=blind, baseline=baseline.name, time=time)
        self._note(result)
        return result

    def start(self, model: object) -> None:
        """Begin with scheduled replays, where there are any; they end with the model."""
        if self._background is not None:
            self._background.start()
            if model is not None:
                self._background.follow(model)

    def stop(self) -> None:
        """End scheduled replays; one under way is waited for."""
        if self._background is not None:
            self._background.stop()

    def tick(self) -> None:
        """Replay as the schedule has it: where the model is busy, the next time; a failure is counted, and told once in a row."""
        baseline = self._armed()
        if baseline is None or baseline.probe is None:
            return
        try:
            self.replay(gently=True)
            self._broken = False
        except ProbeBusyError as busy:
            log.say(log.INFO, "a probe waits: %s", busy)
        except Exception as error:  # noqa: BLE001  # the thread must outlive any single failure
            self._note(None)
            if not self._broken:
                log.say(log.WARNING, "a probe failed and will be tried again: %s", error)
            self._broken = True

    def forget_parent(self) -> None:
        """Go on in a forked child, into which whoever held the lock has not come along."""
        self._lock = threading.Lock()


def _layers(rows: Sequence[Sequence[Rows]]) -> set[str]:
    return {each.layer for of_input in rows for each in of_input}


def _refuse_large(inputs: Sequence[ProbeInput]) -> None:
    size = sum(core.nbytes(each.args) + core.nbytes(each.kwargs) for each in inputs)
    if size > core.MOST_BYTES:
        raise ProbeError(
            f"The probe's inputs take {size} bytes, more than the {core.MOST_BYTES} that are kept; give fewer or shorter ones."
        )
