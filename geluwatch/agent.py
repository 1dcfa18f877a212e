"""The one call that starts everything: checks what the user gave, and puts a source, a store and a watch together."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from geluwatch.config import Config
from geluwatch.errors import ConfigError
from geluwatch.historian import Historian
from geluwatch.ports import BaselineStore, Clock
from geluwatch.watch import Watch

if TYPE_CHECKING:
    from torch import nn

_RESERVED_LABELS = frozenset({
    "model", "model_version", "layer", "point", "kind", "rank", "le", "sign", "part", "verdict", "baseline",
    "version", "framework", "tier", "scope", "fault", "device", "declared", "measured", "profile",
    "weights", "dtype", "device_kind", "torch", "signer", "promoted",
    "job", "instance", "pod", "namespace", "cluster",
})  # fmt: skip


_SHOWN = 40
"""Characters of a name that are shown where it is too long."""


class SystemClock:
    """The machine's clock."""

    # The functions themselves: hooks ask them in every pass.
    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)


def attach(
    model: nn.Module,
    *,
    name: str,
    version: str = "1",
    store: str | BaselineStore | None = None,
    labels: Mapping[str, str] | None = None,
    config: Config | None = None,
) -> Watch:
    """Attach to a model: find its GELUs and watch every forward pass from now on; outputs do not change.

    With GELUWATCH_OFF=1 in the environment, nothing is put on the model, no thread started and no database opened; the census says so.

    Args:
        model: The model whose calls are forward passes, in training or serving.
        name: What metrics, baselines and alerts call it: 1 to 255 printable characters.
        version: Version of its weights, likewise; baselines belong to one version.
        store: Where baselines live: any SQLAlchemy URL, a `BaselineStore`, or None for memory. At a URL, closed windows are kept as
            well (see `Config.history`).
        labels: Constant labels on every metric, for example ``{"region": "eu"}``. In a distributed run `rank` is added.
        config: Settings; the default is meant to be left alone.

    Raises:
        AttachError: The object is no module, is watched already, or holds no GELU.
        ConfigError: A name, version or label is unusable.
        IncidentError: The folder of `Config.incidents` cannot be written to.
        SignatureError: The environment names a key that cannot be read.
        StoreError: The database cannot be used.
    """
    from geluwatch.tap import ranks
    from geluwatch.tap.source import TorchSource

    settings = config or Config()
    if switched_off():
        settings = replace(settings, enabled=False)
    checked = _checked_labels(labels or {})
    _check_key("name", name)
    _check_key("version", version)
    if (rank := ranks.rank()) is not None:
        checked["rank"] = str(rank)
    clock = SystemClock()
    source = TorchSource(model, settings, clock)
    try:
        baselines = _open_store(store if settings.enabled else None)
        historian = _historian(store, settings, clock)
        window_sinks = (historian,) if historian else ()
        watch = Watch(source, baselines, clock, settings, name=name, version=version, labels=checked, window_sinks=window_sinks)
        if settings.enabled:
            watch.start(model)
            if historian:
                historian.start(model)
    except BaseException:
        source.close()
        raise
    return watch


def switched_off() -> bool:
    """Return whether the environment switches the agent off: GELUWATCH_OFF is set, and not to 0, false or no."""
    return os.environ.get("GELUWATCH_OFF", "").strip().lower() not in {"", "0", "false", "no"}


def _open_store(store: str | BaselineStore | None) -> BaselineStore:
    if isinstance(store, str):
        from geluwatch.store import SqlBaselines

        return SqlBaselines(store)
    if isinstance(store, BaselineStore):
        return store
    if store is not None:
        raise ConfigError(f"store must be a SQLAlchemy URL, a BaselineStore or None, got {store!r}.")
    from geluwatch.store.memory import MemoryBaselines

    return MemoryBaselines()


def _historian(store: str | BaselineStore | None, settings: Config, clock: Clock) -> Historian | None:
    """Return what keeps closed windows; None where there is no database that outlives the process, or none is wanted."""
    if not settings.enabled or settings.history is None or not isinstance(store, str):
        return None
    from geluwatch.store import SqlHistory, is_lasting

    return Historian(SqlHistory(store), settings.history, clock) if is_lasting(store) else None


def _check_key(what: str, text: str) -> None:
    """Refuse what no store could keep windows under, before any window is lost to it.

    Raises:
        ConfigError: It is no string, blank, too long or not printable.
    """
    from geluwatch.store import rules

    if not isinstance(text, str) or not text.strip():
        raise ConfigError(f"The model's {what} must be a non-empty string, got {text!r}.")
    if not rules.is_key(text):
        told = f"{text!r}; leave out what cannot be printed"
        if len(text) > rules.KEY_LENGTH:
            told = f"{text[:_SHOWN]!r}... ({len(text)} characters); give a shorter one"
        raise ConfigError(f"The model's {what} must be 1 to {rules.KEY_LENGTH} printable characters, got {told}.")


def _checked_labels(labels: Mapping[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        if not isinstance(key, str) or not key.isidentifier() or not key.isascii() or key.startswith("__"):
            raise ConfigError(f"Label name {key!r} is not usable in Prometheus; use letters, digits and underscores.")
        if key in _RESERVED_LABELS:
            raise ConfigError(f"Label name {key!r} is geluwatch's or Prometheus's own; choose another.")
        if not isinstance(value, str):
            raise ConfigError(f"Label {key!r} must have a string value, got {value!r}.")
    return dict(labels)
