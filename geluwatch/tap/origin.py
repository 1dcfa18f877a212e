"""What a torch model is and runs on: weights, versions and machine."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator

import torch
from torch import nn

from geluwatch.records import Provenance, Weights
from geluwatch.tap import weights


def read(model: nn.Module | None, *, digest: bool = True) -> Provenance:
    """Return the provenance of a model, but for what its values tell; `digest` as in `weights.read`."""
    of_model = Weights(reason="the model is gone") if model is None else weights.read(model, digest=digest)
    return Provenance(weights=of_model, versions=dict(_versions()), machine=dict(_machine(of_model)))


def _versions() -> Iterator[tuple[str, str]]:
    yield "python", platform.python_version()
    yield "torch", str(torch.__version__)
    for name in ("cuda", "hip"):
        if (version := getattr(torch.version, name, None)) is not None:
            yield name, str(version)
    if (transformers := sys.modules.get("transformers")) is not None:
        yield "transformers", str(getattr(transformers, "__version__", "unknown"))


def _machine(of_model: Weights) -> Iterator[tuple[str, str]]:
    yield "platform", platform.platform()
    yield "cpu", torch.backends.cpu.get_cpu_capability()
    if "cuda" in of_model.devices:
        yield "accelerator", torch.cuda.get_device_name()
