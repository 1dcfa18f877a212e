"""`geluwatch runbook` on a real terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import termios
from contextlib import suppress


def test_a_terminal_gets_a_page_laid_out() -> None:
    """On a terminal marks of Markdown are gone, every command stays whole, and links are commands that open what they name."""
    shown = on_a_terminal(100, "runbook", "NonFiniteActivations")
    assert "\x1b[" in shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert "kubectl drain NODE --ignore-daemonsets" in plain
    assert "geluwatch runbook Rollback" in " ".join(plain.split())
    for mark in ("```", "## ", "**", "](playbooks/"):
        assert mark not in plain
    assert max(map(len, plain.splitlines())) <= 100


def on_a_terminal(columns: int, *arguments: str) -> str:
    """Run the command line with a terminal of so many columns as its output; return what it shows."""
    screen, output = pty.openpty()
    termios.tcsetwinsize(output, (40, columns))
    shown = bytearray()
    with subprocess.Popen([sys.executable, "-m", "geluwatch", *arguments], stdout=output, env={**os.environ, "TERM": "xterm-256color"}):
        os.close(output)
        # Linux ends the reading of a terminal that nobody writes to any more with an error.
        with suppress(OSError):
            while part := os.read(screen, 65536):
                shown += part
    os.close(screen)
    return shown.decode().replace("\r\n", "\n")
