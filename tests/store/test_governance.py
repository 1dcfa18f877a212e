"""What people do with baselines, and the log of it, on every store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from geluwatch.errors import ConfigError, PromotionError, UnknownBaselineError
from geluwatch.records import Activation, Baseline, Provenance
from geluwatch.store import MemoryBaselines, SqlBaselines, audit
from geluwatch.store.promotion import Policy
from geluwatch.store.signing import Keys

Store = MemoryBaselines | SqlBaselines
Make = Callable[..., Baseline]

KEY = ("minilm", "1", "v1")


def as_actor(store: Store, actor: str) -> Store:
    """Have a store act for somebody from now on."""
    store._actor = actor
    return store


@pytest.fixture
def small(baseline: Make) -> Make:
    """Makes baselines that can be armed, span 30 hours, are unsigned and quick to store."""
    certificate = replace(baseline().certificate, armed=True, seconds=30 * 3600.0)

    def make(name: str = "v1", created: float = 1.0, **changed: Any) -> Baseline:
        parts = {"windows": (), "histograms": {}, "references": {}, "calm": None, "certificate": certificate, "signature": None}
        return baseline(name=name, created=created, **parts | changed)

    return make


def told(store: Store) -> list[tuple[str, str, str]]:
    """Return (actor, action, name) of every entry of a log that is whole."""
    entries = store.log()
    assert [] == list(audit.flaws(entries))
    return [(entry.actor, entry.action, entry.name) for entry in entries]


def test_the_log_tells_everything(store: Store, small: Make) -> None:
    """Each thing that is done with a baseline is one entry with who did it, in one chain."""
    as_actor(store, "alice").save(small())
    store.take(small("v2", 2.0), "v2.baseline")
    store.note_armed(small())
    with store.exporting(small(), "v1.baseline"):
        pass
    as_actor(store, "bob").approve(*KEY, "looks right")
    store.set_policy("minilm", Policy(1, 24.0))
    store.promote(*KEY)
    store.retire("minilm", "1", "v2", "not needed")
    assert [
        ("alice", "recorded", "v1"),
        ("alice", "imported", "v2"),
        ("alice", "armed", "v1"),
        ("alice", "exported", "v1"),
        ("bob", "approved", "v1"),
        ("bob", "policy changed", ""),
        ("bob", "promoted", "v1"),
        ("bob", "retired", "v2"),
    ] == told(store)
    details = {entry.action: entry.detail for entry in store.log()}
    assert ("v2.baseline", "v1.baseline") == (details["imported"]["from"], details["exported"]["to"])
    assert {"reason": "looks right"} == details["approved"]
    assert {"approvals": 0, "stable_hours": 0.0} == details["policy changed"]["before"]
    assert 64 == len(details["recorded"]["digest"])


def test_what_fails_is_not_in_the_log(store: Store, small: Make) -> None:
    """A name that is taken, an export whose file cannot be written and an approval that is refused leave no entry."""
    as_actor(store, "alice").save(small())
    before = store.log()
    for refused in (lambda: store.save(small()), lambda: store.approve(*KEY), lambda: failing_export(store, small())):
        with pytest.raises(Exception, match=r"stored already|somebody else|no room"):
            refused()
    assert before == store.log()


def failing_export(store: Store, baseline: Baseline) -> None:
    """Export to where there is no room."""
    with store.exporting(baseline, "full.baseline"):
        raise OSError("no room")


def test_others_write_while_something_is_exported(store: Store, small: Make) -> None:
    """An upload may take its time: whoever records or arms meanwhile waits for nobody, and the export is noted when it is done."""
    store.save(small())
    with store.exporting(small(), "models:/tiny/3"):
        store.save(small("v2", 2.0))
        store.note_armed(small())
    assert ["recorded", "recorded", "armed", "exported"] == [entry.action for entry in store.log()]


def test_latest_is_the_newest_promoted(store: Store, small: Make) -> None:
    """A promoted baseline is the latest however many newer ones there are; retired, the next best takes its place."""
    for name, created in (("v1", 1.0), ("v2", 2.0), ("v3", 3.0)):
        store.save(small(name, created))
    named = []
    for act in (
        lambda: None,
        lambda: store.promote(*KEY),
        lambda: store.promote("minilm", "1", "v2"),
        lambda: store.retire(*KEY[:2], "v2"),
    ):
        act()
        named.append(store.load("minilm", "1", "latest").name)
    for name in ("v1", "latest"):
        store.retire("minilm", "1", name)
        named.append(store.load("minilm", "1", "latest").name if name == "v1" else "none")
    assert ["v3", "v1", "v2", "v1", "v3", "none"] == named
    with pytest.raises(UnknownBaselineError, match=r'^All 3 baselines of model "minilm" version "1" are retired; record another one\.$'):
        store.load("minilm", "1", "latest")
    assert {"v1": "retired", "v2": "retired", "v3": "retired"} == {info.name: info.state for info in store.listing()}
    assert "v2" == store.load("minilm", "1", "v2").name


def test_versions_are_promoted_by_themselves(store: Store, small: Make) -> None:
    """What is promoted for one version of a model is nothing to another's baseline of the same name."""
    for version in ("1", "2"):
        store.save(small(model_version=version))
    store.promote(*KEY)
    assert ["promoted", "recorded"] == [info.state for info in store.listing()]
    assert [True, False] == [store.promoted(small(model_version=version)) for version in ("1", "2")]


def test_a_retired_baseline_is_armed_no_more(store: Store, small: Make) -> None:
    """Whoever is about to arm it is told by whom it was retired; nothing brings it back."""
    as_actor(store, "alice").save(small())
    assert not store.promoted(small())
    store.promote(*KEY)
    assert store.promoted(small())
    as_actor(store, "bob").retire(*KEY)
    with pytest.raises(PromotionError, match=r'^Baseline "v1" of model "minilm" version "1" was retired by bob, and is armed no more'):
        store.promoted(small())
    for act in (store.promote, store.approve, store.retire):
        with pytest.raises(PromotionError, match="was retired by bob, which is for good; record another one"):
            act(*KEY)


def test_promotion_says_what_is_missing(store: Store, small: Make) -> None:
    """Approvals by others, hours and a replay in keeping with what was asked for: each that lacks is named, with the numbers."""
    wild = {"requested": 5.0, "observed": 30, "interval": (20.2, 42.8)}
    as_actor(store, "alice").save(small(certificate=replace(small().certificate, **wild)))
    store.set_policy("minilm", Policy(2, 48.0))
    as_actor(store, "bob").approve(*KEY)
    with pytest.raises(PromotionError) as caught:
        store.promote(*KEY)
    assert (
        'Baseline "v1" of model "minilm" version "1" is not promoted: it has 1 of 2 approvals by others than alice, who recorded it; '
        "it spans 30.0 of 48 hours; its replay gave 30 false alarms where 5.0 were asked for (at least 20.2 are to be expected)."
    ) == str(caught.value)
    assert "recorded" == store.standing(small()).state


def test_promotion_is_refused_without_a_policy_too(store: Store, small: Make) -> None:
    """Whatever the policy, a baseline that cannot be armed is not promoted, and one that is promoted is not promoted again."""
    store.save(small("few", certificate=replace(small().certificate, armed=False, reason="11 more are needed.")))
    with pytest.raises(PromotionError, match=r"is not promoted: it cannot be armed \(11 more are needed\)\.$"):
        store.promote("minilm", "1", "few")
    as_actor(store, "alice").save(small())
    store.promote(*KEY)
    with pytest.raises(PromotionError, match="has been promoted by alice already"):
        store.promote(*KEY)


def test_approvals_are_by_different_others(store: Store, small: Make) -> None:
    """Whoever recorded or imported a baseline cannot approve it, and nobody can twice."""
    as_actor(store, "alice").save(small())
    as_actor(store, "bob").take(small("v2", 2.0), "file")
    store.set_policy("minilm", Policy(approvals=2))
    for actor, name, said in (("alice", "v1", "was recorded by alice; somebody else"), ("bob", "v2", "was recorded by bob; somebody else")):
        with pytest.raises(PromotionError, match=said):
            as_actor(store, actor).approve("minilm", "1", name)
    as_actor(store, "bob").approve(*KEY)
    with pytest.raises(PromotionError, match="has been approved by bob already"):
        store.approve(*KEY)
    as_actor(store, "carol").approve(*KEY)
    assert ("bob", "carol") == store.standing(small()).approvers
    assert "v1" == as_actor(store, "alice").promote(*KEY).name


def test_policies_are_by_model(store: Store) -> None:
    """A policy holds for one model, may be changed, and to set what is set already is no entry."""
    for policy in (Policy(1, 24.0), Policy(1, 24.0), Policy(0, 1.5)):
        store.set_policy("minilm", policy)
    assert (Policy(0, 1.5), Policy()) == (store.policy("minilm"), store.policy("gpt2"))
    assert ["policy changed"] * 2 == [action for _, action, _ in told(store)]
    for wrong in ({"approvals": -1}, {"stable_hours": -0.5}, {"stable_hours": float("nan")}):
        with pytest.raises(ConfigError, match="A policy asks for zero or more approvals and hours"):
            Policy(**wrong)  # type: ignore[arg-type]


def test_a_change_of_the_activation_is_an_entry(store: Store, small: Make) -> None:
    """Formula, measured formula and precision against the newest baseline of any version; weights and what was not measured are none."""
    act = Activation("act", "module", "GELU", "erf", "erf", "float32", "float32")
    steps = (
        ("1", act),
        ("2", act),
        ("2", replace(act, measured="", precision="")),
        ("2", replace(act, declared="tanh", measured="tanh")),
        ("1", replace(act, declared="tanh", measured="tanh", precision="bfloat16")),
    )
    for place, (version, activation) in enumerate(steps):
        store.save(small(f"v{place}", float(place), model_version=version, provenance=Provenance(activations=(activation,))))
    store.save(small(model="gpt2", provenance=None))
    entries = [(entry.name, entry.detail["changes"]) for entry in store.log() if entry.action == "activation changed"]
    assert [
        ("v3", ["declared formula erf became tanh at act"]),
        ("v4", ["precision float32 became bfloat16 at act"]),
    ] == entries


def test_a_change_is_seen_from_a_baseline_without_provenance(store: Store, small: Make) -> None:
    """The census tells the declared formulas where nothing else is known."""
    sites = small().sites
    store.save(small("v1", 1.0, provenance=None))
    store.save(small("v2", 2.0, provenance=None, sites=(replace(sites[0], variant="quick"), sites[1])))
    (entry,) = (entry for entry in store.log() if entry.action == "activation changed")
    assert {"changes": ["declared formula erf became quick at encoder.0.act"]} == entry.detail


def test_a_store_asks_the_environment_whom_to_name(small: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an actor of its own a store names GELUWATCH_ACTOR; without a key it signs nothing."""
    monkeypatch.setenv("GELUWATCH_ACTOR", "deploy bot")
    named, given = MemoryBaselines(), MemoryBaselines(Keys(), "carol")
    for store in (named, given):
        store.save(small())
    assert [("deploy bot", None), ("carol", None)] == [(store.log()[0].actor, store.load(*KEY).signature) for store in (named, given)]
