"""Bundles of evidence after the fact: read, shown, and replayed until the fault is mended.

`run_pass` and `run_rows` are what a regression test calls; `geluwatch incident replay --write-test` writes one.
"""

from __future__ import annotations

from geluwatch.analysis.incident.replay import Seen, run_pass, run_rows
from geluwatch.bundles.bundle import Bundle, read

__all__ = ["Bundle", "Seen", "read", "run_pass", "run_rows"]
