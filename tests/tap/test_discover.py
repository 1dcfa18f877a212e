"""The census: which modules are GELUs, what they are called, who calls them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.nn import functional

from geluwatch.errors import NoGeluError
from geluwatch.tap.discover import discover, fused_parts, variant_of
from geluwatch.tap.names import WRAPPERS, stable

ACTIVATIONS = {
    "gelu": "erf",
    "gelu_10": "erf",
    "gelu_python": "erf",
    "gelu_fast": "tanh",
    "gelu_new": "tanh",
    "gelu_accurate": "tanh",
    "gelu_pytorch_tanh": "tanh",
    "gelu_python_tanh": "tanh",
    "quick_gelu": "quick",
}

FORMULAS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "erf": functional.gelu,
    "tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "quick": lambda x: x * torch.sigmoid(1.702 * x),
}


class OwnGelu(nn.Module):
    """A user's own GELU, written around another."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the inner one."""
        return self.inner(x)


def layers(model: nn.Module, *extra: type) -> list[str]:
    """Return the ids of a model's sites."""
    return [item.site.layer for item in discover(model, extra)]


def activation(name: str) -> nn.Module:
    """Return an activation of transformers by its name."""
    from transformers.activations import ACT2FN

    module: nn.Module = ACT2FN[name]
    return module


@pytest.mark.parametrize(("name", "variant"), ACTIVATIONS.items())
def test_every_gelu_of_transformers_is_known_by_the_formula_it_computes(name: str, variant: str) -> None:
    """Each GELU of transformers' table is found, and its declared variant is what it computes, to a few rounding steps."""
    module = activation(name)
    (found,) = discover(nn.Sequential(nn.Linear(2, 2), module))
    x = torch.linspace(-6, 6, 1001, dtype=torch.float64)
    assert (variant, "observed", type(module).__name__) == (found.site.variant, found.site.state, found.site.kind)
    torch.testing.assert_close(module(x), FORMULAS[variant](x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_torchs_own_gelu_is_known_in_both_forms(approximate: str) -> None:
    """nn.GELU is "erf" or "tanh" as it was built, and so is a subclass."""
    subclass = type("Sub", (nn.GELU,), {})
    expected = "erf" if approximate == "none" else "tanh"
    assert [expected, expected] == [variant_of(cls(approximate=approximate)) for cls in (nn.GELU, subclass)]


@pytest.mark.parametrize("module", [nn.ReLU(), nn.SiLU(), nn.Identity(), nn.Linear(2, 2), type("GELUActivation", (nn.Module,), {})()])
def test_other_modules_are_no_gelus(module: nn.Module) -> None:
    """Other activations are not taken for GELUs, nor is a class that merely has the name of one of transformers'."""
    assert variant_of(module) is None


@pytest.mark.parametrize("name", ["relu", "silu", "mish", "laplace", "tanh"])
def test_other_activations_of_transformers_are_no_gelus(name: str) -> None:
    """Activations of transformers that are no GELUs are not in the census."""
    assert () == discover(nn.Sequential(activation(name)))


def test_clipping_hides_infinities_so_the_input_is_checked_too() -> None:
    """A clipped GELU, a subclass of one and a user's class have their input checked; a plain one need not."""
    clipped = activation("gelu_10")
    subclass = type("Mine", (type(clipped),), {})(-1.0, 1.0)
    model = nn.ModuleList([clipped, subclass, OwnGelu(), nn.GELU()])
    assert [True, True, True, False] == [item.clips for item in discover(model, (OwnGelu,))]


def test_a_users_class_is_a_gelu_when_named() -> None:
    """A class of the user's own is watched when the settings name it, as one site of variant "other"."""
    model = nn.Sequential(nn.Linear(2, 2), OwnGelu())
    (found,) = discover(model, (OwnGelu,))
    assert ("1", "OwnGelu", "other") == (found.site.layer, found.site.kind, found.site.variant)
    assert ["1.inner"] == layers(model), "unnamed, only what is inside it is known"


def test_a_gelu_in_a_gelu_is_one_site() -> None:
    """A GELU class that holds another is one call site, not two."""
    outer = nn.GELU()
    outer.inner = nn.GELU()
    assert ["0"] == layers(nn.Sequential(outer))


def test_a_model_that_is_a_gelu_is_one_site() -> None:
    """A bare GELU can be watched; its site is called "model"."""
    assert ["model"] == layers(nn.GELU())


def test_positions_follow_the_models_order() -> None:
    """Positions count up in the order in which the model's modules are listed."""
    model = nn.Sequential(nn.Sequential(nn.GELU(), nn.Linear(2, 2)), nn.GELU(), nn.ModuleDict({"a": nn.GELU()}))
    expected = [name for name, module in model.named_modules() if isinstance(module, nn.GELU)]
    found = discover(model)
    assert expected == [item.site.layer for item in found]
    assert [0, 1, 2] == [item.site.position for item in found]


def test_a_shared_gelu_has_a_site_for_each_caller(block: type[nn.Module]) -> None:
    """One GELU held by three blocks is three sites, each named after its caller and told apart by it."""
    act = nn.GELU()
    model = nn.Sequential(block(act), block(act), block(act))
    found = discover(model)
    assert ["0.act", "1.act", "2.act"] == [item.site.layer for item in found]
    assert list(model) == [item.caller for item in found]


def test_the_owner_of_a_list_is_the_caller() -> None:
    """A module list is never called itself, so the module that holds it counts as the caller."""

    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.acts = nn.ModuleList([nn.GELU(), nn.GELU()])

    model = nn.Sequential(Holder())
    assert [model[0], model[0]] == [item.caller for item in discover(model)]


def test_names_that_fall_together_are_numbered() -> None:
    """Where dropping the wrappers' parts makes two names equal, they are numbered from 0, and no two sites share an id."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.GELU()
            self.module = nn.ModuleDict({"act": nn.GELU()})
            self.other = nn.GELU()

    assert ["act#0", "act#1", "other"] == layers(Twice())


def wrappers() -> Iterator[Any]:
    """Yield what is put around models in practice, real where it runs on one CPU."""
    yield pytest.param(nn.DataParallel, id="DataParallel")
    yield pytest.param(lambda model: torch.compile(model, backend="eager"), id="torch.compile")
    yield pytest.param(checkpoint_wrapper, id="activation checkpointing")
    yield pytest.param(lambda model: nn.ModuleDict({"_fsdp_wrapped_module": model}), id="FSDP's attribute")
    yield pytest.param(lambda model: nn.DataParallel(torch.compile(checkpoint_wrapper(model), backend="eager")), id="three at once")


@pytest.mark.parametrize("wrap", list(wrappers()))
def test_ids_are_stable_under_wrappers(wrap: Callable[[nn.Module], nn.Module], block: type[nn.Module]) -> None:
    """A site has the same id whether its model is wrapped or not, also where an inner part is."""
    expected = layers(nn.Sequential(block(), block()))
    assert expected == layers(wrap(nn.Sequential(block(), block())))
    assert expected == layers(nn.Sequential(wrap(block()), block()))


_PARTS = st.lists(st.sampled_from(["encoder", "layer", "0", "11", "act", *WRAPPERS]), max_size=8)


@given(_PARTS)
def test_stable_names_hold_no_wrapper_and_naming_twice_changes_nothing(parts: list[str]) -> None:
    """Whatever wrappers a name passes through, they are gone, the rest is kept in order, and the result is stable."""
    name = stable(".".join(parts))
    assert [part for part in parts if part not in WRAPPERS] == ([] if name == "model" else name.split("."))
    assert name == stable(name)


def encoder_layer() -> nn.TransformerEncoderLayer:
    """Return torch's own encoder layer with a GELU module in it."""
    return nn.TransformerEncoderLayer(8, 2, 16, activation=nn.GELU(), batch_first=True).eval()


def test_torchs_encoder_layer_is_one_site_without_a_hook() -> None:
    """The GELU of nn.TransformerEncoderLayer is one site; where the layer is the root, whose hooks would cost the fused path, blind."""
    layer = encoder_layer()
    (found,) = discover(nn.Sequential(layer))
    assert ("0.activation", "fused", "observed") == (found.site.layer, found.site.form, found.site.state)
    assert set(layer.modules()) == fused_parts(layer)
    (alone,) = discover(layer)
    assert ("activation", "blind") == (alone.site.layer, alone.site.state)
    assert "fused path" in alone.site.reason


@pytest.mark.parametrize("whole", [True, False], ids=["the model itself", "a part"])
def test_the_fused_path_stays_on(
    whole: bool, attach: Callable[..., Any], hook_census: Callable[[nn.Module], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Watched or not, torch's encoder layer takes its fused kernel, gives the same bits, and carries no hook of ours."""
    calls: list[int] = []
    fused = torch._transformer_encoder_layer_fwd

    def counted(*args: Any) -> torch.Tensor:
        calls.append(1)
        return fused(*args)

    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", counted)
    layer = encoder_layer()
    model = layer if whole else nn.Sequential(layer, nn.GELU())
    bare = hook_census(layer)
    x = torch.randn(2, 3, 8)
    with torch.inference_mode():
        expected = model(x)
        watch = attach(model)
        assert torch.equal(expected, model(x))
    assert [1, 1] == calls
    assert bare == hook_census(layer)
    watch.flush()
    assert ("blind" if whole else "observed") == watch.sites[0].state


def test_minilm_has_six_sites_and_all_are_observed(minilm: nn.Module, attach: Callable[..., Any]) -> None:
    """The real encoder's six GELUs are found by name and, once it has run, all observed."""
    watch = attach(minilm)
    minilm(input_ids=torch.tensor([[101, 7592, 102]]))
    watch.flush()
    assert [f"encoder.layer.{k}.intermediate.intermediate_act_fn" for k in range(6)] == [site.layer for site in watch.sites]
    assert {("observed", "", "erf")} == {(site.state, site.reason, site.variant) for site in watch.sites}


class SpelledGelu(nn.Module):
    """A GELU spelled out in a class that nobody knows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply it."""
        return 0.5 * x * (1.0 + torch.erf(x / math.sqrt(2.0)))


def test_a_class_that_is_called_a_gelu_is_listed_and_not_passed_over(attach: Callable[..., Any]) -> None:
    """Beside known ones it is blind and says what to do; alone it is named in the refusal; named by the user it is watched."""
    model = nn.Sequential(nn.Linear(4, 4), SpelledGelu(), nn.GELU())
    assert ["blind", "observed"] == [item.site.state for item in discover(model)]
    assert "a class that is not known; if it is a GELU, name it: Config(gelu_classes=(SpelledGelu,))" == discover(model)[0].site.reason
    with pytest.raises(NoGeluError, match=r"name it: Config\(gelu_classes=\(SpelledGelu,\)\)"):
        attach(nn.Sequential(SpelledGelu()))
    watch = attach(model, gelu_classes=(SpelledGelu,))
    model(torch.full((2, 4), math.nan))
    assert "1" == watch.flush().first_nonfinite
