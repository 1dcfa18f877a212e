"""The limits that keep to a budget of false alarms, and the certificate that says what a baseline can promise.

A window is searched for drift in many places at once: at every site, point and horizon, in all ways of judging. These
searches resemble each other, and so do those of successive windows. So they are not counted: what counts is how often, and
how far, the largest surprise of a window goes beyond what is usual in windows that the yardstick has not seen
(`geluwatch.core.tail`). A limit is where that leaves the budget.

The certificate holds a replay: each quarter of the baseline against limits from the others, at a budget generous enough for
false alarms to be counted. What no baseline can price in is what it never saw: a rhythm longer than itself.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy import special

from geluwatch.config import Config
from geluwatch.core import surprise, tail
from geluwatch.errors import BaselineError
from geluwatch.records import Calm, Certificate, Floats

TICKET_LOOKS = 6
"""Independent looks a horizon needs before it is judged at all."""

PAGE_LOOKS = 100
"""Independent looks that every horizon in use needs before drift may page."""

YOUNG = 0.25
"""Share of a long baseline that is left out of its calibration: its first windows were scored when little was known."""

MINIMUM_WINDOWS = 12
"""Windows below which nothing is calibrated."""

MOST_LEFT_OUT = 0.10
"""Share of unclean windows above which a baseline is refused."""

MOST_LIMIT = 20.0
"""Limit of a ticket from which on a baseline is refused."""

CERTAIN = 30.0
"""Surprise of what no calm traffic does, whatever the limits."""

METHOD = 2
"""Changes with the way in which limits are found, or what they are held against."""

_MONTH = 30 * 24 * 3600.0
_MONTHS_A_QUARTER = 3.0
# A baseline so calm that less would keep to the budget has too few windows to say so: once in a thousand is ordinary.
_LEAST_LIMIT = 3.0
# Chance of the replay's false alarms, from which on they are not put down to luck.
_BAD_LUCK = 1e-4
# Standard errors of the tail that the limits of tickets and pages allow for: nobody is to be woken by an estimate.
_CERTAINTY = (1.0, 1.5)
_NEVER = math.inf


class Recorded(NamedTuple):
    """How much a baseline was made of."""

    windows: int
    seconds: float
    """From the end of its first window to that of its last."""


def certify(calm: Calm, left_out: int, config: Config, recorded: Recorded | None = None) -> Certificate:
    """Return the certificate of calm scores.

    Args:
        calm: Scores of the baseline's windows.
        left_out: Windows that were unfit.
        config: For the budgets and the horizons asked for.
        recorded: How much was recorded, where that is more than the scores show.
    """
    windows, seconds = recorded or Recorded(calm.every * len(calm.ended), float(calm.ended[-1] - calm.ended[0]) if len(calm.ended) else 0.0)
    unarmed = Certificate(
        windows, left_out, seconds, (), 0.0, 1, config.tickets_per_month, config.pages_per_quarter, _NEVER, _NEVER, reason="", method=METHOD
    )  # fmt: skip
    if windows < MINIMUM_WINDOWS:
        return replace(unarmed, reason=f"{windows} usable windows are too few to calibrate: {MINIMUM_WINDOWS - windows} more are needed.")
    if not calm.keys:
        return replace(
            unarmed, reason="No site gave rows in every window, so there is nothing to calibrate; see the sites' states for why."
        )
    looks = surprise.measure(calm).looks.min(axis=0)
    used = _usable(calm.horizons, looks)
    if not used:
        return replace(
            unarmed,
            reason=f"The {windows} usable windows resemble their neighbours so much that they are worth fewer than {TICKET_LOOKS} "
            f"independent ones: about {windows} more are needed, or traffic that is better mixed.",
        )
    # What the longest horizon has, or, where it is not in use yet, would have if its looks were those of the longest that is.
    longest = max(float(looks[-1]), float(looks[calm.horizons.index(used[-1])]) * used[-1] / calm.horizons[-1])
    fewest = float(looks[[calm.horizons.index(horizon) for horizon in used]].min())
    return _armed(restrict(calm, used), unarmed, config.tolerance, fewest, longest)


def again(calm: Calm, known: Certificate, config: Config) -> Certificate:
    """Return the certificate of calm scores whose limits an older release found, as this one finds them."""
    budgets = replace(
        config, tickets_per_month=known.tickets_per_month, pages_per_quarter=known.pages_per_quarter, tolerance=known.tolerance
    )  # fmt: skip
    return certify(calm, known.left_out, budgets, Recorded(known.windows, known.seconds))


def _armed(calm: Calm, unarmed: Certificate, tolerance: float, fewest: float, longest: float) -> Certificate:
    hours = surprise.strata(calm.ended)
    parts = tail.unseen(calm, hours, tolerance)
    requested, observed, interval = tail.replay(parts)
    kept = requested / observed if _too_many(observed, requested) else 1.0
    known = tail.measure(parts)
    tiers = zip(_monthly(unarmed), _CERTAINTY, strict=True)
    ticket, page = (max(known.limit(kept * budget / windows_a_month(calm), sure), _LEAST_LIMIT) for budget, sure in tiers)
    if ticket > MOST_LIMIT:
        return replace(
            unarmed,
            reason=f"Incidents in its windows have driven the limit of a ticket to {ticket:.0f}, where calm traffic gives 5 to 9, so that "
            "next to nothing would be told: record another one on calm traffic.",
        )
    looks = min(fewest, longest)
    needed = calm.every * len(calm.ended) * PAGE_LOOKS / looks / (1.0 - YOUNG)  # the baseline that pages is a long one
    missing = _missing_for_paging(needed - unarmed.windows, looks, requested, observed)
    return replace(
        unarmed,
        horizons=calm.horizons,
        looks=fewest,
        strata=hours,
        ticket_limit=ticket,
        page_limit=_NEVER if missing else min(max(page, ticket), CERTAIN),
        replayed=len(calm.ended),
        requested=requested,
        observed=observed,
        interval=interval,
        tolerance=tolerance,
        armed=True,
        paging=not missing,
        paging_reason=missing,
    )


def _monthly(certificate: Certificate) -> tuple[float, float]:
    return certificate.tickets_per_month, certificate.pages_per_quarter / _MONTHS_A_QUARTER


def _too_many(observed: int, requested: float) -> bool:
    """Return whether so many false alarms where so many were asked for are more than bad luck: once in ten thousand baselines."""
    return float(special.pdtrc(observed - 1, requested)) < _BAD_LUCK if observed else False


def _missing_for_paging(more: float, looks: float, requested: float, observed: int) -> str:
    """Return why drift may not page, or an empty string when it may."""
    if looks < PAGE_LOOKS:
        return (
            f"drift opens tickets but does not page: that takes about {math.ceil(more)} more windows "
            f"({looks:.0f} of {PAGE_LOOKS} independent looks at the longest horizon)."
        )
    if _too_many(observed, requested):
        return (
            f"drift opens tickets but does not page: replayed on itself the baseline gave {observed} false alarms where "
            f"{requested:.0f} were asked for; record longer, on traffic that is steadier."
        )
    return ""


def usable_horizons(calm: Calm) -> tuple[int, ...]:
    """Return the horizons with enough independent looks, all ways of judging."""
    return _usable(calm.horizons, surprise.measure(calm).looks.min(axis=0))


def _usable(horizons: tuple[int, ...], looks: Floats) -> tuple[int, ...]:
    return tuple(horizon for horizon, enough in zip(horizons, looks >= TICKET_LOOKS, strict=True) if enough)


def restrict(calm: Calm, horizons: tuple[int, ...]) -> Calm:
    """Return the calm scores at some of the horizons only."""
    return replace(calm, horizons=horizons, scores=calm.scores[..., [calm.horizons.index(horizon) for horizon in horizons]])


def windows_a_month(calm: Calm) -> float:
    """Return how many windows of typical length follow each other in thirty days; at most one a second."""
    return _MONTH / max(float(np.median(np.diff(calm.ended))) / calm.every, 1.0)


def refuse_unfit(closed: int, left_out: int, minimum_rows: int) -> None:
    """Refuse to make a baseline of nothing, or of traffic of which too much is unfit.

    Raises:
        BaselineError: No window was closed, or more than a tenth of them is unfit.
    """
    if not closed:
        raise BaselineError("No window has been closed yet, so there is nothing to record; let traffic run, then record again.")
    if left_out > MOST_LEFT_OUT * closed:
        raise BaselineError(
            f"{left_out} of {closed} windows held non-finite values, silent sites, dropped rows or fewer than "
            f"{minimum_rows} rows, more than the tenth that may be left out; mend that and record on calm traffic."
        )
