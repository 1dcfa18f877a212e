"""What the listener serves for a watch, asked for over HTTP, and the live page in a real browser."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from http.client import HTTPMessage
from importlib.resources import files
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urljoin
from urllib.request import Request, urlopen

import pytest

from geluwatch.export import messages
from geluwatch.export.document import document
from geluwatch.export.listener import Listener
from geluwatch.export.pages import routes, trouble
from geluwatch.export.prometheus import render
from geluwatch.records import VERDICTS, Alarm, Headroom, Report, Verdict

ReportBuilder = Callable[..., Report]

RUNBOOKS = {
    "NonFinite": "# NonFinite\n\n## Meaning\n\nA *NaN* & more, see [drift](Drift.md).\n\n<script>alert(1)</script>\n",
    "Drift": "# Drift\n\n## Meaning\n\nValues moved.\n",
}
PLAYBOOKS = {"Rollback": "# Rollback\n\nGo back, see [drift](../Drift.md).\n"}
RUNBOOK_OF = {"nonfinite": "NonFinite", "drift": "Drift", "gross": "Drift", "blind": "Absent"}


@contextmanager
def listening(pages: dict[str, messages.Route]) -> Iterator[str]:
    """Serve routes and yield the base URL."""
    listener = Listener(pages)
    try:
        yield listener.start()
    finally:
        listener.close()


def serving(read: Callable[[], Report], report_seconds: float | None = None) -> AbstractContextManager[str]:
    """Serve a watch's routes."""
    return listening(routes(read, RUNBOOKS, RUNBOOK_OF, PLAYBOOKS, report_seconds=report_seconds))


def get(url: str, **headers: str) -> tuple[bytes, HTTPMessage]:
    """Return body and headers of a page."""
    with urlopen(Request(url, headers={name.replace("_", "-"): value for name, value in headers.items()}), timeout=5) as answer:
        return answer.read(), answer.headers


class Addresses(HTMLParser):
    """Collects what a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.found += [str(given[name]) for name in ("href", "src") if name in given]
        if tag == "style" or (tag == "script" and "src" not in given) or any(name == "style" or name.startswith("on") for name in given):
            self.inline.append(tag)


def test_metrics_follow_the_accept_header(make_report: ReportBuilder) -> None:
    """Text unless OpenMetrics is asked for, and both hold the whole report."""
    report = make_report("ok", 1)
    with serving(lambda: report) as url:
        text, headers = get(f"{url}/metrics")
        openmetrics, other = get(f"{url}/metrics", Accept="application/openmetrics-text;version=1.0.0")

    assert "text/plain; version=0.0.4; charset=utf-8" == headers["Content-Type"]
    assert "application/openmetrics-text; version=1.0.0; charset=utf-8" == other["Content-Type"]
    assert render(report)[0].splitlines()[:-4] == text.splitlines()[:-4]
    assert openmetrics.endswith(b"# EOF\n")


def test_a_report_is_rendered_once(make_report: ReportBuilder) -> None:
    """Scrapes of one report share the very same bytes, compressed ones too; the next report is rendered anew."""
    first, second = make_report("ok", 1), make_report("ok", 1)
    shown = [first]
    route = routes(lambda: shown[0], {})["/metrics"]
    once, again = route(messages.Request("/metrics")), route(messages.Request("/metrics"))
    shown[0] = second

    assert once is again
    assert once.compressed is again.compressed
    assert once is not route(messages.Request("/metrics"))
    assert once.body == gzip.decompress(once.compressed)


def test_the_report_is_served_as_json(make_report: ReportBuilder) -> None:
    """/report.json is the documented JSON, with the runbook that fits the verdict."""
    report = make_report("ticket", 3)
    with serving(lambda: report) as url:
        body, headers = get(f"{url}/report.json")

    assert "application/json" == headers["Content-Type"]
    assert document(report, "runbooks/Drift") == json.loads(body)


@pytest.mark.parametrize("verdict", ["ok", "warming", "blind"])
def test_a_verdict_without_a_runbook_links_to_none(make_report: ReportBuilder, verdict: Verdict) -> None:
    """A verdict that names no runbook, or one that is not served, has null there."""
    with serving(lambda: make_report(verdict)) as url:
        assert None is json.loads(get(f"{url}/report.json")[0])["runbook"]


def test_the_gravest_trouble_chooses_the_runbook(make_report: ReportBuilder) -> None:
    """A page is about NaN first, then about a gross fault, then about drift; a calm model is in no trouble."""
    drift = replace(make_report("ticket", 2), verdict="page")
    key = next(iter(drift.sites))
    gross = replace(drift, sites={**drift.sites, key: replace(drift.sites[key], gross="dead")})

    assert ["nonfinite", "gross", "nonfinite"] == [
        trouble(found) for found in (make_report("page"), gross, replace(gross, first_nonfinite="a"))
    ]
    assert ["drift", "drift"] == [trouble(found) for found in (drift, make_report("ticket"))]
    assert ["warming", "blind", ""] == [trouble(found) for found in (make_report("warming"), make_report("blind"), make_report("ok"))]


def beside(report: Report, alarm: Alarm = "", fault: str = "") -> Report:
    """The report with an overflow ahead, or a wrong kernel, at its first layer."""
    layer = next(iter(report.sites))[0]
    after = report.sites[layer, "post"]
    assert after.parity is not None
    room = Headroom(4.5, 10.0, 600.0, alarm) if alarm else after.headroom
    return replace(
        report, sites={**report.sites, (layer, "post"): replace(after, headroom=room, parity=replace(after.parity, fault=fault))}
    )


def test_an_overflow_ahead_comes_before_drift_and_a_wrong_kernel_after_it(make_report: ReportBuilder) -> None:
    """An overflow that pages or tickets as the report does is the trouble; a kernel is where nothing else is."""
    calm, drift = replace(make_report("ok", 2), verdict="ticket"), make_report("ticket", 2)
    strong = replace(drift, verdict="page")

    assert "overflow" == trouble(beside(replace(calm, verdict="page"), "page"))
    assert ["overflow", "overflow", "drift"] == [trouble(beside(found, "ticket")) for found in (calm, drift, strong)]
    changed = replace(calm, probe=make_report("ticket").probe)
    assert ["model", "drift"] == [trouble(found) for found in (changed, replace(changed, drifting=drift.drifting))]
    assert ["kernel", "drift"] == [trouble(beside(found, fault="declared erf, measured tanh")) for found in (calm, drift)]


@pytest.mark.parametrize(
    ("alarm", "fault", "state", "words"),
    [
        ("page", "", "overflowpage", "bits of headroom left. At the present rate they overflow in 10 min."),
        ("", "declared erf in float32, measured tanh", "kernel", "declared erf in float32, measured tanh."),
    ],
)
def test_the_live_page_says_what_is_wrong_with_the_arithmetic(
    make_report: ReportBuilder, browse: Callable[[str], str], alarm: Alarm, fault: str, state: str, words: str
) -> None:
    """An overflow ahead and a wrong kernel are named with their layer and marked in the table."""
    calm = make_report("ok", 2, time=time.time())
    report = beside(replace(calm, verdict=alarm or "ticket"), alarm, fault)
    with serving(lambda: report) as url:
        page = browse(f"{url}/")

    shown = re.sub(r"<[^>]*>", "", page)
    assert words in shown
    assert next(iter(report.sites))[0] in shown
    assert f'data-state="{state}"' in page


def test_health_is_whether_a_report_can_be_read(make_report: ReportBuilder) -> None:
    """/healthz answers ok, and 500 once there is no report to be had."""
    reports = iter([make_report("blind")])
    with serving(lambda: next(reports)) as url:
        assert b"ok\n" == get(f"{url}/healthz")[0]
        with pytest.raises(HTTPError, match="500"):
            get(f"{url}/healthz")


def test_a_runbook_is_a_page_and_a_text(make_report: ReportBuilder) -> None:
    """As HTML its own tags are inert and its links lead on; with ?format=md it is the source, which leads on to sources."""
    with serving(lambda: make_report("ok")) as url:
        page = get(f"{url}/runbooks/NonFinite")[0].decode()
        source, headers = get(f"{url}/runbooks/NonFinite?format=md")

    assert "<title>NonFinite · geluwatch</title>" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert '<a href="Drift">drift</a>' in page
    assert "text/markdown; charset=utf-8" == headers["Content-Type"]
    assert RUNBOOKS["NonFinite"].replace("Drift.md", "Drift?format=md") == source.decode()


def test_the_index_names_each_runbook_and_its_meaning(make_report: ReportBuilder) -> None:
    """/runbooks/ links to every one with its first sentence, and is found without the slash too."""
    with serving(lambda: make_report("ok")) as url:
        page = get(f"{url}/runbooks")[0].decode()

    assert '<a href="Drift">Drift</a>' in page
    assert "A NaN &amp; more, see drift." in page


def test_playbooks_are_served_beside_the_runbooks(make_report: ReportBuilder) -> None:
    """The index has them under a heading of their own, and a link from a playbook to a runbook leads there."""
    with serving(lambda: make_report("ok")) as url:
        index = get(f"{url}/runbooks/")[0].decode()
        page = get(f"{url}/runbooks/Rollback")[0].decode()

    runbooks, playbooks = index.split("<h1>Playbooks</h1>")
    assert ("Drift" in runbooks, "Rollback" in runbooks, '<a href="Rollback">Rollback</a>' in playbooks) == (True, False, True)
    assert '<a href="Drift">drift</a>' in page


def test_an_unknown_runbook_lists_those_there_are(make_report: ReportBuilder) -> None:
    """The 404 names the runbooks that exist."""
    with serving(lambda: make_report("ok")) as url, pytest.raises(HTTPError, match="404") as caught:
        get(f"{url}/runbooks/Nonsense")

    assert {"/runbooks/NonFinite", "/runbooks/Drift"} <= set(caught.value.read().decode().splitlines())
    caught.value.close()


@pytest.mark.parametrize("path", ["/", "/runbooks/", "/runbooks/NonFinite", "/runbooks/Rollback"])
def test_pages_need_nothing_from_elsewhere(make_report: ReportBuilder, path: str) -> None:
    """Every address in a page is this listener's own and exists; nothing is inline that the policy would block."""
    with serving(lambda: make_report("ok")) as url:
        parser = Addresses()
        parser.feed(get(url + path)[0].decode())
        addresses = {urljoin(url + path, found) for found in parser.found if not found.startswith("data:")}
        assert [] == [address for address in addresses if not address.startswith(f"{url}/")]
        for address in addresses:
            assert get(address)[0]
    assert [] == parser.inline


def test_the_static_files_name_no_other_host() -> None:
    """Nothing in the live page's files points outside, save the name of the SVG language."""
    for file in files("geluwatch").joinpath("web").iterdir():
        assert set(re.findall(r"//[^\s\"]+", file.read_text("utf-8"))) <= {"//www.w3.org/2000/svg"}


@pytest.fixture(scope="module")
def browse(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Load a page in headless Chromium, let it poll for some seconds of its own time, and return what it then shows."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    profile = tmp_path_factory.mktemp("chromium")

    def show(url: str) -> str:
        quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"]
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", *quiet, f"--user-data-dir={Path(profile)}"]
        done = subprocess.run([*command, "--virtual-time-budget=7000", "--dump-dom", url], capture_output=True, timeout=60, check=True)
        return done.stdout.decode()

    return show


WORDS = {"ok": "OK", "ticket": "Ticket", "page": "Page", "warming": "Warming", "blind": "Blind"}


@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_live_page_shows_the_report(make_report: ReportBuilder, browse: Callable[[str], str], verdict: Verdict) -> None:
    """In a browser the page has the verdict in large, every layer, and a runbook where one fits."""
    with serving(lambda: make_report(verdict, 3, time=time.time())) as url:
        shown = browse(f"{url}/")

    assert f'<h1 id="verdict">{WORDS[verdict]}</h1>' in shown
    assert 3 == shown.count("<tbody")
    assert (verdict in ("page", "ticket")) == ('href="runbooks/' in shown.partition('id="runbook"')[2].partition(">")[0])
    assert 'data-live="true"' in shown


def test_the_live_page_blames_nobody_where_the_layers_do_not_tell(make_report: ReportBuilder, browse: Callable[[str], str]) -> None:
    """A drift of unknown scope is told as that."""
    report = replace(make_report("ticket", 6, time=time.time()), scope="unknown")
    with serving(lambda: report) as url:
        shown = re.sub(r"<[^>]*>", "", browse(f"{url}/").partition("<body")[2])
    assert "The layers do not tell whether the traffic or the model changed." in shown
    assert "did not move alike" not in shown


def test_the_live_page_says_where_drift_began(make_report: ReportBuilder, browse: Callable[[str], str]) -> None:
    """First layer, how long ago, scope and cause stand below the verdict, and the drifting layers say how they differ."""
    now = time.time()
    report = make_report("ticket", 6, time=now)
    sites = {key: replace(seen, onset=now - 480 if seen.alarm else None) for key, seen in report.sites.items()}
    with serving(lambda: replace(report, sites=sites)) as url:
        shown = re.sub(r"<[^>]*>", "", browse(f"{url}/").partition("<body")[2])

    assert f"It began at {report.drifting[0]} 8 min ago. The others did not move alike" in shown
    assert report.cause.removeprefix(f"{report.drifting[0]}: ") in shown.replace("’", "'")
    assert report.cause not in shown
    assert "first in drift for 8 min" in shown
    assert "mean +0.39 sd, spread ×1.08, tails 0.6 %" in shown
    assert "for 2 false tickets a month and 1 false page in three months" in shown


def test_the_live_page_names_gross_faults(make_report: ReportBuilder, browse: Callable[[str], str]) -> None:
    """A dead layer is named as such where it pages, without a baseline too, and links to its runbook."""
    report = make_report("warming", 3, time=time.time())
    (layer, point), seen = next(iter(report.sites.items()))
    broken = replace(report, verdict="page", sites={**report.sites, (layer, point): replace(seen, gross="dead")})
    with serving(lambda: broken) as url:
        page = browse(f"{url}/")

    shown = re.sub(r"<[^>]*>", "", page)
    assert f"Layer {layer} is dead: it always gives the same, or lets nothing through." in shown
    assert 'data-state="gross"' in page
    assert 'href="runbooks/Drift"' in page


def test_names_in_the_report_are_never_markup(make_report: ReportBuilder, browse: Callable[[str], str]) -> None:
    """A layer or a model named like a tag is shown as text."""
    report = make_report("page", 1, model="<b>model</b>")
    evil = "<img src=x>"
    sites = {(evil, point): replace(seen, layer=evil) for (_, point), seen in report.sites.items()}
    with serving(lambda: replace(report, sites=sites, first_nonfinite=evil)) as url:
        shown = browse(f"{url}/")

    assert "&lt;img src=x&gt;" in shown
    assert "&lt;b&gt;model" in shown
    assert "<img" not in shown


def test_the_page_says_when_the_agent_falls_silent(make_report: ReportBuilder, browse: Callable[[str], str]) -> None:
    """After the last answer the page says since when it has had none, and keeps what it knew."""
    reports = iter([make_report("ticket", 3)])
    with serving(lambda: next(reports)) as url:
        shown = browse(f"{url}/")

    assert "The agent has not answered since " in shown
    assert 'data-live="false"' in shown
    assert '<h1 id="verdict">Ticket</h1>' in shown


@pytest.mark.parametrize(("seconds", "old"), [(None, True), (5.0, True), (30.0, True), (60.0, False)])
def test_the_page_says_when_reports_stop_coming(
    make_report: ReportBuilder, browse: Callable[[str], str], seconds: float | None, *, old: bool
) -> None:
    """A report of 100 s ago is old unless fewer than three more were due since; one that says not when they are due has 30 s."""
    with serving(lambda: make_report("ok", 1, time=time.time() - 100), seconds) as url:
        shown = browse(f"{url}/")

    assert old == bool(re.search(r"The agent answers, but its report is (99|10\d) s old", shown))
    assert f'data-live="{str(not old).lower()}"' in shown


@pytest.mark.parametrize(("age", "live"), [(5, True), (100, False)])
def test_the_page_reads_the_report_of_an_older_agent(
    make_report: ReportBuilder, browse: Callable[[str], str], age: int, *, live: bool
) -> None:
    """Where a report lacks the seconds between two of them, the page shows it, and calls it old after 30 s."""

    def older(_: messages.Request) -> messages.Response:
        told = document(make_report("ok", 1, time=time.time() - age))
        del told["report_seconds"]
        return messages.Response(json.dumps(told).encode(), "application/json")

    with listening({**routes(lambda: make_report("ok"), {}), "/report.json": older}) as url:
        shown = browse(f"{url}/")
    assert f'data-live="{str(live).lower()}"' in shown
    assert '<h1 id="verdict">OK</h1>' in shown
