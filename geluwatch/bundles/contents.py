"""What goes into a bundle, the most important first; `docs/incident-bundle.md` is the list for readers."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geluwatch.bundles import environment
from geluwatch.records import Evidence, KeptRows, Report, Site, Window

VERSION = 1
"""Of the format."""

FORMAT = "geluwatch-incident"

MANIFEST = "manifest.json"

KEYS = frozenset(
    ("format", "version", "written", "time", "kind", "reason", "model", "model_version", "labels", "layer", "inputs", "missing", "left_out")
)
"""Of the manifest."""

REDACTED = "redacted: only types, dtypes and shapes; Config(incident_inputs=True) keeps them"


@dataclass(frozen=True, slots=True)
class Case:
    """What is known when a bundle is due; nothing in it changes any more."""

    kind: str
    """"nonfinite", "gross", "overflow" or "drift"; "asked" where somebody asked for it."""
    reason: str
    report: Report
    sites: tuple[Site, ...]
    windows: tuple[Window, ...]
    """The last closed ones, oldest first."""
    evidence: tuple[Evidence, ...]
    runtime: Mapping[str, Any]
    inputs: bool
    """Whether inputs are kept."""
    asked_traces: int = 0
    traces: tuple[bytes, ...] = ()

    @property
    def layer(self) -> str:
        """The layer that it is about, empty where it is about none."""
        report = self.report
        if report.first_nonfinite is not None:
            return report.first_nonfinite
        wrong = [seen.layer for seen in report.sites.values() if seen.gross or seen.headroom.alarm == "page"]
        return (wrong or list(report.drifting) or [""])[0]


def entries(case: Case) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of what goes into a bundle, the manifest apart."""
    from geluwatch.export.document import document
    from geluwatch.store.codec import encode_window

    for place, kept in enumerate(case.evidence):
        yield f"rows/{place}.json", _json(_head(kept))
        yield f"rows/{place}.npz", _npz(_arrays(kept))
    yield "report.json", _json(document(case.report))
    yield "census.json", _json([{name: getattr(site, name) for name in Site.__slots__} for site in case.sites])
    yield "provenance.json", _json(case.runtime)
    yield "environment.json", _json(environment.read())
    for place, kept in enumerate(case.evidence):
        if kept.called is not None and kept.called.arrays:
            yield f"inputs/{place}.npz", _npz(kept.called.arrays)
    for place, window in reversed(list(enumerate(case.windows))):  # where there is no room for all, the newest are there
        yield f"windows/{place:03d}.npz", encode_window(window)
    for place, trace in enumerate(case.traces):
        yield f"traces/{place}.json.gz", trace


def manifest(case: Case, written: float, left_out: list[str]) -> bytes:
    """Return the entry that says what a bundle is, what is not in it and why."""
    report = case.report
    return _json(
        {
            "format": FORMAT,
            "version": VERSION,
            "written": written,
            "time": report.time,
            "kind": case.kind,
            "reason": case.reason,
            "model": report.model,
            "model_version": report.model_version,
            "labels": dict(report.labels),
            "layer": case.layer,
            "inputs": _inputs(case),
            "missing": list(_missing(case)),
            "left_out": left_out,
        }
    )


def _inputs(case: Case) -> str:
    if not case.inputs:
        return REDACTED
    if all(kept.called is None or kept.called.whole for kept in case.evidence):
        return "kept"
    return (
        "not kept whole: of a call there is room for 4 MiB of texts and of dense tensors on the CPU, and for 64 values, all of plain types"
    )


def _missing(case: Case) -> Iterator[str]:
    """Yield what a reader may look for in vain, and why, a sentence each."""
    layer, first = case.report.first_nonfinite, case.report.totals.nonfinite.get(case.report.first_nonfinite or "")
    if layer is not None and not any(kept.bad.layer == layer for kept in case.evidence):
        away = first is not None and first.forwards and not first.elements
        there = "the values are on an accelerator, where looking at a row would stall it"
        here = "too many passes failed at a time, or rows could not be kept"
        yield f"There are no rows of {layer}: {there if away else here}."
    if any(kept.bad.pre is None for kept in case.evidence):
        yield "Rows before the GELU are not there where it wrote its output over them."
    if not case.windows:
        yield "No window had been closed."
    if len(case.traces) < case.asked_traces:
        yield f"Of {case.asked_traces} passes to be profiled {len(case.traces)} were: no more came in time, or another profiler ran."


def _head(kept: Evidence) -> dict[str, Any]:
    parts = {"bad": kept.bad, "good": kept.good, "before": kept.before}
    called = kept.called
    return {
        "time": kept.time,
        "shape": list(kept.shape),
        "bad_rows": kept.bad_rows,
        "mode": dict(kept.mode),
        "parts": {part: {"layer": rows.layer, "dtype": rows.dtype, "derived": rows.derived} for part, rows in parts.items() if rows},
        "called": None if called is None else {"tree": called.tree, "whole": called.whole},
    }


def _arrays(kept: Evidence) -> dict[str, npt.NDArray[Any]]:
    found: dict[str, npt.NDArray[Any]] = {}
    for part, rows in (("bad", kept.bad), ("good", kept.good), ("before", kept.before)):
        found |= {} if rows is None else _side(part, rows)
    return found


def _side(part: str, rows: KeptRows) -> dict[str, npt.NDArray[Any]]:
    before = {} if rows.pre is None else {f"{part}_pre": rows.pre}
    return {f"{part}_places": rows.places, **before, f"{part}_post": rows.post}


def _json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False, indent=1, default=str).encode()


def _npz(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    return content.getvalue()
