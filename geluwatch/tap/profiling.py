"""Profiler traces of forward passes, made in the model's own thread because somebody asked for them.

A pass is profiled from its beginning to its end and no longer: between passes a thread may do anything for any time, and
events would pile up. The trace is written out by the drain, which is in no hurry.
"""

from __future__ import annotations

import gzip
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from geluwatch.config import MOST_PROFILED
from geluwatch.tap._compat import profiler_running
from geluwatch.tap.state import ThreadState, wait_for

if TYPE_CHECKING:
    from geluwatch.tap.breaker import Breaker


class Profiling:
    """Passes to be profiled, and those that were."""

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker
        self.wanted: deque[None] = deque(maxlen=MOST_PROFILED)
        """An entry for each pass that is still to be profiled."""
        self._done: deque[Any] = deque()

    def ask(self, passes: int) -> None:
        """Have the next passes profiled, whichever threads they run in."""
        self.wanted.extend([None] * passes)

    def begin(self, state: ThreadState) -> None:
        """Start the profiler in this thread, where a pass begins, unless one runs already, of the user's or in another thread."""
        if profiler_running() or not self._breaker.allows("incident"):
            return
        try:
            self.wanted.pop()
        except IndexError:  # another thread was quicker
            return
        try:
            # Not torch.profiler.profile: it imports the compiler when it starts, for seconds, in the model's thread.
            device = "cuda" if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]  # torch's own
            profile: Any = torch.autograd.profiler.profile(use_device=device, use_kineto=True)
            profile.__enter__()
            state.profile = profile
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            self._breaker.trip("incident", error)

    def end(self, state: ThreadState) -> None:
        """Stop it where the pass ends."""
        profile, state.profile = state.profile, None
        try:
            profile.__exit__(None, None, None)
            self._done.append(profile)
        except Exception as error:  # noqa: BLE001  # nothing may leave a hook
            self._breaker.trip("incident", error)

    def close(self, own: ThreadState | None, others: Iterable[ThreadState]) -> None:
        """Have no pass profiled any more; a profiler can be stopped in its own thread only, so passes under way are waited for."""
        self.wanted.clear()
        if own is not None and own.profile is not None:
            self.end(own)
        wait_for(others, lambda state: state.profile is not None)

    def take(self) -> Iterator[bytes]:
        """Yield the traces of passes that were profiled: Chrome's JSON, gzipped."""
        while self._done:
            try:
                yield _trace(self._done.popleft())
            except Exception as error:  # noqa: BLE001  # the drain must not fail of a trace
                self._breaker.trip("incident", error)


def _trace(profile: Any) -> bytes:
    with tempfile.TemporaryDirectory(prefix="geluwatch-") as folder:
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        return gzip.compress(path.read_bytes(), mtime=0)
