"""Who takes part in the measurement of the overhead: the agent, its guard, and what people use in its place.

Everybody's hooks are put on one model, taken off again, and then put in place by changing the dictionaries that hold them.
"""

from __future__ import annotations

import copy
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from work import Step, gelus

import geluwatch
from geluwatch.tap import source

Hooks = list[tuple[nn.Module, str, Any]]
Hook = Callable[[nn.Module, Any, torch.Tensor], None]


def by_hand(_: nn.Module, __: Any, output: torch.Tensor) -> None:
    """Do what people write themselves: a histogram and a count of NaN."""
    torch.histc(output.detach().float(), 64, -4.0, 4.0)
    int(torch.isnan(output).sum())


def four_items(_: nn.Module, __: Any, output: torch.Tensor) -> None:
    """Read four statistics of every activation."""
    values = output.detach()
    values.max().item(), values.mean().item(), values.norm().item(), values.std().item()


def observer() -> Hook:
    """Return torch.ao's HistogramObserver as a hook."""
    from torch.ao.quantization import HistogramObserver

    observed = HistogramObserver()

    def hook(_: nn.Module, __: Any, output: torch.Tensor) -> None:
        observed(output.detach())

    return hook


def tensorboard() -> Hook:
    """Return TensorBoard's add_histogram as a hook, at every pass."""
    from torch.utils.tensorboard import SummaryWriter

    writer, count = SummaryWriter(tempfile.mkdtemp()), iter(range(10**9))
    return lambda _, __, output: writer.add_histogram("act", output.detach(), next(count))


RIVALS: dict[str, Callable[[], Hook]] = {
    "histc + isnan": lambda: by_hand,
    "four .item()": lambda: four_items,
    "HistogramObserver": observer,
    **({"add_histogram": tensorboard} if find_spec("tensorboard") else {}),
}
SHARE_OF_TIME = 1 / 4
"""Of the contenders that take part in every round, the agent is one of four."""
DEFAULT = geluwatch.Config(cost_budget=None, rows_per_window=round(SHARE_OF_TIME * geluwatch.Config().rows_per_window))
GUARD = geluwatch.Config(cost_budget=None, rows_per_window=1, rows_per_forward=1, minimum_rows=1)
"""The guard of every pass, and a row a minute."""

_DICTIONARIES = (
    "_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called",
)  # fmt: skip


@contextmanager
def hooked(model: nn.Module, hook: Hook) -> Iterator[None]:
    """Put a rival's hook on every GELU."""
    handles = [module.register_forward_hook(hook) for module in gelus(model)]
    yield
    for handle in handles:
        handle.remove()


def taken(model: nn.Module) -> Hooks:
    """Take the hooks that are on a model off; return them with their places."""
    found = [(module, name, getattr(module, name)) for module in model.modules() for name in _DICTIONARIES if getattr(module, name)]
    for module, name, hooks in found:
        setattr(module, name, type(hooks)())
    return found


def put(hooks: Hooks, places: Hooks) -> None:
    """Put hooks on, where at all of the places there may be others."""
    for module, name, none in places:
        module.__dict__[name] = type(none)()
    for module, name, held in hooks:
        module.__dict__[name] = held


class Contenders:
    """Those who take part, and the two watches behind some of them."""

    watch: geluwatch.Watch
    idle: geluwatch.Watch
    names: tuple[str, ...]

    def switch(self, name: str) -> Step:
        """Return the work to be done, with only what this contender adds to it."""
        raise NotImplementedError

    def round(self, steps: int, *, rivals: bool) -> dict[str, float]:
        """Return the time per step of everybody, in seconds; of rivals as well if asked."""
        names = [name for name in self.names if rivals or name not in RIVALS]
        order = random.sample(names, len(names))
        spent = dict.fromkeys(order, 0.0)
        for name in (*order, *reversed(order)):
            step = self.switch(name)
            if steps > 1:
                step()
            began = time.perf_counter()
            for _ in range(steps):
                step()
            spent[name] += (time.perf_counter() - began) / steps / 2
        return spent


class Switched(Contenders):
    """Everybody's hooks on one model, put on and taken off."""

    def __init__(self, stack: ExitStack, model: nn.Module, step: Step) -> None:
        self._step = step
        self._hooks: dict[str, Hooks] = {"none": []}
        self.watch = self._watch(stack, model, step, "agent", DEFAULT)
        self.idle = self._watch(stack, model, step, "guard alone", GUARD)
        for name, make in RIVALS.items():
            stack.enter_context(hooked(model, make()))
            self._hooks[name] = taken(model)
        # Detached: what a watch leaves behind, which the next thing to do would show.
        with geluwatch.attach(model, name="bench"):
            step()
        self._hooks["detached"] = taken(model)
        everything = {(id(module), name): (module, name, held) for hooks in self._hooks.values() for module, name, held in hooks}
        self._places = list(everything.values())
        self.names = tuple(self._hooks)

    def switch(self, name: str) -> Step:
        """Put the hooks of one contender on, and nobody else's."""
        put(self._hooks[name], self._places)
        return self._step

    def _watch(self, stack: ExitStack, model: nn.Module, step: Step, name: str, config: geluwatch.Config) -> geluwatch.Watch:
        watch = stack.enter_context(geluwatch.attach(model, name=name, config=config))
        for _ in range(2):  # the first pass shows which dense layer follows each GELU; a flush then puts the guard there
            step()
            watch.flush()
        self._hooks[name] = taken(model)
        source._attached.discard(model)  # noqa: SLF001  # two watches of one model are refused, and here never on it at once
        return watch


class Compiled(Contenders):
    """A compiled model for each, of the same weights in the same memory: what is compiled holds its hooks, or none.

    Rivals are left out, for what they read with `.item()` would break the graph.
    """

    names = ("none", "agent", "guard alone", "detached")

    def __init__(self, stack: ExitStack, model: nn.Module, work: Callable[[nn.Module], Step]) -> None:
        # Else the models of all rows together are more than torch compiles of one function.
        torch.compiler.reset()
        # Else code compiled without hooks would run where there are some.
        torch._dynamo.config.skip_nnmodule_hook_guards = False  # noqa: SLF001  # the only name it has
        twins = {name: twin(model) for name in self.names}
        self.watch, self.idle = (
            stack.enter_context(geluwatch.attach(twins[name], name=name, config=config))
            for name, config in (("agent", DEFAULT), ("guard alone", GUARD))
        )
        geluwatch.attach(twins["detached"], name="bench").detach()
        self._steps = {name: work(torch.compile(each, fullgraph=True)) for name, each in twins.items()}
        for step in self._steps.values():
            for _ in range(2):
                step()
        for watch in (self.watch, self.idle):
            blind = [site for site in watch.flush().sites.values() if site.state != "observed"]
            assert not blind, f"{blind[0].layer} is blind: {blind[0].reason}"

    def switch(self, name: str) -> Step:
        """Return one contender's own work."""
        return self._steps[name]


def twin(model: nn.Module) -> nn.Module:
    """Return another module of the same weights: copies of them would lie elsewhere, which is half a percent of the time."""
    return copy.deepcopy(model, {id(held): held for held in (*model.parameters(), *model.buffers())})
