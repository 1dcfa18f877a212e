"""What the rules of a store (`base`, `governance`) need of whatever keeps the data, within one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from geluwatch.records import Activation, Baseline
from geluwatch.store.audit import Entry
from geluwatch.store.promotion import Policy
from geluwatch.store.rules import BaselineInfo, Key


class Transaction(Protocol):
    """One transaction: what is written is kept as a whole or not at all."""

    def find(self, key: Key) -> Baseline | None:
        """Return a baseline, or None where there is none."""
        ...

    def keys(self, model: str | None = None, model_version: str | None = None) -> list[Key]:
        """Return the keys of all baselines, or of one model and version, oldest first."""
        ...

    def infos(self) -> list[BaselineInfo]:
        """Return what a list shows of each baseline, oldest first, without what the log tells."""
        ...

    def newest_activations(self, model: str) -> tuple[Activation, ...] | None:
        """Return the activations of the newest baseline of any version of a model, or None where there is none."""
        ...

    def add(self, baseline: Baseline) -> None:
        """Keep a baseline whose key is free."""
        ...

    def put_signature(self, baseline: Baseline) -> None:
        """Give a kept baseline the signature that this one has."""
        ...

    def entries(self, model: str | None = None, model_version: str | None = None, actions: Sequence[str] = ()) -> list[Entry]:
        """Return the entries of the log, oldest first; of one model, one version and some actions where these are given."""
        ...

    def append(self, entry: Entry) -> None:
        """Add an entry behind the last one of the log, whoever else adds one at the same time."""
        ...

    def policy(self, model: str) -> Policy:
        """Return a model's policy; the default one where none was set."""
        ...

    def put_policy(self, model: str, policy: Policy) -> None:
        """Set a model's policy."""
        ...
