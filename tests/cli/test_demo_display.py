"""How the demonstration looks: as lines, as a screen, and at its end."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from geluwatch.cli.demo import summary, words
from geluwatch.cli.demo.display import Event, LayerRow, duration, interval, layer_rows, number, short_name, short_names
from geluwatch.cli.demo.layertable import columns, evidence_bar, table, trail
from geluwatch.cli.demo.outcome import Finding, Outcome
from geluwatch.cli.demo.plain import PlainDisplay
from geluwatch.cli.demo.screen import ScreenDisplay
from geluwatch.cli.demo.webhook import Alert
from geluwatch.records import Certificate, Interval, Panel, PointKey, Report

PLAIN = """\

[1/2] Load and attach
   1.5 s  ok      attached

[2/2] A bit flips
  62.0 s  PAGE    alert received
                  first at layer blocks.2.mlp.act
                  layer     state      mean   std   KS           evidence  non-finite
                  blocks.0  calm       -0.74  1.05  .0041-.0063  0.44      0
                  blocks.1  drift 1st  -0.74  1.05  .0041-.0063  1.75      0
                  blocks.2  first      -1e35  1.05  .0041-.0063  7e74      310
"""


def drawn(display: ScreenDisplay, width: int, height: int) -> list[str]:
    """Return the lines of a screen of that size."""
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None, legacy_windows=False)
    console.print(display)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]  # it is the StringIO from above


def test_plain_lines(overflowing: Report) -> None:
    """Without a terminal the story is lines of text: headings, events with time and tone, and the layers after each phase."""
    stream = io.StringIO()
    display = PlainDisplay(stream)
    display.plan(["Load and attach", "A bit flips"])
    display.begin(0)
    display.event(Event(1.5, "good", "attached"))
    display.end(0, good=True)
    display.begin(1)
    display.progress(1, 2)
    display.report(overflowing)
    display.event(Event(62.0, "page", "alert received\nfirst at layer blocks.2.mlp.act"))
    display.end(1, good=True)
    assert PLAIN == stream.getvalue()


@pytest.mark.parametrize(("width", "height"), [(200, 50), (130, 40), (100, 30), (80, 24)])
def test_the_screen_fits(overflowing: Report, width: int, height: int) -> None:
    """At every usual size each layer shows its state and evidence, and the newest event is there."""
    display = ScreenDisplay(Console(file=io.StringIO()))
    display.plan(["Load and attach", "A bit flips"])
    display.begin(0)
    display.end(0, good=True)
    display.begin(1)
    display.progress(3, 8)
    display.report(overflowing)
    for second in range(60):
        display.event(Event(float(second), "info", "one of many events"))
    display.event(Event(62.0, "page", "the newest\nwith a second line"))
    lines = drawn(display, width, height)
    assert height == len(lines)
    assert width >= max(map(len, lines))
    for expected in (
        "blocks.0  calm",
        "blocks.1  drift 1st",
        "blocks.2  first",
        "1.75",
        "310",
        "A bit flips 3/8",
        "with a second line",
    ):
        assert any(expected in line for line in lines), expected
    assert (width >= 96) == any("✔ Load and attach" in line for line in lines)


def test_evidence_bar_has_its_limit_in_the_middle() -> None:
    """Half a bar is the limit, twice the limit fills it, and more or nothing stays within."""
    assert "━━───┃─────" == evidence_bar(0.5, 11).plain
    assert "─────┃─────" == evidence_bar(0.0, 11).plain
    assert "───────────" == evidence_bar(math.nan, 11).plain
    assert "━━━━━┃─────" == evidence_bar(1.0, 11).plain
    assert "━━━━━┃━━━━━" == evidence_bar(2.0, 11).plain == evidence_bar(1e74, 11).plain


def test_trail_shows_one_window_a_character() -> None:
    """Heights are quarters of the limit; a window without judgement is a dot."""
    assert "·▁▃▅█" == trail([math.nan, 0.2, 0.5, 1.0, 1e74]).plain


@given(room=st.integers(60, 250), length=st.integers(1, 16))
def test_the_table_never_needs_more_room_than_there_is(room: int, length: int) -> None:
    """Whatever the width, no cell of the table is cut, the bar has a middle, and one character more never takes a reading away."""
    fit, wider = columns(["x" * length], room), columns(["x" * length], room + 1)
    assert 1 == fit.bar % 2
    assert (fit.distance, fit.moments) <= (wider.distance, wider.moments)
    row = LayerRow("x" * length, "non-finite", -0.74, 1.05, 0.0041, 0.0063, 1.75, 2_277_888)
    console = Console(file=io.StringIO(), width=room)
    console.print(table([row], {row.name: [0.5] * 40}, room))
    drawn_table = console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO from above
    assert 2 == len(drawn_table.splitlines())
    assert "…" not in drawn_table
    assert "2,277,888" in drawn_table


def test_rows_show_the_worse_side_and_the_first_layer(overflowing: Report) -> None:
    """A layer's evidence is the larger of both sides, and its state the gravest."""
    rows = layer_rows(overflowing)
    assert ["calm", "drift 1st", "first"] == [row.state for row in rows]
    assert [0.44, 1.75, 7e74] == [row.evidence for row in rows]
    later = replace(overflowing, first_nonfinite="blocks.0.mlp.act")
    assert ["first", "drift 1st", "non-finite"] == [row.state for row in layer_rows(later)]
    second = replace(later, drifting=("blocks.0.mlp.act", "blocks.1.mlp.act"))
    assert ["first", "drift", "non-finite"] == [row.state for row in layer_rows(second)]
    key: PointKey = ("blocks.1.mlp.act", "post")
    dead = replace(second, sites={**second.sites, key: replace(second.sites[key], gross="dead")})
    assert "gross" == layer_rows(dead)[1].state


def test_names_lose_the_ending_they_share() -> None:
    """What all layers' names end with says nothing; a single layer keeps its name."""
    assert ["encoder.layer.0", "encoder.layer.1"] == short_names(["encoder.layer.0.mlp.act", "encoder.layer.1.mlp.act"])
    assert ["act", "blocks.act"] == short_names(["act", "blocks.act"])
    assert ["mlp.act"] == short_names(["mlp.act"])


def test_a_layer_that_a_report_lacks_has_no_name(overflowing: Report) -> None:
    """No layer, or an unknown one, reads as a dash."""
    assert ["blocks.1", "-", "-"] == [short_name(overflowing, layer) for layer in ("blocks.1.mlp.act", None, "other")]


def test_readings_stay_short() -> None:
    """Numbers, intervals and durations take a few characters whatever they are."""
    assert ["0.44", "-12.00", "7e74", "-1e35", "-", "inf"] == [number(value) for value in (0.44, -12.0, 7e74, -1e35, math.nan, math.inf)]
    assert [".0041-.0063", ".0041", "-"] == [interval(0.0041, 0.0063), interval(0.0041, 0.00411), interval(math.nan, math.nan)]
    assert ["7.4 s", "2 min 05 s"] == [duration(7.4), duration(125.3)]


def test_a_certificate_in_words() -> None:
    """The certificate says what it is based on, what it promises, what the replay gave, and what is missing for pages."""
    short = Certificate(
        48, 1, 90.0, (1, 4), 11.4, 1, 2.0, 1.0, 7.31, math.inf, 48, 4.8, 3, (0.6, 8.8), armed=True, paging_reason="no page yet."
    )
    told = " / ".join(words.certificate(short))
    for expected in (
        "48 windows, 1 left out, judged over 1 and 4 windows",
        "worth 11 independent looks",
        "a ticket from surprise 7.3 on, which calm traffic passes 2 times a month",
        "/ no page yet /",
        "3 false alarms where 5 were asked for (95 % interval 1 to 9)",
    ):
        assert expected in told
    assert "a page from surprise 9.2 on, 1 in three months" in " ".join(words.certificate(replace(short, page_limit=9.2, paging=True)))


def test_drift_in_words(overflowing: Report) -> None:
    """Drift is told by its extent, its scope and its cause, and what is not known is left out."""
    drifting = replace(overflowing, drifting=("blocks.0.mlp.act", "blocks.1.mlp.act"))
    assert "2 of 3 layers in drift, evidence up to 1.8 (surprise 3)" == words.drift(drifting)
    assert not words.origin(overflowing)
    told = words.origin(replace(overflowing, scope="model", cause="Values moved."))
    assert ["scope model, the others did not move alike: the model changed there", "Values moved."] == told.split("\n")
    assert words.origin(replace(overflowing, scope="traffic")).endswith("the traffic changed")
    assert words.origin(replace(overflowing, scope="unknown")).endswith("the layers do not tell whether the traffic changed or the model")


def test_drift_without_a_cause_in_figures(overflowing: Report) -> None:
    """Where no cause can be named, the figures of the first layer's more telling side stand in for it."""
    panel = Panel(Interval(0.01, 0.012), 0.0, 1, 0.031, -0.02, 0.0, 0.002, 0.1, 0.1, 0.0, 0.0)
    sites = {key: replace(seen, panel=panel, score=4.0 if key[1] == "pre" else 1.0) for key, seen in overflowing.sites.items()}
    told = words.origin(replace(overflowing, sites=sites))
    assert told.startswith("no one cause stands out: there values moved by 0.031 of their standard deviation, the mean by -0.020")
    assert "4.0 times" in told


def test_a_description_names_the_first_layer_of_a_list() -> None:
    """Of a list of layers the first is told, and how many there are more."""
    alert = Alert("firing", "Drift", {}, {"description": "Model a has drifted in 3 layers:\n  one\n  two\n  three\n"}, 0.0)
    assert "Model a has drifted in 3 layers: one, and 2 more" == words.description(alert)
    assert "It is so." == words.description(replace(alert, annotations={"description": "It is so."}))
    assert not words.description(replace(alert, annotations={}))


def test_an_outcome_is_good_only_if_every_promise_was_kept() -> None:
    """One broken promise, or none at all, is no success; the verdict says which and why."""
    kept = Finding(promise="Calm stays calm", kept=True, note="30 windows")
    broken = Finding(promise="A NaN is a page", kept=False, note="no alert came")
    assert Outcome((kept,), 1.0).good
    assert not Outcome((kept, broken), 1.0).good
    assert not Outcome((), 1.0).good
    assert "1 of 2 promises was not kept. A NaN is a page: no alert came." == Outcome((kept, broken), 1.0).verdict


def test_the_summary_tells_promises_alerts_and_runbooks() -> None:
    """The end names what was seen, after how long, in which layer, and which runbook to read."""
    console = Console(file=io.StringIO(), width=120)
    found = Finding(
        promise="A NaN is a page", kept=True, note="20 of 20", layer="blocks.2", seen_after=0.8, alert="GeluwatchNonFinite", alert_after=2.9
    )
    outcome = Outcome((found,), 94.0, {"live page": "http://127.0.0.1:1"})
    summary.show(outcome, console)
    summary.show_links(outcome, console)
    told = console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO from above
    for expected in (
        "✔",
        "A NaN is a page",
        "20 of 20",
        "blocks.2",
        "0.8 s",
        "2.9 s",
        "1 min 34 s",
        "geluwatch runbook GeluwatchNonFinite",
        "live page  http",
    ):
        assert expected in told, expected
