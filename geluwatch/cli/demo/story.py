"""The story that the demonstration tells, phase by phase; how it looks is the display's affair."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import geluwatch
from geluwatch.cli.demo import fault, model, texts, training, words
from geluwatch.cli.demo.display import duration, short_name
from geluwatch.cli.demo.monitoring import DRIFT, NONFINITE
from geluwatch.cli.demo.outcome import Finding, Outcome
from geluwatch.cli.demo.stage import ALERT_SECONDS, Detection, Stage
from geluwatch.cli.demo.traffic import BATCH, TEXTS_A_WINDOW, Traffic
from geluwatch.records import Report

Tier = Literal["ticket", "page"]

MODEL = "minilm"

_FAULTY_WINDOWS = 5
# The averages forget exponentially, and an alarm ends at half its limit.
_RECOVERY_HORIZONS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much traffic a story takes."""

    baseline: int
    """Windows of the baseline."""
    texts: int
    """Texts in a window."""
    batch: int
    """Texts in one forward pass."""
    tokens: int
    """Tokens that a text is cut to."""
    calm: int
    """Windows of normal traffic before anything happens."""
    settled: int
    """Calm windows after each recovery."""


# 48 windows are enough for horizon 4; each window more would cost every viewer a second.
WHOLE = Size(baseline=48, texts=TEXTS_A_WINDOW, batch=BATCH, tokens=model.TOKENS, calm=24, settled=4)

Phases = tuple[tuple[str, Callable[[], bool]], ...]


class Story:
    """Runs the phases.

    Args:
        stage: What it is played on; whoever made it closes it.
        store: URL of the baselines' database.
        size: How much traffic it takes.
    """

    def __init__(self, stage: Stage, store: str, size: Size = WHOLE) -> None:
        self._stage, self._store, self._size = stage, store, size
        self._baseline = time.strftime("prose-%Y%m%d-%H%M%S")
        self._calm = self._alarms = 0

    def run(self) -> Outcome:
        """Tell the whole story; return what came of it."""
        phases = self._phases()
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

    def _phases(self) -> Phases:
        return (
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

    def keep_serving(self) -> None:
        """Go on with calm traffic until interrupted, so that the pages stay alive."""
        while True:
            self._traffic.prose()
            time.sleep(1.0)

    def _load(self) -> bool:
        stage = self._stage
        self._encoder = model.load(self._size.tokens)
        stage.say("info", f"MiniLM-L6: {words.weights(self._encoder.model)}, SHA-256 {model.WEIGHTS_SHA256[:12]}… as pinned")
        self._texts = texts.load()
        # Windows are closed by hand, so that each holds as many texts on a slow machine as on a fast one; with only
        # four passes in a window, every one of them has to give rows, whatever that costs.
        config = geluwatch.Config(window_seconds=None, cost_budget=1.0)
        self._watch = stage.open.enter_context(geluwatch.attach(self._encoder.model, name=MODEL, store=self._store, config=config))
        sizes = {"a_window": self._size.texts, "batch": self._size.batch}
        self._traffic = Traffic(self._encoder, self._watch, self._texts, stage.display.report, **sizes)
        stage.links["live page"] = self._watch.serve()
        stage.display.report(self._watch.report)
        stage.say("good", f"attached with one line; the census found {len(self._watch.sites)} GELU layers:")
        for site in self._watch.sites:
            stage.say("info", f"  {site.layer}: {site.variant} GELU, {words.census(site.state, site.reason)}")
        stage.say("info", f"metrics and live page: {stage.links['live page']}")
        return all(site.state == "observed" for site in self._watch.sites)

    def _record(self) -> bool:
        prose = f"{self._size.baseline} windows of {self._size.texts} paragraphs each, from the standard library's docstrings"
        self._stage.say("info", f"traffic that counts as normal: {prose}")
        self._serve_baseline(self._size.baseline)
        self._certificate = self._watch.record_baseline(self._baseline, arm=True)
        for line in words.certificate(self._certificate):
            self._stage.say("good", line)
        return True

    def _serve_baseline(self, windows: int) -> None:
        for done in range(1, windows + 1):
            self._traffic.baseline()
            self._stage.display.progress(done, windows)

    def _start_servers(self) -> bool:
        # Only now is the model scraped: traffic without an armed baseline would be a ticket, and rightly.
        return not self._stage.start_servers() or self._stage.scrape(MODEL, self._stage.links["live page"])

    def _serve_normal(self) -> bool:
        self._stage.say("info", f"{self._size.calm} windows of paragraphs that the baseline has not seen")
        return self._stay_calm(self._size.calm)

    def _drift(self) -> bool:
        self._stage.say("info", "the same service is now sent source code")
        return self._drifts("ticket")

    def _drifts(self, tier: Tier) -> bool:
        """Serve source code until drift is told in a tier; return whether all went as promised."""
        found = self._until_alert(tier, DRIFT, self._traffic.code, _first_drift)
        note = f"{words.drift(found.report)}, scope {found.report.scope}" if found.report else ""
        return self._stage.judge(f"Source code is a drift {tier}", DRIFT, found, note, right=True)

    def _overflow(self) -> bool:
        before = self._watch.report.totals
        with fault.flipped_bit(self._encoder.model) as flip:
            self._stage.say("info", f"{flip.weight}: {flip.before:.3f} becomes {flip.after:.1e}, as faulty memory does it")
            found = self._until_alert("page", NONFINITE, self._traffic.prose, _first_nonfinite)
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

    def _until_alert(self, verdict: Tier, alert: str, serve: Callable[[], Report], first: Callable[[Report], str | None]) -> Detection:
        """Serve until the verdict shows, with a first layer, and its alert has come, and a few windows at least."""
        stage = self._stage
        stage.expect(alert, MODEL)
        found = Detection(time.time())
        windows = 0
        while time.time() < found.began + ALERT_SECONDS:
            report = serve()
            windows += 1
            if found.report is None and report.verdict == verdict and (layer := first(report)):
                found = Detection(found.began, report, report.time, layer)
                self._tell(report, verdict, f"first at {short_name(report, layer)}, in window {windows}")
            came = stage.alert(alert, MODEL)
            if windows >= _FAULTY_WINDOWS and found.report and (came or stage.servers is None):
                return Detection(found.began, found.report, found.seen, found.layer, came)
        return found

    def _tell(self, report: Report, verdict: Tier, where: str) -> None:
        what = "NaN or Inf" if report.first_nonfinite else words.drift(report)
        self._stage.say(verdict, f"{what}, {where}")
        if not report.first_nonfinite and (origin := words.origin(report)):
            self._stage.say("info", origin)

    def _recover(self, promise: str, alert: str) -> bool:
        """Serve prose until the verdict is ok, for at most a few times the longest horizon, then until the alert is resolved."""
        longest = _RECOVERY_HORIZONS * max(self._certificate.horizons)
        began, windows = time.time(), 1
        while (report := self._traffic.prose()).verdict != "ok" and windows <= longest:
            windows += 1
        recovered = report.verdict == "ok"
        note = f"verdict {report.verdict} after {duration(report.time - began)}, in window {windows}"
        self._stage.say("good" if recovered else "bad", note)
        kept = recovered and self._stay_calm(self._size.settled)
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


def _first_nonfinite(report: Report) -> str | None:
    return report.first_nonfinite


def _first_drift(report: Report) -> str | None:
    return report.drifting[0] if report.drifting and not report.first_nonfinite else None
