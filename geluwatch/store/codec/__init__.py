"""The stored form of a baseline's parts: self-describing, versioned, exact, and without pickle.

A window, the references, the pooled histograms, the calm scores and the probe are one payload each, in the container that `archive`
describes; the certificate is JSON, since parts of it are queried. Each part has a module of its own.
"""

from __future__ import annotations

from geluwatch.store.codec.calm import decode_calm, encode_calm
from geluwatch.store.codec.certificate import decode_certificate, encode_certificate
from geluwatch.store.codec.histograms import decode_histograms, encode_histograms
from geluwatch.store.codec.probe import decode_probe, encode_probe
from geluwatch.store.codec.references import decode_references, encode_references
from geluwatch.store.codec.window import decode_window, encode_window

__all__ = [
    "decode_calm",
    "decode_certificate",
    "decode_histograms",
    "decode_probe",
    "decode_references",
    "decode_window",
    "encode_calm",
    "encode_certificate",
    "encode_histograms",
    "encode_probe",
    "encode_references",
    "encode_window",
]
