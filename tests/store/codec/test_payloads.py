"""The stored form of windows, references, pooled histograms, calm scores and probes: laws that all payloads keep."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geluwatch.errors import BaselineError, StoreError
from geluwatch.records import (
    POINTS,
    Baseline,
    Bfloat16,
    Calm,
    Histogram,
    Moments,
    Nonfinite,
    PointKey,
    PointWindow,
    Probe,
    ProbeInput,
    Reference,
    Rows,
    Window,
)
from geluwatch.store import codec

# A busy machine is no failure.
law = settings(deadline=None, max_examples=50)

floats = st.floats()
singles = st.floats(width=32)
counters = st.integers(0, 2**63 - 1)
layers = st.text(max_size=8)
keys: st.SearchStrategy[PointKey] = st.tuples(layers, st.sampled_from(POINTS))


@st.composite
def histograms(draw: st.DrawFn) -> Histogram:
    """Histograms with any int32 cells and any int64 counts."""
    cells = np.array(sorted(draw(st.sets(st.integers(-(2**31), 2**31 - 1), max_size=20))), np.int32)
    counts = draw(hnp.arrays(np.int64, len(cells), elements=st.integers(1, 2**63 - 1)))
    bits = draw(st.sampled_from([16, 19, 24 + 64 * 119]))
    return Histogram(bits, cells, counts, draw(counters), draw(counters), draw(counters), draw(st.booleans()))


@st.composite
def moments(draw: st.DrawFn) -> Moments:
    """Moments with any float64, NaN and the infinities included."""
    channels = draw(st.integers(0, 12))
    mean, m2 = (draw(hnp.arrays(np.float64, channels, elements=floats)) for _ in range(2))
    return Moments(draw(counters), mean, m2)


@st.composite
def references(draw: st.DrawFn) -> Reference:
    """References with any float32."""
    values = draw(st.integers(0, 12))
    mean, variance = (draw(hnp.arrays(np.float32, values, elements=singles)) for _ in range(2))
    return Reference(mean, variance, draw(floats), draw(counters), draw(floats))


@st.composite
def calms(draw: st.DrawFn) -> Calm:
    """Calm scores of any shape, with any float32; those of earlier releases lack a statistic."""
    points, horizons = draw(st.lists(keys, max_size=3, unique=True)), draw(st.lists(counters, max_size=3))
    ended = draw(hnp.arrays(np.float64, st.integers(0, 6), elements=floats))
    scores = draw(hnp.arrays(np.float32, (len(ended), draw(st.sampled_from([3, 4])), len(points), len(horizons)), elements=singles))
    return Calm(tuple(points), tuple(horizons), ended, scores, draw(st.sampled_from([1, 8])))


@st.composite
def pairs(draw: st.DrawFn) -> Rows:
    """Rows with any float32."""
    shape = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    pre, post = (draw(hnp.arrays(np.float32, shape, elements=singles)) for _ in range(2))
    return Rows(draw(layers), draw(st.sampled_from(["float32", "float16", "bfloat16", "float64"])), pre, post, draw(st.booleans()))


numbers = st.one_of(hnp.boolean_dtypes(), hnp.integer_dtypes(endianness="="), hnp.floating_dtypes(endianness="=", sizes=(16, 32, 64)))
trees = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        floats,
        st.text(max_size=4),
        hnp.arrays(numbers, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)),
        st.builds(Bfloat16, hnp.arrays(np.uint16, hnp.array_shapes(max_dims=2, max_side=3))),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple), st.dictionaries(layers, inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def probes(draw: st.DrawFn) -> Probe:
    """Probes of any inputs."""
    given_ = st.builds(ProbeInput, st.lists(trees, max_size=2).map(tuple), st.dictionaries(layers, trees, max_size=2))
    inputs = tuple(draw(st.lists(given_, max_size=2)))
    rows = tuple(tuple(draw(st.lists(pairs(), max_size=2))) for _ in inputs)
    return Probe(draw(floats), inputs, rows, draw(counters), draw(layers))


nonfinite = st.builds(
    Nonfinite,
    counters,
    counters,
    counters,
    st.dictionaries(st.tuples(keys.map(lambda key: key[1]), st.sampled_from(["nan"])), counters),
    counters,
    counters,
)
windows = st.builds(
    Window,
    started=floats,
    ended=floats,
    forwards=counters,
    sampled_forwards=counters,
    points=st.dictionaries(keys, st.builds(PointWindow, histograms(), moments(), floats, floats, floats), max_size=4),
    nonfinite=st.dictionaries(layers, nonfinite, max_size=3),
    first_nonfinite=st.none() | layers,
    blind=st.lists(layers, max_size=3).map(tuple),
    thinned=st.booleans(),
)


@dataclass(frozen=True)
class Part:
    """One kind of payload."""

    kind: str
    encode: Callable[[Any], bytes]
    decode: Callable[..., Any]
    any: st.SearchStrategy[Any]
    of: Callable[[Baseline], Any]


PARTS = (
    Part("window", codec.encode_window, codec.decode_window, windows, lambda baseline: baseline.windows[0]),
    Part(
        "references",
        codec.encode_references,
        codec.decode_references,
        st.dictionaries(keys, references(), max_size=4),
        attrgetter("references"),
    ),
    Part(
        "histograms",
        codec.encode_histograms,
        codec.decode_histograms,
        st.dictionaries(keys, histograms(), max_size=4),
        attrgetter("histograms"),
    ),
    Part("calm", codec.encode_calm, codec.decode_calm, calms(), attrgetter("calm")),
    Part("probe", codec.encode_probe, codec.decode_probe, probes(), attrgetter("probe")),
)


@pytest.fixture(params=PARTS, ids=attrgetter("kind"), scope="module")
def part(request: pytest.FixtureRequest) -> Part:
    """Every kind of payload."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def payload(part: Part, baseline: Callable[..., Baseline]) -> bytes:
    """A payload of each kind, with something in every field."""
    return part.encode(part.of(baseline()))


@law
@given(data=st.data())
def test_comes_back_exactly(same: Callable[..., bool], part: Part, data: st.DataObject) -> None:
    """Anything is decoded to the same dtypes, the same bits and the same order."""
    drawn = data.draw(part.any)
    assert same(drawn, part.decode(part.encode(drawn)))


@law
@given(data=st.data())
def test_equal_parts_give_equal_bytes(part: Part, data: st.DataObject) -> None:
    """The bytes hold no clock and no chance, so that a digest of them means something."""
    stored = part.encode(data.draw(part.any))
    assert stored == part.encode(part.decode(stored))


def test_decoded_arrays_can_be_changed(part: Part, baseline: Callable[..., Baseline]) -> None:
    """No array is a read-only view of the payload, nor shared between two calls."""
    stored = part.encode(part.of(baseline()))
    one, other = (arrays_in(part.decode(stored)) for _ in range(2))
    assert one
    assert all(array.flags.writeable for array in one)
    assert not any(np.shares_memory(*pair) for pair in zip(one, other, strict=True))


def arrays_in(value: Any) -> list[np.ndarray[Any, Any]]:
    """Return every array in a record."""
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, dict):
        return [array for each in value.values() for array in arrays_in(each)]
    if isinstance(value, (tuple, list)):
        return [array for each in value for array in arrays_in(each)]
    return [array for name in getattr(value, "__slots__", ()) for array in arrays_in(getattr(value, name))]


def test_any_damaged_byte_is_found_or_harmless(same: Callable[..., bool], part: Part, payload: bytes) -> None:
    """With any one byte changed, a payload is refused, or still gives the very part (zip has bytes that say nothing)."""
    sound = part.decode(payload)
    refused = 0
    for place in range(len(payload)):
        damaged = payload[:place] + bytes([payload[place] ^ 0x5A]) + payload[place + 1 :]
        try:
            read = part.decode(damaged)
        except StoreError:
            refused += 1
        else:
            assert same(sound, read), place
    assert refused > 0.7 * len(payload)


def test_a_cut_payload_is_refused(part: Part, payload: bytes) -> None:
    """A payload that ends early is refused wherever it ends."""
    for length in range(0, len(payload), 7):
        with pytest.raises(StoreError, match=f"the bytes are damaged or no stored {part.kind} "):
            part.decode(payload[:length])


@law
@given(foreign=st.binary(max_size=200))
def test_foreign_bytes_are_refused(part: Part, foreign: bytes) -> None:
    """Bytes that were never stored are refused in one sentence that starts with the part's name."""
    with pytest.raises(StoreError, match=r"^Part 3 cannot be read, .* record it again\.$"):
        part.decode(foreign, "Part 3")


def test_a_payload_of_another_kind_is_refused(part: Part, baseline: Callable[..., Baseline]) -> None:
    """No part is taken for another, however sound."""
    for other in PARTS:
        if other.kind != part.kind:
            with pytest.raises(StoreError, match=f"is stored as geluwatch-{other.kind} version 1 "):
                part.decode(other.encode(other.of(baseline())))


def test_a_newer_version_asks_for_an_upgrade(part: Part, payload: bytes) -> None:
    """A format that this release does not know yet is told apart from damage."""
    newer = rewritten(payload, "header.json", lambda header: {"format": header["format"], "version": 2})
    with pytest.raises(StoreError, match=rf"is stored as geluwatch-{part.kind} version 2 .* version 1; upgrade geluwatch\.$"):
        part.decode(newer)


def test_an_archive_with_another_compression_is_refused(part: Part, payload: bytes) -> None:
    """Only what the format allows is unpacked."""
    with pytest.raises(StoreError, match="an entry is not deflated"):
        part.decode(rewritten(payload, "", lambda content: content, zipfile.ZIP_STORED))


def test_no_pickle_is_loaded(part: Part, payload: bytes) -> None:
    """An array of objects is refused in place of any array, before anything in it could run."""
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        arrays = [name for name in archive.namelist() if name.endswith(".npy")]
    assert arrays
    for name in arrays:
        with pytest.raises(StoreError, match="allow_pickle"):
            part.decode(rewritten(payload, name, lambda _: np.array([None, None], object)))


@pytest.mark.parametrize(
    ("kind", "entry", "change"),
    [
        ("window", "header.json", lambda header: {**header, "points": []}),
        ("window", "header.json", lambda header: {**header, "points": [{**header["points"][0], "cells": 1}]}),
        ("window", "header.json", lambda header: {**header, "points": header["points"] * 2}),
        ("window", "header.json", lambda header: {name: value for name, value in header.items() if name != "blind"}),
        ("window", "header.json", lambda header: [header]),
        ("window", "mean.npy", lambda planes: planes[:7]),
        ("window", "mean.npy", lambda planes: planes.astype(np.int16)),
        ("window", "mean.npy", lambda planes: planes.ravel()),
        ("window", "m2.npy", lambda planes: planes[:, 1:]),
        ("window", "sums.npy", lambda sums: sums[:, :2]),
        ("window", "times.npy", lambda times: times[:1]),
        ("references", "header.json", lambda header: {**header, "points": header["points"][:1]}),
        ("references", "rows.npy", lambda rows: rows[1:]),
        ("references", "variance.npy", lambda planes: planes[:, 1:]),
        ("histograms", "header.json", lambda header: {**header, "points": header["points"][:1]}),
        ("histograms", "counts.npy", lambda planes: planes[:4]),
        ("probe", "header.json", lambda header: {**header, "inputs": header["inputs"][:1]}),
        ("probe", "header.json", lambda header: {**header, "rows": header["rows"][:1]}),
        ("probe", "header.json", lambda header: {**header, "inputs": [{"args": ["value", 1], "kwargs": ["dict", {}]}] * 2}),
        ("probe", "header.json", lambda header: {**header, "inputs": [{"args": ["array", "O", [1]], "kwargs": ["dict", {}]}] * 2}),
        ("probe", "bytes.npy", lambda planes: planes[:, 1:]),
        ("probe", "pre.npy", lambda planes: planes[:, 1:]),
        ("calm", "header.json", lambda header: {**header, "horizons": header["horizons"][1:]}),
        ("calm", "header.json", lambda header: {**header, "keys": [["layer"]] * 2}),
        ("calm", "ended.npy", lambda planes: planes[:, 1:]),
        ("calm", "scores.npy", lambda planes: planes[:, 1:]),
    ],
)
def test_sound_archives_with_other_contents_are_refused(
    baseline: Callable[..., Baseline], kind: str, entry: str, change: Callable[[Any], Any]
) -> None:
    """An archive whose checksums are right but whose parts do not fit together is refused."""
    (part,) = (part for part in PARTS if part.kind == kind)
    with pytest.raises(StoreError, match="the bytes are damaged"):
        part.decode(rewritten(part.encode(part.of(baseline())), entry, change))


def rewritten(payload: bytes, name: str, change: Callable[[Any], Any], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
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


def test_numpy_scalars_become_python_numbers(same: Callable[..., bool], baseline: Callable[..., Baseline]) -> None:
    """Counters that numpy computed are stored as the numbers they are."""
    window = baseline().windows[0]
    computed = replace(window, forwards=np.int64(7), started=np.float64(1.5), thinned=np.bool_(True))  # type: ignore[arg-type]
    assert same(replace(window, forwards=7, started=1.5, thinned=True), codec.decode_window(codec.encode_window(computed)))
    reference = baseline().references["encoder.0.act", "pre"]
    counted = {("act", "pre"): replace(reference, rows=np.float64(7.5), windows=np.int64(7))}  # type: ignore[arg-type]
    plain = {("act", "pre"): replace(reference, rows=7.5, windows=7)}
    assert same(plain, codec.decode_references(codec.encode_references(counted)))  # type: ignore[arg-type]


def test_arrays_of_any_layout(same: Callable[..., bool], baseline: Callable[..., Baseline]) -> None:
    """A strided or big-endian array is stored like a plain one."""
    window, calm = baseline().windows[0], baseline().calm
    assert calm
    (key, point), *_ = window.points.items()
    strided = np.stack([point.moments.mean, point.moments.mean], axis=1)[:, 0]
    odd = replace(point, moments=replace(point.moments, mean=strided, m2=point.moments.m2.astype(">f8")))
    assert same(window, codec.decode_window(codec.encode_window(replace(window, points={key: odd}))))
    turned = replace(calm, ended=calm.ended[::-1][::-1].astype(">f8"), scores=np.asfortranarray(calm.scores).astype(">f4"))
    assert same(calm, codec.decode_calm(codec.encode_calm(turned)))


def test_payload_is_a_plain_npz(baseline: Callable[..., Baseline]) -> None:
    """Numpy alone opens a payload without pickle, and the header says what is in it."""
    window = baseline().windows[0]
    with np.load(io.BytesIO(codec.encode_window(window)), allow_pickle=False) as archive:
        header = json.loads(archive["header.json"])
        planes = archive["mean"]
    ((_, point),) = window.points.items()
    assert ("geluwatch-window", 1, 2**40) == (header["format"], header["version"], header["forwards"])
    assert point.moments.mean.tolist() == planes.T.copy().view("<f8").ravel().tolist()


def test_a_window_with_values_is_small() -> None:
    """Twelve points of 1,536 channels and 6,000 cells take under half of their arrays' size."""
    random = np.random.default_rng(0)
    points: dict[PointKey, PointWindow] = {}
    for index in range(12):
        cells = np.cumsum(random.geometric(0.7, 6000), dtype=np.int32)
        counts = random.geometric(1 / np.exp(random.normal(6, 1, 6000))).astype(np.int64)
        mean, m2 = random.normal(-0.5, 0.5, 1536), random.exponential(900, 1536)
        points[f"layer.{index}", "pre"] = PointWindow(Histogram(16, cells, counts), Moments(2048, mean, m2))
    arrays = [a for p in points.values() for a in (p.histogram.cells, p.histogram.counts, p.moments.mean, p.moments.m2)]
    assert 0.4 * sum(array.nbytes for array in arrays) > len(codec.encode_window(Window(0.0, 60.0, 100, 100, points)))


def test_arrays_that_do_not_belong_together_are_refused(baseline: Callable[..., Baseline]) -> None:
    """Fewer counts than cells, moments of two widths, a reference of two lengths or a score too few is never stored."""
    window, calm = baseline().windows[0], baseline().calm
    assert calm
    (key, point), *_ = window.points.items()
    short = replace(point.histogram, counts=point.histogram.counts[1:])
    wide = replace(point, moments=replace(point.moments, mean=np.zeros((2, 4)), m2=np.zeros((2, 4))))
    with pytest.raises(BaselineError, match=r"^The window .* at encoder\.0\.act post, cells of shape .* does not belong to counts of"):
        codec.encode_window(replace(window, points={key: replace(point, histogram=short)}))
    with pytest.raises(BaselineError, match=r"mean of shape \(2, 4\) does not belong to m2 of shape \(2, 4\); both must be flat"):
        codec.encode_window(replace(window, points={key: wide}))
    with pytest.raises(BaselineError, match=r"^The pooled histograms cannot be stored: at encoder\.0\.act post, cells of shape"):
        codec.encode_histograms({key: short})
    with pytest.raises(
        BaselineError, match=r"^The references cannot be stored: at a pre, mean of shape \(2,\) .* variance of shape \(3,\)"
    ):
        codec.encode_references({("a", "pre"): Reference(np.zeros(2, np.float32), np.zeros(3, np.float32), 1.0, 1)})
    with pytest.raises(BaselineError, match=r"scores of shape \(4, 3, 2, 3\) .* to 5 windows, 3 statistics, 2 points and 3 horizons\.$"):
        codec.encode_calm(replace(calm, scores=calm.scores[1:]))
