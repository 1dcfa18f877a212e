"""Two provenances side by side: what matters is told with the numbers, and what is not known is no difference."""

from __future__ import annotations

from dataclasses import replace

import pytest

from geluwatch.config import Config
from geluwatch.core import provenance
from geluwatch.records import (
    Activation,
    Baseline,
    BaselineOrigin,
    Certificate,
    Parity,
    PointReport,
    Provenance,
    Report,
    Signature,
    Site,
    Weights,
)

LAYERS = [f"encoder.layer.{place}.act" for place in range(12)]
ACTS = tuple(Activation(layer, "module", "GELU", "erf", "erf", "float32", "float32") for layer in LAYERS)
KNOWN = Provenance(
    Weights("ab" * 32, "", {"b": "1", "a": "2", "c": "3"}, 100, ("float32",), ("cpu",)),
    ACTS,
    {"torch": "2.13.0", "python": "3.11"},
    {"platform": "Linux", "cpu": "AVX2"},
)
CERTIFICATE = Certificate(100, 0, 0.0, (1,), 9.0, 1, 2.0, 1.0, 7.0, 9.0)


def weights(**changed: object) -> Provenance:
    """Return the known provenance with other weights."""
    return replace(KNOWN, weights=replace(KNOWN.weights, **changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (KNOWN, ()),
        (weights(digest="cd" * 32, tensors={"b": "1", "a": "9", "d": "4"}), ("the weights differ in 3 of 4 tensors, first a",)),
        (weights(digest="cd" * 32), ("the weights differ",)),
        (weights(digest="", tensors={}, reason="not read"), ()),
        (weights(dtypes=("bfloat16",)), ("parameters in float32 became bfloat16",)),
        (weights(dtypes=(), parameters=0), ()),
        (replace(KNOWN, versions={}, machine={}, settings={"horizons": "1"}), ()),
    ],
)
def test_what_matters_in_weights(other: Provenance, said: tuple[str, ...]) -> None:
    """Tensors that differ are counted, the first named by the model's order; versions and settings do not matter."""
    assert said == provenance.differences(KNOWN, other)


def test_what_matters_in_formulas() -> None:
    """Each aspect that changed is told once with its layers, three of them by name, in the model's order."""
    other = [replace(act, declared="tanh", measured="tanh") if place >= 2 else act for place, act in enumerate(ACTS)]
    other[0] = replace(other[0], precision="bfloat16", dtype="bfloat16")
    other[1] = replace(other[1], measured="", precision="")
    assert (
        "declared formula erf became tanh at encoder.layer.2.act, encoder.layer.3.act, encoder.layer.4.act and 7 more",
        "measured formula erf became tanh at encoder.layer.2.act, encoder.layer.3.act, encoder.layer.4.act and 7 more",
        "dtype float32 became bfloat16 at encoder.layer.0.act",
        "precision float32 became bfloat16 at encoder.layer.0.act",
    ) == provenance.changes(ACTS, other)


def test_layers_that_come_and_go() -> None:
    """A census with other layers says which are gone and which are new."""
    other = (*ACTS[:10], replace(ACTS[10], layer="head.act"))
    assert ("encoder.layer.10.act, encoder.layer.11.act are gone", "head.act is new") == provenance.changes(ACTS, other)


def test_surroundings() -> None:
    """Versions, machine and device are told apart from what matters, with what was not there before."""
    other = replace(
        weights(devices=("cuda",)),
        versions={"torch": "2.12.0", "python": "3.11", "cuda": "12.8"},
        machine={"platform": "Linux", "cpu": "AVX2", "accelerator": "H200"},
    )
    told = ("device cpu became cuda", "torch 2.13.0 became 2.12.0", "cuda none became 12.8", "accelerator none became H200")
    assert told == provenance.surroundings(KNOWN, other)
    assert () == provenance.surroundings(KNOWN, KNOWN)


def test_what_the_core_adds() -> None:
    """The census with what was measured of each layer, the settings as text, and our own version."""
    sites = (Site("a", 0, "module", "GELU", "erf"), Site("b", 1, "functional", "MLP", "tanh", "blind", "never ran"))
    parity = Parity("erf", "bfloat16", "erf", "bfloat16", 0.1, 1.0, 2.0, 1e-3, 900)
    points = {("a", "pre"): PointReport("a", "pre", 0, "observed"), ("a", "post"): PointReport("a", "post", 0, "observed", parity=parity)}
    report = Report("m", "1", 0.0, "ok", points)  # type: ignore[arg-type]
    config = Config(window_seconds=None, gelu_classes=(Report,), padding=weights)  # type: ignore[arg-type]
    found = provenance.completed(Provenance(versions={"torch": "2"}), sites, report, config, "0.2")
    assert (
        Activation("a", "module", "GELU", "erf", "erf", "bfloat16", "bfloat16"),
        Activation("b", "functional", "MLP", "tanh"),
    ) == found.activations
    assert {"torch": "2", "geluwatch": "0.2"} == found.versions
    assert ("None", "1, 4, 16", "Report", "weights") == tuple(
        found.settings[name] for name in ("window_seconds", "horizons", "gelu_classes", "padding")
    )


def test_what_readers_are_shown() -> None:
    """The short digest, what most parameters are, the signer; and "unknown" for what a baseline does not tell."""
    baseline = Baseline("m", "1", "v1", 0.0, (), (), CERTIFICATE, provenance=KNOWN, signature=Signature("0a" * 32, ""))
    assert BaselineOrigin("ab" * 8, "float32", "cpu", "2.13.0", "0a" * 8, promoted=True) == provenance.origin(baseline, promoted=True)
    assert BaselineOrigin() == provenance.origin(replace(baseline, provenance=None, signature=None), promoted=False)
    assert BaselineOrigin() == provenance.origin(replace(baseline, provenance=Provenance(), signature=None), promoted=False)
