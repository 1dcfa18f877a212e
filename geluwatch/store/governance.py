"""Who may do what with a stored baseline, and the log of it: signing, approval, promotion, retirement, policies."""

from __future__ import annotations

from dataclasses import asdict

from geluwatch.errors import PromotionError, SignatureError
from geluwatch.records import Baseline
from geluwatch.store import promotion, signing
from geluwatch.store.audit import Entry
from geluwatch.store.base import StoreBase
from geluwatch.store.digest import content_digest
from geluwatch.store.promotion import Policy, Standing
from geluwatch.store.rules import Key, key_of
from geluwatch.store.transaction import Transaction


class GovernedStore(StoreBase):
    """A store with everything that people do with its baselines; the names that they give may be "latest"."""

    @property
    def trusts(self) -> bool:
        """Whether keys are named that baselines have to be signed by."""
        return self._keys.trusted is not None

    def sign(self, model: str, model_version: str, name: str) -> Baseline:
        """Sign a stored baseline with this store's key, in the place of a signature it has, and return it.

        Raises:
            SignatureError: There is no key to sign with, or the baseline is not what was signed before.
            UnknownBaselineError: There is no such baseline.
            StoreError: The database cannot be used.
        """
        if self._keys.private is None:
            raise SignatureError(f"There is no key to sign with; let {signing.SIGNING_KEY} name one, `geluwatch baseline keygen` makes it.")
        with self._transaction(writing=True) as transaction:
            baseline = self._found(transaction, Key(model, model_version, name))
            key = key_of(baseline)
            if baseline.signature is not None and not signing.is_intact(baseline):
                raise signing.changed(baseline, key.called)
            signed = self._keys.signed(baseline)
            transaction.put_signature(signed)
            self._note(transaction, "signed", key, {"key": signed.signature.key if signed.signature else ""})
        return signed

    def verify(self, model: str, model_version: str, name: str) -> Baseline:
        """Return a stored baseline if it is what was recorded and signed, by a trusted key where any are named.

        Raises:
            SignatureError: It is unsigned, signed by another key than those, or not what was signed or recorded.
            UnknownBaselineError: There is no such baseline.
            StoreError: The database cannot be used.
        """
        baseline = self.load(model, model_version, name)
        key = key_of(baseline)
        if baseline.signature is None:
            raise SignatureError(f"{key.called} is unsigned, so that nobody stands for it; sign it with `geluwatch baseline sign`.")
        if not signing.is_intact(baseline):
            raise signing.changed(baseline, key.called)
        with self._transaction() as transaction:
            stored = [entry for entry in transaction.entries(*key[:2], actions=("recorded", "imported")) if entry.name == key.name]
        if stored and stored[0].detail.get("digest") != content_digest(baseline):
            raise SignatureError(f"{key.called} is not what the log says was {stored[0].action}: it was changed afterwards; restore it.")
        return baseline

    def approve(self, model: str, model_version: str, name: str, reason: str = "") -> Baseline:
        """Approve a baseline, in the name of this store's actor, and return it.

        Raises:
            PromotionError: It is retired, the actor recorded it, or has approved it already.
            BaselineError: As of `load`.
            StoreError: The database cannot be used.
        """
        with self._transaction(writing=True) as transaction:
            baseline, standing = self._standing_by(transaction, Key(model, model_version, name))
            key = key_of(baseline)
            if self._actor == standing.recorder:
                raise PromotionError(f"{key.called} was recorded by {self._actor}; somebody else has to approve it.")
            if self._actor in standing.approvers:
                raise PromotionError(f"{key.called} has been approved by {self._actor} already; a second approval has to be another's.")
            self._note(transaction, "approved", key, _because(reason))
        return baseline

    def promote(self, model: str, model_version: str, name: str, reason: str = "") -> Baseline:
        """Promote a baseline, so that "latest" means the newest promoted one of its version, and return it.

        Raises:
            PromotionError: It is retired or promoted, or lacks what its model's policy asks; the message says what is missing.
            BaselineError: As of `load`.
            StoreError: The database cannot be used.
        """
        with self._transaction(writing=True) as transaction:
            baseline, standing = self._standing_by(transaction, Key(model, model_version, name))
            key = key_of(baseline)
            if standing.state == "promoted":
                raise PromotionError(f"{key.called} has been promoted by {standing.by} already; there is nothing to do.")
            if lacking := list(promotion.missing(transaction.policy(model), standing, baseline)):
                raise PromotionError(f"{key.called} is not promoted: {'; '.join(lacking)}.")
            self._note(transaction, "promoted", key, _because(reason))
        return baseline

    def retire(self, model: str, model_version: str, name: str, reason: str = "") -> Baseline:
        """Retire a baseline for good: it stays, but is no "latest" and armed no more; return it.

        Raises:
            PromotionError: It is retired already.
            UnknownBaselineError: There is no such baseline.
            StoreError: The database cannot be used.
        """
        with self._transaction(writing=True) as transaction:
            # Not checked against any key: one that was tampered with is retired all the more.
            baseline = self._found(transaction, Key(model, model_version, name))
            self._refuse_retired(self._standing(transaction, key_of(baseline)), key_of(baseline))
            self._note(transaction, "retired", key_of(baseline), _because(reason))
        return baseline

    def standing(self, baseline: Baseline) -> Standing:
        """Return what the log tells of a baseline.

        Raises:
            StoreError: The database cannot be used.
        """
        with self._transaction() as transaction:
            return self._standing(transaction, key_of(baseline))

    def policy(self, model: str) -> Policy:
        """Return what a model's baselines need before they are promoted.

        Raises:
            StoreError: The database cannot be used.
        """
        with self._transaction() as transaction:
            return transaction.policy(model)

    def set_policy(self, model: str, policy: Policy) -> None:
        """Set what a model's baselines need before they are promoted; those that are stay so.

        Raises:
            StoreError: The database cannot be used.
        """
        with self._transaction(writing=True) as transaction:
            before = transaction.policy(model)
            if before != policy:
                transaction.put_policy(model, policy)
                self._note(transaction, "policy changed", Key(model, "", ""), {"before": asdict(before), "after": asdict(policy)})

    def log(self) -> tuple[Entry, ...]:
        """Return the whole audit log, oldest first; `geluwatch.store.audit.flaws` says whether the chain is whole.

        Raises:
            StoreError: The database cannot be used.
        """
        with self._transaction() as transaction:
            return tuple(transaction.entries())

    def _standing_by(self, transaction: Transaction, key: Key) -> tuple[Baseline, Standing]:
        """Return a baseline that is signed as it has to be and not retired, and its standing."""
        baseline = self._found(transaction, key)
        self._keys.check(baseline, key_of(baseline).called)
        standing = self._standing(transaction, key_of(baseline))
        self._refuse_retired(standing, key_of(baseline))
        return baseline, standing

    def _refuse_retired(self, standing: Standing, key: Key) -> None:
        if standing.state == "retired":
            raise PromotionError(f"{key.called} was retired by {standing.by}, which is for good; record another one.")


def _because(reason: str) -> dict[str, str]:
    return {"reason": reason} if reason else {}
