"""Gross faults: what pages without a baseline, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from monitored import CHANNELS, LAYERS, ROWS, Traffic

from geluwatch.records import Drained


def dead(traffic: Traffic, layer: str = LAYERS[1]) -> Drained:
    """A batch in which one layer's gates are closed for everything."""
    drained = traffic.batch()
    closed = np.full((ROWS, CHANNELS), -9.0, np.float32)
    rows = tuple(replace(each, pre=closed, post=0 * closed) if each.layer == layer else each for each in drained.rows)
    return replace(drained, rows=rows)


def impossible(traffic: Traffic, layer: str = LAYERS[1]) -> Drained:
    """A batch in which one layer gives values after the GELU that no GELU gives."""
    drained = traffic.batch()
    rows = tuple(replace(each, post=each.post - 2.0) if each.layer == layer else each for each in drained.rows)
    return replace(drained, rows=rows)


@pytest.mark.parametrize(("batch", "fault"), [(dead, "dead"), (impossible, "impossible")])
def test_a_gross_fault_pages_without_a_baseline_until_it_is_over(batch: Callable[[Traffic], Drained], fault: str) -> None:
    """The first window that holds one pages and names its point, no baseline needed, and the next sound one ends it."""
    traffic = Traffic()
    traffic.minute(batch(traffic))
    seen = traffic.report()
    assert ("page", None) == (seen.verdict, seen.baseline)
    assert {(LAYERS[1], "post"): fault} == {key: site.gross for key, site in seen.sites.items() if site.gross}
    traffic.minute()
    assert ("warming", {""}) == (traffic.report().verdict, {site.gross for site in traffic.report().sites.values()})


def test_a_layer_that_repeats_itself_pages_before_the_gelu() -> None:
    """A layer that gives one row whatever comes in is dead at its input, and the report says so there."""
    traffic = Traffic()
    drained = traffic.batch()
    stuck = tuple(
        replace(each, pre=np.repeat(each.pre[:1], ROWS, 0), post=np.repeat(each.post[:1], ROWS, 0)) if each.layer == LAYERS[2] else each
        for each in drained.rows
    )
    traffic.minute(replace(drained, rows=stuck))
    assert ("page", "dead") == (traffic.report().verdict, traffic.report().sites[LAYERS[2], "pre"].gross)


@pytest.mark.parametrize(("batch", "fault", "left"), [(dead, "dead", "ok"), (impossible, "impossible", "ticket")])
def test_what_was_so_in_the_baseline_does_not_page(batch: Callable[[Traffic], Drained], fault: str, left: str) -> None:
    """A layer dead for good, or one that always overshoots, pages while nothing is armed; armed, it is no fault, another's is.

    That a kernel does not compute what it declares stays a ticket, for a baseline does not say what is declared.
    """
    traffic = Traffic()
    for _ in range(40):
        traffic.minute(batch(traffic))
    assert traffic.report().verdict == "page"
    traffic.monitor.arm(traffic.monitor.make_baseline("v1", traffic.now))
    traffic.minute(batch(traffic))
    seen = traffic.report()
    assert (left, "") == (seen.verdict, seen.sites[LAYERS[1], "post"].gross)
    traffic.minute(batch(traffic, LAYERS[0]))  # type: ignore[call-arg]  # both take a layer
    seen = traffic.report()
    assert ("page", fault) == (seen.verdict, seen.sites[LAYERS[0], "post"].gross)


def test_a_layer_that_dies_after_the_baseline_pages() -> None:
    """With a baseline armed in which the layer lived its death is a page, beside the drift that it is too."""
    traffic = Traffic()
    traffic.armed()
    traffic.minute(dead(traffic))
    seen = traffic.report()
    assert ("page", "dead") == (seen.verdict, seen.sites[LAYERS[1], "post"].gross)
    assert LAYERS[1] in seen.drifting


def test_no_drift_is_left_of_a_gross_fault_that_is_mended() -> None:
    """The window in which the fault is mended still holds some of it; the one behind it is calm at every horizon."""
    traffic = Traffic()
    traffic.armed()
    for _ in range(5):
        traffic.minute(dead(traffic))
    traffic.minute(dead(traffic), traffic.batch())
    assert LAYERS[1] in traffic.report().drifting
    traffic.minute()
    assert ("ok", ()) == (traffic.report().verdict, traffic.report().drifting)
