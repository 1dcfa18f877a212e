"""What a report says first: well or not, since when, first at which layer, traffic or model, and what to do."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from geluwatch.analysis.report import words
from geluwatch.analysis.report.findings import BaselineFinding, Episode, Findings, Kind

RUNBOOKS: dict[Kind, str] = {
    "nonfinite": "GeluwatchNonFiniteActivations",
    "drift": "GeluwatchActivationDrift",
    "blind": "GeluwatchSitesBlind",
    "other": "GeluwatchGrossFault",
}

KINDS: dict[Kind, str] = {"nonfinite": "NaN or Inf", "drift": "Drift", "blind": "Blind", "other": "Other alarm"}

_BRIEF: dict[Kind, str] = {"nonfinite": "NaN or Inf", "drift": "drift", "blind": "blind layers", "other": "another alarm"}

SCOPES = {
    "traffic": "Most layers moved alike, so look at the traffic first.",
    "model": "The others did not move alike, so look at the model at this layer first.",
    "unknown": "The layers do not tell whether the traffic or the model changed; a probe does.",
}

_NAMED = 3
"""Further alarms named before the rest are counted."""

_HEADS = {
    "silent": "Silent",
    "blind": "Blind",
    "page": "Not well",
    "ticket": "Not well",
    "again": "Well again",
    "well": "Well",
    "unjudged": "Not judged",
}

_TONES = {"silent": "warming", "blind": "blind", "page": "page", "ticket": "ticket", "again": "ok", "well": "ok", "unjudged": "warming"}


@dataclass(frozen=True, slots=True)
class Opening:
    """The first words of a report. In sentences, layers stand between backticks."""

    head: str
    tone: str
    """What colours the head: "ok", "ticket", "page", "warming" or "blind"."""
    sentences: tuple[str, ...]
    cause: str
    """What changed, as the gravest episode's windows told; empty where nothing could be named."""
    runbook: str
    """What to read next; empty where there is nothing to do."""


def opening(found: Findings) -> Opening:
    """Return the first words."""
    gravest = found.gravest
    runbook = RUNBOOKS[gravest.kind] if gravest else ""
    runbook = {"silent": "GeluwatchAgentMissing", "blind": "GeluwatchSitesBlind", "unjudged": "GeluwatchBaselineMissing"}.get(
        found.status, runbook
    )
    return Opening(_HEADS[found.status], _TONES[found.status], tuple(_sentences(found, gravest)), gravest.cause if gravest else "", runbook)


def _sentences(found: Findings, gravest: Episode | None) -> Iterator[str]:
    if found.status == "silent":
        since = (
            f"Nothing has been kept since {words.moment(found.last)}, {words.lasting(found.until - found.last)} before the period's end."
        )
        yield f"{since} There was too little traffic for a window, or the process has ended, or the agent cannot write its history."
    elif found.status == "blind":
        yield "None of the model's GELUs can be observed at the end of the period."
    elif found.status == "unjudged":
        yield _unjudged(found)
    if gravest is not None:
        yield told(gravest, found)
        yield from _others([each for each in found.episodes if each is not gravest], found)
    elif found.status in {"well", "silent"}:
        yield _calm(found)
    if found.widened:
        yield f"Hours and days that are kept merged are told whole: from {words.stamp(found.since)} to {words.stamp(found.until)}."
    if not found.nonfinite_forwards:
        yield f"No NaN or Inf in {words.plural(found.forwards, 'forward pass')}."


def _unjudged(found: Findings) -> str:
    if found.baseline is None or not found.armed:
        return "No baseline is armed, so drift is not judged."
    return f"Windows had too few rows to be judged by {_normal(found.baseline)}, so nothing is known of drift."


def _others(episodes: list[Episode], found: Findings) -> Iterator[str]:
    """Yield what else was in alarm, in one sentence."""
    if episodes:
        yield f"In this period also: {words.listed([_brief(each, found) for each in episodes], _NAMED)}."


def _brief(episode: Episode, found: Findings) -> str:
    until = still(found) if episode.ongoing else f"for {words.lasting(episode.ended - episode.started)}"
    first = f", first at `{episode.layers[0]}`" if episode.layers else ""
    return f"{_BRIEF[episode.kind]} from {words.moment(episode.started)} {until} ({episode.alarm}{first})"


def _calm(found: Findings) -> str:
    judged = [each for each in found.layers if not math.isnan(each.most)]
    if not judged or found.baseline is None:
        return "There was no alarm."
    most = max(judged, key=lambda each: each.most)
    within = f"{words.plural(len(judged), 'GELU')} stayed within {_normal(found.baseline)}"
    return f"{within}. The most evidence was {words.number(most.most)}, at `{most.layer}`; a ticket takes 1."


def _normal(baseline: BaselineFinding) -> str:
    return "the run's own past" if baseline.follows else f"baseline {baseline.name}"


def still(found: Findings) -> str:
    """Return how it stands with an episode that is on: of a silent model nobody knows more than the last window."""
    return "on in the last window kept" if found.status == "silent" else "still on"


def told(episode: Episode, found: Findings) -> str:
    """Return an episode in two or three sentences."""
    since, until = words.moment(episode.started), words.moment(episode.ended)
    lasted = words.lasting(episode.ended - episode.started)
    when = f"since {since}, {still(found)} {lasted} later" if episode.ongoing else f"from {since} to {until}, {lasted}"
    first = f", first at `{episode.layers[0]}`" if episode.layers else ""
    of = f"{len(episode.layers)} of {words.plural(len(found.layers), 'layer')}"
    if episode.kind == "nonfinite":
        passes = f" In {words.plural(episode.forwards, 'forward pass')}." if episode.forwards else ""
        return f"NaN or Inf in the activations {when}{first}.{passes}"
    if episode.kind == "drift":
        seen = f" Seen at {of}, evidence up to {words.number(episode.evidence)}." if episode.layers else ""
        return f"Drift {when}{first}.{seen} {SCOPES.get(episode.scope, '')}".rstrip()
    if episode.kind == "blind":
        return f"{of} gave no rows although the model ran, {when}{first}."
    which = "a dead layer, an overflow ahead, or a wrong kernel. The history does not keep which"
    return f"An alarm that is neither NaN nor drift, {when}: {which}."
