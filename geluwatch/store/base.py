"""What every store does with baselines, written once over the transactions that each keeps its data in."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

from geluwatch.core import provenance
from geluwatch.errors import PromotionError, StoreError
from geluwatch.records import Baseline
from geluwatch.store import audit, promotion
from geluwatch.store.audit import Entry
from geluwatch.store.digest import content_digest
from geluwatch.store.promotion import Standing
from geluwatch.store.rules import LATEST, BaselineInfo, Key, check, key_of, taken, unknown
from geluwatch.store.signing import Keys
from geluwatch.store.transaction import Transaction

_TELLING = ("recorded", "imported", "approved", "promoted", "retired")
"""Actions from which a baseline's standing follows."""


class StoreBase(ABC):
    """A `geluwatch.ports.BaselineStore` but for where it keeps its data.

    Args:
        keys: What to sign with and whom to trust; None asks the environment (see `geluwatch.store.signing`).
        actor: Whom the audit log names; None asks the environment (see `geluwatch.store.audit`).

    Raises:
        SignatureError: The environment names a file without such a key.
        ConfigError: The environment names an unusable actor.
    """

    def __init__(self, keys: Keys | None = None, actor: str | None = None) -> None:
        self._keys = Keys.from_environment() if keys is None else keys
        self._actor = audit.actor() if actor is None else actor

    @abstractmethod
    def _transaction(self, *, writing: bool = False) -> AbstractContextManager[Transaction]:
        """Return a transaction, to be entered; a failure within undoes all of it."""

    @abstractmethod
    def close(self) -> None:
        """Release what the store holds; calling it again does nothing."""

    def save(self, baseline: Baseline) -> None:
        """Store a baseline, all of it or nothing, signed where there is a key.

        Raises:
            BaselineError: The name is taken for this model and version, or is no usable name.
            StoreError: The database cannot be used.
        """
        self._insert(baseline, "recorded", {})

    def take(self, baseline: Baseline, origin: str) -> None:
        """Store a baseline that comes from elsewhere, such as a file; its signature stays, and is checked where keys are trusted.

        Args:
            baseline: The baseline.
            origin: Where it comes from, for the log.

        Raises:
            BaselineError: As of `save`; or its signature is refused.
            StoreError: The database cannot be used.
        """
        self._insert(baseline, "imported", {"from": origin})

    def load(self, model: str, model_version: str, name: str) -> Baseline:
        """Return a stored baseline; the name "latest" means the newest promoted one, or where none is, the newest not retired.

        Raises:
            UnknownBaselineError: There is none; the message lists the names there are.
            SignatureError: Keys are trusted, and none of them signed it, or it was changed since.
            StoreError: The database cannot be used, or what it holds is damaged.
        """
        with self._transaction() as transaction:
            baseline = self._found(transaction, Key(model, model_version, name))
        self._keys.check(baseline, key_of(baseline).called)
        return baseline

    def names(self, model: str, model_version: str) -> tuple[str, ...]:
        """Names stored for a model version, oldest first, retired ones included.

        Raises:
            StoreError: The database cannot be used.
        """
        with self._transaction() as transaction:
            return tuple(key.name for key in transaction.keys(model, model_version))

    def listing(self) -> tuple[BaselineInfo, ...]:
        """Everything stored, by model and version, oldest first within each.

        Raises:
            StoreError: The database cannot be used.
        """
        with self._transaction() as transaction:
            infos, entries = transaction.infos(), transaction.entries(actions=_TELLING)
        told: dict[tuple[str, str], list[Entry]] = {}
        for entry in entries:
            told.setdefault((entry.model, entry.model_version), []).append(entry)
        found = {version: promotion.standings(of_version) for version, of_version in told.items()}
        with_states = [
            replace(info, state=found.get((info.model, info.model_version), {}).get(info.name, Standing()).state) for info in infos
        ]
        # Sorted here, since each database orders text by its own collation.
        return tuple(sorted(with_states, key=lambda info: (info.model, info.model_version)))

    def promoted(self, baseline: Baseline) -> bool:
        """Return whether a stored baseline stands promoted, for whoever is about to arm it.

        Raises:
            PromotionError: It was retired.
            StoreError: The database cannot be used.
        """
        key = key_of(baseline)
        with self._transaction() as transaction:
            standing = self._standing(transaction, key)
        if standing.state == "retired":
            raise PromotionError(f"{key.called} was retired by {standing.by}, and is armed no more; arm another one.")
        return standing.state == "promoted"

    def note_armed(self, baseline: Baseline) -> None:
        """Note in the log that a watch judges by a stored baseline from now on.

        Raises:
            StoreError: The database cannot be used.
        """
        with self._transaction(writing=True) as transaction:
            self._note(transaction, "armed", key_of(baseline))

    @contextmanager
    def exporting(self, baseline: Baseline, target: str) -> Iterator[None]:
        """Note in the log that a stored baseline was written to a file or a registry, unless what is done inside fails.

        The note is made afterwards: an upload may take its time, and others write meanwhile.

        Raises:
            StoreError: The database cannot be used; what was written is written.
        """
        yield
        with self._transaction(writing=True) as transaction:
            self._note(transaction, "exported", key_of(baseline), {"to": target})

    def _insert(self, baseline: Baseline, action: audit.Action, detail: dict[str, Any]) -> None:
        check(baseline)
        key = key_of(baseline)
        if baseline.signature is None:
            baseline = self._keys.signed(baseline)
        else:
            self._keys.check(baseline, key.called)
        told = {"digest": content_digest(baseline), **detail}  # before the transaction, in which others wait
        try:
            with self._transaction(writing=True) as transaction:
                self._insert_into(transaction, baseline, action, told)
        except StoreError:
            if key.name in self.names(key.model, key.model_version):  # another process was quicker
                raise taken(baseline) from None
            raise

    def _insert_into(self, transaction: Transaction, baseline: Baseline, action: audit.Action, detail: dict[str, Any]) -> None:
        key = key_of(baseline)
        if key in transaction.keys(*key[:2]):
            raise taken(baseline)
        before = transaction.newest_activations(key.model) or ()
        transaction.add(baseline)
        self._note(transaction, action, key, detail)
        if baseline.signature is not None:
            self._note(transaction, "signed", key, {"key": baseline.signature.key})
        if changes := provenance.changes(before, provenance.of_baseline(baseline)) if before else ():
            self._note(transaction, "activation changed", key, {"changes": list(changes)})

    def _found(self, transaction: Transaction, key: Key) -> Baseline:
        """Return a baseline by its name or by "latest", not checked against any key."""
        wanted = key
        if key.name == LATEST:
            names = [each.name for each in transaction.keys(*key[:2])]
            meant = promotion.latest(names, promotion.standings(transaction.entries(*key[:2], actions=_TELLING)))
            wanted = key._replace(name=meant or LATEST)
        baseline = transaction.find(wanted)
        if baseline is None:
            raise unknown(key, transaction.keys())
        return baseline

    def _standing(self, transaction: Transaction, key: Key) -> Standing:
        return promotion.standings(transaction.entries(*key[:2], actions=_TELLING)).get(key.name, Standing())

    def _note(self, transaction: Transaction, action: audit.Action, key: Key, detail: dict[str, Any] | None = None) -> None:
        transaction.append(Entry(time.time(), self._actor, action, *key, detail=detail or {}))
