"""The census as a table of text."""

from __future__ import annotations

from collections.abc import Sequence

from geluwatch.records import Site

_HEADINGS = ("#", "layer", "form", "class", "formula", "state")


def table(sites: Sequence[Site]) -> str:
    """Return one line for each call site, in the model's order, with the reason where it is blind; no line ends in blanks."""
    rows = [_HEADINGS, *(_row(site) for site in sites)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    seen = sum(site.state == "observed" for site in sites)
    return "\n".join([*lines, f"{len(sites)} call sites, {seen} observed, {len(sites) - seen} blind"])


def _row(site: Site) -> tuple[str, ...]:
    state = f"{site.state}: {site.reason}" if site.reason else site.state
    form = f"{site.form}, {site.gate}" if site.gate else site.form
    return (str(site.position), site.layer, form, site.kind, site.variant, state)
