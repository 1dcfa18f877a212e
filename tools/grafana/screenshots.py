"""Draws every dashboard with a real Prometheus' answers and photographs it: one page and one PNG each.

    python tools/grafana/screenshots.py FOLDER

Needs prometheus, promtool, node with the packages of tools/grafana, and chromium.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from pathlib import Path

import answers

WIDTH = 1616


def main() -> None:
    """Write the pages and the pictures of all dashboards."""
    parser = argparse.ArgumentParser(description="Draw every dashboard with a real Prometheus' answers.")
    parser.add_argument("folder", type=Path, help="where pages and pictures go")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for dashboard, sections in answers.shown():
        print(draw(dashboard, sections, folder))


def draw(dashboard: answers.Json, sections: list[answers.Json], folder: Path) -> Path:
    """Write a dashboard's page and picture, and return the picture's path."""
    command = ["node", str(Path(__file__).with_name("draw.mjs"))]
    told = json.dumps({"title": dashboard["title"], "sections": sections})
    html = subprocess.run(command, input=told, stdout=subprocess.PIPE, text=True, check=True).stdout
    page, picture = (folder / f"{dashboard['uid']}{suffix}" for suffix in (".html", ".png"))
    page.write_text(html)
    height = 80 + sum(40 + int(found) for found in re.findall(r'class="section" style="height:(\d+)px', html))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={WIDTH},{height}"]
    subprocess.run(["chromium", *flags, f"--screenshot={picture}", page.resolve().as_uri()], check=True, capture_output=True)
    return picture


if __name__ == "__main__":
    main()
