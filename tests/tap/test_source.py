"""Coming on and off: copies, checkpoints, memory, races, and the last drain."""

from __future__ import annotations

import copy
import gc
import io
import math
import pickle
import subprocess
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import geluwatch
from geluwatch.agent import SystemClock
from geluwatch.config import Config
from geluwatch.ports import Source
from geluwatch.tap.hooks import RootBegin, RootEnd
from geluwatch.tap.sites import CallerBegin, CallerEnd, SiteHook
from geluwatch.tap.source import TorchSource

BAD = torch.full((2, 8), math.nan)


def saved_and_loaded(model: nn.Module) -> nn.Module:
    """Return a copy by way of torch.save."""
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    loaded: nn.Module = torch.load(buffer, weights_only=False)
    return loaded


def doubled(_module: nn.Module, _args: Any, _kwargs: Any, output: torch.Tensor) -> torch.Tensor:
    """Double a module's output, as a hook of the user's."""
    return 2.0 * output


COPIES: list[Any] = [
    pytest.param(copy.deepcopy, id="deepcopy"),
    pytest.param(lambda model: pickle.loads(pickle.dumps(model)), id="pickle"),
    pytest.param(saved_and_loaded, id="torch.save"),
]


def shared_model() -> nn.Module:
    """Return a model with every kind of hook on it once watched: root, site, shared caller, consumer to be learnt."""
    act = nn.GELU()
    return nn.Sequential(nn.Sequential(nn.Linear(8, 8), act), nn.Sequential(nn.Linear(8, 8), act), nn.Linear(8, 8))


def test_the_source_keeps_its_ports_protocol() -> None:
    """The torch tap is a `Source`, before and after it has been closed, and closing twice does nothing."""
    source = TorchSource(nn.Sequential(nn.GELU()), Config(), SystemClock())
    assert isinstance(source, Source)
    assert source.framework == f"torch {torch.__version__}"
    source.close()
    source.close()
    assert 0 == source.drain().forwards


@pytest.mark.parametrize("make_copy", COPIES)
def test_a_copy_is_unwatched_and_independent(make_copy: Callable[[nn.Module], nn.Module], attach: Callable[..., Any]) -> None:
    """A copy of a watched model computes with its own weights, counts into nothing, and can be watched itself."""
    model = shared_model()
    watch = attach(model)
    twin = make_copy(model)
    x = torch.randn(2, 8)
    expected = twin(x)
    with torch.no_grad():
        twin[2].weight.zero_()
        twin[2].bias.fill_(7.0)
    assert torch.equal(expected, model(x))
    assert torch.equal(torch.full((2, 8), 7.0), twin(x))
    twin(BAD)
    assert (1, 0) == (watch.flush().totals.forwards, watch.report.totals.nonfinite_forwards)
    other = attach(twin)
    twin(BAD)
    assert (1, 1) == (other.flush().totals.forwards, other.report.totals.nonfinite_forwards)
    assert (1, 0) == (watch.flush().totals.forwards, watch.report.totals.nonfinite_forwards)


@pytest.mark.parametrize("make_copy", COPIES)
@pytest.mark.filterwarnings("ignore:.torch.jit.script")
def test_what_copies_have_in_place_of_hooks_goes_when_they_are_watched(
    make_copy: Callable[[nn.Module], nn.Module], attach: Callable[..., Any], hook_census: Callable[[nn.Module], Any]
) -> None:
    """Hooks do not grow from copy to copy, the user's stay as they were, and after detach a copy can be scripted."""
    model = shared_model()
    model[1].register_forward_hook(doubled, with_kwargs=True, always_call=True)
    before, expected = hook_census(model), model(torch.ones(2, 8))
    attach(model)
    hooks = []
    for _ in range(3):
        model = make_copy(model)
        watch = attach(model)
        hooks.append(sum(len(keys) for part in hook_census(model).values() for keys in part.values()))
    assert 1 == len(set(hooks))
    watch.detach()
    assert before == hook_census(model)
    assert torch.equal(expected, model(torch.ones(2, 8)))
    model[1]._forward_hooks.clear()
    torch.jit.script(model)


def test_a_model_saved_while_watched_loads_where_geluwatch_is_not(attach: Callable[..., Any], tmp_path: Path) -> None:
    """A checkpoint of a whole watched model names nothing of ours: it loads and runs in a process that cannot import geluwatch."""
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU())
    attach(model)
    torch.save(model, tmp_path / "model.pt")
    code = (
        "import sys, torch; sys.modules['geluwatch'] = None\n"
        f"model = torch.load({str(tmp_path / 'model.pt')!r}, weights_only=False)\n"
        "print(tuple(model(torch.zeros(2, 8)).shape))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "(2, 8)" == done.stdout.strip()


def test_nothing_shows_in_the_state_dict_or_in_attributes(attach: Callable[..., Any]) -> None:
    """Watching adds no parameter, buffer, submodule or attribute to any module."""
    model = shared_model()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    attributes = [set(vars(module)) for module in model.modules()]
    attach(model)
    model(torch.randn(2, 8))
    assert list(state) == list(model.state_dict())
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert attributes == [set(vars(module)) for module in model.modules()]


def test_detach_restores_every_hook_dictionary(attach: Callable[..., Any], hook_census: Callable[[nn.Module], Any]) -> None:
    """After detach every module has exactly the hooks it had before, in the same order, the user's own among them."""
    model = shared_model()
    handles = [module.register_forward_hook(lambda *_: None) for module in model.modules()]
    handles.append(model.register_forward_pre_hook(lambda *_: None, with_kwargs=True))
    before = hook_census(model)
    for passes in range(3):
        watch = attach(model)
        assert before != hook_census(model)
        for _ in range(passes):
            model(torch.randn(2, 8))
            watch.flush()
        watch.detach()
        assert before == hook_census(model)
    assert all(handle.id in vars(module)["_forward_hooks"] for handle, module in zip(handles, model.modules(), strict=False))


def test_the_last_drain_is_not_lost(attach: Callable[..., Any]) -> None:
    """What was seen since the last flush is in the report that detach publishes, and detaching twice changes nothing."""
    model = shared_model()
    watch = attach(model)
    model(BAD)
    watch.detach()
    report = watch.report
    assert (1, 1) == (report.totals.forwards, report.totals.nonfinite_forwards)
    watch.detach()
    model(BAD)
    assert report is watch.report


class DetachesInside(nn.Module):
    """A model whose watch is taken off in the middle of its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.GELU()
        self.watch: Any = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the GELU, then detach."""
        y: torch.Tensor = self.act(x)
        self.watch.detach()
        return y


def test_a_pass_cut_off_by_detach_is_counted(attach: Callable[..., Any]) -> None:
    """A hit in a pass that is under way when the watch comes off is in the last report."""
    model = DetachesInside()
    model.watch = attach(model)
    model(BAD)
    totals = model.watch.report.totals
    assert (1, 1, {}) == (totals.forwards, totals.nonfinite_forwards, totals.errors)


def test_hooks_bear_to_be_called_without_their_flag(attach: Callable[..., Any]) -> None:
    """A pass that runs while hooks come on or off calls them without keyword arguments, and nothing is raised."""
    model = nn.Sequential(nn.GELU())
    source = attach(model)._source
    tap, ear = source._tap, source._wiring.ear
    begin, end = RootBegin(tap, ear), RootEnd(tap, ear)
    begin(model, (BAD,))
    end(model, (BAD,), BAD)
    begin(model, (BAD,), {})
    end(model, (BAD,), {}, None)
    assert (2, {}) == (tap.state().counters.forwards, tap.breaker.failures)


def test_coming_on_and_off_under_traffic_hurts_nobody() -> None:
    """Threads that serve all the while never see an error, and what the watches saw is never more than there was."""
    model = shared_model()
    errors: list[BaseException] = []
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            try:
                with torch.no_grad():
                    model(torch.ones(2, 8))
            except BaseException as error:  # noqa: BLE001  # whatever it is
                errors.append(error)

    threads = [threading.Thread(target=serve) for _ in range(3)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    for thread in threads:
        thread.start()
    try:
        for _ in range(40):
            with geluwatch.attach(model, name="model", config=Config(flush_seconds=0.001)) as watch:
                watch.flush()
            assert {} == watch.report.totals.errors
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        for thread in threads:
            thread.join()
    assert [] == errors


@pytest.mark.parametrize("make", [shared_model, lambda: nn.Sequential(nn.Linear(8, 8), nn.GELU()), nn.GELU], ids=["deep", "flat", "bare"])
def test_a_model_let_go_while_watched_is_freed(make: Callable[[], nn.Module], attach: Callable[..., Any]) -> None:
    """A watch keeps neither the model nor any part of it alive; its thread ends, and its last report holds everything."""
    model = make()
    watch = attach(model)
    model(BAD)
    watch.flush()
    model(BAD)
    parts = [weakref.ref(part) for part in model.modules()]
    thread = watch._background._thread
    del model
    gc.collect()
    assert [None] * len(parts) == [part() for part in parts]
    thread.join(timeout=5.0)
    assert not thread.is_alive()
    assert 2 == watch.report.totals.nonfinite_forwards


def test_memory_is_flat_over_thousands_of_passes(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """Three thousand passes, flushed now and then, windows closed, leave no more memory behind than the first thousand."""
    model = block()
    watch = attach(model)

    def serve(passes: int) -> int:
        with torch.no_grad():
            for turn in range(passes):
                model(BAD if turn % 10 == 0 else torch.randn(2, 8))
                if turn % 25 == 0:
                    watch.close_window()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        serve(25 * 150)  # past the number of windows that are kept
        before = serve(1000)
        assert serve(3000) - before < 64 * 1024
    finally:
        tracemalloc.stop()


def test_a_drain_takes_whole_passes_only() -> None:
    """Rows of a pass under way stay for the next drain: no window has some layers of it and lacks others. At the end all are taken."""

    def layers(*_: Any) -> None:
        drained.append([rows.layer for rows in source.drain().rows])

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    middle, drained = nn.Linear(8, 8), list[list[str]]()
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), middle, nn.GELU())
    source = TorchSource(model, Config(window_seconds=None, cost_budget=None), SystemClock())
    within = middle.register_forward_hook(layers)
    for _ in range(2):
        model(torch.randn(2, 8))
    layers()
    within.remove()
    middle.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        model(torch.randn(2, 8))
    layers()
    source.close()
    layers()
    assert [[], ["1", "3"], ["1", "3"], [], ["1"]] == drained


def test_rows_that_nobody_drains_are_bounded(attach: Callable[..., Any]) -> None:
    """Without a flush captured rows stop at the limit; passes without room are dropped and counted, and a drain makes room."""
    model = nn.Sequential(nn.GELU())
    watch = attach(model, pending_bytes=4096, cost_budget=1.0, rows_per_forward=8)
    tap = watch._source._tap
    tap.pacer.take = lambda _now: True
    for _ in range(50):
        model(torch.randn(8, 16))
    passes = sum(len(state.rows) for state in tap.states)
    waiting = sum(captured.nbytes for state in tap.states for captured in state.rows)
    assert 4096 - 2 * 2 * 16 * 4 <= waiting <= 4096
    totals = watch.flush().totals
    assert 8 * (50 - passes) == totals.dropped_rows
    model(torch.randn(8, 16))
    assert totals.dropped_rows == watch.flush().totals.dropped_rows


def test_waiting_bytes_are_exact_under_many_writers(attach: Callable[..., Any]) -> None:
    """Eight threads that capture while another drains leave the account of waiting bytes at zero."""
    model = nn.Sequential(nn.GELU())
    watch = attach(model)
    tap = watch._source._tap
    tap.pacer.take = lambda _now: True
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=lambda: [model(torch.ones(2, 4)) for _ in range(100)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            watch._source.drain()
    finally:
        sys.setswitchinterval(interval)
    watch._source.drain()
    assert 0 == sum(state.bytes_in - state.bytes_out for state in tap.states)


def test_copies_of_every_hook_do_nothing(attach: Callable[..., Any]) -> None:
    """Whatever a hook is called with, its copy returns None and knows no tap."""
    source = attach(nn.Sequential(nn.GELU()))._source
    tap, ear = source._tap, source._wiring.ear
    for hook in (RootBegin(tap, ear), RootEnd(tap, ear), SiteHook(tap, 0), CallerBegin(tap, 0, 0), CallerEnd(tap, 0, 0)):
        for twin in (copy.deepcopy(hook), pickle.loads(pickle.dumps(hook))):
            assert twin(nn.GELU(), (BAD,), {}, BAD) is None
            assert not hasattr(twin, "tap")
