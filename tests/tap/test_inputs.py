"""Odd inputs: nothing is raised, and what cannot be watched says why."""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


class Flexible(nn.Module):
    """Calls a stand-in for a GELU that takes anything, as its caller pleases."""

    def __init__(self) -> None:
        super().__init__()
        self.act = Anything()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Pass everything on."""
        return self.act(*args, **kwargs)


class Anything(nn.Module):
    """A class named as a GELU that returns its input, whatever it is."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the first thing given."""
        return next(iter((*args, *kwargs.values())), None)


def nested() -> torch.Tensor:
    """Return a nested tensor of the older kind, whose type is plain."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([torch.randn(2, 3), torch.randn(1, 3)])


def jagged() -> torch.Tensor:
    """Return a nested tensor of the newer kind, a subclass."""
    return torch.nested.nested_tensor([torch.randn(2, 3), torch.randn(1, 3)], layout=torch.jagged)


def fake() -> torch.Tensor:
    """Return a fake tensor."""
    with torch._subclasses.FakeTensorMode():
        return torch.randn(2, 3)


def sparse() -> torch.Tensor:
    """Return a sparse tensor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.eye(3).to_sparse_csr()


REFUSED: list[Any] = [
    pytest.param(lambda: torch.arange(6).reshape(2, 3), "dtype torch.int64", id="integers"),
    pytest.param(lambda: torch.ones(2, 3, dtype=torch.complex64), "dtype torch.complex64", id="complex"),
    pytest.param(lambda: torch.ones(2, 3).to(torch.float8_e4m3fn), "dtype torch.float8_e4m3fn", id="float8"),
    pytest.param(lambda: torch.ones(2, 3, device="meta"), "meta", id="meta"),
    pytest.param(lambda: torch.eye(3).to_sparse(), "layout", id="sparse COO"),
    pytest.param(sparse, "layout", id="sparse CSR"),
    pytest.param(nested, "nested", id="nested"),
    pytest.param(jagged, "nested", id="jagged"),
    pytest.param(fake, "FakeTensor", id="fake"),
    pytest.param(lambda: "text", "single positional tensor", id="no tensor"),
    pytest.param(lambda: None, "single positional tensor", id="nothing"),
]


@pytest.mark.parametrize(("make", "reason"), REFUSED)
@pytest.mark.parametrize("first", [True, False], ids=["from the start", "after good calls"])
def test_what_cannot_be_watched_says_why(make: Callable[[], Any], reason: str, first: bool, attach: Callable[..., Any]) -> None:
    """A call with an unusual tensor goes through untouched, its site is blind with the reason, and a good call heals it."""
    model = Flexible()
    watch = attach(model, gelu_classes=(Anything,), cost_budget=1.0, breaker_limit=1)
    watch._source._tap.pacer.take = lambda _now: True
    if not first:
        model(torch.randn(2, 3))
        assert ["observed"] == [site.state for site in watch.sites]
    x = make()
    for _ in range(3):
        assert x is model(x)
    report = watch.flush()
    assert ("blind", {}) == (watch.sites[0].state, report.totals.errors)
    assert reason in watch.sites[0].reason
    model(torch.full((2, 3), math.nan))
    assert 1 == watch.flush().totals.nonfinite_forwards
    assert ("observed", {}) == (watch.sites[0].state, watch.report.totals.errors)


@pytest.mark.parametrize("call", [lambda model: model(input=torch.randn(2, 3)), lambda model: model()], ids=["by keyword", "no argument"])
@pytest.mark.parametrize("first", [True, False], ids=["from the start", "after good calls"])
def test_odd_calls_say_why(call: Callable[[nn.Module], Any], first: bool, attach: Callable[..., Any]) -> None:
    """A GELU called without a positional tensor is blind with the reason; the guard is not blamed."""
    model = Flexible()
    watch = attach(model, gelu_classes=(Anything,), breaker_limit=1)
    if not first:
        model(torch.randn(2, 3))
    call(model)
    assert "single positional tensor" in watch.sites[0].reason
    assert {} == watch.flush().totals.errors


@pytest.mark.parametrize("shape", [(0,), (0, 4), (3, 0), (2, 0, 4), ()], ids=str)
def test_empty_and_scalar_tensors_are_fine(shape: tuple[int, ...], attach: Callable[..., Any], only: Callable[..., Any]) -> None:
    """Empty tensors and single numbers pass the guard, give no rows, and leave the site observed."""
    model = only()
    watch = attach(model, cost_budget=1.0)
    assert shape == model(torch.zeros(shape)).shape
    report = watch.close_window()
    assert ("observed", {}, 1) == (watch.sites[0].state, report.totals.errors, report.totals.forwards)
    assert 0 == report.sites["act", "pre"].rows


def test_a_single_number_is_guarded(attach: Callable[..., Any], only: Callable[..., Any]) -> None:
    """A NaN in a tensor without dimensions is counted."""
    model = only()
    watch = attach(model)
    model(torch.tensor(math.nan))
    assert {("pre", "nan"): 1} == watch.flush().totals.nonfinite["act"].elements


def test_a_vector_is_one_row(attach: Callable[..., Any], only: Callable[..., Any]) -> None:
    """A tensor of one dimension is captured as one row of channels."""
    model = only()
    watch = attach(model)
    model(torch.randn(5))
    assert (1, 5) == (watch.close_window().sites["act", "pre"].rows, watch.report.sites["act", "pre"].elements)


class Changes(nn.Module):
    """A user's class that does not keep the shape."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return half of the channels."""
        return x[..., : x.shape[-1] // 2]


def test_a_class_that_changes_the_shape_is_refused_with_both_shapes(attach: Callable[..., Any], only: Callable[..., Any]) -> None:
    """A user's class that is no elementwise map is blind, and the reason names the shapes."""
    model = only(Changes())
    watch = attach(model, gelu_classes=(Changes,))
    model(torch.randn(2, 4))
    assert "(2, 2) differs from input shape (2, 4)" in watch.sites[0].reason


def test_a_last_dimension_that_varies_ends_the_rows_and_not_the_guard(attach: Callable[..., Any]) -> None:
    """Where the last dimension is time and nothing says so, there are no rows, with the reason, and every NaN is still counted."""
    model = nn.Sequential(nn.Conv1d(1, 4, 3), nn.Identity(), nn.GELU())
    model[1].forward = lambda x: x + 0.0
    watch = attach(model, cost_budget=1.0)
    tap = watch._source._tap
    tap.pacer.take = lambda _now: True
    widths = []
    for length in (10, 12, 11, 10):
        model(torch.randn(2, 1, length))
        widths += [rows.pre.shape[1] for rows in watch._source.drain().rows]
    assert [8] == widths
    assert "blind" == watch.sites[0].state
    assert "guarded, but gives no rows: its last dimension varies (8, 10)" in watch.sites[0].reason
    model(torch.full((2, 1, 12), math.nan))
    assert (1, {}) == (watch.flush().totals.nonfinite_forwards, watch.report.totals.errors)


def test_behind_a_convolution_a_row_is_a_place_and_its_channels(attach: Callable[..., Any]) -> None:
    """Around convolutions and their norms rows are (batch x places, channels), whatever the length, the same values the GELU had."""
    model = nn.Sequential(nn.Conv1d(1, 4, 3), nn.GELU(), nn.Conv1d(4, 5, 3), nn.BatchNorm1d(5), nn.GELU()).eval()
    watch = attach(model, cost_budget=None, rows_per_forward=10_000)
    values = []
    model[1].register_forward_hook(lambda _module, args, _output: values.append(args[0]))
    shapes = []
    for length in (10, 12):
        model(torch.randn(2, 1, length))
        drained = watch._source.drain().rows
        shapes += [rows.pre.shape for rows in drained]
        expected = values[-1].movedim(1, -1).reshape(-1, 4).detach().numpy()
        assert (expected == drained[0].pre).all()
    assert [(16, 4), (12, 5), (20, 4), (16, 5)] == shapes
    assert ["observed"] * 2 == [site.state for site in watch.sites]


def test_a_part_called_by_itself_leaves_no_output_behind(attach: Callable[..., Any]) -> None:
    """Where only parts of a convolutional model are called, what they give is let go of, with its graph, after every call."""
    model = nn.Sequential(nn.Sequential(nn.Conv1d(1, 4, 3), nn.GELU(), nn.Conv1d(4, 5, 3)), nn.Linear(3, 3))
    watch = attach(model)
    for _ in range(2):
        output = weakref.ref(model[0](torch.randn(2, 1, 10)))
        assert output() is None
        watch.flush()
    assert {} == watch.report.totals.errors


class Counts(TorchDispatchMode):
    """A user's mode that records every operation, as selective checkpointing does."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note the operation and run it."""
        self.operations.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("planted", [False, True], ids=["calm", "with NaN"])
@pytest.mark.parametrize("large", [1, 1 << 18], ids=["through consumers", "as it is"])
def test_dispatch_modes_do_not_see_the_watch(
    planted: bool, large: int, attach: Callable[..., Any], block: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mode that records operations records the same ones under the watch, in the first pass, sampled ones and hits."""
    monkeypatch.setattr("geluwatch.tap.look.LARGE", large)
    model = nn.Sequential(block(), block())
    x = torch.full((2, 8), math.nan) if planted else torch.randn(2, 8)

    def operations() -> list[str]:
        with Counts() as mode:
            model(x)
        return mode.operations

    expected = operations()
    watch = attach(model, cost_budget=1.0)
    for passes in range(1, 4):
        assert expected == operations()
        assert passes * planted == watch.flush().totals.nonfinite_forwards


def test_a_late_look_is_not_seen_either(attach: Callable[..., Any], block: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A mode that is active at the end of the pass does not see the look at an output whose consumer did not come."""
    monkeypatch.setattr("geluwatch.tap.look.LARGE", 1)
    model = block()
    watch = attach(model)
    x = torch.full((2, 8), math.nan)
    model(torch.randn(2, 8))
    watch.flush()
    model.down = nn.Identity()
    with Counts() as mode:
        model(x)
    assert 1 == watch.flush().totals.nonfinite_forwards
    watch.detach()
    with Counts() as bare:
        model(x)
    assert bare.operations == mode.operations


def test_another_default_device_does_not_matter(attach: Callable[..., Any], only: Callable[..., Any]) -> None:
    """With another default device set, rows are still drawn where the tensors are."""
    model = only()
    watch = attach(model, rows_per_forward=2)
    x = torch.randn(4, 3)
    with torch.device("meta"):
        model(x)
    (rows,) = watch._source.drain().rows
    assert 2 == len(rows.pre)
    assert all(row in x.tolist() for row in rows.pre.tolist())


def test_non_contiguous_tensors_are_watched(attach: Callable[..., Any], only: Callable[..., Any]) -> None:
    """Transposed and expanded inputs are guarded, and their rows are those of the tensor, not of its memory."""
    model = only()
    watch = attach(model, cost_budget=1.0)
    x = torch.arange(12.0).reshape(3, 4).t()
    model(x)
    (rows,) = watch._source.drain().rows
    assert x.tolist() == rows.pre.tolist()
    model(torch.full((1, 4), math.nan).expand(3, 4))
    assert {("pre", "nan"): 12} == watch.flush().totals.nonfinite["act"].elements
