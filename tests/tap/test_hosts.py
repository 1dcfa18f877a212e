"""What programs do around calls of GELU as a function: nothing of it loses a fault, moves a site, or shows in the program."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from geluwatch.tap import _compat, dispatch

X = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
BAD = X.clone().index_fill(0, torch.tensor([0]), math.nan)
TABLE = {"gelu": functional.gelu}


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    """Start and leave with no compiled code."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Feed(nn.Module):
    """Dense, GELU as a function, dense."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., 4) to the same shape."""
        return self.down(functional.gelu(self.up(x)))


def listening() -> bool:
    """Return whether anything of ours is on in this thread."""
    return bool(torch._C._dispatch_tls_is_dispatch_key_included(_compat._TAP_KEY) or dispatch._ears.listeners)


class Reuses(nn.Module):
    """Two calls, and between them much that wants the memory of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(64, 64), nn.Linear(64, 64)
        self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., 64) to the same shape, whatever is in it."""
        x = torch.nan_to_num(functional.gelu(self.up(x)))
        for layer in self.layers:
            x = torch.relu(layer(x)) + torch.sin(layer(x))
        return self.down(functional.gelu(x))


class Holder(nn.Module):
    """A model of one part."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the part."""
        result: torch.Tensor = self.part(x)
        return result


@pytest.mark.filterwarnings("ignore:.torch.jit.script")
def test_compiled_memory_that_is_used_again_hides_nothing(attach: Callable[..., Any]) -> None:
    """Inductor gives a GELU's memory away right behind it: by then the fault has been counted, and the rows are what they were."""
    model = Holder(Reuses())
    watch = attach(model, cost_budget=None)
    fast = torch.compile(model)
    good = torch.randn(64, 64)
    bad = good.index_fill(0, torch.tensor([0]), math.nan)
    with torch.no_grad():
        fast(good)
        rows = watch._source.drain().rows
        for _ in range(4):
            fast(bad)
    assert all(torch.allclose(functional.gelu(torch.from_numpy(each.pre)), torch.from_numpy(each.post), atol=1e-6) for each in rows)
    totals = watch.flush().totals
    assert (4, {("pre", "nan"): 256}, {}) == (totals.nonfinite_forwards, totals.nonfinite["part#0"].elements, totals.errors)


@pytest.mark.parametrize("shared", [False, True], ids=["functions", "one shared module"])
def test_blocks_compiled_one_by_one_share_one_graph(shared: bool, attach: Callable[..., Any]) -> None:
    """Whatever hooks a block carries, twelve of them compile once, as they do without."""
    act = nn.GELU()

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.feed = nn.LayerNorm(4), nn.Sequential(nn.Linear(4, 4), Holder(act)) if shared else Feed()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.feed(self.norm(x))

    graphs: list[Any] = []

    def backend(graph: Any, _inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    model = nn.Sequential(*(Block() for _ in range(12)))
    attach(model)
    for block in model:
        block.compile(backend=backend)
    with torch.no_grad():
        model(X)
    assert 1 == len(graphs)


@pytest.mark.parametrize("warm", [False, True])
def test_a_function_mode_moves_no_site(warm: bool, attach: Callable[..., Any]) -> None:
    """Under a mode, as a default device is one, calls are those of the same sites, from the first pass or later."""
    model = nn.Sequential(Feed(), Feed())
    watch = attach(model)
    if warm:
        model(X)
        watch.flush()
    with torch.device("cpu"):
        for _ in range(3):
            model(BAD)
    totals = watch.flush().totals
    assert (3, {"0": 3, "1": 0}) == (totals.nonfinite_forwards, {layer: seen.first for layer, seen in totals.nonfinite.items()})
    assert [("0", "observed"), ("1", "observed")] == [(site.layer, site.state) for site in watch.sites]


@pytest.mark.filterwarnings("ignore:.torch.jit.script")
def test_a_model_with_a_scripted_part_is_watched(attach: Callable[..., Any]) -> None:
    """A part that torch.jit.script has made is passed by, and the rest is watched."""
    model = nn.Sequential(torch.jit.script(nn.Linear(4, 4)), Feed())
    watch = attach(model)
    model(BAD)
    assert (1, {}) == (watch.flush().totals.nonfinite_forwards, watch.report.totals.errors)


def test_interrupts_leave_nothing_on_and_count_nothing_twice(attach: Callable[..., Any]) -> None:
    """After forwards that were cut off, one fault is one fault, and nothing listens outside of a pass."""

    class Cut(nn.Module):
        on = False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if Cut.on:
                raise KeyboardInterrupt
            return x

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.cut = nn.Linear(4, 8), Cut()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.cut(functional.gelu(self.up(x)))

    model = nn.Sequential(Block())
    watch = attach(model)
    for _ in range(3):
        Cut.on = True
        with pytest.raises(KeyboardInterrupt):
            model(X)
        Cut.on = False
    model(BAD)
    assert {("pre", "nan"): 8} == watch.flush().totals.nonfinite["0"].elements
    assert not listening()


def test_a_flush_in_the_middle_of_a_pass_takes_nobodys_place(attach: Callable[..., Any]) -> None:
    """Hooks that a flush puts on while their module runs end nothing that others have begun."""
    watches: list[Any] = []

    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_forward_hook(lambda *_: None)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = TABLE["gelu"](x)
            for each in watches:
                each.flush()
            return y

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.inner = nn.Linear(4, 8), Inner()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.gelu(self.inner(self.up(x)))

    model = nn.Sequential(Outer())
    watches.append(attach(model))
    for _ in range(3):
        model(BAD)
    report = watches[0].flush()
    assert [("0", "observed"), ("0.inner", "observed")] == [(site.layer, site.state) for site in watches[0].sites]
    assert {"0": 3, "0.inner": 2} == {layer: seen.forwards for layer, seen in report.totals.nonfinite.items()}


@pytest.mark.filterwarnings("ignore:.torch.jit.script")
def test_calls_in_threads_without_python_go_through(attach: Callable[..., Any]) -> None:
    """Torch's own threads inherit what is on in ours, and have no Python code of their own to ask."""

    @torch.jit.script
    def in_place(values: torch.Tensor) -> torch.Tensor:
        torch._C._nn.gelu_(values)
        return values

    @torch.jit.script
    def forked(values: torch.Tensor) -> torch.Tensor:
        return torch.jit.wait(torch.jit.fork(in_place, values.clone()))

    class Forks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.gelu(forked(x))

    model = nn.Sequential(Forks())
    expected = model(X)
    watch = attach(model)
    assert torch.equal(expected, model(X))
    assert {} == watch.flush().totals.errors


def test_the_models_own_locals_are_left_alone(attach: Callable[..., Any]) -> None:
    """What `locals()` gave a forward is still there after a call that the census did not know."""

    class Collects(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.GELU()

        def forward(self, x: torch.Tensor, scale: float = 2.0) -> torch.Tensor:  # read from `locals()`
            given = locals()
            return self.act(TABLE["gelu"](x) * given["scale"])

    model = nn.Sequential(Collects())
    expected = model(X)
    attach(model)
    assert torch.equal(expected, model(X))


def test_detaching_within_a_pass_lets_go_by_the_next_gelu(attach: Callable[..., Any]) -> None:
    """A watch that comes off while its model runs counts no more, and has let go of the thread when the pass is over."""
    model = nn.Sequential(Feed(), nn.Identity(), Feed())
    watch = attach(model)
    model[1].register_forward_hook(lambda *_: watch.detach())
    model(X)
    before = watch.report.totals
    model(BAD)
    assert before == watch.report.totals
    assert not listening()


def test_code_before_the_forward_is_followed(attach: Callable[..., Any]) -> None:
    """A call in the parent's forward, and one through a local name, are sites from the first pass on."""

    class Child(Feed):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + 1.0

    class Local(Feed):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            act = functional.gelu
            return self.down(act(self.up(x)))

    model = nn.Sequential(Child(), Local())
    watch = attach(model)
    model(BAD)
    totals = watch.flush().totals
    assert {"0": (1, 1), "1": (1, 0)} == {layer: (seen.forwards, seen.first) for layer, seen in totals.nonfinite.items()}
    assert [("0", "observed"), ("1", "observed")] == [(site.layer, site.state) for site in watch.sites]


def test_an_activation_shared_with_an_encoder_layer_carries_no_hook(attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """One GELU in torch's encoder layer and beside it: the layer's fused path stays on, and the one beside it is blind with the reason."""
    fused = torch._transformer_encoder_layer_fwd
    calls: list[int] = []
    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", lambda *given: calls.append(1) or fused(*given))
    act = nn.GELU()
    model = nn.Sequential(nn.Linear(4, 4), act, nn.TransformerEncoderLayer(4, 2, 8, activation=act, batch_first=True)).eval()
    watch = attach(model)
    with torch.inference_mode():
        model(torch.randn(1, 2, 4))
    watch.flush()
    assert [1] == calls
    assert [("1", "blind"), ("2.activation", "observed")] == [(site.layer, site.state) for site in watch.sites]
    assert "fused path" in watch.sites[0].reason


def test_a_modules_call_in_compiled_code_is_not_its_late_found_owners(attach: Callable[..., Any]) -> None:
    """Of a call found when it ran, compiled later together with a GELU module, the module's values are no rows of the caller's."""

    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.GELU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return TABLE["gelu"](self.act(x) - 1.0)

    model = Holder(Late())
    watch = attach(model, cost_budget=None)
    model(X)
    watch.flush()
    torch.compile(model, backend="aot_eager")(X)
    rows = {each.layer: each.pre for each in watch._source.drain().rows}
    assert (X.numpy() == rows["part.act"]).all()
    assert {"part": "blind", "part.act": "observed"} == {site.layer: site.state for site in watch.sites}


def test_a_strangers_hook_that_cannot_be_asked_does_not_keep_a_watch_on(attach: Callable[..., Any]) -> None:
    """Detaching asks nothing of hooks that are not ours."""

    class Rude:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

        def __call__(self, *_: Any) -> None:
            """Do nothing."""

    model = nn.Sequential(nn.GELU())
    model[0].register_forward_hook(Rude())
    attach(model).detach()
    assert 1 == len(model[0]._forward_hooks)
