"""The weekly digest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import weeks

from geluwatch.analysis.report import Findings, digest

Gathered = Callable[..., Findings]

GOLDEN = Path(__file__).parent / "golden" / "eventful.md"


def test_the_digest_of_an_eventful_week_is_the_golden_text(gathered: Gathered) -> None:
    """What people read is pinned; each alarm and each low signal of the week is a line of it."""
    found = gathered(weeks.EVENTFUL)
    text = digest(found)
    assert len(found.episodes) + len(found.signals) == sum(line.startswith("- ") for line in text.splitlines())
    assert GOLDEN.read_text("utf-8") == text, f"if it is meant, write the new text into {GOLDEN}"


def test_a_calm_week_is_said_in_a_few_lines(gathered: Gathered) -> None:
    """Nothing happened is short, and says what was watched."""
    lines = digest(gathered(weeks.CALM)).splitlines()
    assert "# Well: minilm 1, 3 to 10 March 2025" == lines[0]
    assert 2 == lines.count("None.")
    assert any(line.startswith("Watched: 6 GELUs in ") for line in lines)
    assert len(lines) < 20


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"drift": (150.0, 0.0), "strength": 0.45},
            "Evidence came near the limit of 1 for a ticket, without an alarm, at `encoder.layer.2",
        ),
        ({"drift": (40.0, 0.0), "strength": 0.4}, "Evidence rose over the period, without an alarm, at `encoder.layer.2"),
        ({"idle": (80.0, 70.0)}, "No forward pass was made once, from Fri 7 Mar 03:59 for 10 h."),
        ({"silent": (80.0, 70.0)}, "Nothing was kept once, from Fri 7 Mar 03:59 for 10 h."),
        ({"hours": 30.0}, "The history begins on Sun 9 Mar 05:59 only"),
        ({"errors": {"mask": 2}}, "Failures were caught inside the agent: mask "),
        ({"blind": True}, "1 GELU cannot be observed since the baseline: `encoder.layer.5"),
        ({"baseline": None}, "No baseline is armed, so drift is not judged"),
    ],
)
def test_what_is_below_an_alarm_is_gathered(gathered: Gathered, changes: dict[str, object], told: str) -> None:
    """Each low signal is in the digest of a week that has it, and in no calm one; none of them is an alarm."""
    found = gathered(replace(weeks.CALM, **changes))  # type: ignore[arg-type]
    assert told in digest(found)
    assert told not in digest(gathered(weeks.CALM))
    assert () == found.episodes
