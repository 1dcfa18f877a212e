"""Rows that a confirmed hit leaves behind: whole, of one pass, of the first layer, bounded, and free where nothing is wrong."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from geluwatch.records import Drained, Evidence
from geluwatch.tap import arguments, evidence, guard

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def drained(watch: Any) -> Drained:
    """Return what the tap has seen since the last drain."""
    found: Drained = watch._source.drain()
    return found


def kept(watch: Any) -> tuple[Evidence, ...]:
    """Return what waits."""
    return drained(watch).evidence


def planted(dtype: torch.dtype, rows: int = 12, width: int = 6) -> torch.Tensor:
    """Return rows of which two are bad: number 3 with a NaN, number 7 with both infinities."""
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(5)).to(dtype)
    x[3, 1], x[7, 0], x[7, 5] = math.nan, math.inf, -math.inf
    return x


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_bad_rows_are_kept_whole_with_good_ones_beside_them(dtype: torch.dtype, attach: Callable[..., Any], only: Any) -> None:
    """They are the model's own values before the GELU and after it, at the places that they had, in every dtype."""
    model, x = only(), planted(dtype)
    watch = attach(model)
    with torch.inference_mode():
        y = model(x)
    (found,) = kept(watch)
    wide = (side.double().numpy() for side in (x, y))
    before, after = (side for side in wide)
    assert ([3, 7], 2, (12, 6), str(dtype)) == (list(found.bad.places), found.bad_rows, found.shape, f"torch.{found.bad.dtype}")
    for rows in (found.bad, found.good):
        assert rows is not None
        assert rows.pre is not None
        np.testing.assert_array_equal(before[rows.places], rows.pre)
        np.testing.assert_array_equal(after[rows.places], rows.post)
    assert found.good is not None
    assert evidence.GOOD_ROWS == len(found.good.post)
    assert np.isfinite(found.good.post).all()
    assert {"grad": False, "inference": True, "autocast": ""} == found.mode


def test_the_first_layer_speaks_for_the_pass(attach: Callable[..., Any], block: Any) -> None:
    """One pass leaves one record: of the first layer that was hit, with the same tokens at the layer before it."""
    model = nn.Sequential(block(), block(), block())
    watch = attach(model, cost_budget=None)
    model(torch.randn(4, 8))
    drained(watch)
    with torch.no_grad():
        model[1].up.weight[2, 3] = math.inf
    rows: dict[str, torch.Tensor] = {}
    model[0].act.register_forward_hook(lambda _module, _args, output: rows.update(before=output.detach().clone()))
    model(torch.randn(4, 8))
    (found,) = kept(watch)
    assert "1.act" == found.bad.layer
    assert found.before is not None
    assert "0.act" == found.before.layer
    np.testing.assert_array_equal(rows["before"].numpy()[found.before.places], found.before.post)
    assert set(found.bad.places) == set(found.before.places)


def test_padding_is_no_evidence(attach: Callable[..., Any], only: Any) -> None:
    """A NaN at padding alone leaves nothing, and none of its rows is among those of a hit."""
    model, x = only(), planted(torch.float32).reshape(2, 6, 6)
    watch = attach(model)
    mask = torch.ones(2, 6, dtype=torch.long)
    mask[0, 3] = mask[1, 1] = 0
    model(x, attention_mask=mask)
    assert () == kept(watch)
    mask[0, 3] = 1
    model(x, attention_mask=mask)
    (found,) = kept(watch)
    assert ([3], 1) == (list(found.bad.places), found.bad_rows)
    assert 7 not in found.good.places


def test_an_input_that_was_written_over_is_not_made_up(attach: Callable[..., Any]) -> None:
    """Where the GELU works in place there are no rows before it, and the rows after it are there."""

    class InPlace(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.aten.gelu_(x)

    model = InPlace()
    watch = attach(model, cost_budget=None)
    model(torch.randn(4, 6))
    watch.flush()
    model(planted(torch.float32))
    (found,) = kept(watch)
    assert found.bad.pre is None
    assert not np.isfinite(found.bad.post).all(axis=1).any()


def test_outputs_stay_bit_identical_around_a_hit(attach: Callable[..., Any], block: Any) -> None:
    """What the model computes from and after a NaN is what it computes unwatched, to the bit."""
    model, x = nn.Sequential(block(), block()), planted(torch.float32, width=8)
    expected = model(x)
    attach(model, incident_inputs=True)
    for _ in range(3):
        assert expected.view(torch.int32).equal(model(x).view(torch.int32))


def operations(run: Callable[[], object]) -> Counter[str]:
    """Return how often each operation runs, those among them that modes do not see."""
    with torch.autograd.profiler.profile(use_kineto=True) as profile:
        run()
    return Counter(event.name for event in profile.function_events)


def test_a_plain_pass_runs_nothing_for_evidence(attach: Callable[..., Any], block: Any) -> None:
    """Where nothing is wrong, a pass that gives no rows runs the sum that is the guard, once a GELU, and no other operation."""
    model, x = nn.Sequential(block(), block()).eval(), torch.randn(4, 8)
    with torch.no_grad():
        bare, looks = operations(lambda: model(x)), operations(lambda: [guard.plainly_finite(model[0].up(x)) for _ in model])
        looks -= operations(lambda: [model[0].up(x) for _ in model])
        watch = attach(model, cost_budget=1e-9, incident_inputs=True)
        for _ in range(4):
            model(x)
            watch.flush()
        before = watch.report.totals.sampled_forwards
        watched = operations(lambda: model(x))
    assert before == watch.flush().totals.sampled_forwards
    assert looks.total() > 0
    assert looks == watched - bare


def test_waiting_evidence_is_bounded(attach: Callable[..., Any], only: Any) -> None:
    """However many passes fail between two drains and however wide they are, a handful waits, each within its bytes."""
    model, width = only(), 1 << 17
    watch = attach(model)
    x = torch.full((6, width), math.nan)
    for _ in range(3 * evidence.PLACES):
        model(x)
    found = kept(watch)
    assert evidence.PLACES == len(found)
    for hit in found:
        arrays = [side for rows in (hit.bad, hit.good, hit.before) if rows is not None for side in (rows.pre, rows.post)]
        assert 0 < sum(side.nbytes for side in arrays) <= evidence.MOST_BYTES
    model(x)
    assert 1 == len(kept(watch)), "a drain gives the places back"
    assert 3 * evidence.PLACES + 1 == watch._source._seen.total.nonfinite_forwards


def test_threads_do_not_mix_their_passes(attach: Callable[..., Any], block: Any) -> None:
    """With eight threads that fail at the same time, each record's rows, good, bad and before, come from one pass."""
    model = nn.Sequential(nn.GELU(), nn.Identity(), nn.GELU())
    watch = attach(model, cost_budget=None, incident_inputs=True)
    records: list[Evidence] = []
    passes = 40

    def serve(tag: int) -> None:
        for _ in range(passes):
            x = torch.full((16, 4), float(tag))
            x[tag, 2] = math.nan
            with torch.inference_mode():
                model(x)

    threads = [threading.Thread(target=serve, args=(tag,)) for tag in range(1, 9)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        records.extend(kept(watch))
    records.extend(kept(watch))
    assert 8 * passes == watch._source._seen.total.nonfinite_forwards
    assert evidence.PLACES <= len(records) <= 8 * passes
    for found in records:
        assert found.called is not None
        (inputs,) = found.called.arrays.values()
        rows = np.concatenate([part.pre for part in (found.bad, found.good) if part is not None] + [inputs])
        (tag,) = np.unique(rows[np.isfinite(rows)])
        assert [int(tag)] == list(found.bad.places)
        assert "0" == found.bad.layer


def test_a_failure_there_is_counted_and_costs_the_count_nothing(
    attach: Callable[..., Any], only: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When rows cannot be kept the hit is counted all the same, the model runs on, and the part is switched off in the end."""

    def fails(*_: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(evidence, "rows_of", fails)
    model = only()
    watch = attach(model, breaker_limit=3)
    for _ in range(5):
        assert not model(planted(torch.float32)).isfinite().all()
    totals = watch.flush().totals
    assert (5, 3) == (totals.nonfinite_forwards, totals.errors["incident"])
    assert ("incident",) == watch.report.disabled


@pytest.mark.parametrize("whole", [False, True])
def test_values_of_a_call_are_kept_only_where_they_are_wanted(whole: bool, attach: Callable[..., Any]) -> None:
    """By default a call is known by types, dtypes and shapes; with `incident_inputs` it can be made again."""

    class Takes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.GELU()

        def forward(self, x: torch.Tensor, **_: Any) -> torch.Tensor:
            return self.act(x)

    model, x = Takes(), planted(torch.bfloat16)
    watch = attach(model, incident_inputs=whole)
    ids = torch.tensor([[7001, 7002]])
    model(x, input_ids=ids, options={"secret key": ["secret text", 7003, None]})
    (found,) = kept(watch)
    assert found.called is not None
    assert whole == found.called.whole
    tree = found.called.tree
    assert {"type": "tensor", "dtype": "bfloat16", "shape": [12, 6], "device": "cpu", "nonfinite": 3} == {
        key: value for key, value in tree["args"][0].items() if key != "array"
    }
    text = repr(found.called)
    assert [whole] * 3 == [secret in text for secret in ("secret key", "secret text", "7003")]
    assert whole == any(array.dtype == np.int64 and 7002 in array for array in found.called.arrays.values())


def test_a_call_too_large_is_described(attach: Callable[..., Any], only: Any) -> None:
    """Tensors beyond the limit are not copied, and the call is not called whole."""
    model = only()
    watch = attach(model, incident_inputs=True)
    x = torch.zeros(1100, 1024)
    x[5, 5] = math.nan
    model(x)
    (found,) = kept(watch)
    assert found.called is not None
    assert (False, {}) == (found.called.whole, dict(found.called.arrays))


def test_what_no_copy_can_hold_is_named_by_its_type(attach: Callable[..., Any], only: Any) -> None:
    """An argument that is neither tensor nor plain leaves its class's name."""
    model = only()
    watch = attach(model, incident_inputs=True)
    model(planted(torch.float32), attention_mask=object())
    (found,) = kept(watch)
    assert found.called is not None
    assert (False, {"type": "builtins.object"}) == (found.called.whole, found.called.tree["kwargs"]["attention_mask"])


def test_long_containers_and_texts_are_not_read_to_their_end() -> None:
    """Of a million numbers sixty-four are described, of a text beyond the limit its type: the pass waits meanwhile."""
    keep = arguments.keep((([*range(1_000_000)],), {}), whole=True)
    assert not keep.whole
    assert 65 > len(keep.tree["args"][0]["items"]) > 60
    assert "left_out" in keep.tree["args"][0]["items"][-1]
    text = arguments.keep(((), {"text": "x" * (arguments.MOST_BYTES + 1)}), whole=True)
    assert (False, {"type": "str"}) == (text.whole, text.tree["kwargs"]["text"])


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("whole", [False, True])
def test_an_argument_in_eight_bits_costs_no_rows(dtype: torch.dtype, whole: bool, attach: Callable[..., Any], only: Any) -> None:
    """Types that have few operations are described, and the rows of the hit are there."""
    model = only()
    watch = attach(model, incident_inputs=whole)
    model(planted(torch.float32), attention_mask=torch.zeros(3).to(dtype))
    (found,) = kept(watch)
    assert found.called is not None
    assert (False, str(dtype).removeprefix("torch.")) == (found.called.whole, found.called.tree["kwargs"]["attention_mask"]["dtype"])
    assert len(found.bad.post)
