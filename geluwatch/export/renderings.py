"""Keeps what was rendered of a report, so that scrapes of it share the same bytes and none waits long for another."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Lock

from geluwatch.export.messages import Response
from geluwatch.records import Report

_SECONDS_OF_PATIENCE = 1.0
"""A tenth of the time that Prometheus gives a scrape unless told otherwise."""


class Renderings:
    """The last rendering of each content type, and those that are being made.

    Of one content type there is never more than one in the making: the interpreter would only take turns between two,
    and both would end later. Whoever asks meanwhile waits for it, but not for long: then the rendering before it is
    answered, which is a flush older. Counters lose nothing by that, while a scrape that times out is a gap in every
    series and a target that looks down. Only where there is none yet is it waited for to the end.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: dict[str, tuple[Report, Response]] = {}
        self._made: dict[str, Future[Response]] = {}

    def of(self, report: Report, content_type: str, make: Callable[[], Response]) -> Response:
        """Return the rendering of a report, or for want of time of the one before it.

        Raises:
            Exception: It could not be made, by this caller or by the one that was waited for; the next one tries again.
        """
        with self._lock:
            kept = self._kept.get(content_type)
            if kept is not None and kept[0] is report:
                return kept[1]
            under_way = self._made.get(content_type)
            if under_way is None:
                mine = self._made[content_type] = Future[Response]()
        if under_way is None:
            return self._make(report, content_type, make, mine)
        if kept is not None and not wait([under_way], _SECONDS_OF_PATIENCE).done:
            return kept[1]
        return under_way.result()

    def _make(self, report: Report, content_type: str, make: Callable[[], Response], promised: Future[Response]) -> Response:
        try:
            made = make()
        except BaseException as error:
            with self._lock:
                del self._made[content_type]
            promised.set_exception(error)
            raise
        with self._lock:
            self._kept[content_type] = (report, made)
            del self._made[content_type]
        promised.set_result(made)
        return made
