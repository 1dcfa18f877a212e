"""The digest of a baseline's content: what is in it, what is not, and that later releases find it again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geluwatch.records import Baseline, Provenance, Weights
from geluwatch.store import portable
from geluwatch.store.digest import _written, content_digest

Make = Callable[..., Baseline]

#: Of the file `data/first.baseline`, which stays as it is. Where this changes, no signature of an earlier release verifies.
FIRST = "b4a7617231f0e1ca21b8596b32b662f6de8e3856f9b4537d5661f645778714f1"


def variants(value: Any) -> list[Any]:
    """Return other values of the same kind."""
    if isinstance(value, np.ndarray):
        return [changed for index in range(min(value.size, 2)) for changed in [flipped(value, index)]] + [value[:-1]]
    if is_dataclass(value) and not isinstance(value, type):
        found = [(each.name, getattr(value, each.name)) for each in fields(value) if each.name not in {"signature", "gate"}]
        return [replace(value, **{name: other}) for name, part in found for other in variants(part)]
    if isinstance(value, dict):
        key, part = next(iter(value.items()))
        return [{**value, key: other} for other in variants(part)] + [{k: v for k, v in value.items() if k != key}]
    if isinstance(value, tuple):
        return [(variant, *value[1:]) for variant in variants(value[0])] + [value[1:]] if value else []
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, (int, float)):
        return [value + 1 if abs(value) < 2**50 else -value]
    return [f"{value}x"] if isinstance(value, str) else []


def flipped(values: np.ndarray[Any, Any], index: int) -> np.ndarray[Any, Any]:
    """Return an array with one bit of one element another."""
    raw = bytearray(values.tobytes())
    raw[index * values.itemsize] ^= 1
    return np.frombuffer(bytes(raw), values.dtype).reshape(values.shape)


def test_every_value_anywhere_is_in_it(baseline: Make) -> None:
    """Whatever is changed in whatever record of a baseline, down to one bit of one array, gives a digest of its own."""
    whole = baseline()
    others = variants(whole)
    assert len(others) > 120
    digests = [content_digest(other) for other in (whole, *others)]
    assert len(set(digests)) == len(digests)


def test_signature_and_order_are_not_in_it(baseline: Make) -> None:
    """Who signed it, the order of mappings and the type of a number make no difference."""
    whole = baseline()
    turned = replace(whole, signature=None, references=dict(reversed(list(whole.references.items()))), created=np.float64(whole.created))
    assert content_digest(whole) == content_digest(turned)


def test_storing_does_not_change_it(store: Any, baseline: Make) -> None:
    """It is the same before a baseline was stored and after it was loaded, from each store and from a file."""
    whole = baseline()
    store.save(whole)
    found = {content_digest(each) for each in (whole, store.load("minilm", "1", "v1"), portable.load(portable.dump(whole), "the file"))}
    assert 1 == len(found)


def test_fields_of_later_releases_are_not_in_it_until_they_are_used() -> None:
    """A record with a new field that has its default is written as the one without it; with another value it is not."""

    @dataclass
    class Before:
        name: str
        values: dict[str, int]

    @dataclass
    class After(Before):
        extra: tuple[str, ...] = ()
        more: dict[str, int] = field(default_factory=dict)

    before, after = Before("v1", {"a": 1}), After("v1", {"a": 1})
    assert _written(before) == _written(after)
    assert _written(before) != _written(After("v1", {"a": 1}, more={"b": 2}))


def test_it_stays_as_it_was_in_the_first_release() -> None:
    """A file of the first release has the digest that it had when signatures came."""
    content = (Path(__file__).with_name("data") / "first.baseline").read_bytes()
    assert FIRST == content_digest(portable.load(content, "the file"))


texts = st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=4)


@given(one=texts, other=texts)
def test_different_contents_are_written_differently(one: dict[str, str], other: dict[str, str]) -> None:
    """No two mappings of text, however their keys and values run into one another, are written the same."""
    first, second = (_written(Provenance(Weights(tensors=each))) for each in (one, other))
    assert (first == second) == (one == other)


@given(st.lists(st.one_of(st.none(), st.text(max_size=3), st.floats(), st.integers(-(2**70), 2**70)), max_size=4), st.data())
def test_values_do_not_run_into_one_another(values: list[Any], data: st.DataObject) -> None:
    """A sequence is written otherwise than each of its parts in sequences of their own."""
    cut = data.draw(st.integers(0, len(values)))
    assert _written(tuple(values)) != _written((tuple(values[:cut]), tuple(values[cut:])))


def test_what_has_no_written_form_is_refused() -> None:
    """An object of an unknown kind is a mistake of ours, and no content."""
    with pytest.raises(TypeError, match="object has no written form"):
        _written(object())
