"""Did the data change, or the model? The real encoder, its traffic and copies of it, changed in eight ways each, against one baseline."""

from __future__ import annotations

import copy
import random
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import pytest
import torch
from torch import nn

from geluwatch.cli.demo import model as demo_model
from geluwatch.cli.demo import texts as demo_texts
from geluwatch.config import Config
from geluwatch.ports import BaselineStore
from geluwatch.records import Report
from geluwatch.store.memory import MemoryBaselines
from geluwatch.tap.source import TorchSource
from geluwatch.testing import FakeClock
from geluwatch.watch import Watch

WINDOWS = 25
TEXTS = 16
BATCH = 8
TOKENS = 24
MOST_WINDOWS = 12
SETTINGS = Config(window_seconds=None, cost_budget=None)

Texts = Sequence[str]


class Served:
    """The encoder, or a copy of it, under a watch on a simulated clock."""

    def __init__(self, encoder: demo_model.Encoder, store: BaselineStore, model: nn.Module | None = None, began: float = 1.7e9) -> None:
        self.encoder, self.model = encoder, encoder.model if model is None else model
        self.clock = FakeClock(began)
        source = TorchSource(self.model, SETTINGS, self.clock)
        self.watch = Watch(source, store, self.clock, SETTINGS, name="minilm", version="1", labels={})

    def passes(self, texts: Texts) -> list[dict[str, torch.Tensor]]:
        """Return the tokens of texts in batches."""
        batches = (list(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH))
        return [dict(self.encoder.tokenizer(b, padding=True, truncation=True, max_length=TOKENS, return_tensors="pt")) for b in batches]

    def window(self, texts: Texts) -> Report:
        """Serve the texts of a minute, and close its window."""
        with torch.inference_mode():
            for tokens in self.passes(texts):
                self.model(**tokens)
        self.clock.advance(60.0)
        return self.watch.close_window()

    def until_drift(self, texts: Texts) -> Report:
        """Serve texts until they are named drift, or for the most windows."""
        served = cycle(texts)
        for _ in range(MOST_WINDOWS):
            report = self.window(list(islice(served, TEXTS)))
            if report.drifting:
                break
        return report


@dataclass(frozen=True)
class Recorded:
    """What all cases share: the encoder, its texts, and a store with a baseline of prose with a probe."""

    encoder: demo_model.Encoder
    texts: demo_texts.Texts
    store: MemoryBaselines
    ended: float


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    """Record the baseline."""
    encoder = demo_model.load()
    texts = demo_texts.load(baseline=WINDOWS * TEXTS, held_out=112, code=96)
    store = MemoryBaselines()
    served = Served(encoder, store)
    for number in range(WINDOWS):
        served.window(texts.baseline[number * TEXTS : (number + 1) * TEXTS])
    certificate = served.watch.record_baseline("prose", probe=served.passes(texts.held_out[:16]))
    assert certificate.armed, certificate.reason
    served.watch.detach()
    return Recorded(encoder, texts, store, served.clock.time())


@pytest.fixture
def serving(recorded: Recorded) -> Iterator[Callable[..., Served]]:
    """Serve the encoder, or another model in its place, with the baseline armed, as a new process does."""
    made: list[Served] = []

    def begin(model: nn.Module | None = None) -> Served:
        made.append(Served(recorded.encoder, recorded.store, model, recorded.ended))
        made[-1].watch.arm("prose")
        return made[-1]

    yield begin
    for each in made:
        each.watch.detach()


def shuffled(text: str) -> str:
    """Return a text's words in another order."""
    words = text.split()
    random.Random(len(text)).shuffle(words)
    return " ".join(words)


def garbled(text: str) -> str:
    """Return a text in which every fourth letter is another one."""
    return "".join(chr(97 + (ord(letter) * 7) % 26) if place % 4 == 0 else letter for place, letter in enumerate(text))


DATA: dict[str, Callable[[demo_texts.Texts], list[str]]] = {
    "source code": lambda texts: list(texts.code),
    "half of it source code": lambda texts: [text for pair in zip(texts.held_out, texts.code, strict=False) for text in pair],
    "words in another order": lambda texts: [shuffled(text) for text in texts.held_out],
    "words spelled backwards": lambda texts: [" ".join(word[::-1] for word in text.split()) for text in texts.held_out],
    "three words": lambda texts: [" ".join(text.split()[:3]) for text in texts.held_out],
    "garbled": lambda texts: [garbled(text) for text in texts.held_out],
    "one word over and over": lambda texts: [" ".join(text.split()[:1] * 30) for text in texts.held_out],
    "lists of names": lambda texts: [", ".join(sorted(set(filter(str.isidentifier, text.split())))) for text in texts.code],
}
"""By name: other traffic for the same model."""


def layer(encoder: Any, number: int) -> Any:
    """Return a layer of the encoder."""
    return encoder.encoder.layer[number]


def tanh(encoder: nn.Module) -> None:
    """Put the tanh form into one layer."""
    layer(encoder, 2).intermediate.intermediate_act_fn = nn.GELU(approximate="tanh")


def scaled(encoder: nn.Module) -> None:
    """Make one weight matrix a thousandth larger."""
    layer(encoder, 4).intermediate.dense.weight.data.mul_(1.001)


def tuned(encoder: Any) -> None:
    """Make one step of fine-tuning."""
    loss = encoder(input_ids=torch.arange(1000, 1016).reshape(1, -1)).last_hidden_state.square().mean()
    loss.backward()
    for parameter in encoder.parameters():
        if parameter.grad is not None:
            parameter.data.sub_(parameter.grad, alpha=0.01)
            parameter.grad = None


def restarted(encoder: nn.Module) -> None:
    """Initialise one layer anew, as a checkpoint that lacks it does."""
    generator = torch.Generator().manual_seed(1)
    for module in layer(encoder, 3).modules():
        if isinstance(module, nn.Linear):
            module.weight.data.normal_(0.0, 0.02, generator=generator)


def rounded(encoder: nn.Module) -> None:
    """Send all weights through float16 and back."""
    for parameter in encoder.parameters():
        parameter.data = parameter.data.half().float()


def normalised(encoder: nn.Module) -> None:
    """Change the gain of one LayerNorm."""
    layer(encoder, 5).attention.output.LayerNorm.weight.data.mul_(1.01)


def quantised(encoder: nn.Module) -> nn.Module:
    """Quantise all dense layers, dynamically, to int8."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that its quantisation moves to a package of its own
        return torch.ao.quantization.quantize_dynamic(encoder, {nn.Linear}, dtype=torch.qint8)


MODEL: dict[str, tuple[Callable[[nn.Module], nn.Module | None], int, bool]] = {
    "tanh in layer 2": (tanh, 2, True),
    "a cast to bfloat16": (lambda encoder: encoder.to(torch.bfloat16), 0, False),
    "a thousandth of a weight in layer 4": (scaled, 4, False),
    "dynamic int8": (quantised, 0, False),
    "a step of fine-tuning": (tuned, 0, False),
    "layer 3 initialised anew": (restarted, 3, False),
    "weights through float16": (rounded, 0, False),
    "a LayerNorm in layer 5": (normalised, 5, False),
}
"""By name: the change, the layer at which it shows first, and whether it is the GELU itself."""


def cases(names: dict[str, Any]) -> list[Any]:
    """Return the names as parameters, the second half for long runs only."""
    return [pytest.param(name, marks=() if place < len(names) // 2 else pytest.mark.full) for place, name in enumerate(names)]


@pytest.mark.parametrize("change", cases(DATA))
def test_changed_data_is_attributed_to_the_data(change: str, recorded: Recorded, serving: Callable[..., Served]) -> None:
    """Traffic drifts, the probe is the same: the data changed. Before the probe nobody knows."""
    served = serving()
    report = served.until_drift(DATA[change](recorded.texts))
    assert report.drifting
    assert ("unknown", None) == (report.origin, report.probe)
    result = served.watch.probe()
    report = served.watch.report
    print(f"\n| data | {change} | {report.origin} | {max(max(each.before, each.after) for each in result.layers):.1e} |  |", end="")
    assert not result.moved, result.sentence
    assert "data" == report.origin
    assert report.attribution.startswith("The probe says: the data changed; the model gives the same")


@pytest.mark.parametrize("change", cases(MODEL))
def test_a_changed_model_is_attributed_to_the_model(change: str, recorded: Recorded, serving: Callable[..., Served]) -> None:
    """The probe moved: the model changed, first at the layer where it was changed; drift, where traffic shows any, is the model's."""
    make, number, within = MODEL[change]
    other = copy.deepcopy(recorded.encoder.model)
    served = serving(make(other) or other)
    for start in (32, 48, 64):
        served.window(recorded.texts.held_out[start : start + TEXTS])
    result = served.watch.probe()
    report = served.watch.report
    named = result.first.layer if result.first else ""
    print(f"\n| model | {change} | {report.origin or 'no drift'} | {result.size:.1e} | {named} |", end="")
    assert f"encoder.layer.{number}.intermediate.intermediate_act_fn" == named
    assert within == result.within
    assert ("model" if report.drifting else "") == report.origin
    assert report.attribution.startswith(f"The probe says: the model changed, first at layer {named}")
    assert report.verdict in {"ticket", "page"}


def test_the_same_model_is_the_same_on_another_number_of_threads(serving: Callable[..., Served]) -> None:
    """Another number of threads is no change of the model."""
    before = torch.get_num_threads()
    served = serving()
    try:
        torch.set_num_threads(3 - min(before, 2))
        result = served.watch.probe()
    finally:
        torch.set_num_threads(before)
    assert not result.moved, result.sentence
    assert all(each.rows > 40 for each in result.layers)
    assert ("", "warming") == (served.watch.report.origin, served.watch.report.verdict)


def test_a_replay_beside_traffic_leaves_no_trace(recorded: Recorded, serving: Callable[..., Served]) -> None:
    """While four threads serve, replays change no bit of an output and no counter, and traffic changes nothing of theirs."""
    served = serving()
    tokens = served.passes(recorded.texts.held_out[:32])
    with torch.inference_mode():
        expected = [served.model(**each).last_hidden_state for each in tokens]
    outputs: list[torch.Tensor] = []
    served.watch.flush()

    def serve(mine: dict[str, torch.Tensor]) -> None:
        with torch.inference_mode():
            outputs.extend([served.model(**mine).last_hidden_state for _ in range(4)])

    threads = [threading.Thread(target=serve, args=(each,)) for each in tokens]
    for thread in threads:
        thread.start()
    results = [served.watch.probe() for _ in range(3)]
    for thread in threads:
        thread.join()
    totals = served.watch.flush().totals
    assert (4 + 16, (4 + 16) * BATCH, 0) == (totals.forwards, totals.samples, totals.nonfinite_forwards)
    assert 4 + 16 == sum(totals.traffic.latencies)
    assert {} == totals.errors
    assert not any(result.moved for result in results)
    assert 16 == sum(any(torch.equal(output, known) for known in expected) for output in outputs)
