"""The real encoder: not a bit changes, and no non-finite value goes by."""

from __future__ import annotations

import copy
import math
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from geluwatch.store.memory import MemoryBaselines
from geluwatch.tap import consumers, guard, look

FORWARDS = 1000
LAYERS = [f"encoder.layer.{k}.intermediate.intermediate_act_fn" for k in range(6)]
KINDS = (math.nan, math.inf, -math.inf)


def batches() -> list[dict[str, torch.Tensor]]:
    """Return token batches of several shapes, one of them padded."""
    generator = torch.Generator().manual_seed(3)
    made = []
    for batch, tokens, padding in ((1, 3, 0), (2, 16, 0), (3, 24, 9)):
        mask = torch.ones(batch, tokens, dtype=torch.long)
        mask[-1, tokens - padding :] = 0
        made.append({"input_ids": torch.randint(1000, 20000, (batch, tokens), generator=generator), "attention_mask": mask})
    return made


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16 autocast"])
@pytest.mark.parametrize("large", [1, look.LARGE], ids=["through consumers", "as it is"])
def test_serving_is_identical_to_the_bit(
    mode: Callable[[], Any], autocast: bool, large: int, minilm: nn.Module, attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs before, under and after the watch are the same bits, on sampled passes and others, on both paths of the guard."""
    monkeypatch.setattr(look, "LARGE", large)

    def outputs() -> list[torch.Tensor]:
        with mode(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return [tensor.detach() for batch in batches() for tensor in minilm(**batch)[:2]]

    expected = outputs()
    watch = attach(minilm, cost_budget=1.0)
    for _ in range(3):
        assert all(torch.equal(left, right) for left, right in zip(expected, outputs(), strict=True))
        watch.flush()
    totals = watch.report.totals
    assert (9, 0, {}) == (totals.forwards, totals.nonfinite_forwards, totals.errors)
    assert totals.sampled_forwards > 3
    watch.detach()
    assert all(torch.equal(left, right) for left, right in zip(expected, outputs(), strict=True))


class Planter:
    """Makes a tenth of the passes of an encoder non-finite, in ways and at places drawn at random."""

    def __init__(self, model: Any, seed: int) -> None:
        self.model = model
        self.random = random.Random(seed)
        self.embed = model.embeddings.word_embeddings
        self.shapes: list[tuple[int, int]] = [(1, 2), (1, 4), (2, 3)]

    def forward(self) -> int | None:
        """Run one pass; return the site at which a non-finite value should first be seen, or None."""
        batch, tokens = self.random.choice(self.shapes)
        ids = torch.tensor([[self.random.randrange(1000, 20000) for _ in range(tokens)] for _ in range(batch)])
        if self.random.random() >= 0.1:
            self.model(input_ids=ids)
            return None
        way = self.random.choice((self._input, self._weight, self._bias, self._behind))
        return way(ids, self.random.randrange(6), self.random.choice(KINDS))

    def _input(self, ids: torch.Tensor, _site: int, value: float) -> int:
        """Plant it in the embeddings: the first GELU sees it."""
        embeds = self.embed(ids).clone()
        embeds.view(-1)[self.random.randrange(embeds.numel())] = value
        self.model(inputs_embeds=embeds)
        return 0

    def _weight(self, ids: torch.Tensor, site: int, value: float) -> int:
        """Plant it in the weights before a GELU: that GELU sees it."""
        self._with(self.model.encoder.layer[site].intermediate.dense.weight, ids, value)
        return site

    def _bias(self, ids: torch.Tensor, site: int, value: float) -> int:
        """Plant it in the bias before a GELU."""
        self._with(self.model.encoder.layer[site].intermediate.dense.bias, ids, value)
        return site

    def _behind(self, ids: torch.Tensor, site: int, value: float) -> int | None:
        """Plant it behind a GELU: the next one sees it, and behind the last none does."""
        self._with(self.model.encoder.layer[site].output.dense.weight, ids, value)
        return site + 1 if site < 5 else None

    def _with(self, parameter: torch.Tensor, ids: torch.Tensor, value: float) -> None:
        place = self.random.randrange(parameter.numel())
        whole = parameter.view(-1)
        before = whole[place].clone()
        whole[place] = value
        self.model(input_ids=ids)
        whole[place] = before


@pytest.mark.parametrize("large", [1, look.LARGE], ids=["through consumers", "as it is"])
def test_a_thousand_passes_a_tenth_of_them_bad_all_found_none_false(
    large: int, minilm: nn.Module, attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 1,000 passes every one with a NaN or an Inf at any GELU is counted, at the right first layer, and no other is."""
    monkeypatch.setattr(look, "LARGE", large)
    columns: list[bool] = []
    column = guard.suspicious_column
    monkeypatch.setattr(guard, "suspicious_column", lambda output: columns.append(column(output)) or columns[-1])
    watch = attach(minilm, rows_per_forward=1)
    firsts: Counter[str] = Counter()
    planter = Planter(minilm, seed=2026)
    with torch.inference_mode():
        minilm(input_ids=torch.tensor([[101, 102]]))
        watch.flush()
        for _ in range(FORWARDS):
            site = planter.forward()
            if site is not None:
                firsts[LAYERS[site]] += 1
            totals = watch.flush().totals
            assert firsts.total() == totals.nonfinite_forwards
    assert 60 < firsts.total() < 140
    assert firsts == Counter({layer: seen.first for layer, seen in totals.nonfinite.items()})
    assert (FORWARDS + 1, {}) == (totals.forwards, totals.errors)
    assert 6 == len(firsts), "every layer was first at least once"
    if large == 1:
        assert len(columns) == 6 * FORWARDS
        assert all(
            any(isinstance(hook, consumers.ConsumerHook) for hook in layer.output.dense._forward_hooks.values())
            for layer in minilm.encoder.layer
        )
    else:
        assert not columns


@pytest.mark.parametrize("value", KINDS, ids=["nan", "posinf", "neginf"])
@pytest.mark.parametrize("site", [0, 3, 5])
def test_elements_are_counted_exactly(value: float, site: int, minilm: nn.Module, attach: Callable[..., Any]) -> None:
    """One planted bias makes exactly one element a token non-finite before its GELU, and poisons every later layer."""
    watch = attach(minilm)
    bias = minilm.encoder.layer[site].intermediate.dense.bias
    with torch.inference_mode():
        before = bias[17].clone()
        bias[17] = value
        minilm(input_ids=torch.tensor([[101, 7592, 2088, 102]] * 2))
        bias[17] = before
    report = watch.flush()
    kind = "nan" if math.isnan(value) else "posinf" if value > 0 else "neginf"
    seen = report.totals.nonfinite
    assert (LAYERS[site], "page") == (report.first_nonfinite, report.verdict)
    assert LAYERS[site:] == list(seen)
    assert {("pre", kind): 8} == seen[LAYERS[site]].elements
    assert [{("pre", "nan"): 8 * 1536}] * (5 - site) == [seen[layer].elements for layer in LAYERS[site + 1 :]]


def test_padding_of_the_real_encoder_gives_no_rows(minilm: nn.Module, attach: Callable[..., Any]) -> None:
    """Rows are captured from the tokens that the attention mask calls real, also when the mask is given by position."""
    watch = attach(minilm, cost_budget=1.0, rows_per_forward=1000)
    ids = torch.randint(1000, 20000, (2, 8))
    mask = torch.tensor([[1] * 8, [1] * 3 + [0] * 5])
    with torch.inference_mode():
        minilm(ids, mask)
        first = watch.close_window()
        while watch.flush().totals.sampled_forwards < 2:
            minilm(input_ids=ids, attention_mask=mask)
        second = watch.close_window()
    assert {11} == {point.rows for report in (first, second) for point in report.sites.values()}


@pytest.mark.filterwarnings("ignore:.torch.jit.script")
def test_compiled_it_is_one_graph_the_same_bits_and_watched_as_it_was(minilm: nn.Module, attach: Callable[..., Any]) -> None:
    """Through Inductor, whole: no graph break, the bits of the bare compiled model, rows without padding, the right kernel, every NaN.

    A baseline that was recorded eagerly arms on the compiled model.
    """
    watched, bare = copy.deepcopy(minilm), copy.deepcopy(minilm)
    ids = torch.randint(1000, 20000, (4, 16), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[:, 12:] = 0
    baselines = MemoryBaselines()
    torch._dynamo.reset()
    with torch.inference_mode():
        with attach(watched, cost_budget=None, store=baselines, minimum_rows=1) as eager:
            for shift in range(12):
                watched(input_ids=ids + shift, attention_mask=mask)
                eager.close_window()
            eager.record_baseline("eager")
        expected = torch.compile(bare, fullgraph=True)(input_ids=ids, attention_mask=mask).last_hidden_state
        torch._dynamo.reset()
        counters.clear()
        watch = attach(watched, cost_budget=None, store=baselines, minimum_rows=1)
        fast = torch.compile(watched, fullgraph=True)
        assert torch.equal(expected, fast(input_ids=ids, attention_mask=mask).last_hidden_state)
        assert (1, {}) == (counters["stats"]["unique_graphs"], dict(counters["graph_break"]))
        assert watch.arm("eager").armed
        for _ in range(3):
            fast(input_ids=ids, attention_mask=mask)
        report = watch.close_window()
        assert LAYERS == [site.layer for site in watch.sites if site.state == "observed"]
        assert {4 * 48} == {point.rows for point in report.sites.values()}
        assert {("erf", "float32", "")} == {
            (p.parity.variant, p.parity.precision, p.parity.fault) for p in report.sites.values() if p.parity
        }
        assert all(point.score >= 0.0 for point in report.sites.values())
        watched.encoder.layer[3].intermediate.dense.bias[7] = math.inf
        fast(input_ids=ids, attention_mask=mask)
    report = watch.close_window()
    assert (LAYERS[3], 1, {}) == (report.first_nonfinite, report.totals.nonfinite_forwards, report.totals.errors)
    torch._dynamo.reset()
