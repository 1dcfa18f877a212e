"""The background thread of a watch: calls it at intervals, ends with the model, and goes on in a forked child."""

from __future__ import annotations

import os
import queue
import threading
import weakref
from collections.abc import Callable

from geluwatch import log

_NOW, _STOP, _GONE = "now", "stop", "gone"


class Background:
    """A daemon thread that calls a function every so often, until it is stopped or the object it serves is no more."""

    def __init__(self, work: Callable[[], None], last: Callable[[], None], seconds: float) -> None:
        """Take what to call.

        Args:
            work: Called every `seconds`.
            last: Called once, instead, when the object that is followed is no more.
            seconds: Time between two calls.
        """
        self._work, self._last, self._seconds = work, last, seconds
        # Of all ways to wake a thread, only this one may be used from a finalizer, which can interrupt any line of any thread.
        self._wake: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._followed: Callable[[], object] = lambda: None
        self._told = False
        self.on_fork: Callable[[], None] = lambda: None
        """Called in a forked child before the thread goes on there."""

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="geluwatch", daemon=True)
        self._thread.start()
        _running.add(self)

    def follow(self, thing: object) -> None:
        """End the thread when an object is no more."""
        finalizer = weakref.finalize(thing, _wake_if_alive, weakref.ref(self))
        finalizer.atexit = False
        self._followed = finalizer.detach

    def soon(self) -> None:
        """Have the function called now, unless it is that which asks."""
        if self._thread is not threading.current_thread():
            self._wake.put(_NOW)

    def end_soon(self) -> None:
        """Have the thread end after what it is doing."""
        _running.discard(self)
        self._followed()
        self._wake.put(_STOP)

    def stop(self) -> None:
        """End the thread, and wait for it unless this is it."""
        self.end_soon()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=10.0)

    def finish(self, seconds: float) -> bool:
        """Have the thread end with its last call, and wait for so long at most; return whether there is a thread to make it."""
        if self._thread is None or not self._thread.is_alive():
            return False
        self._wake.put(_GONE)
        self._thread.join(timeout=seconds)
        return True

    def resume_after_fork(self) -> None:
        """Go on in a forked child, into which no other thread has come along."""
        self._wake = queue.SimpleQueue()
        self.on_fork()
        self.start()

    def model_gone(self) -> None:
        """Have the thread end with its last call; may be called from a finalizer."""
        self._wake.put(_GONE)

    def _run(self) -> None:
        while True:
            try:
                word = self._wake.get(timeout=self._seconds)
            except queue.Empty:
                word = _NOW
            if word == _NOW:
                self._guarded(self._work)
                continue
            if word == _GONE:
                self.end_soon()
                self._guarded(self._last)
            return

    def _guarded(self, work: Callable[[], None]) -> None:
        """Call something. Nothing that it raises ends the thread; it is logged once, where the user's log handlers let it be."""
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # a thread that has ended silently watches nothing
            told, self._told = self._told, True
            if not told:
                log.say(log.WARNING, "the background thread failed and goes on: %r", error)


def _wake_if_alive(reference: weakref.ref[Background]) -> None:
    background = reference()
    if background is not None:
        background.model_gone()


def _resume_all() -> None:
    for background in tuple(_running):
        background.resume_after_fork()


_running: weakref.WeakSet[Background] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_resume_all)
