"""A report on one model over a period: gathered from its history, then written as a page or as a digest.

::

    History, BaselineStore ── gather ──> Findings ──┬── page     one HTML file
                                                    └── digest   Markdown
"""

from __future__ import annotations

from geluwatch.analysis.report.digest import digest
from geluwatch.analysis.report.files import write
from geluwatch.analysis.report.findings import Findings
from geluwatch.analysis.report.gather import Subject, gather
from geluwatch.analysis.report.page import page

__all__ = ["Findings", "Subject", "digest", "gather", "page", "write"]
