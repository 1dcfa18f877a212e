"""The mode under which compiled code shows its calls is on in passes alone, and the user's own modes are left as they are."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.overrides import BaseTorchFunctionMode

from geluwatch.tap import state as states
from geluwatch.tap._compat import enter_function_mode, leave_function_mode

BAD = torch.full((2, 8), math.nan)


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    """Start and leave with no compiled code, and without gradients."""
    torch._dynamo.reset()
    with torch.no_grad():
        yield
    torch._dynamo.reset()


def modes() -> list[Any]:
    """Return the function modes of this thread, the latest last."""
    return [torch._C._get_function_stack_at(place) for place in range(torch._C._len_torch_function_stack())]


@torch.compiler.disable
def aside(work: Callable[[], Any]) -> None:
    """Do something in the midst of compiled code."""
    work()


class Inner(nn.Module):
    """Dense, GELU as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., 8) to the same shape."""
        return functional.gelu(self.up(x))


class Outer(nn.Module):
    """The same twice, and in between whatever the test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()
        self.work: Callable[[], Any] = lambda: None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., 8) to the same shape."""
        x = self.inner(x)
        aside(self.work)
        return functional.gelu(x)


class Model(nn.Module):
    """A block and a head, of which the first can be called without the second."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.head = Outer(), nn.Linear(8, 8)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., 8) to the same shape."""
        return self.block(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., 8) to the same shape."""
        return self.head(self.encode(x))


@pytest.fixture
def model() -> Model:
    """The model, bare."""
    return Model().eval()


@pytest.fixture
def watch(model: Model, attach: Callable[..., Any]) -> Any:
    """Its watch; its block is compiled in its place."""
    watch = attach(model)
    model.block.compile(backend="eager")
    return watch


def hits(watch: Any) -> dict[str, int]:
    """Return the passes with a fault by layer; nothing must have failed."""
    totals = watch.flush().totals
    assert {} == totals.errors
    return {layer: seen.forwards for layer, seen in totals.nonfinite.items()}


def test_a_part_called_by_itself_has_no_mode(model: Model, watch: Any) -> None:
    """Without the model nothing would leave the mode where the part raises, so it is blind, until a pass of the model shows it."""
    during: list[int] = []
    model.block.work = lambda: during.append(len(modes()))
    with torch.device("meta"):
        model.encode(torch.zeros(2, 8, device="cpu"))
    assert ([1], [], "cpu") == (during, modes(), torch.zeros(1).device.type)
    watch.flush()
    assert ["calls do not show" in site.reason for site in watch.sites] == [True, True]
    model(BAD)
    assert {"block.inner": 1} == hits(watch)
    assert {"block.inner": "observed"}.items() <= {site.layer: site.state for site in watch.sites}.items()


def test_the_mode_ends_with_the_part_that_is_compiled(model: Model, watch: Any) -> None:
    """It is on in compiled code and not in what comes after; a mode of the user's stays on throughout."""
    depths: list[int] = []
    model.block.work = lambda: depths.append(len(modes()))
    model.head.register_forward_pre_hook(lambda *_: depths.append(len(modes())))
    model(BAD)
    with BaseTorchFunctionMode() as own:
        model(BAD)
        assert [own] == modes()
    assert ([1, 0, 2, 1], []) == (depths, modes())
    assert {"block.inner": 2} == hits(watch)


def stop(error: type[BaseException]) -> None:
    """Raise."""
    raise error("on purpose")


@pytest.mark.parametrize("whole", [False, True], ids=["block", "model"])
def test_a_pass_that_raises_leaves_no_mode(whole: bool, model: Model, watch: Any) -> None:
    """What the user has entered stays on, what we have is off."""
    if whole:
        model.compile(backend="eager")
    model(BAD)
    model.block.work = lambda: stop(ValueError)
    with BaseTorchFunctionMode() as own:
        with pytest.raises(ValueError, match="on purpose"):
            model(BAD)
        assert [own] == modes()
    assert [] == modes()
    assert {"block.inner": 2} == hits(watch)


def test_an_interrupt_behind_compiled_code_leaves_no_mode(model: Model, watch: Any) -> None:
    """Torch runs no hook where a pass is interrupted: in what is not compiled there is no mode to be left behind."""
    model(BAD)
    model.head.register_forward_pre_hook(lambda *_: stop(KeyboardInterrupt))
    with torch.device("meta"), pytest.raises(KeyboardInterrupt):
        model(torch.zeros(2, 8, device="cpu"))
    assert ([], "cpu") == (modes(), torch.zeros(1).device.type)
    assert {"block.inner": 1} == hits(watch)


@pytest.mark.parametrize("then", ["a pass", "detach"])
def test_what_an_interrupt_in_compiled_code_leaves_goes_with_the_next_chance(then: str, model: Model, watch: Any) -> None:
    """The next pass of the model, or coming off, takes our mode off, and a mode that the user has entered since stays on."""
    model.block.work = lambda: stop(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        model(BAD)
    assert 1 == len(modes())
    model.block.work = lambda: None
    with BaseTorchFunctionMode() as own:
        if then == "a pass":
            model(BAD)
        else:
            watch.detach()
        assert [own] == modes()
    assert [] == modes()


def test_coming_off_waits_for_a_thread_in_compiled_code(model: Model, watch: Any) -> None:
    """A mode can be left in its own thread only: detaching in the midst of a pass leaves none behind, and none is entered any more."""
    inside, go_on, left = threading.Event(), threading.Event(), []

    def pause() -> None:
        inside.set()
        go_on.wait(10)

    def serve() -> None:
        with torch.no_grad():
            model(BAD)
            left.append(len(modes()))

    model.block.work = pause
    serving = threading.Thread(target=serve)
    serving.start()
    assert inside.wait(60)
    threading.Timer(0.05, go_on.set).start()
    watch.detach()
    assert go_on.is_set()
    serving.join()
    assert [0] == left


def test_coming_off_waits_for_nobody_for_ever(model: Model, watch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that does not end delays the end of the watch by so much and no more."""
    monkeypatch.setattr(states, "_PATIENCE", 0.05)
    inside, go_on = threading.Event(), threading.Event()

    def pause() -> None:
        inside.set()
        go_on.wait(60)

    model.block.work = pause
    serving = threading.Thread(target=torch.no_grad()(model.__call__), args=(BAD,))
    serving.start()
    assert inside.wait(60)
    watch.detach()
    assert not go_on.is_set()
    go_on.set()
    serving.join()


def test_coming_off_within_a_pass_leaves_no_mode(model: Model, watch: Any) -> None:
    """A model that detaches its own watch in compiled code goes on without the mode."""
    after: list[int] = []

    def detach() -> None:
        watch.detach()
        after.append(len(modes()))

    model.block.work = detach
    model(BAD)
    assert ([0], []) == (after, modes())


def test_a_mode_is_left_wherever_it_lies() -> None:
    """Those entered before and since stay on in their order; a mode that is not on is none to be left."""
    below, ours, above, top = (BaseTorchFunctionMode() for _ in range(4))
    with below:
        enter_function_mode(ours)
        with above, top:
            for _ in range(2):
                leave_function_mode(ours)
                assert [below, above, top] == modes()
        assert [below] == modes()
    assert [] == modes()
