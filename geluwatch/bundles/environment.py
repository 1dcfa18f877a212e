"""The environment that a bundle tells of: versions, the platform, and variables from a list, none of which is a secret."""

from __future__ import annotations

import os
import platform
from importlib import metadata

PACKAGES = ("geluwatch", "torch", "numpy", "scipy", "triton", "transformers", "tokenizers", "safetensors", "accelerate", "timm")
"""Packages whose versions are told, where they are installed."""

VARIABLES = (
    "CUDA_VISIBLE_DEVICES", "CUDA_LAUNCH_BLOCKING", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE",
    "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "TORCHDYNAMO_DISABLE", "TORCH_COMPILE_DISABLE",
    "ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS",
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "KMP_AFFINITY", "PYTHONHASHSEED",
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "GELUWATCH_OFF",
)  # fmt: skip
"""Variables that are told, where they are set: what chooses kernels, precision, threads and devices. Nothing else is."""


def read() -> dict[str, object]:
    """Return the environment as JSON values."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
