"""The dashboards: for who pays, who is on call, who debugs, who runs the fleet, and who runs the agents."""

from __future__ import annotations

from geluwatch.mixin.dashboards import agents, debug, executive, fleet, oncall
from geluwatch.mixin.dashboards.page import render
from geluwatch.mixin.dashboards.parts import Queries
from geluwatch.mixin.settings import MixinSettings

_PAGES = (executive.page, oncall.page, debug.page, fleet.page, agents.page)


def dashboards(settings: MixinSettings) -> dict[str, bytes]:
    """Return every dashboard as JSON, by uid."""
    ask = Queries(settings)
    return {page.uid: render(page, settings) for page in (build(ask) for build in _PAGES)}
