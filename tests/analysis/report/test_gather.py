"""Findings of whole weeks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import weeks

from geluwatch.analysis.report import Findings, Subject, gather
from geluwatch.analysis.report.opening import opening
from geluwatch.core.histogram import merge
from geluwatch.errors import ReportError, SignatureError
from geluwatch.records import Baseline, Nonfinite, Span
from geluwatch.store import MemoryBaselines

Gathered = Callable[..., Findings]
LAYERS = weeks.EVENTFUL.names


def subject(story: weeks.Story, version: str | None = None) -> Subject:
    """A story's whole week."""
    return Subject(story.model, version, weeks.END - 7 * weeks.DAY, weeks.END)


def test_counts_are_those_of_the_spans(gathered: Gathered) -> None:
    """Windows, passes, non-finite passes, and the agent's seconds are the sums over what is kept, and traffic adds up to the passes."""
    spans = list(weeks.Week(weeks.EVENTFUL).spans("minilm", None, weeks.END - 7 * weeks.DAY, weeks.END))
    found = gathered(weeks.EVENTFUL)
    assert sum(span.windows for span in spans) == found.windows == sum(each.windows for each in found.kept)
    assert sum(span.window.forwards for span in spans) == found.forwards == round(np.nansum(found.traffic))
    assert sum(span.summary.nonfinite_forwards for span in spans) == found.nonfinite_forwards
    assert math.isclose(sum(span.summary.hook_seconds for span in spans), found.agent.hook_seconds)
    assert sum(span.summary.errors.get("mask", 0) for span in spans) == found.agent.errors["mask"]
    assert max(span.summary.blind for span in spans) == found.agent.blind


def test_an_eventful_week_is_told_as_it_was_made(gathered: Gathered) -> None:
    """Each episode has the kind, the beginning to within a window, the first layer and the grade that the story gave it."""
    found = gathered(weeks.EVENTFUL)
    ago = [(each.kind, each.alarm, round((weeks.END - each.started) / 3600), each.layers[0], each.ongoing) for each in found.episodes]
    assert [
        ("nonfinite", "page", 112, LAYERS[4], False),
        ("drift", "page", 66, LAYERS[2], False),
        ("blind", "ticket", 20, LAYERS[4], True),
    ] == ago
    assert [("silent", 96, 87)] == [
        (gap.kind, round((weeks.END - gap.started) / 3600), round((weeks.END - gap.ended) / 3600)) for gap in found.gaps
    ]
    assert "ticket" == found.status
    assert 1 == found.sources


def test_each_layer_has_the_most_of_its_bins(gathered: Gathered) -> None:
    """A layer's most evidence is the most of its bins, in the bin of that moment; layers come in the model's order."""
    found = gathered(weeks.EVENTFUL)
    assert list(LAYERS) == [each.layer for each in found.layers]
    for each in found.layers:
        assert each.most == np.nanmax(each.evidence) == each.evidence[found.grid.place(each.when, each.when)][0]
    assert found.layers[4].mute[-20:].all()
    assert [True, True, False, False, False, False] == [each.alarm == "" for each in found.layers]
    assert [0, 0, 0, 0] == [each.elements for each in found.layers[:4]]
    assert all(each.elements for each in found.layers[4:])


def test_portraits_show_where_it_began_and_what_moved_most(gathered: Gathered) -> None:
    """The first picture is of the layer where drift began, against the baseline, at the span with most evidence, before the GELU."""
    found = gathered(weeks.EVENTFUL)
    first = found.portraits[0]
    assert (LAYERS[2], "pre") == (first.layer, first.point)
    assert first.worst.started <= found.layers[2].when <= first.worst.ended
    assert first.panel is not None
    assert 0.05 < first.panel.ks.lower <= first.panel.ks.upper < 0.3
    assert first.panel.mean_shift > 0.1
    assert 4 == len({each.layer for each in found.portraits})


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, "well"),
        ({"baseline": None}, "unjudged"),
        ({"silent": (30.0, 0.0)}, "silent"),
        ({"drift": (60.0, 40.0)}, "again"),
        ({"drift": (6.0, 0.0)}, "page"),
        ({"drift": (6.0, 0.0), "strength": 1.0}, "ticket"),
        ({"nonfinite": (2.0, 0.0)}, "page"),
    ],
)
def test_the_status_is_that_of_the_end(gathered: Gathered, changes: dict[str, object], status: str) -> None:
    """What is on at the end decides; a week that was not well is well again; no baseline and no windows are said."""
    assert status == gathered(replace(weeks.CALM, **changes)).status  # type: ignore[arg-type]


@dataclass(frozen=True)
class Starved(weeks.Week):
    """A week in which windows have too few rows to be judged in its last hours, and the version is another."""

    starving: float = 168.0
    version: str = "1"

    def spans(self, *arguments: object) -> Iterator[Span]:  # type: ignore[override]
        """Yield spans of which nothing was judged where it starves."""
        for span in super().spans(*arguments):  # type: ignore[arg-type]
            if span.window.started < self.end - self.starving * weeks.HOUR - 60.0:
                yield span
                continue
            summary = replace(span.summary, verdicts={"warming": span.windows}, points={})
            yield replace(span, model_version=self.version, summary=summary)


def test_a_baseline_by_which_no_window_was_judged_is_no_reason_to_say_well() -> None:
    """Windows with too few rows leave the model unjudged, with the reason and the runbook; nothing is said of calm."""
    week = Starved(weeks.CALM)
    found = gather(week, week, subject(weeks.CALM))
    first = opening(found)
    assert ("unjudged", "Not judged", "warming", "GeluwatchBaselineMissing") == (found.status, first.head, first.tone, first.runbook)
    assert "Windows had too few rows to be judged by baseline week-9, so nothing is known of drift." == first.sentences[0]
    assert first.sentences[1].startswith("No NaN or Inf in ")
    assert 2 == len(first.sentences)


@pytest.mark.parametrize(("version", "status"), [("1", "well"), ("2", "unjudged")])
def test_a_version_that_is_not_judged_is_not_well_because_another_was(version: str, status: str) -> None:
    """It is the last version and its baseline that count; some windows judged by it are enough."""
    week = Starved(weeks.CALM, starving=24.0, version=version)
    assert status == gather(week, weeks.Week(weeks.CALM), subject(weeks.CALM)).status


def test_the_resolution_changes_no_episode(gathered: Gathered) -> None:
    """Days in place of hours keep the windows, the episode and its first layer; a trend is told only of bins that are told apart."""
    hours, days = weeks.Story(drift=(66.0, 31.0)), weeks.Story(drift=(66.0, 31.0), daily=120.0)
    fine, coarse = gathered(hours), gathered(days)
    assert fine.windows == coarse.windows
    assert [each.layers[0] for each in fine.episodes] == [each.layers[0] for each in coarse.episodes]
    assert ["day", "hour", "raw"] == [each.resolution for each in coarse.kept]
    assert not math.isnan(fine.layers[0].trend)
    assert math.isnan(coarse.layers[0].trend)


def test_a_baseline_that_is_not_stored_is_said() -> None:
    """Its name is known from the windows; nothing is shown against it."""
    found = gather(weeks.Week(weeks.CALM), MemoryBaselines(), subject(weeks.CALM))
    assert found.baseline is not None
    assert ("week-9", None) == (found.baseline.name, found.baseline.stored)
    assert {None} == {each.panel for each in found.portraits} | {each.calm for each in found.portraits}
    assert any("is not in this store" in each.text for each in found.signals)


def test_a_baseline_whose_signature_is_refused_is_as_one_that_is_not_there() -> None:
    """Keys change: a report of what happened is made all the same."""

    class Refusing(MemoryBaselines):
        def load(self, model: str, model_version: str, name: str) -> Baseline:
            raise SignatureError(f"Baseline {name!r} of {model} {model_version} is signed by nobody that is trusted.")

    found = gather(weeks.Week(weeks.CALM), Refusing(), subject(weeks.CALM))
    assert found.baseline is not None
    assert found.baseline.stored is None


def test_a_followed_run_lacks_no_baseline() -> None:
    """Where windows are judged by the run's own past, no baseline is missed."""
    found = gather(weeks.Week(replace(weeks.CALM, baseline="following")), MemoryBaselines(), subject(weeks.CALM))
    assert found.baseline is not None
    assert (True, "well", ()) == (found.baseline.follows, found.status, found.signals)
    assert "stayed within the run's own past" in opening(found).sentences[0]


def test_a_site_blind_all_along_has_a_row_and_a_reason(gathered: Gathered) -> None:
    """A site that the baseline knows as blind is listed with the reason, and is no episode."""
    found = gathered(replace(weeks.CALM, blind=True))
    assert "compiled before attach" == found.layers[-1].blind
    assert ((), "well") == (found.episodes, found.status)
    assert any("cannot be observed" in each.text for each in found.signals)


def test_a_site_that_falls_silent_is_missed_though_no_window_names_it() -> None:
    """A site that proves to be blind leaves the census; it is told from the windows of the same version that it is missing from."""

    class Unnamed(weeks.Week):
        def spans(self, *arguments: object) -> object:  # type: ignore[override]
            for span in super().spans(*arguments):  # type: ignore[arg-type]
                yield replace(span, window=replace(span.window, blind=()))

    story = replace(weeks.CALM, mute=(20.0, 0.0))
    found = gather(Unnamed(story), weeks.Week(story), subject(story))  # type: ignore[arg-type]
    assert [("blind", (LAYERS[4],))] == [(each.kind, each.layers) for each in found.episodes]


class Passing(weeks.Week):
    """A week in whose last hours no request calls a layer that is in the census all the same."""

    uncalled = frozenset({LAYERS[4]})

    def spans(self, *arguments: object) -> Iterator[Span]:  # type: ignore[override]
        """Yield spans without its rows."""
        for span in super().spans(*arguments):  # type: ignore[arg-type]
            late = span.window.started > self.end - 5 * weeks.HOUR
            points = {key: seen for key, seen in span.window.points.items() if key[0] not in self.uncalled or not late}
            yield replace(span, window=replace(span.window, points=points, blind=tuple(self.uncalled) if late else ()))


class Without(weeks.Week):
    """Baselines that lack that layer."""

    def load(self, *names: str) -> Baseline:
        """Return one of them."""
        stored = super().load(*names)
        return replace(stored, histograms={key: seen for key, seen in stored.histograms.items() if key[0] not in Passing.uncalled})


@pytest.mark.parametrize(
    ("baseline", "baselines", "status"),
    [
        ("week-9", weeks.Week, "ticket"),
        ("week-9", Without, "well"),
        ("following", weeks.Week, "ticket"),
        (None, weeks.Week, "unjudged"),
    ],
)
def test_a_layer_that_is_not_called_is_blind_where_a_baseline_holds_it(
    baseline: str | None, baselines: type[weeks.Week], status: str
) -> None:
    """As the alert counts it: what the armed baseline lacks is merely not called, and so is everything where none is armed."""
    story = replace(weeks.CALM, baseline=baseline)
    found = gather(Passing(story), baselines(weeks.CALM), subject(story))
    assert (status, [("blind", (LAYERS[4],))] if status == "ticket" else []) == (
        found.status, [(each.kind, each.layers) for each in found.episodes]
    )  # fmt: skip


def test_a_layer_whose_rows_all_hold_a_nan_is_not_blind() -> None:
    """Its rows are left out of the window, and the guard has seen it."""

    class Broken(Passing):
        def spans(self, *arguments: object) -> Iterator[Span]:  # type: ignore[override]
            for span in super().spans(*arguments):
                faults = {layer: Nonfinite(3, 3) for layer in span.window.blind}
                yield replace(span, window=replace(span.window, nonfinite=faults, first_nonfinite=next(iter(faults), None)))

    found = gather(Broken(weeks.CALM), weeks.Week(weeks.CALM), subject(weeks.CALM))
    assert ["nonfinite"] == [each.kind for each in found.episodes]


def test_a_window_that_begins_in_1970_is_of_the_period_alone(gathered: Gathered) -> None:
    """A process that was told the time within its first window tells of nothing before the period."""

    class Unset(weeks.Week):
        def spans(self, *arguments: object) -> Iterator[Span]:  # type: ignore[override]
            for span in super().spans(*arguments):  # type: ignore[arg-type]
                late = span.resolution == "raw"
                yield replace(span, window=replace(span.window, started=5.0)) if not late and span.window.forwards % 5 == 0 else span

    week = Unset(weeks.EVENTFUL)
    found = gather(week, week, subject(weeks.EVENTFUL))
    assert (weeks.END - 7 * weeks.DAY, found.last) == (found.first, gathered(weeks.EVENTFUL).last)
    assert min(each.started for each in found.episodes) >= found.first


def test_nothing_kept_is_refused() -> None:
    """Another name, another version, and another time are one sentence."""
    week = weeks.Week(weeks.CALM)
    for asked in (Subject("other", None, 0.0, weeks.END), subject(weeks.CALM, "2"), Subject("minilm", None, 0.0, 1.0)):
        with pytest.raises(ReportError, match=r"No window of model .* is kept in this store for that period; look at the names"):
            gather(week, week, asked)


def test_memory_does_not_grow_with_the_period() -> None:
    """However many windows are read, of each (layer, point) two distributions are kept."""
    week = weeks.Week(replace(weeks.CALM, values=200))
    found = gather(week, week, subject(weeks.CALM))
    assert len(found.portraits) <= 2 * 4
    assert all(each.evidence.size == found.grid.bins for each in found.layers)


def test_stories_are_fit_for_the_core() -> None:
    """The made-up histograms are on a lattice of ours: they merge and keep their counts."""
    week = weeks.Week(weeks.CALM)
    parts = [span.window.points[LAYERS[0], "pre"].histogram for span in list(week.spans("minilm", None, 0.0, weeks.END))[:3]]
    assert sum(part.finite for part in parts) == merge(parts).finite
