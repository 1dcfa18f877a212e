"""What all threads have counted by one drain, and what follows from how it differs from the drain before."""

from __future__ import annotations

from geluwatch.tap.adding import at
from geluwatch.tap.state import Counters, SiteCounters


class Seen:
    """Counters at one drain, to be compared with those at the next."""

    def __init__(
        self,
        total: Counters | None = None,
        sites: tuple[SiteCounters, ...] = (),
        gone: Counters | None = None,
        gone_sites: tuple[SiteCounters, ...] = (),
        failures: dict[str, int] | None = None,
    ) -> None:
        self.total = total or Counters()
        self.sites = sites
        self.gone = gone or Counters()
        self.gone_sites = gone_sites
        self.failures = failures or {}


def gaps(before: Seen, after: Seen, known: frozenset[int]) -> frozenset[int]:
    """Return the sites that were not met in every pass that a compiler began, or in none of the others.

    Where no pass was begun since, nothing has changed. Compiled code is chosen by guards that may not know of hooks.
    """
    whole, others = after.total.whole - before.total.whole, after.total.completed - before.total.completed
    if not (whole or others):
        return known
    met = {position: site.passes - at(before.sites, position).passes for position, site in enumerate(after.sites)}
    return frozenset(position for position, passes in met.items() if passes < whole or (others and not passes))


def called_alone(before: Seen, after: Seen) -> frozenset[int]:
    """Return the sites called outside of any pass since."""
    return frozenset(position for position, site in enumerate(after.sites) if site.alone > at(before.sites, position).alone)
