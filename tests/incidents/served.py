"""A process that serves watched models, and breaks them when told to: what the test of incidents attaches its monitoring to.

    python served.py STORE < commands > answers

Commands and answers are lines of JSON. `{"pod": "a", "model": "ranker", ...}` starts a pod, `{"pod": "a", "do": "nan"}`
breaks it, `{"pod": "a", "undo": "nan"}` mends it, and `{"pod": "a", "stop": true}` ends it. `{"open": true}` lets traffic begin.
Faults go into weights, inputs and the process itself, never into a metric: what is seen of them has come the whole way.
"""

from __future__ import annotations

import copy
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

import geluwatch
from geluwatch import agent
from geluwatch.tap import usage

WIDTH, LAYERS, CLASSES = 16, 4, 4
SHAPE = (8, 8, WIDTH)
"""Of a request: texts, tokens, channels."""
ROWS = SHAPE[0] * SHAPE[1]
EVALUATED = 4096
"""Inputs on which a judged pod's quantised copy is evaluated."""
CALM_WINDOWS, PASSES_A_WINDOW = 160, 6
PAUSE = 0.05
USUAL_SECONDS = 0.1
"""What a pass waits for, so that its duration is not that of a busy machine's moods."""
CONFIG = {"window_seconds": 2.0, "flush_seconds": 1.0, "rows_per_window": 1 << 17, "cost_budget": None, "horizons": (1,)}


OPEN = threading.Event()
"""Set when every pod of the stage is there: recording a baseline is quicker while nobody else is served."""


class Block(nn.Module):
    """One layer: a dense one, its GELU, and one back."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.act, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)
        self.skipped = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.skipped else x + self.down(self.act(self.up(x)))


class Net(nn.Module):
    """A small residual network, which can be slow or fail like any other program."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.head = nn.Linear(WIDTH, CLASSES)
        self.delay, self.broken = 0.0, False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.delay:
            time.sleep(self.delay)
        if self.broken:
            raise RuntimeError("the tokenizer's service does not answer")
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class OtherGelu(nn.GELU):
    """Declares the exact formula and computes the sigmoid one, as a kernel of another build may."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


class Pod:
    """One watched model with traffic of its own."""

    def __init__(self, order: dict[str, Any], store: str) -> None:
        self.order, self.store = order, store
        self.model = Net(order.get("seed", 0)).eval()
        if order.get("weights") == "candidate":
            _scale_rows(self.model.blocks[1].up, 1.8)
        elif order.get("weights") == "large":
            _scale_rows(self.model.blocks[2].up, 2.0**44)
        self.truth = copy.deepcopy(self.model)
        self.shift, self.mislabelled, self.bulk = 0.0, 0.0, 0
        self.mask: Callable[[torch.Tensor], torch.Tensor | None] = _all_real
        self.notes: dict[str, float] = dict(order.get("notes", {}))
        self.pause = order.get("pause", PAUSE)
        self.generator = torch.Generator().manual_seed(order.get("traffic", 1))
        self.ended = threading.Event()
        if order.get("judged"):
            self.evaluate(bits=8)
        if "record" in order:
            self.record(order["record"])
        self.model.delay = USUAL_SECONDS
        self.attach()
        self.callers = [threading.Thread(target=self.traffic, daemon=True) for _ in range(order.get("callers", 1))]
        for caller in self.callers:
            caller.start()

    def attach(self) -> None:
        """Attach, arm the baseline that the order names, and serve what there is to see."""
        config = geluwatch.Config(**{**CONFIG, "padding": self.padding, **self.order.get("config", {})})
        self.watch = self.watched(config)
        if "arm" in self.order:
            self.watch.arm(self.order["arm"])
        self.url = self.watch.serve(port=self.order.get("port", 0))

    def watched(self, config: geluwatch.Config) -> geluwatch.Watch:
        """Return a watch of the model under the order's names."""
        about = {"name": self.order["model"], "version": self.order.get("version", "1"), "labels": self.order.get("labels", {})}
        return geluwatch.attach(self.model, **about, store=self.store, config=config)

    def record(self, name: str) -> None:
        """Record a baseline of calm traffic as quickly as the machine can, with a watch that is then taken off."""
        with self.watched(geluwatch.Config(**CONFIG)) as self.watch:
            for _ in range(CALM_WINDOWS):
                for _ in range(PASSES_A_WINDOW):
                    self.serve()
                self.watch.close_window()
            probe = [torch.randn(SHAPE, generator=self.generator)] if self.order.get("probed") else None
            self.watch.record_baseline(name, probe=probe)
        self.order["arm"] = name

    def serve(self) -> None:
        """Answer one request, learn what the answer should have been, and tell the watch."""
        x = torch.randn(SHAPE, generator=self.generator) + self.shift
        if self.bulk:
            x = x[:1].expand(self.bulk, *SHAPE[1:])
        with torch.inference_mode():
            said = self.model(x).argmax(-1)
        if self.order.get("judged"):
            self.watch.note(predictions=ROWS, wrong=int((said != self.labels(x)).sum()), **self.notes)

    def labels(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the answers should be, some of them mislabelled."""
        noisy = torch.rand(x.shape[:-1], generator=self.generator) < 0.05 + self.mislabelled
        return (self.truth(x).argmax(-1) + noisy) % CLASSES

    def evaluate(self, bits: int) -> None:
        """Quantise the weights to so many bits, and note the accuracy with and without that."""
        x = torch.randn(EVALUATED, WIDTH, generator=self.generator)
        coarse = copy.deepcopy(self.truth)
        with torch.inference_mode():
            for weight in coarse.parameters():
                step = weight.abs().max() / 2 ** (bits - 1)
                weight.copy_((weight / step).round() * step)
            labels = self.labels(x)
            full, quantised = (float((model(x).argmax(-1) == labels).float().mean()) for model in (self.truth, coarse))
        self.notes |= {"accuracy": full, "quantized_accuracy_delta": quantised - full}

    def traffic(self) -> None:
        """Serve, once the stage is open, until the pod ends; a request that fails is one of its callers' troubles."""
        OPEN.wait()
        while not self.ended.wait(self.pause):
            try:
                self.serve()
            except (RuntimeError, MemoryError):
                continue

    def padding(self, args: tuple[Any, ...], _: dict[str, Any]) -> torch.Tensor | None:
        """Return which tokens are real, as the application has it."""
        return self.mask(args[0])

    def take(self, order: dict[str, Any]) -> None:
        """Record a baseline, or arm one, in the midst of traffic."""
        if "record" in order:
            self.watch.record_baseline(order["record"])
        self.watch.arm(order.get("arm", "latest"))

    def close(self) -> None:
        """End the traffic, then come off."""
        self.ended.set()
        for caller in self.callers:
            caller.join()
        self.watch.detach()


class Run(Pod):
    """A model in training, with a loss scaler."""

    def attach(self) -> None:
        """Attach, and follow the run."""
        self.poisoned = False
        self.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3)
        super().attach()
        self.watch.follow_training()

    def serve(self) -> None:
        """Take one step; a poisoned label makes the loss, and so every gradient, NaN, and the scaler skips the step."""
        x = torch.randn(SHAPE, generator=self.generator)
        wanted = torch.full((*SHAPE[:-1], CLASSES), float("nan") if self.poisoned else 0.5)
        loss = functional.mse_loss(self.model(x), wanted)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.watch.note_step(loss, self.scaler)


def _all_real(_: torch.Tensor) -> None:
    """Return no mask, for there is no padding."""


def _first_real(x: torch.Tensor) -> torch.Tensor:
    mask = torch.zeros(x.shape[:2], dtype=torch.bool)
    mask[0, 0] = True
    return mask


def _unknown(_: torch.Tensor) -> torch.Tensor:
    raise LookupError("the batch has no lengths")


def _scale_rows(layer: nn.Linear, factor: float) -> None:
    with torch.no_grad():
        layer.weight *= factor
        layer.bias *= factor


class Weights:
    """A fault in a tensor of weights, which is put back as it was."""

    def __init__(self, of: Callable[[Net], torch.Tensor], spoil: Callable[[torch.Tensor], None]) -> None:
        self.of, self.spoil = of, spoil

    def do(self, pod: Pod) -> None:
        tensor = self.of(pod.model)
        with torch.no_grad():
            self.kept = tensor.clone()
            self.spoil(tensor)

    def undo(self, pod: Pod) -> None:
        with torch.no_grad():
            self.of(pod.model).copy_(self.kept)


class Switch:
    """A fault that is an attribute's value for a while."""

    def __init__(self, name: str, value: Any, of: Callable[[Pod], Any] = lambda pod: pod) -> None:
        self.name, self.value, self.of = name, value, of

    def do(self, pod: Pod) -> None:
        self.kept = getattr(self.of(pod), self.name)
        setattr(self.of(pod), self.name, self.value)

    def undo(self, pod: Pod) -> None:
        setattr(self.of(pod), self.name, self.kept)


STEPS = 20
"""Of growth in a window: as many as there are passes, or the windows of it differ by chance."""


class Growth:
    """Weights that grow steadily for twelve windows, towards what their dtype can hold."""

    def __init__(self, begin: float, a_window: float) -> None:
        self.begin, self.factor = begin, a_window ** (1 / STEPS)

    def do(self, pod: Pod) -> None:
        self.ended = threading.Event()
        layer = pod.model.blocks[2].up
        self.kept = copy.deepcopy(layer.state_dict())
        _scale_rows(layer, self.begin)
        self.thread = threading.Thread(target=self.grow, args=(layer,), daemon=True)
        self.thread.start()

    def grow(self, layer: nn.Linear) -> None:
        for _ in range(12 * STEPS):
            if self.ended.wait(CONFIG["window_seconds"] / STEPS):
                return
            _scale_rows(layer, self.factor)

    def undo(self, pod: Pod) -> None:
        self.ended.set()
        self.thread.join()
        pod.model.blocks[2].up.load_state_dict(self.kept)


class Detached:
    """The agent is gone while its process goes on; mended, it listens where it did."""

    def do(self, pod: Pod) -> None:
        pod.order["port"] = int(pod.url.rsplit(":", 1)[1].rstrip("/"))
        pod.watch.detach()

    def undo(self, pod: Pod) -> None:
        pod.attach()


class Unpaced(Detached):
    """The agent's own bookkeeping of its cost fails, under dense traffic; mended by attaching anew."""

    def do(self, pod: Pod) -> None:
        pod.watch._source._tap.pacer._budget = None
        pod.pause = pod.model.delay = 0.002

    def undo(self, pod: Pod) -> None:
        pod.pause, pod.model.delay = PAUSE, USUAL_SECONDS
        super().do(pod)
        super().undo(pod)


class Masked(Detached):
    """The application's own mask function is wrong; mended, the agent is attached anew, as after a new release."""

    def __init__(self, mask: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
        self.mask = mask

    def do(self, pod: Pod) -> None:
        pod.mask = self.mask

    def undo(self, pod: Pod) -> None:
        pod.mask = _all_real
        super().do(pod)
        super().undo(pod)


class Unused(Detached):
    """A release whose passes go by the last layer, and its mend, the agent attached anew with each."""

    def do(self, pod: Pod) -> None:
        self.release(pod, skipped=True)

    def undo(self, pod: Pod) -> None:
        self.release(pod, skipped=False)

    def release(self, pod: Pod, *, skipped: bool) -> None:
        super().do(pod)
        pod.model.blocks[-1].skipped = skipped
        super().undo(pod)


class Hung:
    """Whoever is called from the agent's background thread does not return, as a disk that does not answer."""

    def do(self, pod: Pod) -> None:
        self.released, held = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.hold, args=(pod, held), daemon=True)
        self.thread.start()
        held.wait()

    def hold(self, pod: Pod, held: threading.Event) -> None:
        with pod.watch._lock:
            held.set()
            self.released.wait()

    def undo(self, _: Pod) -> None:
        self.released.set()
        self.thread.join()


class Past(agent.SystemClock):
    """The machine's clock, some seconds ago."""

    def __init__(self, age: float) -> None:
        self.age = age

    def time(self) -> float:
        return super().time() - self.age


class Rearmed:
    """Another baseline of the traffic that there is, recorded so many seconds ago."""

    def __init__(self, name: str, age: float) -> None:
        self.name, self.age = name, age

    def do(self, pod: Pod) -> None:
        watch, clock = pod.watch, pod.watch._clock
        with watch._lock:  # no window is to be closed at that time
            watch._clock = Past(self.age)
            try:
                watch.record_baseline(self.name)
            finally:
                watch._clock = clock
        watch.arm(self.name)

    def undo(self, pod: Pod) -> None:
        pod.watch.arm("v1")


class Coarse:
    """A release of the quantised model with too few bits."""

    def do(self, pod: Pod) -> None:
        pod.evaluate(bits=3)

    def undo(self, pod: Pod) -> None:
        pod.evaluate(bits=8)


class Ballast:
    """Memory that is really there; it comes by and by, for a gigabyte at once makes everything else in the process wait."""

    def do(self, _: Pod) -> None:
        self.held = []
        for _ in range(64):
            self.held.append(torch.ones(1 << 22))
            time.sleep(0.01)

    def undo(self, _: Pod) -> None:
        del self.held


class Faults:
    """Every fault by its name."""

    table: ClassVar[dict[str, Callable[[], Any]]] = {
        "nan": lambda: Weights(lambda model: model.blocks[2].up.weight, lambda w: w[3].fill_(float("nan"))),
        "traffic": lambda: Switch("shift", 1.5),
        "astray": lambda: Switch("shift", 1.5),
        "dead": lambda: Weights(lambda model: model.blocks[1].up.bias, lambda b: b.fill_(-1e4)),
        "growth": lambda: Growth(2.0**88, 2.5),
        "swelling": lambda: Growth(1.0, 16.0),
        "kernel": lambda: Switch("__class__", OtherGelu, lambda pod: pod.model.blocks[3].act),
        "tuned": lambda: Weights(lambda model: model.blocks[2].up.weight, lambda w: w.mul_(1.002)),
        "saturated": lambda: Weights(lambda model: model.blocks[1].up.weight, lambda w: w.mul_(40)),
        "bulk": lambda: Switch("bulk", 1 << 44),
        "slow": lambda: Switch("delay", 2.7, lambda pod: pod.model),
        "slower": lambda: Switch("delay", 1.2, lambda pod: pod.model),
        "failing": lambda: Switch("broken", True, lambda pod: pod.model),
        "skipping": lambda: Switch("skipped", True, lambda pod: pod.model.blocks[-1]),
        "detached": Detached,
        "unused": Unused,
        "mask": lambda: Masked(_unknown),
        "starved": lambda: Masked(_first_real),
        "hung": Hung,
        "mixed": lambda: Rearmed("other", 0.0),
        "aged": lambda: Rearmed("old", 7200.0),
        "unpaced": Unpaced,
        "labels": lambda: Switch("mislabelled", 0.3),
        "poisoned": lambda: Switch("poisoned", True),
        "ballast": Ballast,
        "coarse": Coarse,
    }


def main(store: str) -> None:
    """Answer commands until the input ends."""
    torch.set_num_threads(1)
    usage._GROUPS = Path("/nowhere")  # these are pods of many models: what one of them uses must not be the others' pressure
    pods: dict[str, Pod] = {}
    faults: dict[tuple[str, str], Any] = {}
    for line in sys.stdin:
        order = json.loads(line)
        if "open" in order:
            OPEN.set()
            print(json.dumps({"url": ""}), flush=True)
            continue
        name = order["pod"]
        if "do" in order:
            fault = faults[name, order["do"]] = Faults.table[order["do"]]()
            fault.do(pods[name])
        elif "undo" in order:
            faults.pop((name, order["undo"])).undo(pods[name])
        elif "stop" in order:
            pods.pop(name).close()
            print(json.dumps({"pod": name, "url": ""}), flush=True)
            continue
        elif name in pods:
            pods[name].take(order)
        else:
            pods[name] = (Run if order.get("trains") else Pod)(order, store)
        print(json.dumps({"pod": name, "url": pods[name].url}), flush=True)
    OPEN.set()
    for pod in pods.values():
        pod.close()


if __name__ == "__main__":
    main(sys.argv[1])
