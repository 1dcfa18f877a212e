"""Site names that stay the same under wrappers."""

from __future__ import annotations

WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Attribute names that DataParallel, torch.compile, FSDP and activation checkpointing put between a module and its parent."""


def stable(qualified: str) -> str:
    """Return a qualified module name without the parts that wrappers add; the model itself is "model"."""
    return ".".join(part for part in qualified.split(".") if part and part not in WRAPPERS) or "model"
