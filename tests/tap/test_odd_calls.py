"""Calls and surroundings that nobody planned for: fused frameworks, direct calls, user's modes, interrupts, scripting."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.overrides import TorchFunctionMode

from geluwatch.tap import guard, look
from geluwatch.tap.deferred import DeviceGuard

BAD = torch.full((2, 8), math.nan)


class Called(nn.Module):
    """A GELU as a function."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply it."""
        return nn.functional.gelu(x)


ODD_CALLS: list[tuple[Any, Any]] = [
    ((), None),
    ((None,), None),
    ((BAD,), None),
    ((), BAD),
    ((BAD,), (BAD, None)),
    ((BAD, BAD), BAD),
    ("text", 7),
]


@pytest.mark.parametrize(("args", "output"), ODD_CALLS, ids=[f"call {number}" for number in range(len(ODD_CALLS))])
def test_hooks_bear_odd_arguments(args: Any, output: Any, attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Frameworks that fuse layers call hooks with no inputs, no output or more of both: nothing is raised, and the next pass counts."""
    act = nn.GELU()
    model = nn.Sequential(block(act), block(act), block())
    watch = attach(model, breaker_limit=1)
    for part in model.modules():
        for hook in part._forward_pre_hooks.values():
            assert hook(part, args) is None
    for part in reversed(list(model.modules())):
        for hook in part._forward_hooks.values():
            assert hook(part, args, output) is None
    before = watch.flush().totals.nonfinite_forwards
    model(BAD)
    totals = watch.flush().totals
    assert (before + 1, {}) == (totals.nonfinite_forwards, totals.errors)


def test_a_fused_gelu_says_why_it_is_not_seen(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """A framework that runs a block fused and calls the GELU's hooks with nothing leaves the site blind with the reason."""
    model = block()
    watch = attach(model)

    def fused(x: torch.Tensor) -> torch.Tensor:
        for hook in model.act._forward_hooks.values():
            assert hook(model.act, (), None) is None
        return model.down(nn.functional.gelu(model.up(x)))

    model.forward = fused
    model(torch.randn(2, 8))
    report = watch.flush()
    assert ("blind", "blind", {}) == (watch.sites[0].state, report.verdict, report.totals.errors)
    assert "single positional tensor" in watch.sites[0].reason


def test_forward_called_directly_still_counts_hits(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Code that calls `model.forward` passes the root's hooks by: no pass is counted, but a hit is, at its layer."""
    model = nn.Sequential(block())
    watch = attach(model)
    model.forward(BAD)
    totals = watch.flush().totals
    assert (0, 1, {}) == (totals.forwards, totals.nonfinite_forwards, totals.errors)
    assert 32 == totals.nonfinite["0.act"].elements["pre", "nan"]
    assert ("blind", "page") == (watch.sites[0].state, watch.report.verdict)
    assert "the model itself is not called" in watch.sites[0].reason
    assert watch._source._tap.state().latest is None  # nor is an output, with all its graph, held for a pass that never ends
    model(torch.randn(2, 8))
    assert "observed" == watch.sites[0].state


def test_a_wrapper_that_calls_forward_makes_the_sites_blind(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Once only `model.forward` is called, as adapters' wrappers do, the census says so, though the model ran before."""
    model = nn.Sequential(block(), block())
    watch = attach(model)
    for call, states in ((model.forward, ["blind", "blind"]), (model[1], ["observed", "blind"])):
        model(torch.randn(2, 8))
        watch.flush()
        assert ["observed", "observed"] == [each.state for each in watch.sites]
        call(torch.randn(2, 8))
        for _ in range(2):  # nothing runs before the second
            watch.flush()
            assert states == [each.state for each in watch.sites]
    assert "the model itself is not called" in watch.sites[1].reason
    model(torch.randn(2, 8))
    assert ["observed", "observed"] == [each.state for each in watch.sites]


@pytest.mark.parametrize("act", [nn.GELU, Called], ids=["module", "function"])
def test_a_bad_pass_that_no_root_begins_is_one(act: Callable[[], nn.Module], attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Of a pass by `model.forward` one hit is told, at its first layer, and one set of evidence kept; the next pass is another."""
    model = nn.Sequential(block(act()), block(act()), block(act()))
    watch = attach(model)
    model(torch.randn(2, 8))
    for x in (BAD, torch.randn(2, 8), BAD, BAD):
        model.forward(x)
    model(torch.randn(2, 8))
    model[2](BAD)  # a part that has not come yet since the model ran
    tap = watch._source._tap
    evidence = [kept.bad.layer for kept in tap.evidence.take(tap)]
    totals = watch.flush().totals
    counted = {layer: (one.forwards, one.first) for layer, one in totals.nonfinite.items()}
    assert {"0.act": (3, 3), "1.act": (3, 0), "2.act": (4, 1)} == counted
    assert (4, "0.act", {}) == (totals.nonfinite_forwards, watch.report.first_nonfinite, totals.errors)
    assert ["0.act"] * 3 + ["2.act"] == evidence


def test_a_gelu_whose_forward_is_called_directly_is_blind(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """A block that calls its GELU's `forward` passes our hook by, and the census says that the site did not run."""
    model = block()
    watch = attach(model)
    model.forward = lambda x: model.down(model.act.forward(model.up(x)))
    model(torch.randn(2, 8))
    assert ("blind", "blind") == (watch.sites[0].state, watch.flush().verdict)
    assert "never executed" in watch.sites[0].reason


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("whole", [False, True], ids=["the GELU", "its block"])
def test_a_gelu_that_was_replaced_is_blind(whole: bool, kept: bool, attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """A GELU that is exchanged for another module, itself or with its block, is blind from the next flush on, though somebody keep it."""
    model = nn.Sequential(block(), block())
    watch = attach(model)
    model(torch.randn(2, 8))
    old = model[0] if whole else model[0].act
    if whole:
        model[0] = nn.Linear(8, 8)
    else:
        model[0].act = nn.ReLU()
    kept = [old] * kept
    del old
    model(BAD)
    watch.close_window()
    assert ["blind", "observed"] == [site.state for site in watch.sites]
    assert "no longer in the model" in watch.sites[0].reason


def test_a_gelu_that_was_wrapped_or_moved_is_none_that_was_replaced(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """A GELU that the model still holds elsewhere, or again, is observed."""
    model = nn.Sequential(block(), block())
    watch = attach(model)
    old = model[0].act
    for new in (nn.Sequential(old), nn.ReLU(), old):
        model[0].act = new
        model(torch.randn(2, 8))
        watch.flush()
        assert ["blind" if isinstance(new, nn.ReLU) else "observed", "observed"] == [site.state for site in watch.sites]


def test_an_averaged_copy_does_not_count_into_the_original(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """A moving average made of a watched model, updated and run, is unwatched, and the average is the same as of a bare model."""
    model = block()
    twin = copy.deepcopy(model)
    watch = attach(model)
    averages = [AveragedModel(each) for each in (model, twin)]
    for each, average in zip((model, twin), averages, strict=True):
        with torch.no_grad():
            each.up.weight.mul_(2.0)
        average.update_parameters(each)
        average(BAD)
    assert all(torch.equal(left, right) for left, right in zip(*(average.parameters() for average in averages), strict=True))
    assert (0, 0) == (watch.flush().totals.forwards, watch.report.totals.nonfinite_forwards)


class Sealed(nn.Module):
    """A model that allows no attribute to be set while it runs, as some serving engines do."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.GELU()
        self.__dict__["sealed"] = True

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse once built."""
        if self.__dict__.get("sealed"):
            raise AttributeError(name)
        super().__setattr__(name, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the GELU."""
        result: torch.Tensor = self.act(x)
        return result


def test_no_attribute_of_the_model_is_ever_set(attach: Callable[..., Any]) -> None:
    """A model that raises when an attribute is set can be watched, flushed and let go."""
    model = Sealed()
    watch = attach(model)
    model(BAD)
    assert (1, {}) == (watch.flush().totals.nonfinite_forwards, watch.report.totals.errors)
    watch.detach()


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Have operations without a deterministic kernel raise."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic")
def test_deterministic_algorithms_are_no_matter(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Where torch refuses kernels that are not deterministic, rows are captured and hits counted without a failure."""
    model = block()
    watch = attach(model, cost_budget=1.0)
    for _ in range(4):
        model(torch.randn(4, 8))
        model(BAD)
    report = watch.close_window()
    assert (4, {}) == (report.totals.nonfinite_forwards, report.totals.errors)
    assert report.sites["act", "pre"].rows > 0


@pytest.mark.parametrize("order", [(True, False), (False, True)], ids=["inference first", "training first"])
def test_inference_mode_and_training_take_turns(
    order: tuple[bool, bool], attach: Callable[..., Any], block: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watch made and first run in inference mode counts in training afterwards, and the other way round."""
    monkeypatch.setattr(look, "LARGE", 1)
    model = block()
    with torch.inference_mode(order[0]):
        watch = attach(model)
    for turn in range(6):
        with torch.inference_mode(order[turn % 2]):
            y = model(BAD if turn >= 4 else torch.randn(2, 8))
        if not order[turn % 2]:
            y.sum().backward()
        watch.flush()
    assert (6, 2, {}) == (watch.report.totals.forwards, watch.report.totals.nonfinite_forwards, watch.report.totals.errors)


def test_device_counters_made_in_inference_mode_work_outside_it() -> None:
    """The device guard's accumulators can be written in and out of inference mode, whichever made them."""
    counted = DeviceGuard(1)
    for turn in range(6):
        with torch.inference_mode(turn % 2 == 0):
            counted.look(0, (torch.tensor([[math.nan if turn > 2 else 1.0]]),), None)
            counted.end_pass()
    assert ([3], [3], 3) == counted.counts(final=True)


class Sees(TorchFunctionMode):
    """A user's mode that records every torch function."""

    def __init__(self) -> None:
        super().__init__()
        self.functions: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note the function and run it."""
        self.functions.append(getattr(func, "__name__", str(func)))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("large", [look.LARGE, 1])
def test_function_modes_do_not_see_the_watch(
    large: int, monkeypatch: pytest.MonkeyPatch, attach: Callable[..., Any], block: Callable[..., Any]
) -> None:
    """A mode that records torch functions records the same ones under the watch: in its first pass, and in plain ones behind."""
    monkeypatch.setattr(look, "LARGE", large)
    model = block()
    x = torch.randn(2, 8)

    def functions() -> list[str]:
        with Sees() as mode, torch.no_grad():
            model(x)
        return mode.functions

    expected = functions()
    watch = attach(model, cost_budget=1e-9)
    for _ in range(4):
        assert expected == functions()
        watch.flush()
    assert watch.report.totals.sampled_forwards < 4


def test_a_function_mode_does_not_stop_the_count(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Under a user's function mode outputs are the same bits and hits are counted."""
    model = block()
    x = torch.randn(2, 8)
    expected = model(x)
    watch = attach(model)
    with Sees():
        assert torch.equal(expected, model(x))
        model(BAD)
    assert (2, 1, {}) == (watch.flush().totals.forwards, watch.report.totals.nonfinite_forwards, watch.report.totals.errors)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_inside_a_hook_reaches_the_user(
    error: type[BaseException], attach: Callable[..., Any], block: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt that lands in our code is the user's: it is not swallowed, nor counted as a failure, and the next pass is clean."""
    model = block()
    watch = attach(model)

    def interrupted(_values: torch.Tensor) -> bool:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(guard, "suspicious", interrupted)
        with pytest.raises(error):
            model(torch.randn(2, 8))
    model(torch.randn(2, 8))
    model(BAD)
    totals = watch.flush().totals
    assert (3, 1, {}) == (totals.forwards, totals.nonfinite_forwards, totals.errors)


def test_scripting_a_watched_model_works_or_says_what_to_do(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """torch.jit.script compiles a module's hooks too: it either leaves ours out or says that the watch is to be detached first."""
    model = block()
    attach(model)
    complaint = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.jit.script(model)
        except Exception as error:  # noqa: BLE001  # whatever it is, its message counts
            complaint = str(error)
    assert not complaint or "detach" in complaint


def test_a_model_can_be_scripted_after_detach(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Once the watch is off, torch.jit.script takes the model as if nothing had been."""
    model = block()
    attach(model).detach()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(model)
    assert torch.equal(model(torch.ones(2, 8)), scripted(torch.ones(2, 8)))
