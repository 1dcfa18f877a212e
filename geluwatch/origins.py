"""What the watched model is, and in what it differs from the one that a baseline was recorded of."""

from __future__ import annotations

from dataclasses import replace

from geluwatch.config import Config
from geluwatch.core import provenance
from geluwatch.ports import Source
from geluwatch.records import Baseline, Provenance, Report, Site, Weights


class Origins:
    """Makes the provenance of one watched model, and remembers its weights as last read."""

    def __init__(self, source: Source, config: Config) -> None:
        self._source = source
        self._config = config
        self._weights: Weights | None = None

    def read(self, sites: tuple[Site, ...], report: Report) -> Provenance:
        """Return the provenance of the model, all of whose weights are read for it, in this thread."""
        found = self._source.provenance()
        self._weights = found.weights
        return self._completed(found, sites, report)

    def differences(self, baseline: Baseline, sites: tuple[Site, ...], report: Report) -> tuple[str, ...]:
        """Return a sentence for each thing that matters in which the model is not what the baseline was recorded of.

        Weights are those last read; where they never were, they are no difference.
        """
        if baseline.provenance is None:
            return ()
        found = self._source.provenance(digest=False)
        running = replace(found, weights=self._weights or found.weights)
        return provenance.differences(baseline.provenance, self._completed(running, sites, report))

    def _completed(self, found: Provenance, sites: tuple[Site, ...], report: Report) -> Provenance:
        from geluwatch.export.samples import package_version

        return provenance.completed(found, sites, report, self._config, package_version())
