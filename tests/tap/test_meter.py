"""What is measured of a forward pass: time, batch, tokens, failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from geluwatch.catalog import BATCH_EDGES, LATENCY_EDGES
from geluwatch.core.totals import add_traffic
from geluwatch.records import FirstPass, Traffic
from geluwatch.tap.meter import Meter, increase, out_of_memory, tokens

Attach = Callable[..., Any]


class Sleeper(nn.Module):
    """Takes the time it is told to, then does what it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.GELU()
        self.seconds = 0.0
        self.then: Callable[[], object] = lambda: None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the GELU, slowly."""
        time.sleep(self.seconds)
        self.then()
        y: torch.Tensor = self.act(x)
        return y


class Encoder(nn.Module):
    """Takes token numbers and a mask, as encoders do."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.act = nn.Embedding(10, 4), nn.GELU()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:  # noqa: ARG002  # for the hooks
        """Embed and apply the GELU."""
        y: torch.Tensor = self.act(self.embed(input_ids))
        return y


def too_much() -> object:
    """Ask for more memory than there is."""
    return torch.empty(2**60, dtype=torch.uint8)


def test_a_pass_is_timed_from_call_to_return(attach: Attach) -> None:
    """A pass of thirty milliseconds lands above the edge below and in no quick bucket; time adds up; the first one is told."""
    model = Sleeper()
    watch = attach(model)
    model.seconds = 0.03
    model(torch.randn(2, 4))
    model.seconds = 0.0
    model(torch.randn(2, 4))
    traffic = watch.flush().totals.traffic
    slow = sum(traffic.latencies[LATENCY_EDGES.index(0.025) + 1 :])
    assert (2, 1) == (sum(traffic.latencies), slow)
    assert 0.03 <= traffic.first.seconds <= traffic.seconds < traffic.first.seconds + 0.5
    assert traffic.first.since_attach >= traffic.first.seconds


def test_the_first_pass_stays_the_first(attach: Attach) -> None:
    """Later passes, of later flushes and other threads, do not change what the first one took."""
    model = Sleeper()
    watch = attach(model)
    model(torch.randn(2, 4))
    first = watch.flush().totals.traffic.first
    model(torch.randn(2, 4))
    other = threading.Thread(target=lambda: model(torch.randn(2, 4)))
    other.start()
    other.join()
    traffic = watch.flush().totals.traffic
    assert (first, 3) == (traffic.first, sum(traffic.latencies))
    assert watch.flush().totals.traffic == traffic


def test_batch_sizes_fall_into_powers_of_two(attach: Attach) -> None:
    """One entry, two, three and five thousand: at the edge, at the edge, in the next bucket, above all edges."""
    model = nn.Sequential(nn.GELU())
    watch = attach(model)
    for size in (1, 2, 3, 5000):
        model(torch.randn(size, 1))
    batches = watch.flush().totals.traffic.batches
    assert {0: 1, 1: 1, 2: 1, len(BATCH_EDGES): 1} == {place: count for place, count in enumerate(batches) if count}


def test_running_out_of_memory_is_told_apart(attach: Attach) -> None:
    """An allocation that cannot be had is out of memory, a wrong shape is not; both failed, neither has a latency."""
    model = Sleeper()
    watch = attach(model)
    model.then = too_much
    with pytest.raises(RuntimeError, match="allocate"):
        model(torch.randn(2, 4))
    model.then = lambda: torch.zeros(2) + torch.zeros(3)
    with pytest.raises(RuntimeError, match="size"):
        model(torch.randn(2, 4))
    model.then = lambda: None
    model(torch.randn(2, 4))
    totals = watch.flush().totals
    assert (3, 2, 1, 1) == (totals.forwards, totals.traffic.failed, totals.traffic.out_of_memory, sum(totals.traffic.latencies))
    assert {} == totals.errors


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_of_memory_are_known_by_type_or_wording(error: Exception, expected: bool) -> None:
    """Torch's own type, Python's, and the words of allocators that raise a plain RuntimeError; nothing else."""
    assert expected == out_of_memory(error)


def test_a_retry_inside_the_handler_is_no_failure(attach: Attach) -> None:
    """Whoever catches the error and tries a smaller batch on the spot has one failed pass and one that returned."""
    model = Sleeper()
    watch = attach(model)
    model.then = too_much
    try:
        model(torch.randn(2, 4))
    except RuntimeError:
        model.then = lambda: None
        model(torch.randn(1, 4))
    traffic = watch.flush().totals.traffic
    assert (1, 1, 1) == (traffic.failed, traffic.out_of_memory, sum(traffic.latencies))


def test_an_error_that_the_model_handles_is_no_failure(attach: Attach) -> None:
    """A model that falls back by itself has returned."""

    def fall_back() -> None:
        with suppress(RuntimeError):
            too_much()

    model = Sleeper()
    watch = attach(model)
    model.then = fall_back
    model(torch.randn(2, 4))
    assert (0, 1) == (watch.flush().totals.traffic.failed, sum(watch.report.totals.traffic.latencies))


def test_tokens_are_those_of_the_mask_or_of_the_shape(attach: Attach) -> None:
    """Five of eight tokens are valid by the mask, by name or by place; without one all eight count; floats are no tokens."""
    model = Encoder()
    watch = attach(model)
    ids, mask = torch.zeros(2, 4, dtype=torch.int64), torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    for call, expected in (
        (lambda: model(ids, attention_mask=mask), 5),
        (lambda: model(input_ids=ids, attention_mask=mask.bool()), 5),
        (lambda: model(ids, mask), 5),
        (lambda: model(ids), 8),
        (lambda: model(ids, attention_mask=mask.float()), 8),
    ):
        before = watch.flush().totals.traffic.tokens
        call()
        assert expected == watch.flush().totals.traffic.tokens - before
    assert 0 == tokens(torch.randn(2, 4), None)


def test_a_mask_that_cannot_be_read_is_not(attach: Attach) -> None:
    """Values on no device cannot be summed; the shape stands in, and no part of the agent fails."""
    ids = torch.zeros(2, 4, dtype=torch.int64, device="meta")
    assert 8 == tokens(ids, torch.ones(2, 4, dtype=torch.int64, device="meta"))


def test_measuring_is_invisible_to_dispatch_modes(attach: Attach) -> None:
    """A mode that counts operations counts none of ours: checkpointing that counts them would go wrong otherwise."""
    model = Encoder()
    attach(model)
    ids = torch.zeros(2, 4, dtype=torch.int64)
    seen: list[str] = []

    class Listen(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    with Listen(), FlopCounterMode(display=False):
        model(ids, attention_mask=torch.ones(2, 4, dtype=torch.int64))
    assert not [name for name in seen if "count_nonzero" in name]


def test_a_failing_meter_is_switched_off_alone(attach: Attach, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its failures are counted under its own name, and the guard goes on."""

    def fail(*_: Any) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(Meter, "end", fail)
    model = nn.Sequential(nn.GELU())
    watch = attach(model, breaker_limit=2)
    for _ in range(3):
        model(torch.full((1, 2), float("nan")))
    report = watch.flush()
    assert ({"meter": 2}, ("meter",), 3) == (dict(report.totals.errors), report.disabled, report.totals.nonfinite_forwards)


counts = st.integers(0, 1000)
traffics = st.builds(
    Traffic,
    st.integers(0, 1000).map(float),
    st.lists(counts, min_size=len(LATENCY_EDGES) + 1, max_size=len(LATENCY_EDGES) + 1).map(tuple),
    st.lists(counts, min_size=len(BATCH_EDGES) + 1, max_size=len(BATCH_EDGES) + 1).map(tuple),
    counts,
    counts,
    counts,
    st.none() | st.builds(FirstPass, st.floats(0, 9), st.floats(0, 9)),
)


@given(one=traffics, two=traffics, three=traffics)
def test_traffic_adds_in_any_order(one: Traffic, two: Traffic, three: Traffic) -> None:
    """Adding is associative and commutative, with nothing as the neutral element."""
    assert add_traffic(one, add_traffic(two, three)) == add_traffic(add_traffic(one, two), three)
    assert add_traffic(one, two) == add_traffic(two, one)
    assert one == add_traffic(one, Traffic())


@given(before=traffics, more=traffics)
def test_an_increase_is_what_was_added(before: Traffic, more: Traffic) -> None:
    """The difference of two readings, added to the first, is the second."""
    after = add_traffic(before, more)
    assert after == add_traffic(before, increase(before, after))
