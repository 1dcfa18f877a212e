"""geluwatch watches every GELU inside a running PyTorch model and says when the numbers go wrong.

    watch = geluwatch.attach(model, name="minilm", version="1")

Heavy libraries are imported when first needed: importing this package loads none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from geluwatch.config import Config
from geluwatch.errors import GeluwatchError

if TYPE_CHECKING:
    from geluwatch.agent import attach
    from geluwatch.records import Baseline, Certificate, Report, Site
    from geluwatch.watch import Watch

__all__ = ["Baseline", "Certificate", "Config", "GeluwatchError", "Report", "Site", "Watch", "__version__", "attach"]

_LATE = {
    "attach": "geluwatch.agent",
    "Watch": "geluwatch.watch",
    "Baseline": "geluwatch.records",
    "Certificate": "geluwatch.records",
    "Report": "geluwatch.records",
    "Site": "geluwatch.records",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("geluwatch")
    if name in _LATE:
        from importlib import import_module

        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module 'geluwatch' has no attribute {name!r}")
