"""Baselines in MLflow: the exported file as an artefact of a run, and where it comes from as tags of the run or model version.

    from geluwatch.integrations import mlflow
    mlflow.log(baseline, "runs:/0123abcd...")
    mlflow.log(baseline, "models:/encoder/3")
    baseline = mlflow.load("models:/encoder/3")

A model version has no files of its own in MLflow: those of the run that made it are its. Tags say which of a run's baselines
is meant, the last one logged; they begin with "geluwatch.".
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geluwatch.core import provenance
from geluwatch.errors import BaselineError, ConfigError, MissingPartError
from geluwatch.records import Baseline
from geluwatch.store import portable
from geluwatch.store.digest import content_digest
from geluwatch.store.signing import Keys

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

FOLDER = "geluwatch"
"""Where a run's artefacts have their baselines."""

_PREFIX = "geluwatch."
_FILE = f"{_PREFIX}file"
_TARGET = re.compile(r"runs:/(?P<run>[^/]+)|models:/(?P<model>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[^/]+))")


def log(baseline: Baseline, target: str, client: MlflowClient | None = None) -> None:
    """Put a baseline's file among the artefacts of a run, and its provenance into the tags of the run or model version.

    Args:
        baseline: The baseline, signed or not.
        target: "runs:/RUN_ID", "models:/NAME/VERSION" or "models:/NAME@ALIAS".
        client: The client to use; None makes one for the tracking server that MLflow is set to.

    Raises:
        ConfigError: The target is none of these.
        BaselineError: MLflow does not know it or takes nothing there, or the model version was made by no run.
        MissingPartError: MLflow is not installed.
    """
    with _place(target, client) as place, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / _file_name(baseline)
        portable.write(baseline, path)
        place.client.log_artifact(place.run_id, str(path), FOLDER)
        told = {**tags(baseline), _FILE: f"{FOLDER}/{path.name}"}
        for name, value in told.items():
            place.tag(name, value)
        for name in place.tags():
            if name.startswith(_PREFIX) and name not in told:  # of the baseline that was logged before
                place.untag(name)


def load(target: str, client: MlflowClient | None = None, keys: Keys | None = None) -> Baseline:
    """Return the baseline that was last logged to a run or model version.

    Args:
        target: As of `log`.
        client: As of `log`.
        keys: Whom to trust; None asks the environment, as for a file.

    Raises:
        ConfigError: The target is none that `log` knows.
        BaselineError: MLflow does not know it, no baseline was logged there, or what was is refused (see `portable.read`).
        MissingPartError: MLflow is not installed.
    """
    with _place(target, client) as place, tempfile.TemporaryDirectory() as folder:
        file = place.tags().get(_FILE)
        if file is None:
            raise BaselineError(f"No baseline was logged to {target}; `geluwatch.integrations.mlflow.log` puts one there.")
        return portable.read(Path(place.client.download_artifacts(place.run_id, file, folder)), keys)


def tags(baseline: Baseline) -> dict[str, str]:
    """Return what a registry is told of a baseline: its key, its certificate in short, and where it comes from."""
    origin = provenance.origin(baseline, promoted=False)
    told = {
        "model": baseline.model,
        "model_version": baseline.model_version,
        "baseline": baseline.name,
        "traffic": baseline.traffic,
        "windows": str(baseline.certificate.windows),
        "armable": "yes" if baseline.certificate.armed else "no",
        "signer": origin.signer,
        "weights": origin.weights,
        "dtype": origin.dtype,
        "device": origin.device,
    }
    if baseline.provenance is not None:
        told |= {"weights": baseline.provenance.weights.digest or "unknown"}
        told |= {f"version.{name}": version for name, version in baseline.provenance.versions.items()}
        told |= {f"machine.{name}": value for name, value in baseline.provenance.machine.items()}
        told |= _formulas(baseline)
    return {f"{_PREFIX}{name}": value for name, value in told.items() if value}


def _file_name(baseline: Baseline) -> str:
    """Return a name that means the same in a path and in an address, and only this baseline."""
    return f"{re.sub(r'[^A-Za-z0-9.-]', '_', baseline.name)[:100]}-{content_digest(baseline)[:16]}.baseline"


def _formulas(baseline: Baseline) -> dict[str, str]:
    """Return the formulas, declared and measured, and the precisions of all layers, each once."""
    found = provenance.of_baseline(baseline)
    return {name: ", ".join(sorted({getattr(each, name) for each in found} - {""})) for name in ("declared", "measured", "precision")}


@dataclass(frozen=True, slots=True)
class _Place:
    """A run, or a model version and the run that made it."""

    client: Any
    run_id: str
    version: tuple[str, str] | None = None

    def tags(self) -> dict[str, str]:
        """Return the tags of the model version, or where there is none, of the run."""
        if self.version is not None:
            return dict(self.client.get_model_version(*self.version).tags)
        return dict(self.client.get_run(self.run_id).data.tags)

    def tag(self, name: str, value: str) -> None:
        """Set a tag there."""
        if self.version is not None:
            self.client.set_model_version_tag(*self.version, name, value)
        else:
            self.client.set_tag(self.run_id, name, value)

    def untag(self, name: str) -> None:
        """Take a tag off there."""
        if self.version is not None:
            self.client.delete_model_version_tag(*self.version, name)
        else:
            self.client.delete_tag(self.run_id, name)


@contextmanager
def _place(target: str, client: MlflowClient | None) -> Iterator[_Place]:
    """Look a target up; MLflow's errors, there and inside, become ours."""
    found = _TARGET.fullmatch(target)
    if found is None:
        raise ConfigError(f'A place in MLflow is "runs:/RUN_ID", "models:/NAME/VERSION" or "models:/NAME@ALIAS", got {target!r}.')
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise MissingPartError("MLflow is not installed; run: pip install mlflow") from None
    try:
        yield _looked_up(target, found, MlflowClient() if client is None else client)
    except (MlflowException, OSError) as failure:
        said = " ".join(str(failure).split()).rstrip(".")
        raise BaselineError(f"MLflow refuses {target} ({said}); check the name, and the tracking server that MLflow is set to.") from None


def _looked_up(target: str, parts: re.Match[str], client: Any) -> _Place:
    if parts["run"]:
        return _Place(client, client.get_run(parts["run"]).info.run_id)
    name, alias = parts["model"], parts["alias"]
    version = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, parts["version"])
    if not version.run_id:
        raise BaselineError(f"{target} was made by no run, so that it has no artefacts; log to a run, or register it with one.")
    return _Place(client, version.run_id, (name, str(version.version)))
