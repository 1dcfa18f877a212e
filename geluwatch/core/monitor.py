"""The state of one watched model, between what the tap drained and the report that readers see.

Time comes as an argument and nothing here locks: the agent calls it from one thread at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from geluwatch.catalog import FULL_EDGES
from geluwatch.config import Config
from geluwatch.core import application, follow, gross, histogram, moments, provenance, recorder
from geluwatch.core.follow import Follower
from geluwatch.core.headroom import Headrooms
from geluwatch.core.judge import Judge, Judged
from geluwatch.core.kernels import Kernels
from geluwatch.core.probe import attribute
from geluwatch.core.totals import add_counts, add_drained, add_point
from geluwatch.core.window import WindowBuilder, observe_rows
from geluwatch.errors import BaselineError
from geluwatch.records import (
    POINTS,
    Application,
    Baseline,
    BaselineOrigin,
    Certificate,
    Drained,
    Gross,
    Histogram,
    Parity,
    PointKey,
    PointReport,
    PointTotals,
    Probe,
    ProbeResult,
    Report,
    Site,
    Totals,
    Usage,
    Verdict,
    Window,
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is watched: fixed for the life of a monitor."""

    model: str
    model_version: str
    labels: Mapping[str, str]
    framework: str


class Monitor:
    """Folds drained batches into windows, judges closed ones, and reports."""

    def __init__(self, identity: Identity, sites: tuple[Site, ...], config: Config, now: float) -> None:
        self._identity = identity
        self._sites = sites
        self._config = config
        self._attached = now
        self._builder = WindowBuilder(now)
        self._recorder = recorder.Recorder(config)
        self._last: Window | None = None
        self._totals = Totals()
        self._points: dict[PointKey, PointTotals] = {}
        self._judge: Judge | None = None
        self._origin: BaselineOrigin | None = None
        self._follower: Follower | None = None
        self._judged = Judged()
        self.misfit: BaselineError | None = None
        """Why the last closed window could not be judged: a layer's width is not the armed baseline's. None where it could."""
        self._gross: Mapping[PointKey, Gross] = {}
        self._wrong = False
        self._kernels = Kernels()
        self._parity: Mapping[str, Parity] = {}
        self._headrooms = Headrooms()
        self._probed: ProbeResult | None = None
        self._baseline_cdf: dict[PointKey, tuple[float, ...]] = {}
        self._last_forward: float | None = None
        self._disabled: tuple[str, ...] = ()
        self._usage: Usage | None = None

    def ingest(self, drained: Drained) -> None:
        """Fold one drained batch into the open window and the totals."""
        drained = self._builder.fitting(drained)
        # Counters first: they hold what was non-finite, and a failure among the rows must not lose it.
        self._builder.add(drained)
        self._totals = add_drained(self._totals, drained)
        self._last_forward = drained.last_forward or self._last_forward
        self._disabled = drained.disabled
        self._usage = drained.usage or self._usage
        points = observe_rows(drained.rows, self._builder.rows)
        self._builder.gather(points)
        for key, seen in points.items():
            self._points[key] = add_point(self._points.get(key, PointTotals()), key, seen)
        self._kernels.add(drained.rows)
        self._headrooms.see(drained.rows)

    def restarted(self, now: float) -> Monitor:
        """Return a monitor of the same model and armed baseline that has seen nothing yet, for a forked child."""
        fresh = Monitor(self._identity, self._sites, self._config, now)
        if self._judge is not None:
            fresh.arm(self._judge.baseline, promoted=self._origin is not None and self._origin.promoted)
        return fresh

    def census(self, sites: tuple[Site, ...]) -> None:
        """Take the source's present census; sites turn blind when they prove to be."""
        self._sites = sites

    def count(self, part: str, errors: int = 0, flush_seconds: float = 0.0) -> None:
        """Add failures of a part of the agent, and time spent in the background."""
        if errors:
            self._totals = replace(self._totals, errors=add_counts(self._totals.errors, {part: errors}))
        self._totals = replace(self._totals, flush_seconds=self._totals.flush_seconds + flush_seconds)

    def note(self, said: Application, failed_pages: int) -> None:
        """Add what the application says of its own work, and the pages that could not be served."""
        self._totals = replace(self._totals, application=application.added(self._totals.application, said))
        self.count("collect", errors=failed_pages)

    def ready_to_close(self) -> bool:
        """Return whether the open window can be judged: at some site at least; a thinner one is carried over.

        A site that starves, as an expert without work does, holds nobody up: its own rows are left unjudged. Nor does
        a NaN wait for rows.
        """
        gathered = (self._builder.rows((layer, "pre")) for layer in self._observed())
        return max(gathered, default=0) >= self._config.minimum_rows or self._builder.first_nonfinite is not None

    def skip_idle(self, now: float) -> Window | None:
        """Have the open window begin now if nothing has been seen in it, and return what has gone by; None where there was something.

        So no window holds an idle night, and none that is judged begins long before its first pass.
        """
        if not self._builder.untouched:
            return None
        idle = self._builder.close(now, ())
        self._builder = WindowBuilder(now)
        return idle

    def close(self, now: float) -> Window:
        """Close the open window, judge it if a baseline is armed and fits (see `misfit`), open the next, and return the closed one."""
        self._last = window = self._builder.close(now, self._observed())
        self._builder = WindowBuilder(now)
        self._totals = replace(self._totals, windows=self._totals.windows + 1)
        self._recorder.add(window, self._observed())
        self._gross = self._news(gross.faults(window.points, self._sites, self._config.minimum_rows))
        self._parity = self._kernels.measure(self._sites)
        self._headrooms.add(window, self._config.minimum_rows, self._calm())
        self._judged = Judged()
        # The window behind a spoilt one holds what was left of the fault when that one was closed.
        wrong = bool(self._gross) or window.first_nonfinite is not None
        spoilt, self._wrong = wrong or self._wrong, wrong
        self.misfit = None
        if self._judge:
            try:
                self._judged = self._judge.judge(window, spoilt=spoilt)
            except BaselineError as error:
                self.misfit = error
        elif self._follower:
            self._judged = self._follower.judge(window, {site.layer: site.position for site in self._sites})
        return window

    @property
    def baseline(self) -> Baseline | None:
        """The armed baseline, without its windows."""
        return self._judge.baseline if self._judge else None

    def note_probe(self, result: ProbeResult) -> None:
        """Take what a replay of the armed baseline's probe showed; that of another one is let go."""
        if self._judge and self._judge.baseline.name == result.baseline:
            self._probed = result

    def make_baseline(self, name: str, now: float, probe: Probe | None = None) -> Baseline:
        """Return a baseline of the closed windows with a probe, calibrated but neither stored nor armed.

        Raises:
            BaselineError: There is no window, or more than a tenth of them is unfit.
        """
        identity = self._identity
        baseline = self._recorder.baseline(
            model=identity.model, model_version=identity.model_version, name=name, created=now, sites=self._sites
        )
        return replace(baseline, probe=probe)

    def arm(self, baseline: Baseline, *, promoted: bool = False) -> Certificate:
        """Judge windows against a baseline from now on; `promoted` is told to readers.

        Raises:
            BaselineError: The baseline is too small to be armed, or knows none of the model's layers.
        """
        baseline = recorder.revived(baseline, self._config)
        if not baseline.certificate.armed:
            raise BaselineError(f"Baseline {baseline.name!r} cannot be armed: {baseline.certificate.reason}")
        known = {layer for layer, _ in baseline.references}
        # Blind ones count: what is compiled is observed from its first call on, and what is switched off may be switched on again.
        if known.isdisjoint(site.layer for site in self._sites):
            raise BaselineError(
                f"Baseline {baseline.name!r} has none of this model's layers (it has {', '.join(sorted(known)[:3])}, ...); "
                "record one for this model."
            )
        judge = Judge(replace(baseline, windows=()), self._config)  # which are up to 256 MiB, and judge nothing
        self._judge, self._judged, self._follower, self._probed = judge, Judged(), None, None
        self._origin = provenance.origin(baseline, promoted=promoted)
        self._recorder = recorder.Recorder(self._config)
        self._baseline_cdf = {}
        for key, values in baseline.histograms.items():
            *below, total = histogram.bucket_counts(values, FULL_EDGES[key[1]])
            self._baseline_cdf[key] = (*(count / total for count in below), 1.0) if total else ()
        return baseline.certificate

    def follow(self, windows: int, lag: int) -> None:
        """Judge windows against earlier ones of the same run from now on, instead of any armed baseline.

        Raises:
            ConfigError: The stretch is too short, or there is no lag.
        """
        self._follower = Follower(self._config, windows, lag)
        self._judge, self._judged, self._probed, self._baseline_cdf = None, Judged(), None, {}
        self._origin = None

    def report(self, now: float) -> Report:
        """Return what is known at this moment, as one frozen record."""
        last = self._last
        first = (last.first_nonfinite if last else None) or self._builder.first_nonfinite
        sites = {(site.layer, point): self._point(site, (site.layer, point), last) for site in self._sites for point in POINTS}
        baseline = self.baseline
        onset = min(self._judged.onset.times.values(), default=None)
        told = attribute(onset, self._probed, has_probe=baseline is not None and baseline.probe is not None)
        since = self._follower.since if self._follower else None
        return Report(
            model=self._identity.model,
            model_version=self._identity.model_version,
            time=now,
            verdict=self._verdict(first),
            sites=sites,
            first_nonfinite=first,
            drifting=self._judged.onset.layers,
            scope=self._judged.onset.scope,
            cause=self._judged.cause,
            probe=self._probed,
            origin=told.origin,
            attribution=told.sentence if baseline else "",
            labels=self._identity.labels,
            window_started=last.started if last else None,
            window_ended=last.ended if last else None,
            attached=self._attached,
            last_forward=self._last_forward,
            baseline=baseline.name if baseline else follow.NAME if since is not None else None,
            baseline_created=baseline.created if baseline else since,
            certificate=baseline.certificate if baseline else None,
            baseline_origin=self._origin,
            totals=self._totals,
            disabled=self._disabled,
            usage=self._usage,
            gradients=self._config.gradients,
            framework=self._identity.framework,
            cost_budget=self._config.cost_budget,
            profile=self._config.profile,
        )

    def _verdict(self, first_nonfinite: str | None) -> Verdict:
        if first_nonfinite:
            return "page"
        if not self._observed():
            return "blind"
        alarms = {seen.alarm for seen in self._judged.points.values()} | self._headrooms.alarms()
        if "page" in alarms or self._gross:
            return "page"
        if "ticket" in alarms or (self._probed is not None and self._probed.moved) or any(seen.fault for seen in self._parity.values()):
            return "ticket"
        return "ok" if self._judged.points else "warming"

    def _news(self, faults: dict[PointKey, Gross]) -> dict[PointKey, Gross]:
        """Return the gross faults that the armed baseline does not have as well: a layer may be dead for good."""
        known = self._calm()
        return {key: fault for key, fault in faults.items() if key not in known or not gross.the_same(fault, known[key])}

    def _calm(self) -> Mapping[PointKey, Histogram]:
        return self._judge.baseline.histograms if self._judge else {}

    def _observed(self) -> tuple[str, ...]:
        return tuple(site.layer for site in self._sites if site.state == "observed")

    def _point(self, site: Site, key: PointKey, last: Window | None) -> PointReport:
        seen = last.points.get(key) if last else None
        mean, std = moments.pooled(seen.moments) if seen else (float("nan"), float("nan"))
        base = PointReport(
            site.layer,
            key[1],
            site.position,
            site.state,
            site.reason,
            rows=seen.moments.rows if seen else 0,
            elements=seen.histogram.finite + seen.histogram.nonfinite if seen else 0,
            nonfinite=self._nonfinite_elements(key, last),
            mean=mean,
            std=std,
            totals=self._points.get(key, PointTotals()),
            baseline_cdf=self._baseline_cdf.get(key, ()),
            gross=self._gross.get(key, ""),
            parity=self._parity.get(site.layer) if key[1] == "post" else None,
            headroom=self._headrooms.at(key),
        )
        judged = self._judged.points.get(key)
        if judged is None:
            return base
        return replace(
            base,
            ks=judged.panel.ks.lower,
            ks_upper=judged.panel.ks.upper,
            panel=judged.panel,
            score=judged.score,
            surprise=judged.surprise,
            family=judged.family,
            horizon=judged.horizon,
            evidence=judged.evidence,
            alarm=judged.alarm,
            onset=self._judged.onset.times.get(key),
        )

    def _nonfinite_elements(self, key: PointKey, last: Window | None) -> int:
        counts = [source[key[0]].elements for source in (self._builder.nonfinite, last.nonfinite if last else {}) if key[0] in source]
        return sum(count for elements in counts for (point, _), count in elements.items() if point == key[1])
