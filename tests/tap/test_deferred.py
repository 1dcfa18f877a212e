"""The guard and the row capture of accelerators, run on the CPU's tensors: the same operations, without a wait to spare."""

from __future__ import annotations

import gc
import itertools
import math
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from geluwatch.tap import deferred, places
from geluwatch.tap.deferred import DeviceGuard, DeviceRows
from geluwatch.tap.gradients import DeviceGradients


def test_hits_first_hits_and_passes_are_counted() -> None:
    """Over 50 passes with planted values, hits by site, first hits and passes with any come out exactly."""
    guard = DeviceGuard(3)
    clean = torch.ones(4, 8)
    expected_hits, expected_firsts, expected_passes = [0, 0, 0], [0, 0, 0], 0
    for turn in range(50):
        bad = [site for site in range(3) if (turn * 7 + site * 3) % 10 < 2]
        for site in range(3):
            values = clean.clone()
            if site in bad:
                values[turn % 4, site] = (float("nan"), float("inf"), float("-inf"))[turn % 3]
                expected_hits[site] += 1
            guard.look(site, (values,), None)
        if bad:
            expected_firsts[bad[0]] += 1
            expected_passes += 1
        guard.end_pass()
    assert (expected_hits, expected_firsts, expected_passes) == guard.counts(final=True)


def test_counts_arrive_without_a_final_wait() -> None:
    """A copy of the counters is picked up by a later pass, and never counts more than there was."""
    guard = DeviceGuard(1)
    for _ in range(40):
        guard.look(0, (torch.tensor([[float("nan")]]),), None)
        guard.end_pass()
    hits, _, passes = guard.counts()
    assert hits == [passes]
    assert 16 <= passes <= 40


def test_padding_rows_do_not_count() -> None:
    """A NaN in a row that the mask hides is no hit; the same NaN in a valid row is."""
    guard = DeviceGuard(1)
    values = torch.ones(2, 2, 4)
    values[1, 1, 0] = float("nan")
    for mask, expected in (([True, True, True, False], 0), ([True, True, False, True], 1)):
        guard.look(0, (values,), torch.tensor(mask))
        guard.end_pass()
        assert expected == guard.counts(final=True)[2]


def test_only_valid_rows_are_captured_in_pairs() -> None:
    """With fewer valid rows than wanted, exactly the valid ones arrive, pre and post of the same rows."""
    rows = DeviceRows()
    pre = torch.arange(24.0).reshape(2, 6, 2)
    mask = torch.tensor([True] * 3 + [False] * 3 + [True] * 2 + [False] * 4)
    choice = rows.pick(12, mask, torch.device("cpu"), 1.0, 8)
    rows.capture("layer", pre, pre * 10, choice)
    (captured,) = rows.arrived()
    assert {0.0, 2.0, 4.0, 12.0, 14.0} == set(captured.pre[:, 0].tolist())
    assert torch.equal(captured.pre * 10, captured.post)
    assert [] == list(rows.arrived())


def test_drawing_rows_leaves_the_global_generator_alone() -> None:
    """Picking rows changes nothing that the model's dropout would draw."""
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    DeviceRows().pick(100, None, torch.device("cpu"), 0.04, 4)
    assert torch.equal(expected, torch.rand(4))


def test_the_share_is_that_of_the_valid_rows() -> None:
    """However much padding there is, a share of a quarter takes each valid row a quarter of the time, and no padding row."""
    rows, turns = DeviceRows(), 2000
    for valid in (3, 40):
        mask = torch.arange(40) < valid
        counts = torch.zeros(40)
        for _ in range(turns):
            choice = rows.pick(40, mask, torch.device("cpu"), 0.25, 10)
            counts[choice.indices[choice.valid]] += 1
        assert 0.0 == float(counts[valid:].sum())
        assert (counts[:valid] / turns - 0.25).abs().max() < 0.05


def test_finite_values_are_no_hit_however_large() -> None:
    """Values whose sum overflows, in any dtype, are no hit; one Inf among them is."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        guard = DeviceGuard(1)
        values = torch.full((4, 64), torch.finfo(dtype).max, dtype=dtype)
        for mask in (None, torch.tensor([True, True, False, True])):
            guard.look(0, (values, torch.empty(0, 64, dtype=dtype)), mask)
            guard.end_pass()
        assert 0 == guard.counts(final=True)[2]
        values[1, 3] = float("inf")
        guard.look(0, (values,), None)
        guard.end_pass()
        assert 1 == guard.counts(final=True)[2]


def test_a_thread_takes_over_what_one_that_ended_left() -> None:
    """Threads that come and go, as a server's do, use one state one after the other, and no count is lost."""
    guard = DeviceGuard(1)

    def serve() -> None:
        guard.look(0, (torch.tensor([[float("nan")]]),), None)
        guard.end_pass()

    for _ in range(20):
        thread = threading.Thread(target=serve)
        thread.start()
        thread.join()
        del thread
    assert (1, 20) == (len(guard._all), guard.counts(final=True)[2])


class Operations(TorchDispatchMode):
    """Counts what would be a kernel on a device: operations other than views."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # torch gives them
        self.count += not operation.is_view
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize(("masked", "most"), [(False, 1), (True, 3)])
def test_a_look_is_one_operation(masked: bool, most: int) -> None:
    """A site costs one operation on its device, three with padding, and the end of a pass the same whatever the number of sites."""
    ends = []
    for sites in (2, 24):
        guard = DeviceGuard(sites)
        values, mask = torch.randn(6, 4), torch.ones(6, dtype=torch.bool) if masked else None
        guard.look(0, (values,), mask)
        guard.end_pass()
        with Operations() as looks:
            for site in range(sites):
                guard.look(site, (values,), mask)
        assert most * sites == looks.count
        with Operations() as end:
            guard.end_pass()
        ends.append(end.count)
    assert ends[0] == ends[1] <= 16


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bad", [[True, False], [False, True], [False, False], [True, True]])
def test_a_site_that_runs_twice_in_a_pass_is_hit_by_either_call(dtype: torch.dtype, bad: list[bool]) -> None:
    """The second look of a pass does not undo the first, and nothing is left of either in the next pass."""
    guard = DeviceGuard(1)
    for faulty in bad:
        guard.look(0, (torch.full((2, 3), math.inf if faulty else 1.0, dtype=dtype),), None)
    guard.end_pass()
    guard.look(0, (torch.ones(2, 3, dtype=dtype),), None)
    guard.end_pass()
    assert ([int(any(bad))], [int(any(bad))], int(any(bad))) == guard.counts(final=True)


def test_the_first_hit_is_that_of_the_site_that_ran_first() -> None:
    """Whatever their numbers, and though the order changes between passes, of the sites hit the first to be looked at is told."""
    guard, firsts = DeviceGuard(4), [0] * 4
    orders = list(itertools.permutations(range(4)))
    for order in orders * 2:
        for site in order:
            dtype = torch.float64 if site == 1 else torch.float32
            guard.look(site, (torch.tensor([[math.inf if site else 1.0]], dtype=dtype),), None)
        firsts[next(site for site in order if site)] += 1
        guard.end_pass()
    assert ([0, 48, 48, 48], firsts, 48) == guard.counts(final=True)


@pytest.mark.parametrize("known", [True, False])
def test_a_captured_pass_takes_no_order_from_the_host(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first hit goes by the order of passes before it, and where there were none by the number of the site."""
    guard = DeviceGuard(2)
    for captured in (False, True) if known else (True,):
        for module in (deferred, places):
            monkeypatch.setattr(module, "capturing", lambda _, answer=captured: answer)
        with monkeypatch.context() as patched:
            if captured:
                patched.delattr(torch, "tensor")
            for site in (1, 0):
                guard.look(site, (torch.full((1, 1), math.nan),), None, captured=captured)
            guard.end_pass()
    assert ([0, 2] if known else [1, 0]) == guard.counts(final=True)[1]


def test_a_pass_that_was_cut_off_is_counted_by_the_next_thread() -> None:
    """What a thread saw and did not live to count is counted when another takes over what it left."""
    guard = DeviceGuard(1)
    thread = threading.Thread(target=lambda: guard.look(0, (torch.tensor([[math.nan]]),), None))
    thread.start()
    thread.join()
    del thread
    guard.look(0, (torch.ones(1, 1),), None)
    guard.end_pass()
    assert ([1], [1], 1) == guard.counts(final=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_call_outside_of_a_pass_is_counted_by_itself(dtype: torch.dtype) -> None:
    """A hit there is one of its own, on whichever side; large values are none, nor is what has no element, and no pass is touched."""
    guard = DeviceGuard(2)
    large = torch.full((2, 3), torch.finfo(dtype).max, dtype=dtype)
    guard.look(0, (large,), None)
    for sides in ((large,), (torch.empty(0, 3, dtype=dtype),), (large, large * math.inf), (large * math.nan, large)):
        guard.look_alone(1, sides)
    guard.end_pass()
    assert ([0, 2], [0, 2], 2) == guard.counts(final=True)


def test_a_pass_over_several_devices_is_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """A NaN that travels from device to device is hit on each, first on the first that the pass came to, and counts as one pass."""
    guard, two = DeviceGuard(3), (torch.device("cpu"), torch.device("cpu:0"))
    find = DeviceGuard._state
    monkeypatch.setattr(DeviceGuard, "_state", lambda guard, board, _: find(guard, board, two[site == 2]))
    for order in ((0, 1, 2), (2, 0, 1)):
        for bad in ([1, 2], [2], [], [0]):
            for site in order:
                guard.look(site, (torch.full((2, 4), math.nan if site in bad else 1.0),), None)
            guard.end_pass()
    assert ([2, 2, 4], [2, 1, 3], 6) == guard.counts(final=True)


def test_rows_of_threads_that_have_ended_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of threads that end before their copies have arrived, as those of a server with one for each request do, no row is lost."""
    rows, landed = DeviceRows(), False
    monkeypatch.setattr(deferred, "_fired", lambda _: landed)

    def serve() -> None:
        values = torch.randn(6, 4)
        rows.capture("act", values, values, rows.pick(6, None, values.device, 1.0, 6))
        assert [] == list(rows.arrived())

    for _ in range(20):
        thread = threading.Thread(target=serve)
        thread.start()
        thread.join()
        del thread
    landed = True
    assert 120 == sum(len(captured.pre) for captured in rows.arrived())
    assert [] == list(rows.arrived())


def test_what_a_graph_writes_to_outlives_the_watch() -> None:
    """The counters of a captured pass are never let go, for the graph writes to them whenever it is replayed; others are."""
    kept = []
    for captured in (True, False):
        guard = DeviceGuard(1)
        guard.look(0, (torch.ones(2, 4),), None, captured=captured)
        kept.append(weakref.ref(guard._all[0].counts))
        del guard
        gc.collect()
    assert [True, False] == [each() is not None for each in kept]


def test_a_forked_child_lets_go_of_nothing_that_its_parent_pinned(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """What was copied to by devices stays where it is when a child begins anew, for freeing it would take CUDA, which fails there."""
    watch = attach(block())
    tap = watch._source._tap
    before = [weakref.ref(each) for each in (tap.device_guard, tap.device_rows, watch._source._steps)]
    watch._source.start_anew()
    gc.collect()
    assert all(each() is not None for each in before)
    assert tap.device_guard is not before[0]()


def test_copies_are_waited_for_on_the_device_that_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """What tells that counters and rows have arrived is recorded on a stream of their own device, which need not be the current one."""
    device, streams = torch.device("cpu"), []

    class Event:
        def record(self, stream: object = None) -> None:
            streams.append(stream)

        def query(self) -> bool:
            return True

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda of: of)
    guard, gradients, rows = DeviceGuard(1), DeviceGradients(1, device), DeviceRows()
    for task in range(40):
        guard.look(0, (torch.ones(1, 1),), None)
        gradients.look(0, task, torch.ones(1))
        if task == 10:
            guard._all[0].event, gradients._event = torch.cuda.Event(), torch.cuda.Event()
        guard.end_pass()
    assert [device] * 4 == streams
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda _: True))
    monkeypatch.setattr(deferred, "_start_copy", torch.clone)
    rows.capture("act", torch.ones(2, 2), torch.ones(2, 2), rows.pick(2, None, device, 1.0, 1))
    assert [device] * 5 == streams
