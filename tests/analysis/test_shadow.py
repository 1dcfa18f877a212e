"""A shadow experiment says what is so: of variants whose effect is known, of labels, times and forms of model."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from geluwatch.analysis.shadow import Shadow, shadow
from geluwatch.analysis.shadow.variants import activations, table_error
from geluwatch.errors import AttachError, ConfigError, NoGeluError


class Block(nn.Module):
    """A residual block that calls the function."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input with what the block makes of it."""
        return x + self.down(functional.gelu(self.up(x)))


def modules() -> nn.Module:
    """Return a model of modules."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16), nn.GELU(), nn.Linear(16, 4))


def functions() -> nn.Module:
    """Return a model that calls the function."""
    torch.manual_seed(0)
    return nn.Sequential(Block(), Block(), nn.Linear(16, 4))


def inputs(count: int = 3) -> list[torch.Tensor]:
    """Return a few batches."""
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(20, 16, generator=generator) for _ in range(count)]


def labels(model: nn.Module) -> list[torch.Tensor]:
    """Return what the model itself answers: it is right on all of them."""
    with torch.no_grad():
        return [model(batch).argmax(dim=-1) for batch in inputs()]


@pytest.fixture(scope="module")
def found() -> Shadow:
    """An experiment on the model of modules, with labels, times and a price."""
    model = modules()
    return shadow(model, inputs(), labels(model), rounds=6, cost_per_hour=3.6, variants={"same": functional.gelu, "silu": nn.SiLU()})


@pytest.mark.parametrize("make", [modules, functions])
def test_the_model_is_left_as_it_was(make: Any) -> None:
    """Neither a bit of its state, nor its mode, nor its hooks have changed, and torch's generator has not moved."""
    model = make().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    seed = torch.get_rng_state()
    kinds = [type(module) for module in model.modules()]
    shadow(model, inputs(), rounds=0)
    assert torch.equal(seed, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert kinds == [type(module) for module in model.modules()]
    assert all(module.training and not module._forward_hooks and not module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("make", [modules, functions])
def test_every_call_is_replaced_in_every_variant(make: Any) -> None:
    """The census hears two calls of GELU a pass, and each variant answers two; all layers are compared in order."""
    found = shadow(make(), inputs(), rounds=0)
    replacing = [each for each in found.variants if each.name != "int8"]
    assert [(2, 2)] * 4 == [(each.calls, each.expected) for each in replacing]
    assert all(each.complete and 2 == len(each.layers) for each in found.variants)
    assert all(0.0 == each.layers[0].before < each.layers[0].after for each in replacing)
    assert (2, ()) == (found.sites, found.kept)


def test_what_is_the_same_differs_in_nothing(found: Shadow) -> None:
    """GELU in the place of GELU: no difference at any layer nor in the output, and nothing to look for in an A/B test."""
    same = found.variant("same")
    assert (0.0, 0.0, 1.0, "") == (same.relative, same.largest, same.agreement, same.enters)
    assert same.cosine == pytest.approx(1.0)
    assert same.accuracy is not None
    assert (1.0, 0.0, None, None) == (same.accuracy.other, same.accuracy.change, same.accuracy.per_arm, same.accuracy.pairs)


def test_what_is_further_off_differs_by_more(found: Shadow) -> None:
    """Tanh is nearer to GELU than the sigmoid form, and that nearer than ReLU; the difference enters at the first GELU."""
    near, middle, far = (found.variant(name) for name in ("tanh", "quick", "relu"))
    assert 0 < near.relative < middle.relative < far.relative < 1
    assert ["1"] * 3 == [each.enters for each in (near, middle, far)]
    assert far.accuracy is not None
    assert far.accuracy.lost > 0 == far.accuracy.won
    assert far.agreement == far.accuracy.other  # the labels are the model's own answers


def test_times_prices_and_samples_belong_together(found: Shadow) -> None:
    """A price an hour is a price for a million inputs by the time of one, and a variant's by its ratio."""
    assert found.seconds is not None
    assert found.cost() == pytest.approx(found.seconds * 1e6 / 1000)
    timing = found.variant("relu").timing
    assert timing is not None
    assert found.cost(timing) == pytest.approx(found.seconds * timing.ratio * 1000)
    assert timing.interval.low <= timing.ratio <= timing.interval.high
    assert timing.resolved == (not timing.interval.low <= 1 <= timing.interval.high)


def test_the_table_fits_a_terminal(found: Shadow) -> None:
    """No line is wider than 100 characters, every variant is in it, and a word says where nothing was resolved."""
    lines = str(found).splitlines()
    assert max(map(len, lines)) <= 100
    assert "Sequential: 2 GELUs, 60 inputs" == lines[0]
    for each in found.variants:
        assert 3 == sum(line.startswith(f"{each.name} ") for line in lines)
        assert any(line.startswith(f"{each.name}: ") for line in lines)
    resolved = sum("not resolved" in line for line in lines if not line.startswith("Times"))
    assert sum(not each.timing.resolved for each in found.variants if each.timing) == resolved


def test_a_deep_model_and_many_variants_fit_as_well() -> None:
    """Of many layers some are shown, the first and the last among them; what names share is said once; columns that do not fit go below."""
    model = nn.Sequential(nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.GELU()) for _ in range(20)]))
    own = {f"a variant of long name {number}": torch.relu for number in range(4)}
    lines = str(shadow(model, [torch.randn(2, 4)], rounds=0, variants={**own, "none": nn.Sequential(nn.Linear(4, 4))})).splitlines()
    assert max(map(len, lines)) <= 100
    starts = [at for at, line in enumerate(lines) if line.startswith("GELU output differs by")]
    assert ["0.*.1:"] * 2 == [lines[at - 1] for at in starts]
    assert [str(layer) for layer in (0, 2, 3, 5, 7, 9, 10, 12, 14, 16, 17, 19)] == [line.split()[0] for line in lines[starts[0] + 1 :][:12]]


def test_json_holds_everything_and_nothing_that_is_not_finite(found: Shadow) -> None:
    """The document is strict JSON; what is computed from the records is in it as well."""
    told = json.loads(json.dumps(found.document(), allow_nan=False))
    assert [each.name for each in found.variants] == [each["name"] for each in told["variants"]]
    relu = told["variants"][2]
    assert ("1", True) == (relu["enters"], relu["complete"])
    assert {"change", "interval", "probability", "samples_per_arm", "sample_pairs"} <= relu["accuracy"].keys()
    assert {"ratio", "interval", "resolved", "cost_per_million"} <= relu["timing"].keys()


@pytest.mark.parametrize("entries", [256, 1024, 4096])
def test_a_table_keeps_to_its_bound(entries: int) -> None:
    """On a dense grid and far outside, the table is off by its bound at most, which is not idle; what is not finite stays so."""
    look_up = activations(entries)["table"][1]
    values = torch.cat([torch.linspace(-20, 20, 400_001), torch.tensor([-1e30, 1e30])])
    apart = (look_up(values) - functional.gelu(values.double())).abs().max().item()
    rounding = 1e-6
    assert table_error(entries) / 2 < apart + rounding < table_error(entries) + 2 * rounding
    odd = look_up(torch.tensor([float("inf"), float("nan")]))
    assert torch.isposinf(odd[0])
    assert torch.isnan(odd[1])
    assert torch.bfloat16 == look_up(values.to(torch.bfloat16)).dtype


def test_a_model_of_another_form_has_the_exact_one_as_a_variant() -> None:
    """Where the model is tanh, tanh differs in nothing, and "exact" is beside it."""
    model = nn.Sequential(nn.Linear(16, 8), nn.GELU(approximate="tanh"))
    found = shadow(model, inputs(), rounds=0)
    assert 0.0 == found.variant("tanh").largest < found.variant("exact").largest


def test_a_model_of_its_own_may_take_part() -> None:
    """A module with children gets the same inputs; without a GELU its layers cannot be compared, and its outputs are."""
    model = modules()
    found = shadow(model, inputs(), rounds=0, variants={"other": nn.Sequential(nn.Linear(16, 4)), "itself": model})
    other, itself = found.variant("other"), found.variant("itself")
    assert ((), 0) == (other.layers, other.calls)
    assert other.relative > 0 == itself.relative


def test_tokens_and_missing_labels_count_as_they_should() -> None:
    """Outputs of (batch, tokens, entries) are rows of tokens of so many inputs; labels below 0 are answers that nobody has."""
    model = modules()
    batches = [torch.randn(4, 5, 16)]
    answers = torch.zeros(4, 5, dtype=torch.long)
    answers[:, 3:] = -100
    found = shadow(model, batches, [answers], rounds=0)
    assert (4, 20, 12) == (found.inputs, found.rows, found.labelled)


def spelled_gelu(x: torch.Tensor) -> torch.Tensor:
    """Return GELU, computed by hand."""
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


class Spelled(nn.Module):
    """Spells the formula out, beside a module."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.act = nn.Linear(16, 16), nn.GELU()

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute both."""
        x = self.act(self.up(x))
        return {"loss": x.sum(), "logits": spelled_gelu(x)}


def test_what_cannot_be_replaced_is_named_in_the_table() -> None:
    """A spelled-out formula stays as it is in every variant, and the table says so; logits are the output."""
    found = shadow(Spelled(), inputs(), rounds=0)
    assert 1 == len(found.kept)
    assert "Not replaced: " in str(found)
    assert (60, True) == (found.rows, found.variant("tanh").complete)


def test_what_int8_cannot_do_is_left_out_with_the_reason() -> None:
    """A model without a linear layer has no int8 copy, and the table says why."""
    found = shadow(nn.Sequential(nn.Conv1d(20, 4, 1), nn.GELU()), inputs(), rounds=0)
    assert (("int8", "the model has no nn.Linear that torch quantises"),) == found.left_out
    assert "Left out: int8, for the model has no nn.Linear" in " ".join(str(found).split())


class Tied(nn.Module):
    """Reads the weight of a layer, which an int8 layer gives only when called."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.act = nn.Linear(16, 16), nn.GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Go through the layer and back."""
        return self.act(self.up(x)) @ self.up.weight


def test_an_int8_copy_that_does_not_run_is_left_out() -> None:
    """The experiment goes on without it, with what its pass raised as the reason; torch's own fused encoder does run in int8."""
    found = shadow(Tied(), inputs(), rounds=0)
    ((name, reason),) = found.left_out
    assert ("int8", True) == (name, reason.startswith("a pass of it fails: TypeError: "))
    encoder = nn.TransformerEncoderLayer(16, 2, 16, activation="gelu", batch_first=True)
    found = shadow(nn.Sequential(encoder), [torch.randn(2, 3, 16)], rounds=0)
    assert ((), "int8") == (found.left_out, found.variants[-1].name)
    assert [(1, 1)] * 4 == [(each.calls, each.expected) for each in found.variants[:-1]]


@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        ({"inputs": []}, ConfigError, "There is no input"),
        ({"rounds": 3}, ConfigError, "rounds must be 0 or a whole number of at least 6, got 3"),
        ({"cost_per_hour": -1.0}, ConfigError, "cost_per_hour must be a number of at least 0, got -1.0"),
        ({"table_entries": 8}, ConfigError, "table_entries must be a whole number from 16 to 65536, got 8"),
        ({"variants": {"tanh": torch.relu}}, ConfigError, "There is a variant named 'tanh' already"),
        ({"variants": {"mine": 3}}, ConfigError, "Variant 'mine' must be a function in place of GELU or a module, got int"),
        ({"labels": [torch.zeros(20)]}, ConfigError, "There are labels for 1 passes and inputs for 3"),
        ({"labels": [torch.zeros(7)] * 3}, ConfigError, "Input 0 has 7 labels and 20 rows of output"),
        ({"outputs": lambda _: "text"}, ConfigError, "in which no tensor was found"),
        ({"model": nn.Sequential(nn.Linear(16, 4))}, NoGeluError, "No GELU was found"),
        ({"variants": {"wide": nn.Sequential(nn.Linear(16, 5))}}, ConfigError, "variant 'wide' 20 x 5"),
    ],
)
def test_what_makes_no_experiment_is_refused(given: dict[str, Any], error: type[Exception], sentence: str) -> None:
    """Each is one sentence that says what was wrong."""
    with pytest.raises(error, match=sentence):
        shadow(**{"model": modules(), "inputs": inputs(), "rounds": 0, **given})


def test_a_model_in_which_nothing_can_be_replaced_is_refused() -> None:
    """With spelled-out formulas only there is no experiment, and the reason is told."""

    class Only(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return spelled_gelu(x)

    with pytest.raises(AttachError, match=r"No GELU of this Only can be replaced: spelled out in"):
        shadow(Only(), inputs(), rounds=0)
