"""A bundle on one screen: what happened, where first, what kind of values, what was before, and what to do next."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from geluwatch.analysis.incident import kinds
from geluwatch.bundles import bundle, folder
from geluwatch.bundles.bundle import Bundle
from geluwatch.core import gross, moments
from geluwatch.errors import IncidentError
from geluwatch.mixin.links import RUNBOOKS
from geluwatch.records import POINTS, Evidence, KeptRows, PointWindow

_LISTED = 8


def lines(found: Bundle) -> Iterator[str]:
    """Yield the lines of a bundle's screen."""
    manifest = found.manifest
    labels = ", ".join(f"{name}={value}" for name, value in manifest["labels"].items())
    about = f"{manifest['model']} version {manifest['model_version']}{f' ({labels})' if labels else ''}"
    yield manifest["reason"]
    yield f"{about}, {moment(manifest['time'])}, verdict {found.report.get('verdict', 'unknown')}"
    for title, section in (
        ("What was found", _rows(found)),
        ("What was before it", _before(found)),
        ("Windows at this layer", _windows(found)),
        ("The pass", _circumstances(found)),
        ("Not in the bundle", _missing(found)),
        ("Next", _next(found)),
    ):
        told = list(section)
        yield from ["", title, *(f"  {line}" for line in told)] if told else []


def listing(place: Path) -> Iterator[str]:
    """Yield a line for each bundle of a folder, oldest first; one that cannot be read says so.

    Raises:
        IncidentError: The folder cannot be read.
    """
    for path in folder.bundles(place):
        try:
            manifest = bundle.read(path).manifest
        except IncidentError as failure:
            yield f"{path.name}: {failure}"
        else:
            about = f"{manifest['model']} {manifest['model_version']}: {manifest['reason']}"
            yield f"{path.name}  {path.stat().st_size / 2**10:,.0f} KiB  {about}"


def plain(line: str) -> str:
    """Return a line without what a terminal would obey: a bundle may come from anywhere."""
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in line)


def moment(seconds: float) -> str:
    """Return a moment as text."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def _rows(found: Bundle) -> Iterator[str]:
    layer = found.evidence[0].bad.layer if found.evidence else found.manifest["layer"]
    for site in found.sites:
        if site.layer == layer:
            yield f"layer {layer}, number {site.position + 1} of {len(found.sites)}: {site.kind}, {site.variant}"
    if not found.evidence:
        return
    first, passes = found.evidence[0], len(found.evidence)
    total = int(np.prod(first.shape[:-1]))
    yield f"{first.bad_rows:,} of {total:,} rows of a pass at {moment(first.time)} hold NaN or Inf"
    yield f"rows: {_few(first.bad)}, {first.bad.dtype}"
    counted = kinds.count(first.bad)
    for point, side in zip(POINTS, ("before the GELU", "after it only"), strict=True):
        where = kinds.channels(first.bad, point)
        listed = ", ".join(map(str, where[:_LISTED])) + (", ..." if where.size > _LISTED else "")
        yield f"{side}: {kinds.told(counted, point)}{f' in channels {listed} of {first.shape[-1]}' if where.size else ''}"
    yield f"largest finite magnitude in them: {kinds.largest(first.bad.pre):.4g} before, {kinds.largest(first.bad.post):.4g} after"
    if passes > 1:
        yield f"rows of {passes - 1} more passes are in the bundle"


def _before(found: Bundle) -> Iterator[str]:
    for kept in found.evidence[:1]:
        for rows, what in ((kept.before, "of the same pass"), (kept.good, "of the same pass without any")):
            if rows is not None:
                up_to = f"up to {kinds.largest(rows.pre):.4g} before, {kinds.largest(rows.post):.4g} after"
                yield f"{rows.layer}: {_few(rows)} {what}, {up_to}"


def _few(rows: KeptRows) -> str:
    """Return how many rows there are, and their numbers where they are known."""
    known = ", ".join(str(place) for place in rows.places[:_LISTED] if place >= 0)
    return f"{len(rows.post)} in the bundle{f' (number {known})' if known else ''}"


def _windows(found: Bundle) -> Iterator[str]:
    layer = found.manifest["layer"]
    seen = [(window.ended, window.points.get((layer, "pre")), window.points.get((layer, "post"))) for window in found.windows]
    if not any(before or after for _, before, after in seen):
        return
    yield f"{'ended':<23}  {'rows':>6}  {'mean':>9}  {'std':>9}  {'largest':>9}   after: {'mean':>9}  {'std':>9}  {'largest':>9}"
    for ended, before, after in seen:
        rows = before.moments.rows if before is not None else 0
        yield f"{moment(ended)}  {rows:>6}  {_statistics(before)}          {_statistics(after)}"


def _statistics(seen: PointWindow | None) -> str:
    if seen is None:
        return f"{'-':>9}  {'-':>9}  {'-':>9}"
    told = (f"{each:.4g}" if seen.moments.rows else "-" for each in moments.pooled(seen.moments))
    return f"{'  '.join(f'{each:>9}' for each in told)}  {max(map(abs, gross.extremes(seen.histogram))):>9.4g}"


def _circumstances(found: Bundle) -> Iterator[str]:
    for kept in found.evidence[:1]:
        yield from _call(found, kept)
    runtime, environment = found.runtime, found.environment
    if runtime:
        shown = {name: runtime.get(name) for name in ("seed", "deterministic", "training", "threads")}
        where = ", ".join([*runtime.get("dtypes", {}), *runtime.get("parameter_devices", ())])
        yield f"parameters {where}; " + ", ".join(f"{name} {value}" for name, value in shown.items())
    versions = ", ".join(f"{name} {version}" for name, version in environment.get("packages", {}).items())
    yield f"python {environment.get('python', 'unknown')}, {versions}"
    yield environment.get("platform", "")
    if found.traces:
        yield f"profiler traces: {', '.join(found.traces)}"


def _call(found: Bundle, kept: Evidence) -> Iterator[str]:
    if kept.called is not None:
        tree = kept.called.tree
        named = {**{str(place): value for place, value in enumerate(tree["args"])}, **tree["kwargs"]}
        yield "inputs " + ("; ".join(f"{name} {_value(value)}" for name, value in named.items()) or "none")
        yield f"inputs are {found.manifest['inputs']}"
    mode = [name for name in ("grad", "inference") if kept.mode.get(name)]
    autocast = kept.mode.get("autocast")
    yield "mode " + ", ".join([*mode, *([f"autocast {autocast}"] if autocast else [])] or ["no grad"])


def _value(value: Mapping[str, Any]) -> str:
    if value["type"] != "tensor":
        return str(value["type"])
    bad = f", {value['nonfinite']} not finite" if value.get("nonfinite") else ""
    return f"{value['dtype']} {tuple(value['shape'])}{bad}"


def _missing(found: Bundle) -> Iterator[str]:
    yield from found.manifest["missing"]
    if found.manifest["left_out"]:
        yield f"For want of room: {', '.join(found.manifest['left_out'])}."


def _next(found: Bundle) -> Iterator[str]:
    kind = found.manifest["kind"]
    if found.evidence:
        kernel = kinds.arose_after(found.evidence[0].bad).any()
        yield f"geluwatch incident replay {found.path}{'' if kernel else ' --model package.module:function'}"
    if kind in RUNBOOKS:
        yield f"geluwatch runbook {RUNBOOKS[kind]}"
