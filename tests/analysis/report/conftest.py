"""Findings of the weeks that most tests look at, gathered once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import weeks

from geluwatch.analysis.report import Findings, Subject, gather

Gathered = Callable[..., Findings]


@pytest.fixture(scope="session")
def gathered() -> Gathered:
    """Gathers the findings of a story's last days; of each story and number of days once."""
    known: dict[tuple[int, float], Findings] = {}
    stories: list[weeks.Story] = []

    def found(story: weeks.Story, days: float = 7.0) -> Findings:
        if story not in stories:
            stories.append(story)
        key = stories.index(story), days
        if key not in known:
            week = weeks.Week(story)
            known[key] = gather(week, week, Subject(story.model, None, week.end - days * weeks.DAY, week.end))
        return known[key]

    return found
