"""Cardinality profiles: how many of the metrics a watch exports, and how finely its histograms are cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Profile = Literal["lean", "standard", "full"]

PROFILES: Mapping[Profile, str] = {
    "lean": "what alerts decide on, as plain numbers: no histogram of activations, no statistic that only explains",
    "standard": "every metric, histograms of activations at the edges that all pods share",
    "full": "every metric, histograms of activations at twice as many edges, those of standard among them",
}
"""Every profile with what it holds, smallest first; each holds all of the one before."""


def within(smallest: Profile, profile: Profile) -> bool:
    """Return whether a profile holds what is exported from a smallest one on."""
    order = tuple(PROFILES)
    return order.index(smallest) <= order.index(profile)
