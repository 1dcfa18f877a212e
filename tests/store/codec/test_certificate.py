"""The stored form of certificates."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geluwatch.errors import StoreError
from geluwatch.records import Baseline, Certificate
from geluwatch.store.codec import decode_certificate, encode_certificate

floats = st.floats()
counters = st.integers(0, 2**63 - 1)
texts = st.text(max_size=20)
certificates = st.builds(
    Certificate,
    windows=counters,
    left_out=counters,
    seconds=floats,
    horizons=st.lists(counters, max_size=3).map(tuple),
    looks=floats,
    strata=counters,
    tickets_per_month=floats,
    pages_per_quarter=floats,
    ticket_limit=floats,
    page_limit=floats,
    replayed=counters,
    requested=floats,
    observed=counters,
    interval=st.tuples(floats, floats),
    armed=st.booleans(),
    reason=texts,
    paging=st.booleans(),
    paging_reason=texts,
    tolerance=st.floats(0, 1e6),
    method=st.integers(1, 2),
)

FIRST = {
    "windows": 23,
    "left_out": 1,
    "thresholds": [["encoder.0.act", "pre", 1, 12.5], ["encoder.0.act", "post", 1, "inf"]],
    "horizons": [1],
    "tickets_per_month": 2.0,
    "replayed": 46,
    "exceeded": 2,
    "armed": True,
    "reason": "",
}
"""A certificate as schema 0001 held it."""


@settings(deadline=None)
@given(certificate=certificates)
def test_comes_back_exactly(same: Callable[..., bool], certificate: Certificate) -> None:
    """Any certificate survives strict JSON, which has neither NaN nor infinities."""
    stored = json.loads(json.dumps(encode_certificate(certificate), allow_nan=False))
    assert same(certificate, decode_certificate(stored))


def test_what_is_queried_lies_at_the_top(baseline: Callable[..., Baseline]) -> None:
    """A query finds `armed` and `windows` as plain values of the object itself."""
    stored = encode_certificate(baseline().certificate)
    assert (False, 100) == (stored["armed"], stored["windows"])


def test_the_first_form_keeps_what_still_means_the_same() -> None:
    """Of a certificate with thresholds, counts, horizons, budget and verdict survive; nothing in the rest raises an alarm."""
    expected = Certificate(
        23, 1, 0.0, (1,), 0.0, 1, tickets_per_month=2.0, pages_per_quarter=0.0, ticket_limit=math.inf, page_limit=math.inf, armed=True
    )
    assert expected == decode_certificate(FIRST)


def test_limits_found_as_before_are_written_as_before(baseline: Callable[..., Baseline]) -> None:
    """A certificate of an earlier release is stored byte for byte as that release did, so that what signed it still does."""
    stored = encode_certificate(replace(baseline().certificate, method=1))
    assert (2, False) == (stored["version"], "method" in stored)
    assert 1 == decode_certificate(stored).method


def test_a_newer_version_asks_for_an_upgrade(baseline: Callable[..., Baseline]) -> None:
    """A form that this release does not know yet is told apart from damage."""
    newer = encode_certificate(baseline().certificate) | {"version": 4}
    with pytest.raises(StoreError, match=r"^The certificate cannot be read, it is stored as version 4 .* 3; upgrade geluwatch\.$"):
        decode_certificate(newer)


@pytest.mark.parametrize("change", [{"unknown": 1}, {"version": "x"}, {"horizons": 1}, {"looks": "many"}, {"interval": [0.0]}])
def test_damage_is_refused(baseline: Callable[..., Baseline], change: dict[str, Any]) -> None:
    """JSON that is no certificate is refused in one sentence."""
    with pytest.raises(StoreError, match=r"^The certificate cannot be read \(.*\); record the baseline again\.$"):
        decode_certificate(encode_certificate(baseline().certificate) | change)


@pytest.mark.parametrize("stored", [{}, [], None, FIRST | {"horizons": 1}, FIRST | {"version": 2}, FIRST | {"tickets_per_month": "often"}])
def test_damage_in_the_first_form_is_refused(stored: Any) -> None:
    """So is JSON that is not even a certificate of the first form."""
    with pytest.raises(StoreError, match=r"^The certificate cannot be read \(.*\); record the baseline again\.$"):
        decode_certificate(stored)
