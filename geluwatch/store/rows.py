"""Baselines as rows of the tables, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from geluwatch.records import Baseline, Site, Window
from geluwatch.store import codec
from geluwatch.store.tables import BaselineRow, SiteRow, WindowRow

_Part = TypeVar("_Part")
_Stored = TypeVar("_Stored")


def to_row(baseline: Baseline) -> BaselineRow:
    """Return a baseline with its sites and windows as rows."""
    return BaselineRow(
        model=baseline.model,
        model_version=baseline.model_version,
        name=baseline.name,
        created=float(baseline.created),
        certificate=codec.encode_certificate(baseline.certificate),
        reference_payload=codec.encode_references(baseline.references),
        histogram_payload=codec.encode_histograms(baseline.histograms),
        calm_payload=codec.encode_calm(baseline.calm) if baseline.calm else None,
        probe_payload=codec.encode_probe(baseline.probe) if baseline.probe else None,
        traffic=baseline.traffic,
        provenance=codec.encode_provenance(baseline.provenance) if baseline.provenance else None,
        signature=codec.encode_signature(baseline.signature) if baseline.signature else None,
        sites=[_to_site_row(ordinal, site) for ordinal, site in enumerate(baseline.sites)],
        windows=[_to_window_row(position, window) for position, window in enumerate(baseline.windows)],
    )


def _to_site_row(ordinal: int, site: Site) -> SiteRow:
    return SiteRow(
        ordinal=ordinal,
        position=site.position,
        layer=site.layer,
        form=site.form,
        kind=site.kind,
        variant=site.variant,
        state=site.state,
        reason=site.reason,
    )


def _to_window_row(position: int, window: Window) -> WindowRow:
    return WindowRow(
        position=position,
        # Drivers do not know numpy's scalars; SQLite would store them as bytes.
        started=float(window.started),
        ended=float(window.ended),
        forwards=int(window.forwards),
        sampled_forwards=int(window.sampled_forwards),
        thinned=bool(window.thinned),
        payload=codec.encode_window(window),
    )


def to_baseline(row: BaselineRow) -> Baseline:
    """Return the baseline that `to_row` was given.

    Raises:
        StoreError: A row is damaged.
    """
    name = f'baseline "{row.name}" of model "{row.model}" version "{row.model_version}"'
    return Baseline(
        model=row.model,
        model_version=row.model_version,
        name=row.name,
        created=row.created,
        sites=tuple(to_site(site) for site in row.sites),
        windows=tuple(codec.decode_window(window.payload, f"Window {window.position} of {name}") for window in row.windows),
        certificate=codec.decode_certificate(row.certificate, f"The certificate of {name}"),
        references=_decoded(codec.decode_references, row.reference_payload, f"The references of {name}") or {},
        histograms=_decoded(codec.decode_histograms, row.histogram_payload, f"The pooled histograms of {name}") or {},
        calm=_decoded(codec.decode_calm, row.calm_payload, f"The calm scores of {name}"),
        probe=_decoded(codec.decode_probe, row.probe_payload, f"The probe of {name}"),
        traffic=row.traffic,
        provenance=_decoded(codec.decode_provenance, row.provenance, f"The provenance of {name}"),
        signature=_decoded(codec.decode_signature, row.signature, f"The signature of {name}"),
    )


def _decoded(decode: Callable[[_Stored, str], _Part], stored: _Stored | None, name: str) -> _Part | None:
    return None if stored is None else decode(stored, name)


def to_site(row: SiteRow) -> Site:
    """Return the site of a row."""
    return Site(row.layer, row.position, row.form, row.kind, row.variant, row.state, row.reason)
