"""The demonstration's story from end to end, in small and without servers."""

from __future__ import annotations

import io

from geluwatch.cli.demo.plain import PlainDisplay
from geluwatch.cli.demo.stage import Stage
from geluwatch.cli.demo.story import Size, Story

SMALL = Size(baseline=60, texts=4, batch=4, tokens=16, calm=10, settled=3)


def test_the_whole_story_keeps_its_promises() -> None:
    """Real drift, a flipped bit and a failing training run are each seen in their tier, and calm before and after is calm."""
    shown = io.StringIO()
    with Stage(PlainDisplay(shown), None) as stage:
        outcome = Story(stage, "sqlite://", SMALL).run()
    assert outcome.good, outcome.verdict + shown.getvalue()
    assert 6 == len(outcome.findings)
    assert 2 == shown.getvalue().count("PAGE    NaN or Inf")
    assert 1 == shown.getvalue().count("TICKET  ")
