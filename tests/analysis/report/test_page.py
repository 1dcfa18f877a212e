"""The page: one file, sound HTML, safe with any name, asking for nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
import weeks

from geluwatch.analysis import report
from geluwatch.analysis.report import Findings, Subject, gather, page
from geluwatch.analysis.report.opening import RUNBOOKS, opening
from geluwatch.mixin import runbooks

Gathered = Callable[..., Findings]

MADE = weeks.END + 60.0
VOID = {"meta", "link", "br", "input", "wbr"}
NASTY = "enc\"'><script>alert(1)</script>&{}.act"


class Sound(HTMLParser):
    """Reads a page and fails where elements are not closed in the order in which they were opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.open.pop(), f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text.append(data)

    @property
    def said(self) -> str:
        """All text, with single spaces."""
        return " ".join("".join(self.text).split())

    def every(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of a name."""
        return [attributes for name, attributes in self.elements if name == tag]


def read(html: str) -> Sound:
    """Parse a page whole."""
    sound = Sound()
    sound.feed(html)
    sound.close()
    assert [] == sound.open
    return sound


STORIES = {
    "eventful": weeks.EVENTFUL,
    "calm": weeks.CALM,
    "largest": replace(weeks.LARGEST, values=1000),
    "unjudged": replace(weeks.CALM, baseline=None),
    "silent": replace(weeks.EVENTFUL, silent=(40.0, 0.0)),
    "idle": replace(weeks.CALM, idle=(168.0, 0.0)),
    "broken all along": replace(weeks.CALM, nonfinite=(168.0, 0.0), broken=0),
    "an hour": replace(weeks.CALM, hours=1.0),
    "one layer": replace(weeks.CALM, layers=1, drift=(20.0, 0.0), onset=0, scope="unknown"),
}


@pytest.mark.parametrize("name", STORIES)
def test_every_week_makes_a_sound_page(gathered: Gathered, name: str) -> None:
    """Elements close, links lead to unique ids, headings go down one by one, charts and table heads are named, nothing is left out."""
    found = gathered(STORIES[name])
    html = page(found, MADE)
    sound = read(html)
    ids = [attributes["id"] for _, attributes in sound.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {attributes["href"] for attributes in sound.every("a")} <= {f"#{each}" for each in ids}
    assert {attributes["aria-labelledby"] for attributes in sound.every("section") if "aria-labelledby" in attributes} <= set(ids)
    headings = [int(name[1]) for name, _ in sound.elements if re.fullmatch("h[1-6]", name)]
    assert 1 == headings.count(1)
    assert all(other - one <= 1 for one, other in pairwise(headings))
    assert all(each.get("role") == "img" and each.get("aria-label") for each in sound.every("svg"))
    assert all(each.get("scope") in {"col", "row"} for each in sound.every("th"))
    drawn = re.findall(r' (?:d|style|viewBox)="([^"]*)"', html)
    assert not [each for each in drawn if re.search(r"nan|inf|e[-+]\d", each)]
    for sentence in opening(found).sentences:
        assert sentence.replace("`", "") in sound.said


def test_names_are_text_wherever_they_stand() -> None:
    """A model, a version, layers, a baseline and a cause that look like HTML stay text, in elements, attributes and drawings."""
    story = replace(
        weeks.EVENTFUL, name=NASTY, model=NASTY, version="<b>1</b>", baseline="<i>base</i>", blind=True, errors={"<u>": 1}, values=500
    )
    week = weeks.Week(story)
    html = page(gather(week, week, Subject(story.model, None, week.end - 7 * weeks.DAY, week.end)), MADE)
    sound = read(html)
    assert {"script", "u"}.isdisjoint(name for name, _ in sound.elements)
    assert not re.search(r"<(script|u>|i>base|b>1)", html)
    assert NASTY.format(2) in sound.said
    assert "<i>base</i>" in sound.said


def test_the_page_asks_for_nothing(gathered: Gathered) -> None:
    """Nothing in it loads anything: no address but anchors and an empty icon, no import, no script; a policy forbids it besides."""
    html = page(gathered(weeks.EVENTFUL), MADE)
    sound = read(html)
    addresses = [
        value for _, given in sound.elements for name, value in given.items() if name in {"src", "href", "srcset", "data", "action"}
    ]
    assert all(address and (address.startswith("#") or address == "data:,") for address in addresses)
    assert not re.search(r"https?:|url\(|@import|<script|\son\w+=", html)
    (policy,) = [each for each in sound.every("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy["content"]).startswith("default-src 'none'")


def test_it_says_where_it_began_and_what_to_do(gathered: Gathered) -> None:
    """The first words name the layer, the scope and the runbook, whose first steps are in the page, so that they open without a network."""
    sound = read(page(gathered(replace(weeks.CALM, drift=(6.0, 0.0))), MADE))
    assert "first at encoder.layer.2.intermediate.intermediate_act_fn. Seen at" in sound.said
    assert "The others did not move alike, so look at the model at this layer first." in sound.said
    assert "What to do next: GeluwatchActivationDrift" in sound.said
    assert "Do not record a new baseline to make it quiet." in sound.said


def test_every_kind_of_episode_has_a_runbook() -> None:
    """What a report leads to exists."""
    assert set(RUNBOOKS.values()) <= set(runbooks.names())


def test_every_layer_has_a_row_and_few_have_a_picture(gathered: Gathered) -> None:
    """48 layers make 48 rows, in the model's order, and four large pictures."""
    sound = read(page(gathered(STORIES["largest"]), MADE))
    assert 4 == len([each for each in sound.every("article") if each.get("class") == "card"])
    rows = [each["aria-label"] for each in sound.every("svg") if str(each["aria-label"]).startswith("Evidence of")]
    assert 48 + 4 == len(rows)


def test_a_large_week_is_a_small_file() -> None:
    """48 layers and seven days, distributions of a hundred thousand values and all, stay below 3 MB."""
    story = replace(weeks.LARGEST, minutes=15.0, values=20_000)
    week = weeks.Week(story)
    size = len(page(gather(week, week, Subject(story.model, None, week.end - 7 * weeks.DAY, week.end)), MADE).encode())
    print(f"48 layers, 7 days: {size:,} bytes")
    assert 50_000 < size < 3_000_000


def test_it_opens_from_disk_without_a_network(gathered: Gathered, tmp_path: Path) -> None:
    """A browser that reaches no host shows the whole file and logs no error."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    file = tmp_path / "report.html"
    file.write_text(page(gathered(weeks.EVENTFUL), MADE), "utf-8")
    alone = ["--host-resolver-rules=MAP * ~NOTFOUND", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", *alone]
    logged = ["--enable-logging=stderr", "--v=0", "--dump-dom", file.as_uri()]
    done = subprocess.run([*command, *logged], capture_output=True, timeout=60, check=True)
    assert [] == [line for line in done.stderr.decode(errors="replace").splitlines() if "CONSOLE" in line or "Refused to" in line]
    assert ">Not well</h1>" in done.stdout.decode()
    assert "What this rests on" in done.stdout.decode()


def test_shades_are_told_apart_without_colour() -> None:
    """By lightness alone each shade of evidence is further from calm than the one before, on light paper and on dark."""
    style = (Path(report.__file__).parent / "templates" / "report.css").read_text("utf-8")
    for scheme in style.split("prefers-color-scheme: dark")[:2]:
        shades = [re.findall(rf"--e{level}: #(..)(..)(..)", scheme)[-1] for level in range(5)]
        light = [sum(weight * int(part, 16) ** 2.2 for weight, part in zip((0.21, 0.72, 0.07), shade, strict=True)) for shade in shades]
        assert light in (sorted(light), sorted(light, reverse=True))
        assert all(max(one, other) > 1.2 * min(one, other) for one, other in pairwise(light))
