"""`geluwatch demo --page`, whole, as a reader of the README runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from geluwatch.cli.demo.servers import find
from geluwatch.errors import MissingPartError
from geluwatch.mixin.runbooks import names

pytestmark = [pytest.mark.e2e, pytest.mark.full]


def test_a_drift_page_arrives_and_is_resolved() -> None:
    """On a baseline that arms paging, drift of a real model reaches the receiver as a page, with a runbook that opens, and ends."""
    try:
        find("prometheus"), find("alertmanager", "prometheus-alertmanager")
    except MissingPartError as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))
    command = [sys.executable, "-m", "geluwatch", "demo", "--page"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert 0 == done.returncode, done.stdout + done.stderr
    events, received = done.stdout.split("The page, as it was received")
    assert "PAGE    alert received: GeluwatchActivationDrift for minilm, severity critical" in events
    assert "runbook opens: " in events
    assert "ok      resolved: GeluwatchActivationDrift for minilm" in events
    assert re.search(r"drifted from its baseline far enough to page, first at layer encoder\.layer\.\d\.", received)
    told = re.search(r"what to do: geluwatch runbook\s+(\w+)", received)
    assert told is not None
    assert told[1] in names()
