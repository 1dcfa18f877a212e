"""The baseline store for a watch without a database: baselines live as long as the process."""

from __future__ import annotations

from threading import Lock

from geluwatch.records import Baseline
from geluwatch.store.rules import LATEST, BaselineInfo, check, taken, unknown


class MemoryBaselines:
    """A `geluwatch.ports.BaselineStore` in memory; any thread may use it."""

    def __init__(self) -> None:
        self._stored: dict[tuple[str, str, str], Baseline] = {}
        self._lock = Lock()

    def save(self, baseline: Baseline) -> None:
        """Keep a baseline.

        Raises:
            BaselineError: The name is taken for this model and version, or is no usable name.
        """
        check(baseline)
        with self._lock:
            if self._stored.setdefault(_key(baseline), baseline) is not baseline:
                raise taken(baseline)

    def load(self, model: str, model_version: str, name: str) -> Baseline:
        """Return a baseline; the name "latest" means the newest.

        Raises:
            UnknownBaselineError: There is none; the message lists the names there are.
        """
        names = self.names(model, model_version)
        key = (model, model_version, names[-1] if name == LATEST and names else name)
        try:
            return self._stored[key]
        except KeyError:
            raise unknown(*key, [_key(baseline) for baseline in self._oldest_first()]) from None

    def names(self, model: str, model_version: str) -> tuple[str, ...]:
        """Names stored for a model version, oldest first."""
        return tuple(each.name for each in self._oldest_first() if (each.model, each.model_version) == (model, model_version))

    def listing(self) -> tuple[BaselineInfo, ...]:
        """Everything stored, by model and version, oldest first within each."""
        ordered = sorted(self._oldest_first(), key=lambda each: (each.model, each.model_version))
        return tuple(
            BaselineInfo(*_key(each), each.created, each.certificate.windows, len(each.sites), each.certificate.armed) for each in ordered
        )

    def close(self) -> None:
        """Do nothing: there is no connection to release."""

    def _oldest_first(self) -> list[Baseline]:
        with self._lock:
            return sorted(self._stored.values(), key=lambda each: each.created)


def _key(baseline: Baseline) -> tuple[str, str, str]:
    return baseline.model, baseline.model_version, baseline.name
