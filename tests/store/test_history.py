"""What every history promises, checked on each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from geluwatch.core import histogram, history, ks
from geluwatch.core.window import observe
from geluwatch.errors import DamagedError, StoreError
from geluwatch.ports import History, HistoryStore
from geluwatch.records import Nonfinite, PointKey, PointSummary, Span, Summary, Window
from geluwatch.retention import DAY, HOUR, Retention
from geluwatch.store import HistoryInfo, MemoryHistory, SqlHistory
from geluwatch.store.engine import for_writing
from geluwatch.store.history import _to_row
from geluwatch.store.schema import downgrade

MIDNIGHT, MINUTE = 1_700_006_400.0, 60.0
PRE: PointKey = ("encoder.0.act", "pre")
ALWAYS = (0.0, float("inf"))

Kept = MemoryHistory | SqlHistory


@pytest.fixture
def kept(place: str | None) -> Iterator[Kept]:
    """Every history there is, empty."""
    with closing(MemoryHistory() if place is None else SqlHistory(place)) as opened:
        yield opened


def span(
    number: int = 0, model: str = "minilm", version: str = "1", source: str = "host:1", every: float = MINUTE, seed: int | None = None
) -> Span:
    """Return a window of a minute, one of those that end at intervals after midnight, that saw 64 values of its own."""
    ended = MIDNIGHT + every * (number + 1)
    values = np.random.default_rng(number if seed is None else seed).normal(size=(16, 4))
    seen = {PRE: observe(values.astype(np.float32), "float32")}
    summary = Summary({"ok": 1}, {PRE: PointSummary(0.25, 0.1)}, hook_seconds=0.5)
    return Span(model, version, "raw", source, 1, Window(ended - 60.0, ended, 2, 1, seen), summary)


def all_of(store: History, model: str = "minilm", version: str | None = None) -> list[Span]:
    """Return everything kept of a model."""
    return list(store.spans(model, version, *ALWAYS))


def fill(store: Kept, spans: Iterable[Span]) -> None:
    """Append many spans; in a database in one transaction, for each waits for the disk."""
    if isinstance(store, MemoryHistory):
        for each in spans:
            store.append(each)
        return
    with store._session(writing=True) as session:
        session.add_all(map(_to_row, spans))


def thin(store: HistoryStore, now: float, retention: Retention | None = None, model: str = "minilm") -> None:
    """Thin to the end."""
    while store.thin(model, retention or Retention(), now):
        pass


def test_is_a_history_store(kept: HistoryStore) -> None:
    """Every history fulfils the port's protocols, that of readers and that of writers."""
    assert isinstance(kept, History)
    assert isinstance(kept, HistoryStore)


def test_what_was_appended_comes_back(kept: HistoryStore, same: Callable[[Any, Any], bool]) -> None:
    """Every field of every record comes back, bit for bit."""
    seen = span()
    window = replace(
        seen.window,
        nonfinite={"encoder.0.act": Nonfinite(3, 2, 1, {("post", "nan"): 5}, 2, 1)},
        first_nonfinite="encoder.0.act",
        blind=("encoder.1.act",),
        thinned=True,
        samples=7,
    )
    said = {PRE: PointSummary(float("inf"), 0.1 + 0.2, "page", 2**40), ("encoder.0.act", "post"): PointSummary()}
    summary = Summary(
        {"page": 1}, said, ("encoder.0.act",), "model", "weights\n∞", "encoder.0.act", "v1", 3, 0.1, 0.2, 0.3, 4, {"sink": 5}, 6
    )
    for each in (replace(seen, window=window, summary=summary), replace(span(1), window=history.without_moments(span(1).window))):
        kept.append(each)
        assert same(each, all_of(kept)[-1])


def test_spans_come_in_the_order_of_their_time(kept: HistoryStore) -> None:
    """Whenever they were written, and of whatever version; only what ended after the beginning of the time asked for, and by its end."""
    for number, version in ((3, "2"), (0, "1"), (2, "1"), (1, "2")):
        kept.append(span(number, version=version))
    kept.append(span(9, model="gpt2"))
    ends = [MIDNIGHT + 60.0 * number for number in range(1, 5)]
    assert ends == [each.window.ended for each in all_of(kept)]
    assert [ends[0], ends[2]] == [each.window.ended for each in all_of(kept, version="1")]
    within = kept.spans("minilm", None, ends[0], ends[2])
    assert [ends[1], ends[2]] == [each.window.ended for each in within]
    assert [] == all_of(kept, "unknown")


def test_a_day_is_of_the_period_that_it_ended_in(kept: HistoryStore) -> None:
    """A merged day is of the period that thinning puts it in, though its first window begins before midnight, or in 1970."""
    starts = {0: MIDNIGHT - 30.0, 1: 0.0, 1_438: MIDNIGHT + 1_437 * MINUTE}
    fill(kept, [replace(span(number), window=replace(span(number).window, started=at)) for number, at in starts.items()])
    for age in (0.0, 30 * DAY):
        thin(kept, MIDNIGHT + age)
        assert [] == list(kept.spans("minilm", None, MIDNIGHT - DAY, MIDNIGHT))
        assert 3 == sum(each.windows for each in kept.spans("minilm", None, MIDNIGHT, MIDNIGHT + DAY))
        assert [] == list(kept.spans("minilm", None, MIDNIGHT + DAY, MIDNIGHT + 2 * DAY))
    assert ["day"] == [each.resolution for each in all_of(kept)]


def test_a_period_is_widened_to_what_is_merged(kept: Kept) -> None:
    """To the edges of the hours and days that it touches, and that are kept merged; single windows widen nothing."""
    fill(kept, (span(number, every=30 * MINUTE) for number in (0, 10, 50, 51, 52, 96)))
    asked = MIDNIGHT + 10 * MINUTE, MIDNIGHT + 5.5 * HOUR
    assert asked == kept.widened("minilm", None, *asked)
    thin(kept, MIDNIGHT + 51 * HOUR)
    assert (MIDNIGHT, MIDNIGHT + 6 * HOUR) == kept.widened("minilm", None, *asked)
    assert (MIDNIGHT + HOUR, MIDNIGHT + 2 * HOUR) == kept.widened("minilm", "1", MIDNIGHT + HOUR, MIDNIGHT + 2 * HOUR)
    assert asked == kept.widened("minilm", "2", *asked)
    thin(kept, MIDNIGHT + 15 * DAY)
    assert (MIDNIGHT, MIDNIGHT + DAY) == kept.widened("minilm", None, *asked)
    across = MIDNIGHT + 2 * HOUR, MIDNIGHT + 25.75 * HOUR
    assert (MIDNIGHT, MIDNIGHT + 26 * HOUR) == kept.widened("minilm", None, *across)


def test_what_ends_after_a_period_is_not_of_it(kept: HistoryStore) -> None:
    """A window that begins within a period and ends a year later, for its process's clock was set wrong meanwhile, is not told of it."""
    for each in (span(), replace(span(), window=replace(span().window, ended=MIDNIGHT + 365 * DAY))):
        kept.append(each)
    assert [MIDNIGHT + MINUTE] == [each.window.ended for each in kept.spans("minilm", None, MIDNIGHT, MIDNIGHT + DAY)]


def test_spans_are_read_one_at_a_time(kept: HistoryStore) -> None:
    """Whoever stops after the first has read one, and holds up nobody."""
    fill(kept, map(span, range(3)))
    reading = kept.spans("minilm", "1", *ALWAYS)
    assert MIDNIGHT + 60.0 == next(reading).window.ended
    reading.close()  # type: ignore[attr-defined]  # all of them are generators
    kept.append(span(3))


def test_a_window_appended_twice_is_kept_once(kept: HistoryStore) -> None:
    """A writer that did not hear of its success may try again; another process's window of the same moment is another."""
    for source in ("host:1", "host:1", "host:2"):
        kept.append(span(source=source))
    assert ["host:1", "host:2"] == [each.source for each in all_of(kept)]


def test_thinning_keeps_every_window_once_and_every_histogram_exactly(kept: Kept) -> None:
    """Through hours and into days, the distance of each span from a baseline is that of its windows' own histograms, to the last bit."""
    spans = [span(number, every=20 * MINUTE, source=f"host:{number % 2}") for number in range(66, 78)]
    baseline = histogram.from_values(np.random.default_rng(99).normal(0.1, 1, 500).astype(np.float32))
    fill(kept, spans)
    for now in (MIDNIGHT + 47.5 * HOUR, MIDNIGHT + 3 * DAY, MIDNIGHT + 15 * DAY, MIDNIGHT + 30 * DAY):
        thin(kept, now)
        left = list(spans)
        for merged in all_of(kept):
            mine, left = left[: merged.windows], left[merged.windows :]
            assert (mine[0].window.started, mine[-1].window.ended) == (merged.window.started, merged.window.ended)
            raw = histogram.merge(each.window.points[PRE].histogram for each in mine)
            assert ks.distance(raw, baseline) == ks.distance(merged.window.points[PRE].histogram, baseline)
            assert (merged.windows, 0.5 * merged.windows) == (merged.summary.verdicts["ok"], merged.summary.hook_seconds)
        assert [] == left
    assert [("day", "", 6), ("day", "", 6)] == [(each.resolution, each.source, each.windows) for each in all_of(kept)]


def test_resolutions_follow_age(kept: Kept) -> None:
    """The last day is kept window by window, two weeks by the hour, the rest by the day, until it goes; the list says so."""
    fill(kept, (span(number, every=30 * MINUTE) for number in range(52)))
    thin(kept, MIDNIGHT + 27 * HOUR)
    assert [("raw", 46, 46), ("hour", 3, 6)] == [(info.resolution, info.spans, info.windows) for info in kept.listing()]
    kept.forget("minilm", MIDNIGHT + 20 * HOUR)
    thin(kept, MIDNIGHT + 15 * DAY)
    assert [("hour", 2), ("day", 1)] == [(info.resolution, info.spans) for info in kept.listing()]
    thin(kept, MIDNIGHT + 403 * DAY)
    assert () == kept.listing()


def test_the_size_is_bounded(kept: Kept) -> None:
    """Above the limit, over all versions of a model together, windows are merged early and the oldest dropped; other models stay."""
    fill(kept, (span(number, every=10 * MINUTE, version=str(number // 6 % 2), seed=0) for number in range(36)))
    fill(kept, (span(number, model="other") for number in range(3)))
    size, other = kept.size("minilm"), kept.size("other")
    assert size == sum(info.size for info in kept.listing() if info.model == "minilm") > 0
    thin(kept, MIDNIGHT + 7 * HOUR, Retention(most_bytes=size * 2 // 3))
    assert kept.size("minilm") <= size * 2 // 3
    assert {"raw", "hour"} == {info.resolution for info in kept.listing() if info.model == "minilm"}
    assert 36 == sum(info.windows for info in kept.listing() if info.model == "minilm")
    thin(kept, MIDNIGHT + 7 * HOUR, Retention(most_bytes=size // 20))
    assert 0 < kept.size("minilm") <= size // 20
    assert other == kept.size("other")


def test_forgetting(kept: Kept) -> None:
    """What had ended by a moment goes, of one version or of all; the rest stays, and the answer is how many spans went."""
    fill(kept, (span(number, version=version) for number in range(4) for version in ("1", "2")))
    assert 2 == kept.forget("minilm", MIDNIGHT + 120.0, "1")
    assert 0 == kept.forget("unknown", MIDNIGHT + 120.0)
    assert 4 == kept.forget("minilm", MIDNIGHT + 180.0)
    assert [MIDNIGHT + 240.0] * 2 == [each.window.ended for each in all_of(kept)]


def test_listing(kept: Kept) -> None:
    """One entry for each model, version and resolution, in this order whatever the collation, with the time it covers."""
    for model, version, number in (("b", "1", 0), ("B", "1", 3), ("b", "1", 1), ("b", "0", 2)):
        kept.append(span(number, model=model, version=version))
    assert [("B", "1", "raw", 1, 1), ("b", "0", "raw", 1, 1), ("b", "1", "raw", 2, 2)] == [
        (info.model, info.model_version, info.resolution, info.spans, info.windows) for info in kept.listing()
    ]
    assert (MIDNIGHT, MIDNIGHT + 120.0) == (kept.listing()[-1].started, kept.listing()[-1].ended)
    assert isinstance(kept.listing()[0], HistoryInfo)
    assert {int} == {type(info.size) for info in kept.listing()}


def test_others_are_the_single_windows_that_came_last(kept: Kept) -> None:
    """Of other processes and of the model, those that came last, whenever they ended; merged ones say nothing, and they are some dozens."""
    fill(kept, (span(number, source=f"host:{number}") for number in range(3)))
    thin(kept, MIDNIGHT + 25 * HOUR)
    assert [] == list(kept.others("minilm", "host:9"))
    fill(kept, [span(90, source="host:1"), span(80, source="host:2"), span(85, model="other"), span(70, source="host:1", version="2")])
    assert [MIDNIGHT + 71 * MINUTE, MIDNIGHT + 91 * MINUTE] == sorted(kept.others("minilm", "host:2"))
    fill(kept, (span(number, source="host:3") for number in range(60)))
    fill(kept, (span(number, source="host:3") for number in range(100, 160)))
    ends = sorted(kept.others("minilm", "host:1"))
    assert (99, MIDNIGHT + 22 * MINUTE, MIDNIGHT + 160 * MINUTE) == (len(ends), ends[0], ends[-1])


def test_threads_share_a_history(kept: Kept) -> None:
    """Several threads append and thin at once: every window is in one span."""

    def work(source: int) -> None:
        for number in range(3):
            kept.append(span(number, source=f"host:{source}"))
            kept.thin("minilm", Retention(), MIDNIGHT + 3 * DAY)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    thin(kept, MIDNIGHT + 3 * DAY)
    assert [("hour", 12)] == [(each.resolution, each.windows) for each in all_of(kept)]


def test_close_can_be_called_twice(kept: HistoryStore) -> None:
    """Closing a closed history does nothing."""
    kept.close()
    kept.close()


def test_a_reader_sees_one_moment(url: str) -> None:
    """While somebody reads, another connection thins: the reader sees each window once, as it was when it began."""
    store, other = SqlHistory(url), SqlHistory(url)
    fill(store, (span(number, every=10 * MINUTE) for number in range(12)))
    reading = store.spans("minilm", None, *ALWAYS)
    first = next(reading)
    thin(other, MIDNIGHT + 3 * DAY)
    assert 12 == 1 + sum(each.windows for each in reading)
    assert "raw" == first.resolution
    assert ["hour", "hour"] == [each.resolution for each in all_of(store)]


def test_a_damaged_span_holds_up_no_other(url: str) -> None:
    """It is named once, stays where it is and is merged into nothing; the others go on, and it can be forgotten."""
    store = SqlHistory(url)
    fill(store, map(span, range(60)))
    with store._engine.begin() as connection:
        connection.execute(
            text("UPDATE geluwatch_history SET payload = :bytes WHERE ended = :ended"), {"bytes": b"?", "ended": MIDNIGHT + 300.0}
        )
    with pytest.raises(StoreError, match=r'The raw history of model "minilm" that ended at 1700006700 cannot be read'):
        thin(store, MIDNIGHT + 3 * DAY)
    assert [("raw", 60)] == [(info.resolution, info.windows) for info in store.listing()]
    thin(store, MIDNIGHT + 3 * DAY)
    assert [("raw", 1), ("hour", 59)] == [(info.resolution, info.windows) for info in store.listing()]
    reading = store.spans("minilm", None, *ALWAYS)
    assert 59 == next(reading).windows
    with pytest.raises(DamagedError, match=r"cannot be read.* it is left out, and goes when its time has come"):
        next(reading)
    assert 1 == store.forget("minilm", MIDNIGHT + 300.0)
    assert [59] == [each.windows for each in all_of(store)]


def test_a_database_that_is_replaced_gets_its_tables_again(url: str) -> None:
    """A window goes into the new database at once; whatever else comes first says what happened, and works when it is tried again."""
    store = SqlHistory(url)
    store.append(span())
    with for_writing(store._engine).begin() as connection:
        downgrade(connection)
    store.append(span(1))
    assert [MIDNIGHT + 120.0] == [each.window.ended for each in all_of(store)]
    with for_writing(store._engine).begin() as connection:
        downgrade(connection)
    with pytest.raises(StoreError, match=r"had lost its tables, which have been made anew; try again\.$"):
        store.size("minilm")
    assert 0 == store.size("minilm")


def test_a_closed_history_says_so(url: str) -> None:
    """Nothing is opened again behind the back of whoever closed it."""
    store = SqlHistory(url)
    store.close()
    with pytest.raises(StoreError, match="has been closed by this process"):
        store.append(span())
