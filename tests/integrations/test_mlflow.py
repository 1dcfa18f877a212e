"""MLflow, a real one on files of its own: baselines there and back, by run and by model version."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from geluwatch.errors import BaselineError, ConfigError, MissingPartError, SignatureError
from geluwatch.integrations import mlflow as adapter
from geluwatch.records import Activation, Baseline, Certificate, Provenance, Site, Weights
from geluwatch.store.signing import Keys

# Of MLflow's own libraries, when they are loaded.
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]

BASELINE = Baseline(
    "encoder",
    "3",
    "week/1",
    1_700_000_000.0,
    (Site("act", 0, "module", "GELU", "erf"),),
    (),
    Certificate(100, 0, 6000.0, (1,), 9.0, 1, 2.0, 1.0, 7.0, 9.0, armed=True),
    traffic="eu",
    provenance=Provenance(
        Weights("ab" * 32, "", {"up.weight": "1" * 16}, 100, ("float32",), ("cuda",)),
        (Activation("act", "module", "GELU", "erf", "tanh", "float32", "float32"),),
        {"torch": "2.13.0"},
        {"platform": "Linux"},
    ),
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of a tracking server and a registry in files."""
    place = pytest.MonkeyPatch()
    place.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # the quickest of its stores, which it would rather have us leave
    place.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    uri = f"file://{tmp_path_factory.mktemp('mlflow')}"
    made = MlflowClient(tracking_uri=uri, registry_uri=uri)
    made.create_experiment("serving")
    yield made
    place.undo()


@pytest.fixture
def run(client: Any) -> str:
    """A new run."""
    return str(client.create_run(client.get_experiment_by_name("serving").experiment_id).info.run_id)


@pytest.fixture
def version(client: Any, run: str) -> Iterator[str]:
    """A new version of a registered model, made by the run."""
    client.create_registered_model("encoder")
    made = client.create_model_version("encoder", source=f"runs:/{run}/model", run_id=run)
    client.set_registered_model_alias("encoder", "live", made.version)
    yield f"models:/encoder/{made.version}"
    client.delete_registered_model("encoder")


def test_a_run_holds_a_baseline(client: Any, run: str) -> None:
    """Logged to a run it comes back as it was; the run's tags say of what it is, the last one logged is the one meant."""
    adapter.log(replace(BASELINE, name="older"), f"runs:/{run}", client)
    adapter.log(BASELINE, f"runs:/{run}", client)
    assert BASELINE == adapter.load(f"runs:/{run}", client)
    tags = client.get_run(run).data.tags
    assert ("encoder", "3", "week/1", "eu", "100", "yes", "none") == tuple(
        tags[f"geluwatch.{name}"] for name in ("model", "model_version", "baseline", "traffic", "windows", "armable", "signer")
    )
    assert ("ab" * 32, "float32", "cuda", "2.13.0", "Linux", "erf", "tanh", "float32") == tuple(
        tags[f"geluwatch.{name}"]
        for name in ("weights", "dtype", "device", "version.torch", "machine.platform", "declared", "measured", "precision")
    )
    names = sorted(Path(found.path).name for found in client.list_artifacts(run, "geluwatch"))
    assert ["older-", "week_1-"] == [name.removesuffix(".baseline")[:-16] for name in names]


def test_a_model_version_holds_a_baseline(client: Any, run: str, version: str) -> None:
    """By its number and by its alias; the tags are the version's, and the run that made it has none."""
    adapter.log(BASELINE, version, client)
    assert BASELINE == adapter.load(version, client) == adapter.load("models:/encoder@live", client)
    assert "ab" * 32 == client.get_model_version("encoder", version.rpartition("/")[2]).tags["geluwatch.weights"]
    assert not [name for name in client.get_run(run).data.tags if name.startswith("geluwatch.")]


@pytest.mark.parametrize("place", ["run", "version"])
def test_tags_are_of_the_baseline_logged_last(place: str, client: Any, request: pytest.FixtureRequest) -> None:
    """What only the one before had to say is gone from the run or model version, and tags that are not ours stay."""
    named = request.getfixturevalue(place)
    target = f"runs:/{named}" if place == "run" else named
    bare = replace(BASELINE, name="bare", traffic="", provenance=None)

    def tags() -> dict[str, str]:
        return dict(
            client.get_run(named).data.tags if place == "run" else client.get_model_version("encoder", named.rpartition("/")[2]).tags
        )

    if place == "run":
        client.set_tag(named, "team", "search")
    else:
        client.set_model_version_tag("encoder", named.rpartition("/")[2], "team", "search")
    adapter.log(BASELINE, target, client)
    adapter.log(bare, target, client)
    ours = {name: value for name, value in tags().items() if name.startswith("geluwatch.")}
    assert adapter.tags(bare) == {name: value for name, value in ours.items() if name != "geluwatch.file"}
    assert ("search", bare) == (tags()["team"], adapter.load(target, client))


def test_what_comes_back_is_believed_only_if_signed(client: Any, run: str) -> None:
    """A registry is a place like another: where keys are trusted, an unsigned baseline from it is refused."""
    private = Ed25519PrivateKey.generate()
    keys = Keys(private, frozenset({private.public_key().public_bytes_raw().hex()}))
    adapter.log(BASELINE, f"runs:/{run}", client)
    with pytest.raises(SignatureError, match="is unsigned"):
        adapter.load(f"runs:/{run}", client, keys)
    adapter.log(keys.signed(BASELINE), f"runs:/{run}", client)
    assert BASELINE == replace(adapter.load(f"runs:/{run}", client, keys), signature=None)


def test_refusals_are_sentences(client: Any, run: str) -> None:
    """A place that is none, that MLflow does not know, without a baseline, or without files: each says what to do."""
    refused: tuple[tuple[str, type[Exception], str], ...] = (
        ("encoder/3", ConfigError, r'^A place in MLflow is "runs:/RUN_ID", .*, got \'encoder/3\'\.$'),
        ("runs:/" + "0" * 32, BaselineError, r"^MLflow refuses runs:/0+ \(.*not found\); check the name"),
        ("models:/nobody/1", BaselineError, r"^MLflow refuses models:/nobody/1 \("),
        (f"runs:/{run}", BaselineError, r"^No baseline was logged to runs:/.*; `geluwatch\.integrations\.mlflow\.log` puts one there"),
    )
    for target, kind, said in refused:
        with pytest.raises(kind, match=said) as caught:
            adapter.load(target, client)
        assert "\n" not in str(caught.value)
    client.create_registered_model("bare")
    client.create_model_version("bare", source="/somewhere")
    with pytest.raises(BaselineError, match="models:/bare/1 was made by no run, so that it has no artefacts"):
        adapter.log(BASELINE, "models:/bare/1", client)


def test_without_mlflow_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is looked for when it is needed, and named."""
    monkeypatch.setitem(sys.modules, "mlflow.exceptions", None)
    with pytest.raises(MissingPartError, match=r"MLflow is not installed; run: pip install mlflow"):
        adapter.load("runs:/0")


@pytest.mark.full
def test_a_database_serves_as_well(tmp_path: Path) -> None:
    """On the store that MLflow recommends, a database, it is the same."""
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.create_experiment("one", artifact_location=f"file://{tmp_path}/artefacts")
    run = client.create_run(experiment).info.run_id
    adapter.log(BASELINE, f"runs:/{run}", client)
    assert BASELINE == adapter.load(f"runs:/{run}", client)
