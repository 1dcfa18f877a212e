"""Scrapes at the same time: one rendering for all, and nobody waits long for somebody else's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from geluwatch.export.messages import Request, Response, Route
from geluwatch.export.pages import routes
from geluwatch.records import Report

ReportBuilder = Callable[..., Report]


class Slow(dict[Any, Any]):
    """Sites that nobody can read before the test says so; counts who has tried."""

    def __init__(self, sites: Any) -> None:
        super().__init__(sites)
        self.readable, self.read = threading.Event(), threading.Event()
        self.readers: set[int] = set()

    def values(self) -> Any:
        self.readers.add(threading.get_ident())
        self.read.set()
        assert self.readable.wait(20)
        return super().values()


class Scrapers:
    """A watch's pages and threads that ask for them."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.pages: dict[str, Route] = routes(lambda: self.report, {})
        self.pool = ThreadPoolExecutor(8)

    def ask(self, path: str = "/metrics", accept: str | None = None) -> Response:
        """Ask in this thread."""
        return self.pages[path](Request(path, accept=accept))

    def publish_slow(self) -> Slow:
        """Publish a report whose rendering does not end."""
        sites = Slow(self.report.sites)
        self.report = replace(self.report, sites=sites)
        return sites


@pytest.fixture
def scrapers(make_report: ReportBuilder) -> Iterator[Scrapers]:
    """Scrapers of a small report, all of them gone at the end."""
    made = Scrapers(make_report("ok", 1))
    yield made
    made.pool.shutdown()


def test_scrapes_at_once_share_one_rendering(scrapers: Scrapers) -> None:
    """Eight that ask while the first rendering is under way all get it, and it was made by one of them."""
    sites = scrapers.publish_slow()
    answers = [scrapers.pool.submit(scrapers.ask) for _ in range(8)]
    assert sites.read.wait(5)
    time.sleep(0.2)
    assert [] == [answer for answer in answers if answer.done()]
    sites.readable.set()
    assert 1 == len({id(answer.result(5)) for answer in answers})
    assert 1 == len(sites.readers)


def test_a_scrape_behind_a_slow_one_gets_the_last_report_soon(scrapers: Scrapers) -> None:
    """While a rendering hangs, others wait about a second and are answered with the one before it; once made, the new one is given."""
    before = scrapers.ask()
    sites = scrapers.publish_slow()
    first = scrapers.pool.submit(scrapers.ask)
    assert sites.read.wait(5)
    began = time.monotonic()
    others = [scrapers.pool.submit(scrapers.ask) for _ in range(4)]
    assert {id(before)} == {id(other.result(10)) for other in others}
    assert 0.9 < time.monotonic() - began < 8
    assert 1 == len(sites.readers)
    sites.readable.set()
    assert first.result(5) is not before
    assert first.result(5) is scrapers.ask()


def test_formats_do_not_wait_for_each_other(scrapers: Scrapers) -> None:
    """A text that hangs holds up neither OpenMetrics nor JSON of the next report."""
    sites = scrapers.publish_slow()
    stuck = scrapers.pool.submit(scrapers.ask)
    assert sites.read.wait(5)
    scrapers.report = replace(scrapers.report, sites=dict(sites))
    assert b"# EOF" in scrapers.ask(accept="application/openmetrics-text;version=1.0.0").body
    assert scrapers.ask("/report.json").body.startswith(b"{")
    assert not stuck.done()
    sites.readable.set()
    assert stuck.result(5).body


def test_a_rendering_that_fails_fails_for_all_who_waited_and_is_tried_again(scrapers: Scrapers) -> None:
    """Whoever waited learns of the failure too; the next scrape renders anew."""
    sound = scrapers.report
    sites = scrapers.publish_slow()
    sites[next(iter(sites))] = None
    answers = [scrapers.pool.submit(scrapers.ask) for _ in range(3)]
    assert sites.read.wait(5)
    time.sleep(0.1)
    sites.readable.set()
    assert {AttributeError} == {type(answer.exception(5)) for answer in answers}
    scrapers.report = sound
    assert b"geluwatch_build_info" in scrapers.ask().body
