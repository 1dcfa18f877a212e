"""What the agent says in the host's log."""

from __future__ import annotations

import logging

import pytest

from geluwatch import log
from geluwatch.inbox import Inbox


class Raising(logging.Handler):
    """A log handler with a fault of its own."""

    def emit(self, _record: logging.LogRecord) -> None:
        """Fail."""
        raise RuntimeError("the handler")


def test_a_message_is_the_agents_and_names_who_speaks(caplog: pytest.LogCaptureFixture) -> None:
    """It goes to one logger, begins with the agent's name, and its place in the code is that of the speaker."""
    log.say(log.WARNING, "%s failed", "the guard")
    assert [("geluwatch", logging.WARNING, "geluwatch: the guard failed")] == caplog.record_tuples
    assert "test_log.py" == caplog.records[0].filename


def test_a_handler_that_raises_reaches_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the speaker does next is done: a page that failed is counted."""
    monkeypatch.setattr(logging.getLogger("geluwatch"), "handlers", [Raising()])
    inbox = Inbox()
    inbox.page_failed(OSError("on purpose"))
    assert 1 == inbox.take()[1]
