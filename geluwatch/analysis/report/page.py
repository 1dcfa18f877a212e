"""The report as one HTML file that needs nothing else: styles, charts and first steps are in it, and it asks for nothing."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from geluwatch import __version__
from geluwatch.analysis.report import charts, strips, words
from geluwatch.analysis.report.findings import Findings, LayerFinding, Portrait
from geluwatch.analysis.report.opening import KINDS, RUNBOOKS, Opening, opening, still
from geluwatch.analysis.report.steps import first_steps
from geluwatch.analysis.report.svg import Plot, times

MARK = '<meta name="generator" content="geluwatch report'
"""What a report of ours has near its beginning."""


class Card(NamedTuple):
    """The large picture of one layer."""

    layer: LayerFinding
    trend: Plot
    points: list[tuple[Portrait, Plot]]


def page(found: Findings, made: float) -> str:
    """Return the report as HTML.

    Args:
        found: What it tells.
        made: When it was made, seconds since the epoch.
    """
    first, scale = opening(found), charts.Scale(found)
    return _environment().get_template("report.html.j2").render(
        found=found,
        made=made,
        version=__version__,
        opening=first,
        facts=facts(found),
        short=words.shortened([each.layer for each in found.layers]),
        times=times(found.grid),
        traffic=strips.traffic(found),
        lanes=list(strips.lanes(found)),
        heat=strips.heat(found),
        cards=_cards(found, scale),
        sparks=[(each, charts.sparkline(each, scale)) for each in found.layers],
        steps=_steps(found, first),
        kinds=KINDS,
        still=still(found),
        runbooks=RUNBOOKS,
    )  # fmt: skip


def _cards(found: Findings, scale: charts.Scale) -> list[Card]:
    layers = {each.layer: each for each in found.layers}
    points: dict[str, list[tuple[Portrait, Plot]]] = {}
    for portrait in found.portraits:
        points.setdefault(portrait.layer, []).append((portrait, charts.distribution(portrait)))
    return [Card(layers[layer], charts.trend(layers[layer], found, scale), drawn) for layer, drawn in points.items()]


def _steps(found: Findings, first: Opening) -> dict[str, Markup]:
    """Return the first steps of each runbook that this report leads to, that of the opening first."""
    names = dict.fromkeys([*([first.runbook] if first.runbook else []), *(RUNBOOKS[each.kind] for each in found.episodes)])
    return {name: first_steps(name) for name in names}


def facts(found: Findings) -> list[tuple[str, str, str]]:
    """Return what is in a report's head beside the verdict: name, value, detail."""
    agent, observed = found.agent, sum(not each.blind for each in found.layers)
    failures = sum(agent.errors.values())
    missing = words.lasting(sum(gap.ended - gap.started for gap in found.gaps)) if found.gaps else ""
    return [
        ("Period", words.period(found.since, found.until), f"{words.plural(found.windows, 'window')} kept, times in UTC"),
        ("Model", found.model, f"version {', '.join(found.versions)}"),
        ("Baseline", *_baseline(found)),
        ("Alarms", _counted(len(found.episodes)), _kinds(found)),
        ("NaN or Inf", _counted(found.nonfinite_forwards, "pass"), f"of {words.plural(found.forwards, 'forward pass')}"),
        ("GELUs", words.count(observed), f"observed of {len(found.layers)}" if observed < len(found.layers) else "all observed"),
        ("Gaps", _counted(len(found.gaps)), missing),
        ("Cost", words.share(agent.hook_seconds, agent.forward_seconds), "row capture, of the time of the forward passes"),
        ("Agent", _counted(failures, "failure") if failures else "no failures", f"{words.plural(agent.dropped_rows, 'row')} dropped"),
    ]


def _counted(number: int, noun: str = "") -> str:
    return "none" if not number else words.plural(number, noun) if noun else words.count(number)


def _kinds(found: Findings) -> str:
    """Return how many episodes there were of each kind."""
    counted = Counter(each.kind for each in found.episodes)
    return ", ".join(f"{counted[kind]} {KINDS[kind]}" for kind in KINDS if kind in counted)


def _baseline(found: Findings) -> tuple[str, str]:
    if found.baseline is None:
        return "none", "drift is not judged"
    stored = found.baseline.stored
    if found.baseline.damage:
        return found.baseline.name, "cannot be read"
    if stored is None:
        return found.baseline.name, "judged by the run's own past" if found.baseline.follows else "not in this store"
    return stored.name, f"recorded {words.day(stored.created)}, {words.plural(stored.certificate.windows, 'window')}"


def _told(sentence: str) -> Markup:
    """Return a sentence as HTML: what stands between backticks is code."""
    parts = enumerate(sentence.split("`"))
    return Markup("").join(_code(part) if place % 2 else escape(part) for place, part in parts)


def _code(name: str) -> Markup:
    return Markup("<code>{}</code>").format(_breakable(name))


def _breakable(name: str) -> Markup:
    """Return a name that may break behind its dots."""
    return Markup(".<wbr>").join(name.split("."))


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("geluwatch.analysis.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    made.filters |= {
        "told": _told,
        "code": _code,
        "breakable": _breakable,
        **{each.__name__: each for each in (words.moment, words.stamp, words.lasting, words.count, words.plural, words.number, words.day)},
    }
    made.tests["nan"] = math.isnan
    helpers: dict[str, Any] = {"described": charts.described, "share": words.share, "LEVELS": strips.LEVELS, "DASH": words.DASH}
    made.globals |= helpers
    return made
