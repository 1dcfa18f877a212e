"""What every baseline store promises, checked on each of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from geluwatch.errors import BaselineError, UnknownBaselineError
from geluwatch.ports import BaselineStore
from geluwatch.records import Baseline, Calm, PointKey, Provenance
from geluwatch.store import BaselineInfo, MemoryBaselines, SqlBaselines

Make = Callable[..., Baseline]


def test_is_a_baseline_store(store: BaselineStore) -> None:
    """Every store fulfils the port's protocol."""
    assert isinstance(store, BaselineStore)


def test_load_returns_what_was_saved(store: BaselineStore, baseline: Make, same: Callable[..., bool]) -> None:
    """Every field of every record comes back, bit for bit."""
    saved = baseline()
    store.save(saved)
    assert same(saved, store.load("minilm", "1", "v1"))


def test_keeps_a_baseline_of_nothing(store: BaselineStore, baseline: Make, same: Callable[..., bool]) -> None:
    """A baseline without sites, windows, horizons and all that is learnt from windows is stored like any other."""
    learnt = {"sites": (), "windows": (), "references": {}, "histograms": {}, "calm": None, "probe": None}
    origin = {"traffic": "", "provenance": Provenance(), "signature": None}
    saved = baseline(certificate=replace(baseline().certificate, horizons=()), **learnt, **origin)
    store.save(saved)
    assert same(saved, store.load("minilm", "1", "v1"))


def test_keeps_calm_scores_of_nothing(store: BaselineStore, baseline: Make, same: Callable[..., bool]) -> None:
    """Scores of no window, no point or no horizon keep their shape, and are not taken for no scores at all."""
    points: tuple[PointKey, ...] = (("act", "pre"), ("act", "post"))
    for shape in ((0, 0, 3), (0, 2, 3), (4, 0, 3), (4, 2, 0)):
        count, keys, horizons = shape
        calm = Calm(points[:keys], (1, 4, 16)[:horizons], np.zeros(count), np.zeros((count, 3, keys, horizons), np.float32))
        saved = baseline(name=str(shape), calm=calm)
        store.save(saved)
        assert same(saved, store.load("minilm", "1", str(shape)))


def test_keeps_what_was_first_saved(store: BaselineStore, baseline: Make, same: Callable[..., bool]) -> None:
    """A name that is taken is refused, with the name, and the first baseline stays as it was."""
    first = baseline()
    store.save(first)
    with pytest.raises(BaselineError, match='"v1" is stored already for model "minilm" version "1"'):
        store.save(baseline(created=1.0, sites=()))
    assert same(first, store.load("minilm", "1", "v1"))
    assert ("v1",) == store.names("minilm", "1")


def test_names_are_apart_by_model_and_version(store: BaselineStore, baseline: Make) -> None:
    """One name can be used once for every model and version."""
    for model, version in (("minilm", "1"), ("minilm", "2"), ("gpt2", "1")):
        store.save(baseline(model, version))
    assert "gpt2" == store.load("gpt2", "1", "v1").model
    assert "2" == store.load("minilm", "2", "latest").model_version
    assert ("v1",) == store.names("minilm", "1")


def test_names_are_oldest_first(store: BaselineStore, baseline: Make) -> None:
    """Names come by the time a baseline was made, and those of one moment as they were saved."""
    for name, created in (("late", 30.0), ("early", 10.0), ("b", 20.0), ("a", 20.0)):
        store.save(baseline(name=name, created=created))
    assert ("early", "b", "a", "late") == store.names("minilm", "1")


def test_latest_is_the_newest(store: BaselineStore, baseline: Make) -> None:
    """The name "latest" loads the baseline made last, whenever it was saved."""
    for name, created in (("late", 30.0), ("later", 30.0), ("early", 10.0)):
        store.save(baseline(name=name, created=created))
    assert "later" == store.load("minilm", "1", "latest").name


@pytest.mark.parametrize("name", ["latest", "v9"])
def test_unknown_in_an_empty_store(store: BaselineStore, name: str) -> None:
    """An empty store says that it is empty."""
    with pytest.raises(UnknownBaselineError, match=r'^No baseline is stored for model "minilm" version "1", nor for any other model'):
        store.load("minilm", "1", name)


def test_unknown_name(store: BaselineStore, baseline: Make) -> None:
    """A wrong name is answered with the names there are."""
    for name, created in (("second", 2.0), ("first", 1.0)):
        store.save(baseline(name=name, created=created))
    with pytest.raises(UnknownBaselineError, match=r'^No baseline "v9" is stored for .*; there are "first", "second"\.$'):
        store.load("minilm", "1", "v9")


def test_unknown_version(store: BaselineStore, baseline: Make) -> None:
    """A wrong model or version is answered with the versions that have baselines, each once."""
    for model, name in (("minilm", "v1"), ("minilm", "v2"), ("gpt2", "v1")):
        store.save(baseline(model, "1", name))
    with pytest.raises(UnknownBaselineError) as caught:
        store.load("minilm", "2", "latest")
    stored = 'model "minilm" version "1", model "gpt2" version "1"'
    assert f'No baseline is stored for model "minilm" version "2", only for {stored}; record one first.' == str(caught.value)


def test_unknown_name_among_many(store: BaselineStore, baseline: Make) -> None:
    """A long list of names is cut to the newest ten."""
    for index in range(12):
        store.save(baseline(name=f"v{index}", created=float(index), windows=()))
    with pytest.raises(UnknownBaselineError, match=r'there are 2 older ones and "v2", .*"v11"\.$'):
        store.load("minilm", "1", "v99")


@pytest.mark.parametrize("field", ["model", "model_version", "name"])
def test_refuses_names_that_a_database_could_not_keep(store: BaselineStore, baseline: Make, field: str) -> None:
    """A key that is empty, too long or not printable is refused with its field."""
    for value in ("", "a" * 256, "two\nlines", "nul\0", "\ud800"):
        with pytest.raises(BaselineError, match=f"^The {field} of a baseline must be 1 to 255 printable characters"):
            store.save(baseline(**{field: value}))


def test_keeps_the_longest_names(store: BaselineStore, baseline: Make) -> None:
    """255 characters of any alphabet are kept whole, in all three parts of the key."""
    longest = "界" * 255
    store.save(baseline(longest, longest, longest))
    assert (longest,) == store.names(longest, longest)


def test_refuses_the_reserved_name(store: BaselineStore, baseline: Make) -> None:
    """No baseline can be called "latest"."""
    with pytest.raises(BaselineError, match=r'^The name "latest" stands for the newest'):
        store.save(baseline(name="latest"))


def test_refuses_times_without_an_order(store: BaselineStore, baseline: Make) -> None:
    """NaN is no time: neither for a baseline nor for a window."""
    with pytest.raises(BaselineError, match="must be finite, got nan"):
        store.save(baseline(created=float("nan")))
    with pytest.raises(BaselineError, match="must be finite, got inf"):
        store.save(baseline(windows=(replace(baseline().windows[0], ended=float("inf")),)))
    assert () == store.names("minilm", "1")


def test_listing(store: MemoryBaselines | SqlBaselines, baseline: Make) -> None:
    """The list is in the order of models, whatever the database's collation, and then of time; it counts all windows used."""
    armed = replace(baseline().certificate, armed=True, windows=20_000)
    for model, name, created in (("b", "new", 2.0), ("B", "v1", 3.0), ("b", "old", 1.0)):
        store.save(baseline(model, "1", name, created, certificate=armed if name == "new" else baseline().certificate))
    origin = {"traffic": "eu – 界", "dtype": "float32", "device": "cuda", "signer": "0a" * 8}
    expected = (
        BaselineInfo("B", "1", "v1", 3.0, 100, 2, armed=False, **origin),
        BaselineInfo("b", "1", "old", 1.0, 100, 2, armed=False, **origin),
        BaselineInfo("b", "1", "new", 2.0, 20_000, 2, armed=True, **origin),
    )
    assert expected == store.listing()


def test_listing_of_a_baseline_of_unknown_origin(store: MemoryBaselines | SqlBaselines, baseline: Make) -> None:
    """Without provenance, or with one that tells nothing, the list leaves open what it does not know."""
    for name, origin in (("none", None), ("empty", Provenance())):
        store.save(baseline(name=name, provenance=origin, signature=None, traffic=""))
    assert [("", "", "", "", "recorded")] * 2 == [
        (info.traffic, info.dtype, info.device, info.signer, info.state) for info in store.listing()
    ]


def test_refuses_traffic_that_a_database_could_not_keep(store: BaselineStore, baseline: Make) -> None:
    """A slice of the traffic may be empty, and is printable and of the length of a key otherwise."""
    for value in ("a" * 256, "two\nlines"):
        with pytest.raises(BaselineError, match="traffic of a baseline must be at most 255 printable characters"):
            store.save(baseline(traffic=value))
    assert () == store.names("minilm", "1")


def test_threads_share_a_store(store: BaselineStore, baseline: Make) -> None:
    """Many threads save and load at once; each sees what it saved, and one of those with the same name wins."""

    def work(index: int) -> int:
        store.save(baseline(name=f"own{index}"))
        assert f"own{index}" == store.load("minilm", "1", f"own{index}").name
        try:
            store.save(baseline(name="shared"))
        except BaselineError:
            return 0
        return 1

    with ThreadPoolExecutor(8) as threads:
        assert 1 == sum(threads.map(work, range(16)))
    assert 17 == len(store.names("minilm", "1"))


def test_close_can_be_called_twice(store: BaselineStore) -> None:
    """Closing a closed store does nothing."""
    store.close()
    store.close()
