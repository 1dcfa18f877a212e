"""The stored form of a baseline's parts and of the history: self-describing, versioned, exact, and without pickle.

A window, the references, the pooled histograms, the calm scores, the probe and a span's window are one payload each, in the container
that `archive` describes; certificate, provenance, signature and a span's summary are JSON, since parts of them are queried. Each part
has a module of its own.
"""

from __future__ import annotations

from geluwatch.store.codec.calm import decode_calm, encode_calm
from geluwatch.store.codec.certificate import decode_certificate, encode_certificate
from geluwatch.store.codec.histograms import decode_histograms, encode_histograms
from geluwatch.store.codec.probe import decode_probe, encode_probe
from geluwatch.store.codec.provenance import decode_provenance, decode_signature, encode_provenance, encode_signature
from geluwatch.store.codec.references import decode_references, encode_references
from geluwatch.store.codec.span import ADVICE, decode_span, decode_summary, encode_span, encode_summary
from geluwatch.store.codec.window import decode_window, encode_window

__all__ = [
    "ADVICE",
    "decode_calm",
    "decode_certificate",
    "decode_histograms",
    "decode_probe",
    "decode_provenance",
    "decode_references",
    "decode_signature",
    "decode_span",
    "decode_summary",
    "decode_window",
    "encode_calm",
    "encode_certificate",
    "encode_histograms",
    "encode_probe",
    "encode_provenance",
    "encode_references",
    "encode_signature",
    "encode_span",
    "encode_summary",
    "encode_window",
]
