"""The short story of one page: a baseline long enough that drift may wake somebody, then drift, then calm again."""

from __future__ import annotations

from geluwatch.cli.demo.monitoring import DRIFT
from geluwatch.cli.demo.outcome import Finding
from geluwatch.cli.demo.story import MODEL, Phases, Size, Story
from geluwatch.cli.demo.webhook import Alert

# Paging takes 100 independent looks at every horizon, which at horizon 16 are some 1,100 windows. So windows are small: four
# texts of sixteen tokens in one pass. Texts come up again, in other company.
SIZE = Size(baseline=1200, texts=4, batch=4, tokens=16, calm=200, settled=40)

_MORE = 200
"""Windows to go on with where the replay of the baseline had bad luck."""
_MOST = 1800


class PageStory(Story):
    """Runs the phases that lead to a page and out of it."""

    @property
    def notification(self) -> Alert | None:
        """The page as it reached the receiver."""
        return self._stage.alert(DRIFT, MODEL) if self._stage.servers else None

    def _phases(self) -> Phases:
        return (
            ("Load and attach", self._load),
            ("Record a baseline that may page", self._record),
            ("Start the servers", self._start_servers),
            ("Normal traffic", self._serve_normal),
            ("Source code, not prose", self._drift),
            ("Prose again", lambda: self._recover("Prose again is calm again", DRIFT)),
        )

    def _record(self) -> bool:
        super()._record()
        windows = self._size.baseline
        while not self._certificate.paging and windows < _MOST:
            windows += _MORE
            self._stage.say("info", f"so it takes more of the same: {_MORE} further windows")
            self._serve_baseline(_MORE)
            self._certificate = self._watch.record_baseline(f"{self._baseline}-{windows}", arm=True)
        note = f"{self._certificate.windows} windows, worth {self._certificate.looks:.0f} independent looks"
        finding = Finding(promise="The baseline may page", kept=self._certificate.paging, note=self._certificate.paging_reason or note)
        self._stage.findings.append(finding)
        return self._certificate.paging

    def _drift(self) -> bool:
        self._stage.say("info", "the same service is now sent source code")
        return self._drifts("page")
