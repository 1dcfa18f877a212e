"""What counts as a pass, and as a hit in it: masks, errors, recursion, recomputation, threads."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from geluwatch.records import Nonfinite, Report
from geluwatch.tap import dispatch


def bad(*shape: int, at: tuple[int, ...] = (), value: float = math.nan) -> torch.Tensor:
    """Return random values with one planted."""
    x = torch.randn(*shape)
    x[at or (0,) * len(shape)] = value
    return x


def seen(report: Report, layer: str = "act") -> Nonfinite:
    """Return what was counted at a layer since attach."""
    return report.totals.nonfinite.get(layer, Nonfinite())


class Raises(nn.Module):
    """A block whose forward can be made to raise after its GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.GELU()
        self.error: BaseException | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the GELU, then raise if asked to."""
        y: torch.Tensor = self.act(x)
        if self.error:
            raise self.error
        return y


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt(), SystemExit(), GeneratorExit()], ids=repr)
def test_a_forward_that_raises_leaves_a_clean_state(error: BaseException, attach: Callable[..., Any]) -> None:
    """Whatever leaves the forward, an interrupt by hand included, its hit is counted once and the next passes count as ever."""
    model = Raises()
    watch = attach(model)
    model.error = error
    with pytest.raises(type(error)):
        model(bad(2, 4))
    model.error = None
    model(torch.randn(2, 4))
    model(bad(2, 4))
    totals = watch.flush().totals
    assert (3, 2, {}) == (totals.forwards, totals.nonfinite_forwards, totals.errors)
    assert (2, 2, {("pre", "nan"): 2}) == (seen(watch.report).forwards, seen(watch.report).first, seen(watch.report).elements)


class Recursive(nn.Module):
    """A model that calls itself, as tree networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.GELU()
        self.fail_at = -1

    def forward(self, x: torch.Tensor, depth: int = 3) -> torch.Tensor:
        """Apply the GELU at every level."""
        if depth == self.fail_at:
            raise KeyboardInterrupt
        y: torch.Tensor = self.act(x)
        return self(y, depth - 1) if depth else y


def test_a_model_that_calls_itself_runs_one_pass(attach: Callable[..., Any]) -> None:
    """Four nested calls of the root are one pass; its hit counts once, its elements at every level."""
    model = Recursive()
    watch = attach(model)
    for _ in range(3):
        model(bad(2, 4))
    totals = watch.flush().totals
    assert (3, 3) == (totals.forwards, totals.nonfinite_forwards)
    assert (3, {("pre", "nan"): 12}) == (seen(watch.report).forwards, seen(watch.report).elements)


def test_an_interrupted_recursion_is_over_too(attach: Callable[..., Any]) -> None:
    """After an interrupt three levels deep, the next pass is a pass of its own."""
    model = Recursive()
    watch = attach(model)
    model.fail_at = 1
    with pytest.raises(KeyboardInterrupt):
        model(torch.randn(2, 4))
    model.fail_at = -1
    model(bad(2, 4))
    model(torch.randn(2, 4))
    totals = watch.flush().totals
    assert (3, 1) == (totals.forwards, totals.nonfinite_forwards)


def test_a_part_called_by_itself_is_guarded(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """A hit in a part that is called without the root is counted at its layer, though no pass is."""
    model = nn.Sequential(block())
    watch = attach(model)
    model[0](bad(3, 8))
    model[0](torch.randn(3, 8))
    totals = watch.flush().totals
    assert (0, 1, "0.act") == (totals.forwards, totals.nonfinite_forwards, watch.report.first_nonfinite)


def test_a_bare_gelu_is_a_whole_model(attach: Callable[..., Any]) -> None:
    """Where the model itself is the GELU, its passes, hits and rows are counted as of any other."""
    model = nn.GELU()
    watch = attach(model)
    model(torch.randn(3, 4))
    model(bad(3, 4))
    report = watch.close_window()
    assert (2, 1, "model") == (report.totals.forwards, report.totals.nonfinite_forwards, report.first_nonfinite)
    assert 2 * 12 == report.sites["model", "post"].elements


class Holder(nn.Module):
    """A block that holds another with the same GELU, and uses it before and after."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.act = act
        self.inner = nn.Sequential(act)

    def forward(self, x: torch.Tensor, spoil: int) -> torch.Tensor:
        """Apply the GELU three times: here, inside, here; spoil the input of one."""
        for turn, part in enumerate((self.act, self.inner, self.act)):
            x = torch.zeros_like(x).fill_(math.nan) if turn == spoil else torch.zeros_like(x)
            x = part(x)
        return x


@pytest.mark.parametrize(("spoil", "layer"), [(0, "act"), (1, "inner.0"), (2, "act")])
def test_a_shared_gelu_is_told_apart_by_its_caller(spoil: int, layer: str, attach: Callable[..., Any]) -> None:
    """A hit in a GELU that nested blocks share is counted at the block whose call it was, also after the inner one returned."""
    model = Holder(nn.GELU())
    watch = attach(model)
    model(torch.randn(2, 4), spoil)
    assert [layer] == list(watch.flush().totals.nonfinite)
    assert ["observed", "observed"] == [site.state for site in watch.sites]


def test_an_interrupt_inside_a_shared_gelus_caller_leaves_nothing(attach: Callable[..., Any]) -> None:
    """What was noted about callers in a pass that was cut off is gone after the next one."""
    act = nn.GELU()
    model = nn.Sequential(nn.Sequential(act, Raises()), nn.Sequential(act))
    watch = attach(model)
    model[0][1].error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        model(torch.randn(2, 4))
    model[0][1].error = None
    model(bad(2, 4))
    (state,) = watch._source._tap.states
    assert {} == state.callers
    assert "0.0" == watch.flush().first_nonfinite


class Fails(nn.Module):
    """A part that applies its GELU to nothing bad, and may raise behind it."""

    def __init__(self, act: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.act, self.failing = act, False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the GELU, as `Catches` does."""
        y = self.act(x)
        if self.failing:
            raise ValueError
        return y


class Catches(Fails):
    """A model that does without a part that raised, and applies the GELU to what it has; both have the same code."""

    def __init__(self, act: Callable[[torch.Tensor], torch.Tensor], part: nn.Module) -> None:
        super().__init__(act)
        self.part, self.bias = part, nn.Parameter(torch.zeros(4), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Try the part twice, then apply the GELU."""
        for _ in range(2):
            with contextlib.suppress(ValueError):
                x = self.part(x)
        return super().forward(x + self.bias)


@pytest.mark.parametrize("act", [functional.gelu, nn.GELU()], ids=["function", "shared module"])
@pytest.mark.parametrize("listened", [True, False])
def test_a_part_whose_exception_is_caught_takes_no_blame(listened: bool, act: Any, attach: Callable[..., Any]) -> None:
    """After a part that raised, calls are those of the module that caught it: each pass counts its hits as its own."""
    model = nn.Sequential(Catches(act, Catches(act, Fails(act))), nn.Linear(4, 4))
    watch = attach(model, cost_budget=None)
    model(torch.randn(2, 4))
    watch.flush()
    watch._source._tap.pacer.take = lambda _now: listened
    model[0].part.part.failing = model[0].part.failing = True
    model[0].bias.fill_(math.nan)
    for _ in range(3):
        model(torch.randn(2, 4))
    report = watch.flush()
    assert {"0.act": (3, 3)} == {layer: (one.forwards, one.first) for layer, one in report.totals.nonfinite.items()}
    assert (3, {}, "page") == (report.totals.nonfinite_forwards, report.totals.errors, report.verdict)
    assert {"observed"} == {site.state for site in watch.sites}


def test_a_part_called_by_itself_that_caught_an_exception_leaves_nothing(attach: Callable[..., Any]) -> None:
    """Called without the model, a module whose part raised ends for both: its thread listens no more."""
    model = nn.Sequential(Catches(functional.gelu, Fails(functional.gelu)))
    watch = attach(model)
    model[0].part.failing = True
    model[0](torch.randn(2, 4))
    (state,) = watch._source._tap.states
    assert ([], 0, []) == (state.owners, state.listening, dispatch._ears.listeners)


class Checkpointed(nn.Module):
    """A block under activation checkpointing; the gradient depends on the order of tensors saved."""

    def __init__(self, block: nn.Module, **how: Any) -> None:
        super().__init__()
        self.block, self.how = block, how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the block without keeping its activations."""

        def run(x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.block(x.view(-1, 8)).view(x.shape)
            return y + x.view(-1).sum()

        result: torch.Tensor = checkpoint(run, x, **self.how)
        return result


SAVE_ALL = partial(create_selective_checkpoint_contexts, lambda *_args, **_kwargs: CheckpointPolicy.MUST_SAVE)
HOW = [{"use_reentrant": True}, {"use_reentrant": False}, {"use_reentrant": False, "context_fn": SAVE_ALL}]


@pytest.mark.parametrize("how", HOW, ids=["reentrant", "not reentrant", "selective"])
@pytest.mark.parametrize("planted", [False, True], ids=["calm", "with NaN"])
def test_recomputation_is_not_counted_twice_and_gradients_do_not_change(
    how: dict[str, Any], planted: bool, attach: Callable[..., Any], block: Callable[..., Any]
) -> None:
    """Under every kind of checkpointing each pass and hit counts once, backward runs, and gradients are the same bits."""
    model = Checkpointed(block(), **how)

    def gradients() -> list[torch.Tensor | None]:
        model.zero_grad()
        x = torch.linspace(-1, 1, 96).reshape(4, 3, 8).requires_grad_()
        if planted:
            x.data[0, 0, 0] = math.nan
        model(x).square().sum().backward()
        return [parameter.grad for parameter in model.parameters()]

    expected = gradients()
    watch = attach(model, cost_budget=1.0)
    actual = gradients()
    assert all(torch.equal(left.nan_to_num(), right.nan_to_num()) for left, right in zip(expected, actual, strict=True))
    totals = watch.flush().totals
    assert (1, int(planted), {}) == (totals.forwards, totals.nonfinite_forwards, totals.errors)
    assert ({("pre", "nan"): 16} if planted else {}) == seen(watch.report, "block.act").elements


@pytest.mark.parametrize("how", HOW[:2], ids=["reentrant", "not reentrant"])
def test_a_root_that_is_recomputed_runs_one_pass(how: dict[str, Any], attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Where the whole model stands under a checkpoint, its recomputation is no second pass."""
    model = block()
    watch = attach(model)
    x = bad(4, 8).requires_grad_()
    checkpoint(model, x, **how).sum().backward()
    totals = watch.flush().totals
    assert (1, 1, {("pre", "nan"): 16}) == (totals.forwards, totals.nonfinite_forwards, seen(watch.report).elements)


def test_threads_that_serve_one_model_are_added_up_exactly(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Eight threads, fifty passes each, a known share of them bad, drained all the while: every count is exact."""
    model = nn.Sequential(block(), block())
    watch = attach(model)
    done = threading.Event()

    def serve(worker: int) -> None:
        for turn in range(50):
            with torch.no_grad():
                model(bad(3, 8, value=math.inf) if (turn + worker) % 5 == 0 else torch.randn(3, 8))

    def drain() -> None:
        while not done.is_set():
            watch.flush()

    drainer = threading.Thread(target=drain)
    drainer.start()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(serve, range(8)))
    done.set()
    drainer.join()
    totals = watch.flush().totals
    assert (400, 80, 1200) == (totals.forwards, totals.nonfinite_forwards, totals.samples)
    assert (80, 80, 0) == (seen(watch.report, "0.act").forwards, seen(watch.report, "0.act").first, seen(watch.report, "1.act").first)
    assert 80 * 16 == sum(seen(watch.report, "0.act").elements.values())
    assert {} == totals.errors


def test_counts_of_ended_threads_are_folded_and_their_memory_let_go(attach: Callable[..., Any], only: Callable[..., Any]) -> None:
    """A server that starts a thread a request keeps every count, and one state, not one a thread."""
    model = only()
    watch = attach(model)
    for turn in range(30):
        thread = threading.Thread(target=model, args=(bad(2, 4) if turn % 3 == 0 else torch.randn(2, 4),))
        thread.start()
        thread.join()
        watch.flush()
    totals = watch.report.totals
    assert (30, 10, 10) == (totals.forwards, totals.nonfinite_forwards, seen(watch.report).first)
    assert len(watch._source._tap.states) <= 1


def test_the_first_layer_is_that_of_the_earliest_pass(attach: Callable[..., Any]) -> None:
    """Of several bad passes in several threads between two flushes, the first in time names the layer."""
    model = nn.ModuleDict({"a": nn.GELU(), "b": nn.GELU()})
    model.forward = lambda which: model[which](bad(2, 4))
    watch = attach(model)
    for which in ("b", "a", "a"):
        thread = threading.Thread(target=model, args=(which,))
        thread.start()
        thread.join()
    assert "b" == watch.flush().first_nonfinite


def test_sites_without_calls_are_blind_until_they_run(attach: Callable[..., Any]) -> None:
    """A GELU that the passes so far have not called is blind with the reason, and observed as soon as it runs."""
    model = nn.ModuleDict({"a": nn.GELU(), "b": nn.GELU()})
    model.forward = lambda which: model[which](torch.randn(2, 4))
    watch = attach(model)
    assert ["observed", "observed"] == [site.state for site in watch.sites]
    model("a")
    assert ["observed", "blind"] == [site.state for site in watch.sites]
    assert "never executed" in watch.sites[1].reason
    model("b")
    assert ["observed", "observed"] == [site.state for site in watch.sites]
