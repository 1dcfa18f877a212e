"""The census of real architectures, against a trace of what torch dispatched: no GELU is missed."""

from __future__ import annotations

import importlib.util
import math
import sys
import types
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from geluwatch.export.census import table

_EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "census.py"


def example() -> types.ModuleType:
    """Return the example as a module."""
    spec = importlib.util.spec_from_file_location("census_example", _EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CENSUS = example()


class Trace(TorchDispatchMode):
    """Counts GELUs where torch dispatches them: the operation, the fused layer, and the one tanh of a spelled-out formula."""

    OPERATIONS = ("gelu", "gelu_", "_transformer_encoder_layer_fwd", "tanh")

    def __init__(self) -> None:
        super().__init__()
        self.counted = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count the operation and run it."""
        self.counted += func.overloadpacket.__name__ in self.OPERATIONS
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", CENSUS.MODELS)
def test_every_gelu_that_torch_dispatches_is_a_site_that_was_observed(name: str, attach: Callable[..., Any]) -> None:
    """As many GELUs as an independent trace of a bare model counts are in the census, each observed and each with its rows."""
    build, training = CENSUS.MODELS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, inputs = build()
    model.train(training)
    with torch.set_grad_enabled(training):
        with Trace() as trace:
            model(**inputs)
        watch = attach(model, cost_budget=None)
        model(**inputs)
    report = watch.flush()
    print(f"\n{name}\n{watch.census()}")
    assert trace.counted == len(watch.sites) > 0
    assert {("observed", "")} == {(site.state, site.reason) for site in watch.sites}
    assert all(point.totals.elements > 0 for point in report.sites.values())
    assert {} == report.totals.errors


def test_the_table_has_a_line_for_each_site_and_the_reason_of_blind_ones(attach: Callable[..., Any]) -> None:
    """The census reads as a table: one line a site, why a site is blind, and the count of both kinds."""
    model = nn.Sequential(nn.GELU(), nn.TransformerEncoderLayer(8, 2, 16, activation="gelu"))
    model[1].extra = nn.GELU()
    lines = attach(model).census().splitlines()
    assert ["#", "0", "1", "2", "3"] == [line.split()[0] for line in lines]
    assert "1.activation" in lines[2]
    assert "blind: inside nn.TransformerEncoderLayer" in lines[3]
    assert "3 call sites, 2 observed, 1 blind" == lines[4]
    assert "0 call sites, 0 observed, 0 blind" == table([]).splitlines()[-1]


def of_package(package: str, name: str, forward: Callable[..., Any], **attributes: Any) -> nn.Module:
    """Return a module whose class bears another library's name; those libraries are too large to be installed here."""
    cls = type(name, (nn.Module,), {"forward": forward, "__module__": f"{package}.model_executor.layers.activation"})
    instance = cls()
    for key, value in attributes.items():
        setattr(instance, key, value)
    return instance


def gelu_and_mul(self: Any, x: torch.Tensor) -> torch.Tensor:
    """Multiply the GELU of the first half by the second, as serving engines do."""
    half = x.shape[-1] // 2
    return nn.functional.gelu(x[..., :half], approximate=self.approximate) * x[..., half:]


@pytest.mark.parametrize("package", ["vllm", "sglang"])
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_a_gated_module_is_watched_at_the_half_that_goes_through_the_gelu(
    package: str, approximate: str, attach: Callable[..., Any]
) -> None:
    """Rows are those of the gate and of its GELU, never of the product; a fault in the other half is not the GELU's."""
    model = nn.Sequential(of_package(package, "GeluAndMul", gelu_and_mul, approximate=approximate))
    watch = attach(model, cost_budget=None)
    x = torch.randn(3, 8)
    model(x)
    (rows,) = watch._source.drain().rows
    assert ("gated", "tanh" if approximate == "tanh" else "erf") == (watch.sites[0].form, watch.sites[0].variant)
    assert (x[:, :4].numpy() == rows.pre).all()
    assert torch.allclose(nn.functional.gelu(x[:, :4], approximate=approximate), torch.from_numpy(rows.post), atol=1e-6)
    assert rows.derived
    x[1, 6] = math.nan
    model(x)
    assert 0 == watch.flush().totals.nonfinite_forwards
    x[1, 2] = -math.inf
    model(x)
    assert (1, {}) == (watch.flush().totals.nonfinite_forwards, watch.report.totals.errors)
    assert {("pre", "neginf"): 1} == watch.report.totals.nonfinite["0"].elements


def test_classes_of_other_libraries_are_known_by_name(attach: Callable[..., Any]) -> None:
    """Classes of serving engines and of timm are watched, or blind with the reason, as a namesake of nobody's is."""
    quick = of_package("vllm", "QuickGELU", lambda _self, x: x * torch.sigmoid(1.702 * x))
    sparse = of_package("vllm", "GeluAndMulSparse", gelu_and_mul, approximate="tanh")
    timm = of_package("timm", "GELUTanh", lambda _self, x: nn.functional.gelu(x, approximate="tanh"))
    nobody = of_package("elsewhere", "QuickGELU", lambda _self, x: x)
    watch = attach(nn.Sequential(quick, sparse, timm, nobody))
    assert [("0", "quick", "observed"), ("1", "tanh", "blind"), ("2", "tanh", "observed"), ("3", "other", "blind")] == [
        (site.layer, site.variant, site.state) for site in watch.sites
    ]
    assert "thinned inside the module" in watch.sites[1].reason


def test_a_formula_spelled_out_in_a_known_class_is_watched_around_it(attach: Callable[..., Any]) -> None:
    """ESM's own GELU, a function of its file, is seen between the dense layer before it and the module that returns it."""
    from transformers import EsmConfig, EsmModel

    sizes = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    model = EsmModel(EsmConfig(**sizes, pad_token_id=1, mask_token_id=2, max_position_embeddings=40), add_pooling_layer=False).eval()
    watch = attach(model, cost_budget=None)
    dense: list[torch.Tensor] = []
    model.encoder.layer[0].intermediate.dense.register_forward_hook(lambda _module, _args, output: dense.append(output))
    model(input_ids=torch.arange(3, 10).reshape(1, 7))
    rows = watch._source.drain().rows
    assert [("formula", "observed")] * 2 == [(site.form, site.state) for site in watch.sites]
    assert (dense[0].detach().reshape(-1, 32).numpy() == rows[0].pre).all()
    assert torch.allclose(nn.functional.gelu(torch.from_numpy(rows[0].pre)), torch.from_numpy(rows[0].post), atol=1e-6)


def test_a_formula_spelled_out_anywhere_else_is_named_as_blind(attach: Callable[..., Any]) -> None:
    """A GELU written out in a function can be seen by nobody: the census names the function and says what to do."""
    namespace: dict[str, Any] = {"torch": torch, "nn": nn}
    namespace["__name__"] = "somewhere"
    exec(  # noqa: S102  # a module whose code is in a namespace of its own
        "def new_gelu(x):\n    return 0.5 * x * (1.0 + torch.tanh(0.7978845608 * (x + 0.044715 * x**3)))\n"
        "class Mlp(nn.Module):\n    def forward(self, x):\n        return new_gelu(x)\n",
        namespace,
    )
    model = nn.Sequential(namespace["Mlp"](), nn.GELU())
    watch = attach(model)
    model(torch.randn(2, 8))
    assert [("0", "formula", "blind"), ("1", "module", "observed")] == [(site.layer, site.form, site.state) for site in watch.sites]
    assert "somewhere.new_gelu, which is no module" in watch.sites[0].reason


@pytest.mark.filterwarnings("ignore:.torch.jit.script")
def test_names_are_the_same_under_wrappers(attach: Callable[..., Any]) -> None:
    """Wrapped for compilation or in DataParallel, sites bear the names that they have bare."""
    build, _ = CENSUS.MODELS["Whisper"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, _ = build()
    expected = [site.layer for site in attach(model).sites]
    assert 1 == max(Counter(expected).values())
    for wrapped in (torch.compile(CENSUS.whisper()[0]), nn.DataParallel(CENSUS.whisper()[0])):
        assert expected == [site.layer for site in attach(wrapped).sites]


def test_the_example_prints_every_census(capsys: pytest.CaptureFixture[str]) -> None:
    """The example names every architecture, and reports no blind site."""
    CENSUS.main()
    printed = capsys.readouterr().out
    assert all(name in printed for name in CENSUS.MODELS)
    assert len(CENSUS.MODELS) == printed.count(" 0 blind")
    assert "geluwatch" in sys.modules
