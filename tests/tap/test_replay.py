"""A replay takes rows of stored inputs' passes, and nothing else in the process notices that they were made."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from geluwatch.config import Config
from geluwatch.errors import ProbeBusyError, ProbeError
from geluwatch.records import Bfloat16, Drained, ProbeInput, Rows
from geluwatch.tap import ranks
from geluwatch.tap.source import TorchSource
from geluwatch.testing import FakeClock

ALL = 1 << 40

Watch = Callable[..., TorchSource]


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Put taps on models, with the settings given, and take them off at the end."""
    made: list[tuple[nn.Module, TorchSource]] = []  # a tap does not keep its model alive

    def begin(model: nn.Module, **settings: Any) -> TorchSource:
        made.append((model, TorchSource(model, Config(window_seconds=None, cost_budget=None, **settings), FakeClock())))
        return made[-1][1]

    yield begin
    for _, source in made:
        source.close()


def inputs(count: int = 2, rows: int = 5, width: int = 8) -> list[torch.Tensor]:
    """Return inputs of a small block."""
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(rows, width, generator=generator) for _ in range(count)]


def replayed(source: TorchSource, *given: Any, values: int = ALL) -> list[tuple[Rows, ...]]:
    """Replay inputs."""
    return source.replay([source.keep(each) for each in given], values)


class Twice(nn.Module):
    """One GELU module that two blocks share, and a call of the function."""

    def __init__(self) -> None:
        super().__init__()
        act = nn.GELU()
        self.one, self.two = (nn.Sequential(nn.Linear(8, 8), act) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., 8) to the same shape."""
        return nn.functional.gelu(self.two(self.one(x)))


class Drawing(nn.Module):
    """Drops out in evaluation mode as well."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Drop out, and apply the activation."""
        return self.act(nn.functional.dropout(x, 0.5, training=True))


def test_all_valid_rows_of_each_call_come_in_order(only: Callable[[], nn.Module], watch: Watch) -> None:
    """Rows before and after the GELU are those of the pass; padding is left out."""
    source = watch(only())
    (x,) = inputs(1)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    masked = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))
    plain, padded = replayed(source, x, {"x": masked, "attention_mask": mask})
    assert np.array_equal(plain[0].pre, x.numpy())
    assert np.array_equal(plain[0].post, nn.functional.gelu(x).numpy())
    assert np.array_equal(padded[0].pre, masked[mask.bool()].numpy())


def test_no_more_values_are_taken_than_asked_for(only: Callable[[], nn.Module], watch: Watch) -> None:
    """They lie evenly over the rows, and over the values of a row where one holds more than that; none are counted with zero."""
    source = watch(only())
    x = torch.arange(60.0).reshape(10, 6)
    taken = {values: replayed(source, x, values=values)[0][0].pre for values in (0, 3, 6, 13, 59)}
    assert {0: (0, 6), 3: (1, 3), 6: (1, 6), 13: (2, 6), 59: (9, 6)} == {values: rows.shape for values, rows in taken.items()}
    assert [0.0, 30.0] == taken[13][:, 0].tolist()
    assert [0.0, 2.0, 4.0] == taken[3][0].tolist()


def test_shared_modules_and_functions_are_told_apart(watch: Watch) -> None:
    """Each call is its own layer's, before any traffic has come as after it."""
    model = Twice().eval()
    source = watch(model)
    (first,) = replayed(source, inputs(1)[0])
    for _ in range(3):
        model(inputs(1)[0])
    (then,) = replayed(source, inputs(1)[0])
    assert 3 == len({rows.layer for rows in first}) == len(first)
    assert [rows.layer for rows in first] == [rows.layer for rows in then]
    assert all(np.array_equal(one.pre, other.pre) for one, other in zip(first, then, strict=True))


def test_a_call_that_no_code_shows_is_found_by_the_replay_itself(watch: Watch) -> None:
    """A function fetched at run time is heard, taken into the census, and compared, though no traffic has come yet."""

    class Fetched(nn.Module):
        """Finds its function under a made-up name."""

        def __init__(self) -> None:
            super().__init__()
            self.act = nn.GELU()
            self.table = {"name": nn.functional.gelu}

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Apply both."""
            return self.table["".join(["na", "me"])](self.act(x))

    assert 2 == len(replayed(watch(Fetched()), inputs(1)[0])[0])


def test_a_replay_is_no_traffic(block: Callable[[], nn.Module], watch: Watch) -> None:
    """After replays, of NaN too, the drain has the traffic's passes and rows to the last, and the census knows no more."""
    model, alone = block().eval(), block().eval()
    alone.load_state_dict(model.state_dict())
    source, other = watch(model), watch(alone)
    replayed(source, *inputs(), torch.full((2, 8), torch.nan))
    assert source.sites == other.sites
    drained: list[Drained] = []
    for each, passes in ((source, model), (other, alone)):
        for x in inputs(20):
            passes(x)
            if each is source:
                replayed(source, x)
        drained.append(each.drain())
    one, two = drained
    for name in ("forwards", "sampled_forwards", "samples", "nonfinite_forwards", "nonfinite", "dropped_rows", "errors"):
        assert getattr(two, name) == getattr(one, name), name
    assert (two.traffic.batches, sum(two.traffic.latencies)) == (one.traffic.batches, sum(one.traffic.latencies))
    assert all(np.array_equal(a.pre, b.pre) for a, b in zip(one.rows, two.rows, strict=True))
    assert 20 == one.forwards


@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_as_it_was(training: bool, block: Callable[[], nn.Module], watch: Watch) -> None:
    """Flags of training, mixed ones too, come back one by one, whether the pass succeeds or raises; in it they are off."""
    model = nn.Sequential(block(), nn.Dropout(0.5), nn.BatchNorm1d(8)).train(training)
    model[2].training = not training
    flags = [module.training for module in model.modules()]
    state = copy.deepcopy(model.state_dict())
    source = watch(model)
    first, second = (replayed(source, inputs(1)[0])[0] for _ in range(2))
    assert np.array_equal(first[0].post, second[0].post)
    with pytest.raises(
        ProbeError, match=r"^Input 2 cannot be sent through the model \(RuntimeError: .*\); give inputs that it takes here\.$"
    ):
        replayed(source, inputs(1)[0], torch.zeros(2, 3))
    assert flags == [module.training for module in model.modules()]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert (0, {}) == (source.drain().forwards, source.drain().errors)


def test_random_numbers_are_left_to_others(watch: Watch) -> None:
    """A model that draws in evaluation mode leaves the generator where it was; draws of another thread are not undone."""
    source = watch(Drawing())
    before = torch.get_rng_state()
    replayed(source, *inputs())
    assert torch.equal(before, torch.get_rng_state())

    class Elsewhere(nn.Module):
        """While it runs, another thread draws."""

        def __init__(self) -> None:
            super().__init__()
            self.act = nn.GELU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Apply the activation."""
            thread = threading.Thread(target=lambda: torch.rand(3))
            thread.start()
            thread.join()
            return self.act(x)

    replayed(watch(Elsewhere()), inputs(1)[0])
    assert not torch.equal(before, torch.get_rng_state())
    torch.set_rng_state(before)


def test_a_replay_computes_plainly_whatever_its_thread_is_set_to(block: Callable[[], nn.Module], watch: Watch) -> None:
    """Under autocast, with gradients or in inference mode the rows are the same, and no graph is left."""
    source = watch(block().eval())
    (expected,) = replayed(source, inputs(1)[0])
    for context in (torch.autocast("cpu", torch.bfloat16), torch.enable_grad(), torch.inference_mode()):
        with context:
            (found,) = replayed(source, inputs(1)[0])
        assert "float32" == found[0].dtype
        assert np.array_equal(expected[0].post, found[0].post)


def test_inputs_follow_a_cast_of_the_parameters(block: Callable[[], nn.Module], watch: Watch) -> None:
    """A model that was cast since takes the inputs that had its former dtype; others stay what they are."""
    model = block().eval()
    source = watch(model)
    kept = [source.keep(inputs(1)[0])]
    assert "float32" == source.parameters
    model.to(torch.bfloat16)
    assert "bfloat16" == source.replay(kept, ALL, "float32")[0][0].dtype
    with pytest.raises(ProbeError):
        source.replay(kept, ALL)


@contextmanager
def other_thread(work: Callable[[Callable[..., None]], None]) -> Iterator[None]:
    """Have another thread work as far as its pause; it goes on and ends afterwards."""
    reached, go_on = threading.Event(), threading.Event()

    def pause(*_: Any) -> None:
        reached.set()
        go_on.wait(10.0)

    thread = threading.Thread(target=work, args=(pause,))
    thread.start()
    try:
        assert reached.wait(10.0)
        yield
    finally:
        go_on.set()
        thread.join()


def test_busy_models_are_left_alone(block: Callable[[], nn.Module], watch: Watch) -> None:
    """Within a pass, and gently of a model in training, a replay is refused with the reason."""
    model = block().train()
    source = watch(model)
    kept = [source.keep(inputs(1)[0])]
    with pytest.raises(ProbeBusyError, match="in training mode"):
        source.replay(kept, ALL, gently=True)
    refused = []

    def within(*_: Any) -> None:
        with pytest.raises(ProbeBusyError, match="within a forward"):
            source.replay(kept, ALL)
        refused.append(1)

    handle = model.up.register_forward_hook(within)
    model(inputs(1)[0])
    handle.remove()
    assert [1] == refused

    def serve(pause: Callable[..., None]) -> None:
        handle = model.up.register_forward_hook(pause)
        model(inputs(1)[0])
        handle.remove()

    with other_thread(serve), pytest.raises(ProbeBusyError, match="in training mode"):
        source.replay(kept, ALL)
    source.close()
    with pytest.raises(ProbeError, match="no longer watched"):
        source.replay(kept, ALL)


def test_no_schedule_replays_on_one_rank_alone(block: Callable[[], nn.Module], watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of several ranks is not replayed from a thread that knows nothing of the others, whose collectives it would answer to."""
    source = watch(block().eval())
    kept = [source.keep(inputs(1)[0])]
    monkeypatch.setattr(ranks, "rank", lambda: 1)
    with pytest.raises(ProbeBusyError, match="one of several ranks"):
        source.replay(kept, ALL, gently=True)
    assert 1 == len(source.replay(kept, ALL))


class Streaming(nn.Module):
    """Keeps what it was given in a buffer, by writing to it or by putting another in its place."""

    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.act, self.in_place = nn.GELU(), in_place
        self.register_buffer("cache", torch.zeros(8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add what came before."""
        if self.in_place:
            self.cache[: len(x)] = x
        else:
            self.cache = self.cache + 1.0
        return self.act(x + self.cache[: len(x)])


@pytest.mark.parametrize("in_place", [False, True])
def test_a_model_that_keeps_what_it_was_given_gets_no_probe(in_place: bool, watch: Watch) -> None:
    """Its replay would change what the next request is told; the buffer is named."""
    source = watch(Streaming(in_place=in_place).eval())
    with pytest.raises(ProbeError, match="write to its buffer 'cache'"):
        replayed(source, inputs(1)[0])


def test_a_loop_that_trains_is_not_put_into_evaluation_mode(block: Callable[[], nn.Module], watch: Watch) -> None:
    """Between the passes of another thread's training loop a replay is refused as well; when that thread is gone it is not."""
    model = block().train()
    source = watch(model)
    kept = [source.keep(inputs(1)[0])]

    def train(pause: Callable[..., None]) -> None:
        model(inputs(1)[0])
        pause()  # as in a backward pass, or for data

    with other_thread(train), pytest.raises(ProbeBusyError, match="in training mode"):
        source.replay(kept, ALL)
    assert 1 == len(source.replay(kept, ALL))


@pytest.mark.parametrize(
    "item",
    [
        torch.arange(3),
        (torch.randn(2), [1, 2.5, None], {"a": (True, "b")}),
        {"x": torch.randn(2, 3).to(torch.bfloat16), "y": torch.zeros((), dtype=torch.float64)},
        {"x": np.arange(4, dtype=np.int16).reshape(2, 2).T},
    ],
)
def test_inputs_are_kept_as_they_are(item: Any, watch: Watch, only: Callable[[], nn.Module]) -> None:
    """What is sent is what was given: dtypes, values, and which argument is which; the record holds copies."""
    from geluwatch.tap.inputs import given

    record = watch(only()).keep(item)
    args, kwargs = given(record, torch.device("cpu"), None)
    expected = ((), item) if isinstance(item, dict) else (item if isinstance(item, tuple) else (item,), {})
    assert _same(expected, (args, kwargs))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, (torch.Tensor, np.ndarray)):
        one = torch.as_tensor(one)
        return bool(one.dtype is other.dtype and torch.equal(one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and one == other


def test_what_cannot_be_kept_is_named(watch: Watch, only: Callable[[], nn.Module]) -> None:
    """The place in the input and its type are said."""
    source = watch(only())
    with pytest.raises(ProbeError, match=r"the input\['cache'\]\[1\] is a object: leave it out"):
        source.keep({"cache": [1, object()]})
    with pytest.raises(ProbeError, match=r"the input\[0\] is of torch.float32 with layout torch.sparse_coo"):
        source.keep(torch.eye(2).to_sparse())


def test_inputs_of_traffic_are_sampled_evenly(only: Callable[[], nn.Module], watch: Watch) -> None:
    """So many are kept as asked for, copies, early and late passes alike; none where nobody asked, and none of a replay."""
    model = only().eval()
    assert () == watch(model).captured_inputs()
    model = only().eval()
    source = watch(model, capture_inputs=16)
    x = torch.zeros(1, 4)
    for number in range(400):
        model(x.fill_(number))
    replayed(source, x.fill_(1000.0))
    found = [int(each.args[0][0, 0]) for each in source.captured_inputs()]
    assert 16 == len(set(found))
    assert 100 < sum(found) / 16 < 300
    model(x, attention_mask=None)
    assert all(isinstance(each, ProbeInput) for each in source.captured_inputs())


def test_inputs_that_no_probe_can_keep_are_left_out(only: Callable[[], nn.Module], watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    """Those that are too large, or hold something foreign, are not held, and the first is told of; bfloat16 is held."""
    model = only().eval()
    source = watch(model, capture_inputs=4)
    model(torch.zeros(1, 1 << 21))
    model(torch.zeros(1, 4), attention_mask=torch.eye(2).to_sparse())
    model(torch.zeros(1, 4, dtype=torch.bfloat16))
    (kept,) = source.captured_inputs()
    assert isinstance(kept.args[0], Bfloat16)
    assert 1 == caplog.text.count("inputs of a pass are not captured for a probe: they take 8388608 bytes")
    assert {} == source.drain().errors


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_model_is_replayed_as_it_runs(watch: Watch, block: Callable[[], nn.Module]) -> None:
    """On a CPU hooks speak from compiled code, so its rows come as those of eager code do."""
    model = block().eval()
    source = watch(model)
    model.compile(backend="aot_eager")
    with torch.no_grad():
        model(inputs(1)[0])
    (found,) = replayed(source, inputs(1)[0])
    assert np.array_equal(found[0].pre, model.up(inputs(1)[0]).detach().numpy())
    assert 1 == source.drain().forwards
