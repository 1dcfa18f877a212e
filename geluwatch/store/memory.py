"""The baseline store for a watch without a database: baselines live as long as the process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock

from geluwatch.core import provenance
from geluwatch.records import Activation, Baseline
from geluwatch.store.audit import START, Entry, chained
from geluwatch.store.governance import GovernedStore
from geluwatch.store.promotion import Policy
from geluwatch.store.rules import BaselineInfo, Key, info_of, key_of
from geluwatch.store.signing import Keys


class MemoryBaselines(GovernedStore):
    """A `geluwatch.ports.BaselineStore` in memory; any thread may use it. Arguments are those of `StoreBase`."""

    def __init__(self, keys: Keys | None = None, actor: str | None = None) -> None:
        super().__init__(keys, actor)
        self._kept = _Kept()
        self._lock = Lock()

    def close(self) -> None:
        """Do nothing: there is no connection to release."""

    @contextmanager
    def _transaction(self, *, writing: bool = False) -> Iterator[_Kept]:
        with self._lock:
            kept = self._kept.copy() if writing else self._kept
            yield kept
            self._kept = kept


@dataclass(slots=True)
class _Kept:
    """All that is kept, and a `geluwatch.store.transaction.Transaction` over it."""

    baselines: dict[Key, Baseline] = field(default_factory=dict)
    log: list[Entry] = field(default_factory=list)
    policies: dict[str, Policy] = field(default_factory=dict)

    def copy(self) -> _Kept:
        return _Kept(dict(self.baselines), list(self.log), dict(self.policies))

    def find(self, key: Key) -> Baseline | None:
        return self.baselines.get(key)

    def keys(self, model: str | None = None, model_version: str | None = None) -> list[Key]:
        found = map(key_of, self._oldest_first())
        return [key for key in found if model in {None, key.model} and model_version in {None, key.model_version}]

    def infos(self) -> list[BaselineInfo]:
        return [info_of(each) for each in self._oldest_first()]

    def newest_activations(self, model: str) -> tuple[Activation, ...] | None:
        of_model = [each for each in self._oldest_first() if each.model == model]
        return provenance.of_baseline(of_model[-1]) if of_model else None

    def add(self, baseline: Baseline) -> None:
        self.baselines[key_of(baseline)] = baseline

    def put_signature(self, baseline: Baseline) -> None:
        self.baselines[key_of(baseline)] = baseline

    def entries(self, model: str | None = None, model_version: str | None = None, actions: Sequence[str] = ()) -> list[Entry]:
        return [
            entry
            for entry in self.log
            if model in {None, entry.model} and model_version in {None, entry.model_version} and (not actions or entry.action in actions)
        ]

    def append(self, entry: Entry) -> None:
        self.log.append(chained(entry, self.log[-1].digest if self.log else START))

    def policy(self, model: str) -> Policy:
        return self.policies.get(model, Policy())

    def put_policy(self, model: str, policy: Policy) -> None:
        self.policies[model] = policy

    def _oldest_first(self) -> list[Baseline]:
        return sorted(self.baselines.values(), key=lambda each: each.created)
