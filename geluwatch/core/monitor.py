"""The state of one watched model, between what the tap drained and the report that readers see.

Time comes as an argument and nothing here locks: the agent calls it from one thread at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

from geluwatch.catalog import EDGES
from geluwatch.config import Config
from geluwatch.core import calibrate, histogram, moments
from geluwatch.core.judge import Judge, Judgement
from geluwatch.core.totals import add_counts, add_drained, add_point
from geluwatch.core.window import WindowBuilder, nbytes, observe_rows
from geluwatch.errors import BaselineError
from geluwatch.records import (
    POINTS,
    Baseline,
    Certificate,
    Drained,
    PointKey,
    PointReport,
    PointTotals,
    Report,
    Site,
    Totals,
    Verdict,
    Window,
)

KEPT_WINDOWS = 144
"""Closed windows kept for the next baseline; older ones are let go, so that memory stays bounded.

Enough to calibrate a horizon of 16 (`calibrate.windows_needed`) when a tenth of them is unfit.
"""

KEPT_BYTES = 256 * 2**20
"""Most memory of kept windows: 300 of MiniLM's in float32 fit, fewer of wider models or of float16's finer lattice."""


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
        self._closed: deque[Window] = deque(maxlen=KEPT_WINDOWS)
        self._last: Window | None = None
        self._totals = Totals()
        self._points: dict[PointKey, PointTotals] = {}
        self._judge: Judge | None = None
        self._judged: Mapping[PointKey, Judgement] = {}
        self._baseline_cdf: dict[PointKey, tuple[float, ...]] = {}
        self._last_forward: float | None = None
        self._disabled: tuple[str, ...] = ()

    def ingest(self, drained: Drained) -> None:
        """Fold one drained batch into the open window and the totals."""
        drained = self._builder.fitting(drained)
        # Counters first: they hold what was non-finite, and a failure among the rows must not lose it.
        self._builder.add(drained)
        self._totals = add_drained(self._totals, drained)
        self._last_forward = drained.last_forward or self._last_forward
        self._disabled = drained.disabled
        points = observe_rows(drained.rows)
        self._builder.gather(points)
        for key, seen in points.items():
            self._points[key] = add_point(self._points.get(key, PointTotals()), key, seen)

    def census(self, sites: tuple[Site, ...]) -> None:
        """Take the source's present census; sites turn blind when they prove to be."""
        self._sites = sites

    def count(self, part: str, errors: int = 0, flush_seconds: float = 0.0) -> None:
        """Add failures of a part of the agent, and time spent in the background."""
        if errors:
            self._totals = replace(self._totals, errors=add_counts(self._totals.errors, {part: errors}))
        self._totals = replace(self._totals, flush_seconds=self._totals.flush_seconds + flush_seconds)

    def ready_to_close(self) -> bool:
        """Return whether the open window can be judged: at some site at least; a thinner one is carried over.

        A site that starves, as an expert without work does, holds nobody up: its own rows are left unjudged. Nor does
        a NaN wait for rows.
        """
        gathered = (self._builder.rows((layer, "pre")) for layer in self._observed())
        return max(gathered, default=0) >= self._config.minimum_rows or self._builder.first_nonfinite is not None

    def close(self, now: float) -> None:
        """Close the open window, judge it if a baseline is armed, and open the next.

        Raises:
            BaselineError: A layer's width is not the armed baseline's; the window is closed but not judged.
        """
        self._last = window = self._builder.close(now, self._observed())
        self._builder = WindowBuilder(now)
        self._keep(window)
        self._totals = replace(self._totals, windows=self._totals.windows + 1)
        self._judged = {}
        if self._judge:
            self._judged = self._judge.judge(window.points)

    def _keep(self, window: Window) -> None:
        """Keep a closed window for the next baseline, and let the oldest go where they take too much memory."""
        self._closed.append(window)
        while len(self._closed) > 1 and sum(map(nbytes, self._closed)) > KEPT_BYTES:
            self._closed.popleft()

    def make_baseline(self, name: str, now: float) -> Baseline:
        """Return a baseline of the closed windows, calibrated but neither stored nor armed.

        Raises:
            BaselineError: There is no window, or more than a tenth of them is unfit.
        """
        layers = self._observed()
        fit = calibrate.usable(self._closed, layers, self._config.minimum_rows)
        certificate = calibrate.certify(fit, len(self._closed) - len(fit), self._config.horizons, self._config.tickets_per_month)
        return Baseline(self._identity.model, self._identity.model_version, name, now, self._sites, fit, certificate)

    def arm(self, baseline: Baseline) -> Certificate:
        """Judge windows against a baseline from now on.

        Raises:
            BaselineError: The baseline is too small to be armed, or knows none of the model's layers.
        """
        if not baseline.certificate.armed:
            raise BaselineError(f"Baseline {baseline.name!r} cannot be armed: {baseline.certificate.reason}")
        judge = Judge(baseline, self._config.minimum_rows)
        known = {layer for layer, _ in judge.armed}
        if not known & set(self._observed()):
            raise BaselineError(
                f"Baseline {baseline.name!r} has none of this model's layers (it has {', '.join(sorted(known)[:3])}, ...); "
                "record one for this model."
            )
        self._judge, self._judged = judge, {}
        self._closed.clear()
        self._baseline_cdf = {}
        for key, armed in judge.armed.items():
            *below, total = histogram.bucket_counts(armed.histogram, EDGES[key[1]])
            self._baseline_cdf[key] = (*(count / total for count in below), 1.0) if total else ()
        return baseline.certificate

    def report(self, now: float) -> Report:
        """Return what is known at this moment, as one frozen record."""
        last = self._last
        first = (last.first_nonfinite if last else None) or self._builder.first_nonfinite
        sites = {(site.layer, point): self._point(site, (site.layer, point), last) for site in self._sites for point in POINTS}
        drifting = tuple(dict.fromkeys(layer for (layer, _), seen in sites.items() if seen.drifting))
        baseline = self._judge.baseline if self._judge else None
        return Report(
            model=self._identity.model,
            model_version=self._identity.model_version,
            time=now,
            verdict=self._verdict(first, drifting),
            sites=sites,
            first_nonfinite=first,
            drifting=drifting,
            labels=self._identity.labels,
            window_started=last.started if last else None,
            window_ended=last.ended if last else None,
            attached=self._attached,
            last_forward=self._last_forward,
            baseline=baseline.name if baseline else None,
            baseline_created=baseline.created if baseline else None,
            totals=self._totals,
            disabled=self._disabled,
            framework=self._identity.framework,
        )

    def _verdict(self, first_nonfinite: str | None, drifting: tuple[str, ...]) -> Verdict:
        if not self._observed():
            return "blind"
        if first_nonfinite:
            return "page"
        if not self._judged:
            return "warming"
        return "ticket" if drifting else "ok"

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
        )
        judged = self._judged.get(key)
        if judged is None:
            return base
        return replace(
            base,
            ks=judged.distance.lower,
            ks_upper=judged.distance.upper,
            score=judged.score,
            threshold=judged.threshold,
            horizon=judged.horizon,
            evidence=judged.evidence,
            drifting=judged.evidence >= 1.0,
        )

    def _nonfinite_elements(self, key: PointKey, last: Window | None) -> int:
        counts = [source[key[0]].elements for source in (self._builder.nonfinite, last.nonfinite if last else {}) if key[0] in source]
        return sum(count for elements in counts for (point, _), count in elements.items() if point == key[1])
