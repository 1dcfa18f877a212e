"""The story that the demonstration tells, phase by phase; how it looks is the display's affair."""

from __future__ import annotations

import time
from collections.abc import Callable

import geluwatch
from geluwatch.cli.demo import fault, model, texts, training, words
from geluwatch.cli.demo.display import duration, short_name
from geluwatch.cli.demo.monitoring import DRIFT, NONFINITE
from geluwatch.cli.demo.outcome import Finding, Outcome
from geluwatch.cli.demo.stage import ALERT_SECONDS, Detection, Stage
from geluwatch.cli.demo.traffic import TEXTS_A_WINDOW, Traffic
from geluwatch.records import Report

MODEL = "minilm"

BASELINE_WINDOWS = 48
"""Enough for horizon 4; each window more would cost every viewer a second."""
_CALM_WINDOWS = 24
_FAULTY_WINDOWS = 5
_SETTLED_WINDOWS = 4
# The averages forget exponentially, and an alarm ends at half its limit.
_RECOVERY_HORIZONS = 4


class Story:
    """Runs the phases.

    Args:
        stage: What it is played on; whoever made it closes it.
        store: URL of the baselines' database.
    """

    def __init__(self, stage: Stage, store: str) -> None:
        self._stage, self._store = stage, store
        self._baseline = time.strftime("prose-%Y%m%d-%H%M%S")
        self._calm = self._alarms = 0

    def run(self) -> Outcome:
        """Tell the whole story; return what came of it."""
        phases: tuple[tuple[str, Callable[[], bool]], ...] = (
            ("Load and attach", self._load),
            ("Record a baseline", self._record),
            ("Start the servers", self._start_servers),
            ("Normal traffic", self._serve_normal),
            ("Source code, not prose", self._drift),
            ("Prose again", lambda: self._recover("Prose again is calm again", DRIFT)),
            ("One bit flips", self._overflow),
            ("The bit is put right", self._mend),
            ("A training run fails", self._train),
        )
        self._stage.display.plan([title for title, _ in phases])
        for index, (_, act) in enumerate(phases):
            good = False
            self._stage.display.begin(index)
            try:
                good = act()
            finally:
                self._stage.display.end(index, good=good)
        findings = (self._calmness(), *self._stage.findings)
        return Outcome(findings, self._stage.elapsed, self._stage.links)

    def keep_serving(self) -> None:
        """Go on with calm traffic until interrupted, so that the pages stay alive."""
        while True:
            self._traffic.prose()
            time.sleep(1.0)

    def _load(self) -> bool:
        stage = self._stage
        self._encoder = model.load()
        stage.say("info", f"MiniLM-L6: {words.weights(self._encoder.model)}, SHA-256 {model.WEIGHTS_SHA256[:12]}… as pinned")
        self._texts = texts.load(baseline=BASELINE_WINDOWS * TEXTS_A_WINDOW)
        # Windows are closed by hand, so that each holds as many texts on a slow machine as on a fast one; with only
        # four passes in a window, every one of them has to give rows, whatever that costs.
        config = geluwatch.Config(window_seconds=None, cost_budget=1.0)
        self._watch = stage.open.enter_context(geluwatch.attach(self._encoder.model, name=MODEL, store=self._store, config=config))
        self._traffic = Traffic(self._encoder, self._watch, self._texts, stage.display.report)
        stage.links["live page"] = self._watch.serve()
        stage.display.report(self._watch.report)
        stage.say("good", f"attached with one line; the census found {len(self._watch.sites)} GELU layers:")
        for site in self._watch.sites:
            stage.say("info", f"  {site.layer}: {site.variant} GELU, {words.census(site.state, site.reason)}")
        stage.say("info", f"metrics and live page: {stage.links['live page']}")
        return all(site.state == "observed" for site in self._watch.sites)

    def _record(self) -> bool:
        prose = f"{BASELINE_WINDOWS} windows of {TEXTS_A_WINDOW} paragraphs each, from the standard library's docstrings"
        self._stage.say("info", f"traffic that counts as normal: {prose}")
        for done in range(1, BASELINE_WINDOWS + 1):
            self._traffic.baseline()
            self._stage.display.progress(done, BASELINE_WINDOWS)
        self._certificate = self._watch.record_baseline(self._baseline, arm=True)
        for line in words.certificate(self._certificate):
            self._stage.say("good", line)
        return True

    def _start_servers(self) -> bool:
        # Only now is the model scraped: traffic without an armed baseline would be a ticket, and rightly.
        return not self._stage.start_servers() or self._stage.scrape(MODEL, self._stage.links["live page"])

    def _serve_normal(self) -> bool:
        self._stage.say("info", f"{_CALM_WINDOWS} windows of paragraphs that the baseline has not seen")
        return self._stay_calm(_CALM_WINDOWS)

    def _drift(self) -> bool:
        self._stage.say("info", "the same service is now sent source code")
        found = self._until_alert("ticket", DRIFT, self._traffic.code)
        note = f"{words.drift(found.report)}, scope {found.report.scope}" if found.report else ""
        return self._stage.judge("Source code is a drift ticket", DRIFT, found, note, right=True)

    def _overflow(self) -> bool:
        before = self._watch.report.totals
        with fault.flipped_bit(self._encoder.model) as flip:
            self._stage.say("info", f"{flip.weight}: {flip.before:.3f} becomes {flip.after:.1e}, as faulty memory does it")
            found = self._until_alert("page", NONFINITE, self._traffic.prose)
        after = self._watch.report.totals
        passes, counted = after.forwards - before.forwards, after.nonfinite_forwards - before.nonfinite_forwards
        note = f"{counted} of {passes} faulty forward passes were counted"
        self._stage.say("info", note)
        right = found.layer == fault.LAYER and passes == counted
        return self._stage.judge("A flipped bit is a page", NONFINITE, found, note, right=right)

    def _mend(self) -> bool:
        # Else the windows with the fault in them would count for as long as the longest horizon.
        self._watch.arm(self._baseline)
        self._stage.say("info", f"the weight is restored, and baseline {self._baseline} armed again from the store")
        return self._recover("The mended model is calm again", NONFINITE)

    def _train(self) -> bool:
        return training.act(self._stage, "\n".join(self._texts.held_out))

    def _until_alert(self, verdict: str, alert: str, serve: Callable[[], Report]) -> Detection:
        """Serve until the verdict shows and its alert has come, and a few windows at least."""
        stage = self._stage
        stage.expect(alert, MODEL)
        found = Detection(time.time())
        windows = 0
        while time.time() < found.began + ALERT_SECONDS:
            report = serve()
            windows += 1
            if found.report is None and report.verdict == verdict and (verdict == "page" or report.drifting):
                layer = report.first_nonfinite if verdict == "page" else report.drifting[0]
                found = Detection(found.began, report, report.time, layer)
                what = "NaN or Inf" if verdict == "page" else words.drift(report)
                stage.say("page" if verdict == "page" else "ticket", f"{what}, first at {short_name(report, layer)}, in window {windows}")
                if verdict == "ticket" and (origin := words.origin(report)):
                    stage.say("info", origin)
            came = stage.alert(alert, MODEL)
            if windows >= _FAULTY_WINDOWS and found.report and (came or stage.servers is None):
                return Detection(found.began, found.report, found.seen, found.layer, came)
        return found

    def _recover(self, promise: str, alert: str) -> bool:
        """Serve prose until the verdict is ok, for at most a few times the longest horizon, then until the alert is resolved."""
        longest = _RECOVERY_HORIZONS * max(self._certificate.horizons)
        began, windows = time.time(), 1
        while (report := self._traffic.prose()).verdict != "ok" and windows <= longest:
            windows += 1
        recovered = report.verdict == "ok"
        note = f"verdict {report.verdict} after {duration(report.time - began)}, in window {windows}"
        self._stage.say("good" if recovered else "bad", note)
        kept = recovered and self._stay_calm(_SETTLED_WINDOWS)
        if kept and self._stage.servers:
            resolved = self._until_resolved(alert, began)
            kept = resolved is not None
            note += f"; alert resolved after {duration(resolved)}" if resolved else f"; alert not resolved within {ALERT_SECONDS:.0f} s"
        self._stage.findings.append(Finding(promise=promise, kept=kept, note=note))
        return kept

    def _until_resolved(self, alert: str, began: float) -> float | None:
        """Stay calm until an alert is resolved; return the seconds since `began`, or None when it takes too long."""
        self._stage.display.progress(0, 0)
        while time.time() < began + ALERT_SECONDS:
            if came := self._stage.alert(alert, MODEL, resolved=True):
                return came.received - began
            self._stay_calm(1, quiet=True)
        return None

    def _stay_calm(self, windows: int, *, quiet: bool = False) -> bool:
        alarms = 0
        for done in range(1, windows + 1):
            report = self._traffic.prose()
            if not quiet:
                self._stage.display.progress(done, windows)
            if report.verdict != "ok":
                alarms += 1
                self._stage.say("bad", f"false alarm: {report.verdict} at {', '.join(report.drifting) or report.first_nonfinite}")
        self._calm, self._alarms = self._calm + windows, self._alarms + alarms
        if not alarms and not quiet:
            self._stage.say("good", f"{windows} of {windows} windows calm")
        return not alarms

    def _calmness(self) -> Finding:
        false = self._stage.servers.unexpected if self._stage.servers else ()
        note = f"{self._calm} calm windows, {self._alarms} false verdicts"
        if self._stage.servers:
            names = f" ({', '.join(f'{alert.name} for {alert.model}' for alert in false)})" if false else ""
            note += f", {len(false)} false alerts{names}"
        return Finding(promise="Calm prose stays calm", kept=not self._alarms and not false, note=note)
