"""Databases of schema 0001: what the first release stored still loads and arms, and the way back loses no more than it must."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine, inspect, text

from geluwatch.config import Config
from geluwatch.core.monitor import Identity, Monitor
from geluwatch.core.recorder import revived
from geluwatch.errors import BaselineError
from geluwatch.records import Baseline, Span, Summary, Window
from geluwatch.store import SqlBaselines, SqlHistory
from geluwatch.store.audit import flaws
from geluwatch.store.engine import for_writing, make_engine
from geluwatch.store.promotion import Policy, Standing
from geluwatch.store.schema import HEAD, VERSION_TABLE, downgrade, upgrade
from geluwatch.store.signing import Keys

Make = Callable[..., Baseline]
Rows = dict[str, list[dict[str, Any]]]

#: Every row that release 0.1.0 stored for two baselines, "before" of 23 windows and "few" of one; payloads are in base 64.
STORED = Path(__file__).with_name("data") / "schema_0001.json"

FIRST_FORM = {"windows", "left_out", "thresholds", "horizons", "tickets_per_month", "replayed", "exceeded", "armed", "reason"}


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """A database as release 0.1.0 left it."""
    made = make_engine(url)
    with for_writing(made).begin() as connection:
        upgrade(connection, "0001")
        for table, rows in stored().items():
            names = ", ".join(rows[0])
            values = ", ".join(f":{name}" for name in rows[0])
            # SQLite stores truth as 0 and 1, PostgreSQL takes only booleans for it.
            given = [row | {"thinned": bool(row["thinned"])} if "thinned" in row else row for row in rows]
            connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"), given)
        if connection.dialect.name == "postgresql":
            # Rows with keys of their own leave the counter behind.
            connection.execute(text("SELECT setval(pg_get_serial_sequence('geluwatch_baseline', 'id'), 2)"))
    yield made
    made.dispose()


def stored() -> Rows:
    """Return the rows by table."""
    rows: Rows = json.loads(STORED.read_text(encoding="utf-8"))
    for row in rows["geluwatch_baseline_window"]:
        row["payload"] = b64decode(row["payload"])
    return rows


def present(engine: Engine) -> Rows:
    """Return the rows that the database has, in the columns of schema 0001."""
    found: Rows = {}
    with engine.connect() as connection:
        for table, rows in stored().items():
            order = "id" if "id" in rows[0] else ", ".join(list(rows[0])[:2])
            names = ", ".join(rows[0])
            found[table] = [
                # psycopg reads JSON, SQLite leaves it as text.
                {name: json.dumps(value) if isinstance(value, dict) else value for name, value in row.items()}
                for row in connection.execute(text(f"SELECT {names} FROM {table} ORDER BY {order}")).mappings()
            ]
    return found


def monitor(baseline: Baseline) -> Monitor:
    """Return a monitor of the model that a baseline is of."""
    return Monitor(Identity(baseline.model, baseline.model_version, {}, "torch"), baseline.sites, Config(), 0.0)


@pytest.mark.usefixtures("engine")
def test_what_was_stored_before_still_loads(url: str) -> None:
    """Opening the store upgrades it; windows come back with their values, the certificate with what still means the same."""
    baseline = SqlBaselines(url).load("minilm", "1", "before")
    certificate = baseline.certificate
    assert (23, 1, (1,), 2.0) == (certificate.windows, certificate.left_out, certificate.horizons, certificate.tickets_per_month)
    assert (True, "", False) == (certificate.armed, certificate.reason, certificate.paging)
    assert (None, {}, {}) == (baseline.calm, baseline.references, baseline.histograms)
    rows = [row for row in stored()["geluwatch_baseline_window"] if row["baseline_id"] == 1]
    assert [(row["started"], row["ended"]) for row in rows] == [(window.started, window.ended) for window in baseline.windows]
    points = [point for window in baseline.windows for point in window.points.values()]
    assert 2 * 23 == len(points)
    assert {(64, 16, 4)} == {(point.histogram.finite, point.moments.rows, point.moments.mean.size) for point in points}
    for point in points:
        # Sums and moments lie in different arrays, and were taken of the same values.
        assert pytest.approx(point.abs_sum_pos - point.abs_sum_neg) == 16 * point.moments.mean.sum()
        assert pytest.approx(point.squares) == (point.moments.m2 + 16 * point.moments.mean**2).sum()
    assert ["observed", "blind"] == [site.state for site in baseline.sites]


@pytest.mark.usefixtures("engine")
def test_what_was_stored_before_arms(url: str, same: Callable[..., bool]) -> None:
    """Armed, it is calibrated anew from its windows, with all their values pooled; saved again, nothing of that is lost."""
    store = SqlBaselines(url)
    baseline = store.load("minilm", "1", "before")
    certificate = monitor(baseline).arm(baseline)
    assert certificate.armed
    assert 23 == certificate.windows
    assert 0 < certificate.ticket_limit < 100
    renewed = revived(baseline, Config())
    assert {("encoder.0.act", "pre"): 23 * 64, ("encoder.0.act", "post"): 23 * 64} == {
        key: values.finite for key, values in renewed.histograms.items()
    }
    store.save(replace(renewed, name="renewed"))
    assert same(replace(renewed, name="renewed"), store.load("minilm", "1", "renewed"))


@pytest.mark.usefixtures("engine")
def test_what_was_too_small_before_still_is(url: str) -> None:
    """A baseline of one window keeps its reason, and arming it is refused."""
    baseline = SqlBaselines(url).load("minilm", "1", "few")
    assert (False, "1 usable windows are too few to calibrate: 11 more are needed.") == (
        baseline.certificate.armed,
        baseline.certificate.reason,
    )
    with pytest.raises(BaselineError, match="'few' cannot be armed: 1 usable windows are too few to calibrate: 11 more are needed"):
        monitor(baseline).arm(baseline)


@pytest.mark.usefixtures("engine")
def test_old_and_new_are_listed_together(url: str, baseline: Make) -> None:
    """The list reads both forms of certificates."""
    store = SqlBaselines(url)
    store.save(baseline(name="after"))
    assert [("few", 1, False), ("before", 23, True), ("after", 100, False)] == [
        (info.name, info.windows, info.armed) for info in sorted(store.listing(), key=lambda info: info.windows % 100 or 100)
    ]


@pytest.mark.usefixtures("engine")
def test_what_was_stored_before_is_governed_too(url: str, baseline: Make) -> None:
    """Baselines from before there was a log are signed, approved, promoted and retired like others; nobody recorded them."""
    store = SqlBaselines(url, Keys(Ed25519PrivateKey.generate()), "alice")
    old = store.load("minilm", "1", "before")
    assert ("", None, None) == (old.traffic, old.provenance, old.signature)
    assert ((), Standing()) == (store.log(), store.standing(old))
    store.set_policy("minilm", Policy(approvals=1))
    store.approve("minilm", "1", "before")
    store.promote("minilm", "1", "before")
    store.save(baseline(name="after", created=old.created + 1.0))
    assert "before" == store.load("minilm", "1", "latest").name
    assert store.sign("minilm", "1", "before").signature == store.verify("minilm", "1", "before").signature
    store.retire("minilm", "1", "before")
    assert "after" == store.load("minilm", "1", "latest").name
    assert [] == list(flaws(store.log()))


def test_the_way_back_takes_the_log_along(url: str, engine: Engine, baseline: Make) -> None:
    """Down to the schema before it and up again the log is empty, every baseline is there and none is promoted."""
    store = SqlBaselines(url, actor="alice")
    store.save(baseline(name="after"))
    store.promote("minilm", "1", "before")
    with for_writing(engine).begin() as connection:
        downgrade(connection, "0002")
    again = SqlBaselines(url)
    assert () == again.log()
    assert {"before", "few", "after"} == set(again.names("minilm", "1"))
    assert {"recorded"} == {info.state for info in again.listing()}
    assert ("", None, None) == tuple(getattr(again.load("minilm", "1", "after"), name) for name in ("traffic", "provenance", "signature"))


def test_up_and_down_again_changes_nothing(url: str, engine: Engine) -> None:
    """Every value of the first release's rows is the same after the way up and back."""
    before = present(engine)
    SqlBaselines(url).close()
    with engine.connect() as connection:
        assert HEAD == connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))
    with for_writing(engine).begin() as connection:
        downgrade(connection, "0001")
    with engine.connect() as connection:
        assert list(stored()["geluwatch_baseline"][0]) == [
            column["name"] for column in inspect(connection).get_columns("geluwatch_baseline")
        ]
    assert 24 == len(before["geluwatch_baseline_window"])
    assert before == present(engine)


def test_the_way_back_loses_only_what_has_no_place(url: str, engine: Engine, baseline: Make, same: Callable[..., bool]) -> None:
    """A new baseline keeps its sites and windows in schema 0001, cannot be armed there, and says why; up again it loads."""
    store = SqlBaselines(url)
    saved = baseline(name="after", certificate=revived(store.load("minilm", "1", "before"), Config()).certificate)
    assert saved.certificate.armed
    store.save(saved)
    with for_writing(engine).begin() as connection:
        downgrade(connection, "0001")
    (row,) = (row for row in present(engine)["geluwatch_baseline"] if row["name"] == "after")
    certificate = json.loads(row["certificate"])
    assert set(certificate) == FIRST_FORM
    assert (False, 23) == (certificate["armed"], certificate["windows"])
    assert "A later release recorded it; record it again, or upgrade geluwatch." == certificate["reason"]
    again = SqlBaselines(url).load("minilm", "1", "after")
    assert same((saved.sites, saved.windows), (again.sites, again.windows))
    assert (None, {}, {}) == (again.calm, again.references, again.histograms)


@pytest.mark.usefixtures("engine")
def test_a_history_moves_in_beside_what_was_stored_before(url: str) -> None:
    """A database of the first release takes windows once it is opened; its baselines load, and the way back leaves them alone."""
    history, window = SqlHistory(url), Window(0.0, 60.0, 2, 1, {})
    history.append(Span("minilm", "1", "raw", "host:1", 1, window, Summary({"ok": 1})))
    assert ["raw"] == [span.resolution for span in history.spans("minilm", None, 0.0, 120.0)]
    assert 23 == len(SqlBaselines(url).load("minilm", "1", "before").windows)
    with for_writing(history._engine).begin() as connection:
        downgrade(connection, "0002")
    assert [] == list(SqlHistory(url).spans("minilm", None, 0.0, 120.0))
    assert 23 == len(SqlBaselines(url).load("minilm", "1", "before").windows)
