"""Photographs the head of a report on a made-up week, for docs/report.md.

    python tools/report/picture.py docs/report.png

Needs chromium. The week is one of those that the tests look at (tests/support/weeks.py).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "support"))

import weeks

from geluwatch.analysis import report

WIDTH, HEIGHT = 1200, 1010


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description="Photograph the head of a report on a made-up week.")
    parser.add_argument("picture", type=Path, help="where it goes; the page is put beside it with --keep")
    parser.add_argument("--keep", action="store_true", help="keep the page")
    given = parser.parse_args()
    week = weeks.Week(replace(weeks.EVENTFUL, drift=(40.0, 0.0), mute=None, errors={}, values=40_000))
    found = report.gather(week, week, report.Subject("minilm", None, week.end - 7 * weeks.DAY, week.end))
    with tempfile.TemporaryDirectory() as folder:
        page = given.picture.with_suffix(".html") if given.keep else Path(folder) / "report.html"
        page.write_text(report.page(found, week.end), "utf-8")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={WIDTH},{HEIGHT}"]
        where = [f"--user-data-dir={folder}/profile", f"--screenshot={given.picture.resolve()}", page.resolve().as_uri()]
        subprocess.run(["chromium", *flags, *where], check=True, capture_output=True)


if __name__ == "__main__":
    main()
