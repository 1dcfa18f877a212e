"""The stored form of windows and certificates."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geluwatch.errors import BaselineError, StoreError
from geluwatch.records import Baseline, Certificate, Histogram, Moments, Nonfinite, PointWindow, Window
from geluwatch.store.codec import VERSION, decode_certificate, decode_window, encode_certificate, encode_window

# A busy machine is no failure.
law = settings(deadline=None)

floats = st.floats()
counters = st.integers(0, 2**63 - 1)
layers = st.text(max_size=8)
points = st.sampled_from(["pre", "post"])


@st.composite
def histograms(draw: st.DrawFn) -> Histogram:
    """Histograms with any int32 cells and any int64 counts."""
    cells = np.array(sorted(draw(st.sets(st.integers(-(2**31), 2**31 - 1), max_size=20))), np.int32)
    counts = draw(hnp.arrays(np.int64, len(cells), elements=st.integers(1, 2**63 - 1)))
    return Histogram(draw(st.sampled_from([16, 19])), cells, counts, draw(counters), draw(counters), draw(counters), draw(st.booleans()))


@st.composite
def moments(draw: st.DrawFn) -> Moments:
    """Moments with any float64, NaN and the infinities included."""
    channels = draw(st.integers(0, 12))
    mean, m2 = (draw(hnp.arrays(np.float64, channels, elements=floats)) for _ in range(2))
    return Moments(draw(counters), mean, m2)


nonfinite = st.builds(
    Nonfinite, counters, counters, counters, st.dictionaries(st.tuples(points, st.sampled_from(["nan", "posinf", "neginf"])), counters)
)
windows = st.builds(
    Window,
    started=floats,
    ended=floats,
    forwards=counters,
    sampled_forwards=counters,
    points=st.dictionaries(st.tuples(layers, points), st.builds(PointWindow, histograms(), moments(), floats, floats, floats), max_size=4),
    nonfinite=st.dictionaries(layers, nonfinite, max_size=3),
    first_nonfinite=st.none() | layers,
    blind=st.lists(layers, max_size=3).map(tuple),
    thinned=st.booleans(),
)
certificates = st.builds(
    Certificate,
    counters,
    counters,
    st.dictionaries(st.tuples(layers, points, counters), floats, max_size=4),
    st.lists(counters, max_size=3).map(tuple),
    floats,
    counters,
    counters,
    st.booleans(),
    st.text(max_size=20),
)


@pytest.fixture
def window(baseline: Callable[..., Baseline]) -> Window:
    """A window with something in every field."""
    return baseline().windows[0]


@law
@given(window=windows)
def test_window_comes_back_exactly(same: Callable[..., bool], window: Window) -> None:
    """Any window is decoded to the same dtypes, the same bits and the same order."""
    assert same(window, decode_window(encode_window(window)))


@law
@given(window=windows)
def test_equal_windows_give_equal_bytes(window: Window) -> None:
    """The bytes hold no clock and no chance, so that a digest of them means something."""
    assert encode_window(window) == encode_window(decode_window(encode_window(window)))


@law
@given(certificate=certificates)
def test_certificate_comes_back_exactly(same: Callable[..., bool], certificate: Certificate) -> None:
    """Any certificate survives strict JSON, which has neither NaN nor infinities."""
    stored = json.loads(json.dumps(encode_certificate(certificate), allow_nan=False))
    assert same(certificate, decode_certificate(stored))


def test_numpy_scalars_become_python_numbers(same: Callable[..., bool], window: Window) -> None:
    """Counters that numpy computed are stored as the numbers they are."""
    computed = replace(window, forwards=np.int64(7), started=np.float64(1.5), thinned=np.bool_(True))  # type: ignore[arg-type]
    assert same(replace(window, forwards=7, started=1.5, thinned=True), decode_window(encode_window(computed)))


def test_arrays_of_any_layout(same: Callable[..., bool], window: Window) -> None:
    """A strided or big-endian array is stored like a plain one."""
    (key, point), *_ = window.points.items()
    mean = point.moments.mean
    strided = np.stack([mean, mean], axis=1)[:, 0]
    odd = replace(point, moments=replace(point.moments, mean=strided, m2=point.moments.m2.astype(">f8")))
    assert same(window, decode_window(encode_window(replace(window, points={key: odd}))))


def test_payload_is_a_plain_npz(window: Window) -> None:
    """Numpy alone opens a payload without pickle, and the header says what is in it."""
    with np.load(io.BytesIO(encode_window(window)), allow_pickle=False) as archive:
        header = json.loads(archive["header.json"])
        planes = archive["mean"]
    ((_, point),) = window.points.items()
    assert ("geluwatch-window", 1, 2**40) == (header["format"], header["version"], header["forwards"])
    assert point.moments.mean.tolist() == planes.T.copy().view("<f8").ravel().tolist()


def test_a_real_window_is_small() -> None:
    """Twelve points of 1,536 channels and 6,000 cells take under half of their arrays' size."""
    random = np.random.default_rng(0)
    points = {}
    for index in range(12):
        cells = np.cumsum(random.geometric(0.7, 6000), dtype=np.int32)
        counts = random.geometric(1 / np.exp(random.normal(6, 1, 6000))).astype(np.int64)
        mean, m2 = random.normal(-0.5, 0.5, 1536), random.exponential(900, 1536)
        points[f"layer.{index // 2}", ("pre", "post")[index % 2]] = PointWindow(Histogram(16, cells, counts), Moments(2048, mean, m2))
    window = Window(0.0, 60.0, 100, 100, points)  # type: ignore[arg-type]
    arrays = [a for p in points.values() for a in (p.histogram.cells, p.histogram.counts, p.moments.mean, p.moments.m2)]
    assert 0.4 * sum(array.nbytes for array in arrays) > len(encode_window(window))


def test_any_damaged_byte_is_found_or_harmless(same: Callable[..., bool], window: Window) -> None:
    """With any one byte changed, a payload is refused, or still gives the very window (zip has bytes that say nothing)."""
    payload = encode_window(window)
    refused = 0
    for place in range(len(payload)):
        damaged = payload[:place] + bytes([payload[place] ^ 0x5A]) + payload[place + 1 :]
        try:
            read = decode_window(damaged)
        except StoreError:
            refused += 1
        else:
            assert same(window, read), place
    assert refused > 0.8 * len(payload)


@law
@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_cut_payload_is_refused(baseline: Callable[..., Baseline], cut: float) -> None:
    """A payload that ends early is refused wherever it ends."""
    payload = encode_window(baseline().windows[0])
    with pytest.raises(StoreError, match="its bytes are damaged or no stored window"):
        decode_window(payload[: int(cut * len(payload))])


@law
@given(foreign=st.binary(max_size=200))
def test_foreign_bytes_are_refused(foreign: bytes) -> None:
    """Bytes that never were a window are refused in one sentence that starts with the window's name."""
    with pytest.raises(StoreError, match=r"^Window 3 cannot be read, .* record it again\.$"):
        decode_window(foreign, "Window 3")


@pytest.mark.parametrize(
    ("entry", "change"),
    [
        ("header.json", lambda header: {**header, "format": "other"}),
        ("header.json", lambda header: {**header, "points": []}),
        ("header.json", lambda header: {**header, "points": [{**header["points"][0], "cells": 1}]}),
        ("header.json", lambda header: {**header, "points": header["points"] * 2}),
        ("header.json", lambda header: {name: value for name, value in header.items() if name != "blind"}),
        ("header.json", lambda header: [header]),
        ("mean.npy", lambda planes: planes[:7]),
        ("mean.npy", lambda planes: planes.astype(np.int16)),
        ("mean.npy", lambda planes: planes.ravel()),
        ("m2.npy", lambda planes: planes[:, 1:]),
        ("sums.npy", lambda sums: sums[:, :2]),
        ("times.npy", lambda times: times[:1]),
        ("times.npy", lambda _: np.array([None, None], object)),
    ],
)
def test_sound_archives_with_other_contents_are_refused(window: Window, entry: str, change: Callable[[Any], Any]) -> None:
    """An archive whose checksums are right but whose parts do not fit together is refused, and no pickle is ever loaded."""
    with pytest.raises(StoreError):
        decode_window(_rewritten(encode_window(window), entry, change))


def test_an_archive_with_another_compression_is_refused(window: Window) -> None:
    """Only what the format allows is unpacked."""
    payload = _rewritten(encode_window(window), "times.npy", lambda times: times, zipfile.ZIP_STORED)
    with pytest.raises(StoreError, match="an entry is not deflated"):
        decode_window(payload)


def test_a_newer_version_asks_for_an_upgrade(window: Window) -> None:
    """A format that this release does not know yet is told apart from damage."""
    newer = _rewritten(encode_window(window), "header.json", lambda header: {"format": header["format"], "version": VERSION + 1})
    with pytest.raises(StoreError, match=r"is stored as geluwatch-window version 2, .* upgrade geluwatch\.$"):
        decode_window(newer)


def test_arrays_that_do_not_belong_together_are_refused(window: Window) -> None:
    """A point with fewer counts than cells, or with moments of two widths, is never stored."""
    (key, point), *_ = window.points.items()
    short = replace(point, histogram=replace(point.histogram, counts=point.histogram.counts[1:]))
    wide = replace(point, moments=replace(point.moments, mean=np.zeros((2, 4)), m2=np.zeros((2, 4))))
    with pytest.raises(BaselineError, match=r"at encoder\.0\.act post, cells of shape .* does not belong to counts of shape"):
        encode_window(replace(window, points={key: short}))
    with pytest.raises(BaselineError, match=r"mean of shape \(2, 4\) does not belong to m2 of shape \(2, 4\); both must be flat"):
        encode_window(replace(window, points={key: wide}))


@pytest.mark.parametrize("stored", [{}, {"thresholds": [[1]]}, {"unknown": 1}, []])
def test_a_damaged_certificate_is_refused(baseline: Callable[..., Baseline], stored: Any) -> None:
    """JSON that is no certificate is refused in one sentence."""
    sound = encode_certificate(baseline().certificate)
    with pytest.raises(StoreError, match=r"^The certificate cannot be read"):
        decode_certificate(sound | stored if stored else stored)


def _rewritten(payload: bytes, name: str, change: Callable[[Any], Any], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a payload with one entry changed and all checksums right."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(payload)) as old, zipfile.ZipFile(result, "w", compression) as new:
        for entry in old.namelist():
            content = old.read(entry)
            if entry == name and name.endswith(".json"):
                content = json.dumps(change(json.loads(content))).encode()
            elif entry == name:
                changed = io.BytesIO()
                np.save(changed, change(np.load(io.BytesIO(content))), allow_pickle=True)
                content = changed.getvalue()
            new.writestr(entry, content)
    return result.getvalue()
