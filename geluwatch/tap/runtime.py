"""Under what a model runs: what has to be the same for a pass to be run again."""

from __future__ import annotations

import os
from collections import Counter

import torch
from torch import nn


def read(model: nn.Module | None) -> dict[str, object]:
    """Return versions, seed, flags, threads, and dtypes and devices of the parameters of a model, as JSON values.

    The seed is that of torch's default generator on the CPU; how far it has been drawn from is not known.
    """
    found: dict[str, object] = {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "seed": torch.initial_seed(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "deterministic_warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "matmul_precision": torch.get_float32_matmul_precision(),
        "default_dtype": _name(torch.get_default_dtype()),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
    }
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's own
        found["devices"] = [torch.cuda.get_device_name(device) for device in range(torch.cuda.device_count())]
    if model is not None:
        parameters = list(model.parameters())
        found["model_class"] = f"{type(model).__module__}.{type(model).__qualname__}"
        found["training"] = model.training
        found["parameters"] = sum(parameter.numel() for parameter in parameters)
        found["dtypes"] = dict(Counter(_name(parameter.dtype) for parameter in parameters))
        found["parameter_devices"] = sorted({str(parameter.device) for parameter in parameters})
    return found


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
