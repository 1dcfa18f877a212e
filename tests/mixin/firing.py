"""Every alert with labels as Prometheus sends them, for tests of who is told."""

from __future__ import annotations

from geluwatch.mixin.rules import alerts
from geluwatch.mixin.rules.alerting import Alert
from geluwatch.mixin.rules.annotations import rule_labels
from geluwatch.mixin.settings import MixinSettings

SETTINGS = MixinSettings()
ALERTS = alerts(SETTINGS)
BY_NAME = {alert.name: alert for alert in ALERTS}
VALUES = {
    "cluster": "a",
    "namespace": "serving",
    "job": "inference",
    "model": "bge",
    "model_version": "1",
    "region": "eu",
    "instance": "h:1",
}
Labels = dict[str, str]


def labels_of(alert: Alert, **changed: str) -> Labels:
    """Return labels as Prometheus sends them for an alert."""
    own = {label: VALUES.get(label, "latency") for label in alert.labels}
    return {"alertname": alert.name, **own, **rule_labels(alert, SETTINGS), **{key: value for key, value in changed.items() if key in own}}


def find(name: str, tier: str | None = None) -> Alert:
    """Return an alert by its name, and its tier where it has several."""
    return next(alert for alert in ALERTS if alert.name == f"Geluwatch{name}" and tier in {None, alert.tier})
