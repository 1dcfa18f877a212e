"""The stored form of a certificate: one flat JSON object, in which `armed` and `windows` can be queried.

Non-finite numbers, which JSON lacks, are strings. Version 1, of schema 0001, had no `version` and held a threshold for each
layer, point and horizon instead of limits for the whole model; what still means the same survives, and the rest waits for
the baseline to be calibrated anew when it is armed. Version 2 had no `method`, as all limits were found by the first; its
certificates are written as they were, so that signatures of them hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from geluwatch.errors import StoreError
from geluwatch.records import Certificate
from geluwatch.store.codec.archive import DAMAGE, json_number

VERSION = 3

_COUNTS = ("windows", "left_out", "strata", "replayed", "observed", "method")
_NUMBERS = ("seconds", "looks", "tickets_per_month", "pages_per_quarter", "ticket_limit", "page_limit", "requested")
# Not written where it is the usual one, so that files of releases that did not know it stay what they are, byte for byte.
_TOLERANCE = next(each.default for each in fields(Certificate) if each.name == "tolerance")


def encode_certificate(certificate: Certificate) -> dict[str, Any]:
    """Return a certificate as JSON values."""
    return {
        "version": VERSION if certificate.method > 1 else 2,
        "armed": bool(certificate.armed),
        "reason": certificate.reason,
        "paging": bool(certificate.paging),
        "paging_reason": certificate.paging_reason,
        **{name: int(getattr(certificate, name)) for name in _COUNTS if name != "method" or certificate.method > 1},
        **{name: json_number(getattr(certificate, name)) for name in _NUMBERS},
        **({} if certificate.tolerance == _TOLERANCE else {"tolerance": float(certificate.tolerance)}),
        "horizons": [int(horizon) for horizon in certificate.horizons],
        "interval": [json_number(end) for end in certificate.interval],
    }


def decode_certificate(stored: Mapping[str, Any], name: str = "The certificate") -> Certificate:
    """Return the certificate that `encode_certificate`, of this release or of the first, wrote.

    Raises:
        StoreError: The values are no certificate, or were written by a newer release.
    """
    try:
        version = stored.get("version", 1)
        if version <= VERSION:
            return _first(stored) if version == 1 else _later(stored)
    except DAMAGE as failure:
        raise StoreError(f"{name} cannot be read ({type(failure).__name__}: {failure}); record the baseline again.") from None
    raise StoreError(f"{name} cannot be read, it is stored as version {version} where this release knows {VERSION}; upgrade geluwatch.")


def _later(stored: Mapping[str, Any]) -> Certificate:
    low, high = map(float, stored["interval"])
    values = {name: value for name, value in stored.items() if name != "version"}
    numbers = {name: float(values[name]) for name in (*_NUMBERS, *({"tolerance"} & values.keys()))}
    return Certificate(**{**values, **numbers, "horizons": tuple(stored["horizons"]), "interval": (low, high)})


def _first(stored: Mapping[str, Any]) -> Certificate:
    return Certificate(
        windows=stored["windows"],
        left_out=stored["left_out"],
        seconds=0.0,
        horizons=tuple(stored["horizons"]),
        looks=0.0,
        strata=1,
        tickets_per_month=float(stored["tickets_per_month"]),
        pages_per_quarter=0.0,
        ticket_limit=math.inf,
        page_limit=math.inf,
        armed=stored["armed"],
        reason=stored["reason"],
    )
