"""What the demonstration found, judged: one finding for each thing that had to be seen, or had to stay calm."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One promise and whether it was kept."""

    promise: str
    """What had to happen, in a few words."""
    kept: bool
    note: str
    """What happened, in one sentence."""
    layer: str = ""
    """The layer named first, short."""
    seen_after: float | None = None
    """Seconds from the cause to the watch's verdict."""
    alert: str = ""
    """The alert that reached the receiver, or would have."""
    alert_after: float | None = None
    """Seconds from the cause to the alert's arrival; None when no servers ran."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """All findings, how long it took, and what there is to open."""

    findings: tuple[Finding, ...]
    seconds: float
    links: dict[str, str] = field(default_factory=dict)
    """URLs by what they show."""

    @property
    def broken(self) -> tuple[Finding, ...]:
        """The promises that were not kept."""
        return tuple(finding for finding in self.findings if not finding.kept)

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return bool(self.findings) and not self.broken

    @property
    def verdict(self) -> str:
        """The whole in one sentence."""
        if self.good:
            return f"All {len(self.findings)} promises were kept: what should be seen was seen, and calm traffic stayed calm."
        missed = " ".join(f"{finding.promise}: {finding.note}." for finding in self.broken)
        return f"{len(self.broken)} of {len(self.findings)} promises {'was' if len(self.broken) == 1 else 'were'} not kept. {missed}"
