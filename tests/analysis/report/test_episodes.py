"""Stretches in alarm."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from geluwatch.analysis.report.episodes import JOIN, Episodes, marks
from geluwatch.analysis.report.findings import Episode
from geluwatch.records import PointKey, PointSummary, Span, Summary, Verdict, Window

START = 1_741_003_200.0
LAYERS = ("a", "b", "c")


def span(minute: float, verdict: Verdict = "ok", forwards: int = 10, source: str = "p", version: str = "1", **said: object) -> Span:
    """A window of ten minutes."""
    started = START + 60.0 * minute
    window = Window(started, started + 600.0, forwards, forwards, {})
    return Span("m", version, "raw", source, 1, window, Summary(verdicts={verdict: 1}, **said))  # type: ignore[arg-type]


def drift(minute: float, *layers: str, evidence: float = 1.5, cause: str = "", forwards: int = 10, **process: str) -> Span:
    """A window with layers in drift, the first one first."""
    points: dict[PointKey, PointSummary] = {(layer, "pre"): PointSummary(evidence, 0.1, "ticket") for layer in layers}
    said = {"points": points, "drifting": layers, "scope": "model", "cause": cause}
    return span(minute, "ticket", forwards, **process, **said)  # type: ignore[arg-type]


def episodes(*spans: Span) -> tuple[Episode, ...]:
    """The episodes of spans."""
    found = Episodes()
    for each in spans:
        found.take(each)
    return found.found(patience=900.0)


@given(alarmed=st.lists(st.booleans(), min_size=1, max_size=60), pause=st.sampled_from([0, 30, 120]))
def test_every_window_in_alarm_is_in_one_episode(alarmed: list[bool], pause: int) -> None:
    """An episode begins and ends with windows in alarm, holds all between, and lies apart from the next; the newest decides what is on."""
    spans = [drift(at * (10 + pause), "b") if each else span(at * (10 + pause)) for at, each in enumerate(alarmed)]
    found = episodes(*spans)
    for one, other in pairwise(found):
        assert other.started - one.ended > JOIN
    flagged = [each.window for each, on in zip(spans, alarmed, strict=True) if on]
    assert {each.started for each in found} <= {each.started for each in flagged}
    assert {each.ended for each in found} <= {each.ended for each in flagged}
    assert all(1 == sum(one.started <= each.started and each.ended <= one.ended for one in found) for each in flagged)
    assert alarmed[-1] == any(each.ongoing for each in found)


def test_where_and_why_are_those_of_the_strongest_window() -> None:
    """First layer, scope, cause and peak come from the window with most evidence; layers seen elsewhere come behind, by their onset."""
    (found,) = episodes(drift(0, "c"), drift(10, "a", "b", evidence=3.0, cause="a: it moved"), drift(20, "b"))
    assert ("a", "b", "c") == found.layers
    assert ("model", "it moved", 3.0, START + 900.0) == (found.scope, found.cause, found.evidence, found.peak)
    assert {"c": START, "a": START + 600.0, "b": START + 600.0} == found.onsets


def test_short_calm_does_not_end_an_episode_and_long_calm_does() -> None:
    """An alarm that comes back within the hour is the same one."""
    assert 1 == len(episodes(drift(0, "a"), span(10), drift(60, "a")))
    assert 2 == len(episodes(drift(0, "a"), span(10), drift(80, "a")))


def test_another_first_layer_after_some_calm_is_another_episode() -> None:
    """What comes back elsewhere is told apart after a quarter of an hour of calm; without calm the first layer may waver."""
    assert [("a",), ("b",)] == [each.layers for each in episodes(drift(0, "a"), span(10), drift(30, "b"))]
    assert [("a", "b")] == [each.layers for each in episodes(drift(0, "a"), drift(10, "b"))]


def test_nan_is_a_page_and_names_the_first_layer() -> None:
    """A window with non-finite passes is a page of its own kind; drift beside it is told apart."""
    moved = {("a", "pre"): PointSummary(2.0, 0.1, "ticket")}
    broken = span(0, "page", first_nonfinite="b", nonfinite_forwards=7, points=moved, drifting=("a",))
    assert [("drift", "ticket", ("a",), 0), ("nonfinite", "page", ("b",), 7)] == [
        (each.kind, each.alarm, each.layers, each.forwards) for each in episodes(broken)
    ]


def test_an_alarm_that_nothing_explains_is_told_as_such() -> None:
    """A page without NaN or drift, such as a dead layer, and a ticket without drift, such as a wrong kernel, are of another kind."""
    assert [("other", "page")] == list(marks(span(0, "page"), ()))
    assert [("other", "ticket")] == list(marks(span(0, "ticket"), ()))
    assert [] == list(marks(span(0, "ok"), ()))


def test_what_stays_on_without_traffic_is_no_news() -> None:
    """A window without a pass neither begins nor prolongs an episode, and does not end it either."""
    (found,) = episodes(drift(0, "a"), drift(10, "a", forwards=0), drift(20, "a", forwards=0))
    assert (START + 600.0, True) == (found.ended, found.ongoing)


def test_processes_and_versions_are_told_apart() -> None:
    """An episode counts the processes that saw it among those alive; another version has its own; a calm one does not end another's."""
    found = episodes(span(0, source="q"), drift(0, "a"), span(10, source="q"), drift(10, "a"), drift(20, "a", version="2", source="r"))
    assert [("1", 1, 2, True), ("2", 1, 1, True)] == [(each.version, each.sources, each.alive, each.ongoing) for each in found]


def test_silent_layers_are_blind() -> None:
    """Layers that are blind for half an hour are a ticket, named in their order, from when they fell silent; before it they are none."""
    found = Episodes()
    for minute in (0, 10):
        found.take(span(minute), ("b", "c"))
    assert () == found.found(900.0)
    found.take(span(20), ("c",))
    (told,) = found.found(900.0)
    assert ("blind", "ticket", START, START + 1800.0, ("b", "c"), True) == (
        told.kind, told.alarm, told.started, told.ended, told.layers, told.ongoing
    )  # fmt: skip


def test_layers_that_are_called_now_and_then_are_not_blind() -> None:
    """A window in which all gave rows begins the half hour anew; one without traffic, or another process's, does not."""
    now_and_then, at_last = Episodes(), Episodes()
    for minute in range(0, 240, 10):
        now_and_then.take(span(minute), () if minute % 30 == 0 else ("b",))
        at_last.take(span(minute), ("b",))
        at_last.take(span(minute, source="q"))
        at_last.take(span(minute, forwards=0))
    assert () == now_and_then.found(900.0)
    assert [("blind", START)] == [(each.kind, each.started) for each in at_last.found(900.0)]
