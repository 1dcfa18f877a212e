"""Keeps baselines and the history: in memory, or in any database that SQLAlchemy knows."""

from __future__ import annotations

from geluwatch.store.baselines import SqlBaselines
from geluwatch.store.engine import is_lasting, refuse_missing
from geluwatch.store.history import SqlHistory
from geluwatch.store.memory import MemoryBaselines
from geluwatch.store.memory_history import MemoryHistory
from geluwatch.store.rules import BaselineInfo, HistoryInfo

__all__ = ["BaselineInfo", "HistoryInfo", "MemoryBaselines", "MemoryHistory", "SqlBaselines", "SqlHistory", "is_lasting", "refuse_missing"]
