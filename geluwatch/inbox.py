"""What comes to a watch between two reports, from threads that must not wait: the application's, and those that serve pages."""

from __future__ import annotations

import threading

from geluwatch import log
from geluwatch.core import application
from geluwatch.records import Application


class Inbox:
    """Takes numbers from any thread; its lock is never held longer than an addition takes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said = Application()
        self._failed_pages = 0

    def note(self, said: Application) -> None:
        """Add what the application says."""
        with self._lock:
            self._said = application.added(self._said, said)

    def page_failed(self, error: Exception) -> None:
        """Count and log a page that could not be served."""
        log.say(log.WARNING, "a page could not be served: %r", error)
        with self._lock:
            self._failed_pages += 1

    def take(self) -> tuple[Application, int]:
        """Return what has come since the last call: what the application said, and how many pages failed."""
        with self._lock:
            taken = self._said, self._failed_pages
            self._said, self._failed_pages = Application(), 0
        return taken
