"""Keeps baselines: in memory, or in any database that SQLAlchemy knows."""

from __future__ import annotations

from geluwatch.store.baselines import SqlBaselines
from geluwatch.store.memory import MemoryBaselines
from geluwatch.store.rules import BaselineInfo

__all__ = ["BaselineInfo", "MemoryBaselines", "SqlBaselines"]
