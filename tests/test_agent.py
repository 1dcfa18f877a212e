"""What `attach` refuses: one clear sentence each, and the model left as it was."""

from __future__ import annotations

import math
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import geluwatch
from geluwatch.config import Config
from geluwatch.errors import AlreadyAttachedError, AttachError, ConfigError, GeluwatchError, NoGeluError, StoreError
from geluwatch.store import SqlHistory


def gelu_model() -> nn.Module:
    """Return a model with one GELU."""
    return nn.Sequential(nn.Linear(4, 4), nn.GELU())


def refused(error: type[GeluwatchError], sentence: str, model: Any = None, **arguments: Any) -> None:
    """Check that attaching is refused with one clear sentence, and leaves the model as it was."""
    model = gelu_model() if model is None else model
    with pytest.raises(error) as caught:
        geluwatch.attach(model, **{"name": "model", **arguments})
    assert sentence == str(caught.value)
    if isinstance(model, nn.Module):
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_what_cannot_be_watched_is_refused_in_one_sentence() -> None:
    """No module, a class, no GELU, a second watch: each is refused with what was wrong and what to do."""
    refused(AttachError, "Only a torch.nn.Module can be watched, got function; pass the model itself.", lambda x: x)
    refused(AttachError, "Only a torch.nn.Module can be watched, got type; pass the model itself.", nn.GELU)
    refused(
        NoGeluError,
        "No GELU was found in this Sequential, neither a module nor a call in its code; if it has one of a class of its own, "
        "name the class in Config(gelu_classes=...).",
        nn.Sequential(nn.Linear(2, 2), nn.ReLU()),
    )
    model = gelu_model()
    with geluwatch.attach(model, name="model"), pytest.raises(AlreadyAttachedError) as caught:
        geluwatch.attach(model, name="model")
    assert "This Sequential is being watched already; detach the other watch first." == str(caught.value)


@pytest.mark.parametrize("value", ["", "  ", None, 7])
def test_names_and_versions_must_be_words(value: Any) -> None:
    """An empty or foreign name or version is refused with its value."""
    refused(ConfigError, f"The model's name must be a non-empty string, got {value!r}.", name=value)
    refused(ConfigError, f"The model's version must be a non-empty string, got {value!r}.", version=value)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("n" * 256, f"{'n' * 40!r}... (256 characters); give a shorter one"),
        ("a\x00b", r"'a\x00b'; leave out what cannot be printed"),
        ("a\nb", r"'a\nb'; leave out what cannot be printed"),
    ],
    ids=["long", "nul", "newline"],
)
@pytest.mark.parametrize("field", ["name", "version"])
def test_names_and_versions_that_no_store_keeps_are_refused(field: str, value: str, told: str) -> None:
    """What would fail at every write, with the history waiting behind it, is refused at once: too long, or not printable."""
    refused(ConfigError, f"The model's {field} must be 1 to 255 printable characters, got {told}.", **{field: value})


def test_the_longest_name_reaches_the_history(tmp_path: Path) -> None:
    """255 characters of any alphabet are taken, and the windows are kept under them."""
    url, name, version = f"sqlite:///{tmp_path}/store.db", "ж" * 255, "版" * 255
    with geluwatch.attach(model := gelu_model(), name=name, version=version, store=url) as watch:
        model(torch.zeros(3, 4))
        watch.close_window()
    with closing(SqlHistory(url)) as kept:
        assert [(name, version)] == [(info.model, info.model_version) for info in kept.listing()]


@pytest.mark.parametrize("key", ["", "9lives", "a-b", "größe", "__name__", 7])
def test_label_names_must_be_prometheuss(key: Any) -> None:
    """A label name that Prometheus would not take is refused."""
    refused(ConfigError, f"Label name {key!r} is not usable in Prometheus; use letters, digits and underscores.", labels={key: "x"})


@pytest.mark.parametrize("key", ["model", "layer", "le", "job", "instance", "pod", "namespace", "rank", "tier", "scope", "fault"])
def test_label_names_that_are_taken_are_refused(key: str) -> None:
    """A label name of our own or of Prometheus is refused, and so is a value that is no string."""
    refused(ConfigError, f"Label name {key!r} is geluwatch's or Prometheus's own; choose another.", labels={key: "x"})
    refused(ConfigError, "Label 'region' must have a string value, got 1.", labels={"region": 1})


def test_a_store_must_be_one() -> None:
    """A store that is neither URL nor store, or cannot be opened, is refused, and the hooks come off again."""
    refused(ConfigError, "store must be a SQLAlchemy URL, a BaselineStore or None, got 7.", store=7)
    with pytest.raises(StoreError):
        geluwatch.attach(model := gelu_model(), name="model", store="no://such/database")
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def untouched(watch: geluwatch.Watch, model: nn.Module, threads: int) -> None:
    """Check that a watch that is off put nothing on its model and started nothing, and can be used as if it were on."""
    assert threads == threading.active_count()
    for module in model.modules():
        assert {} == {**module._forward_hooks, **module._forward_pre_hooks}
        assert "forward" not in vars(module)
    assert ["blind"] == [site.state for site in watch.sites]
    assert "the agent is switched off, by GELUWATCH_OFF in the environment or by Config(enabled=False)" == watch.sites[0].reason
    with torch.no_grad():
        model(torch.full((2, 4), float("nan")))
    report = watch.close_window()
    assert (0, 0, "blind") == (report.totals.forwards, report.totals.nonfinite_forwards, report.verdict)
    watch.note(accuracy=0.9)
    for certificate, what in ((watch.record_baseline("launch", arm=True), "recorded"), (watch.arm(), "armed")):
        assert (False, f"The agent is switched off, so no baseline is {what}.") == (certificate.armed, certificate.reason)
    watch.detach()


@pytest.mark.parametrize("value", ["1", "true", "on", " YES "])
def test_one_variable_switches_everything_off(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """With GELUWATCH_OFF set there is no hook, no thread and no count; the census says why, and the code around it runs as before."""
    monkeypatch.setenv("GELUWATCH_OFF", value)
    model, threads = gelu_model(), threading.active_count()
    untouched(geluwatch.attach(model, name="model"), model, threads)


def test_the_configuration_switches_everything_off() -> None:
    """Config(enabled=False) does the same for one model."""
    model, threads = gelu_model(), threading.active_count()
    untouched(geluwatch.attach(model, name="model", config=geluwatch.Config(enabled=False)), model, threads)


def test_what_is_off_needs_no_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A switch that is thrown in an emergency works while the database is away, and leaves none behind."""
    monkeypatch.setenv("GELUWATCH_OFF", "1")
    for store in (f"sqlite:///{tmp_path}/missing/store.db", f"sqlite:///{tmp_path}/new.db"):
        geluwatch.attach(gelu_model(), name="model", store=store).detach()
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["", "0", "false", " No "])
def test_a_variable_that_says_no_switches_nothing_off(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """GELUWATCH_OFF=0 is as good as none."""
    monkeypatch.setenv("GELUWATCH_OFF", value)
    with geluwatch.attach(gelu_model(), name="model") as watch:
        assert "switched off" not in watch.sites[0].reason
        assert watch.close_window().totals.windows == 1


def test_windows_are_kept_where_there_is_a_database(tmp_path: Path) -> None:
    """At a URL closed windows are kept beside the baselines; without one, in memory, or if none are wanted, nothing is."""
    url = f"sqlite:///{tmp_path}/store.db"
    for store, config, windows in ((url, Config(history=None), 0), (None, Config(), 0), ("sqlite://", Config(), 0), (url, Config(), 2)):
        watch = geluwatch.attach(model := gelu_model(), name="model", version="7", store=store, config=config)
        for _ in range(2):
            model(torch.zeros(3, 4))
            watch.close_window()
        watch.detach()
        assert {} == watch.report.totals.errors
        kept = SqlHistory(url)
        assert [("raw", 2)] * windows == [
            (span.resolution, span.window.points["1", "pre"].histogram.finite // 6) for span in kept.spans("model", "7", 0.0, math.inf)
        ]
        kept.close()
