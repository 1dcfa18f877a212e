"""What becomes of a baseline: its standing, as the audit log tells it, and what its model's policy asks before it is promoted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from geluwatch.errors import ConfigError
from geluwatch.records import Baseline, Certificate
from geluwatch.store.audit import Entry

State = Literal["recorded", "promoted", "retired"]

_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Policy:
    """What a model's baselines need before they are promoted.

    Raises:
        ConfigError: A number is negative, or not finite.
    """

    approvals: int = 0
    """Approvals by others than whoever recorded it."""
    stable_hours: float = 0.0
    """Hours from its first window to its last."""

    def __post_init__(self) -> None:
        if self.approvals < 0 or not math.isfinite(self.stable_hours) or self.stable_hours < 0:
            raise ConfigError(
                f"A policy asks for zero or more approvals and hours, got {self.approvals} and {self.stable_hours:g}; give others."
            )


@dataclass(frozen=True, slots=True)
class Standing:
    """What the log tells of one baseline."""

    state: State = "recorded"
    recorder: str = ""
    """Who recorded or imported it; empty where the log does not tell, as of a baseline from before there was one."""
    approvers: tuple[str, ...] = ()
    by: str = ""
    """Who promoted or retired it."""
    since: float | None = None
    """When, seconds since the epoch."""


def standings(entries: Iterable[Entry]) -> dict[str, Standing]:
    """Return the standing of each baseline of one model version that its entries name, by name."""
    found: dict[str, Standing] = {}
    for entry in entries:
        found[entry.name] = _after(found.get(entry.name, Standing()), entry)
    return found


def _after(before: Standing, entry: Entry) -> Standing:
    state, recorder, approvers, by, since = before.state, before.recorder, before.approvers, before.by, before.since
    if entry.action in {"recorded", "imported"}:
        recorder = entry.actor
    elif entry.action == "approved" and entry.actor not in approvers:
        approvers = (*approvers, entry.actor)
    elif entry.action == "promoted" and state == "recorded":
        state, by, since = "promoted", entry.actor, entry.time
    elif entry.action == "retired" and state != "retired":
        state, by, since = "retired", entry.actor, entry.time
    return Standing(state, recorder, approvers, by, since)


def latest(names: Sequence[str], found: Mapping[str, Standing]) -> str | None:
    """Return which of some names, oldest first, "latest" means: the newest promoted one, else the newest that was not retired."""
    states = [(name, found.get(name, Standing()).state) for name in names]
    for wanted in ("promoted", "recorded"):
        for name, state in reversed(states):
            if state == wanted:
                return name
    return None


def missing(policy: Policy, standing: Standing, baseline: Baseline) -> Iterator[str]:
    """Yield a clause for each thing that a baseline lacks before it may be promoted."""
    certificate = baseline.certificate
    if not certificate.armed:
        yield f"it cannot be armed ({certificate.reason.rstrip('.')})"
    given = [actor for actor in standing.approvers if actor != standing.recorder]
    if len(given) < policy.approvals:
        recorder = f" than {standing.recorder}, who recorded it" if standing.recorder else ""
        yield f"it has {len(given)} of {policy.approvals} approvals by others{recorder}"
    if certificate.seconds < policy.stable_hours * _HOUR:
        yield f"it spans {certificate.seconds / _HOUR:.1f} of {policy.stable_hours:g} hours"
    yield from _replay(certificate)


def _replay(certificate: Certificate) -> Iterator[str]:
    low, _ = certificate.interval
    if low > certificate.requested:
        yield (
            f"its replay gave {certificate.observed} false alarms where {certificate.requested:.1f} were asked for "
            f"(at least {low:.1f} are to be expected)"
        )
