"""What the listener serves for one watch: metrics, the report as JSON, the live page and the runbooks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from html import escape
from importlib.resources import files
from string import Template
from typing import Any
from urllib.parse import quote

from geluwatch.export import markdown
from geluwatch.export.document import document
from geluwatch.export.messages import Request, Response, Route, text
from geluwatch.export.prometheus import negotiate, render
from geluwatch.export.renderings import Renderings
from geluwatch.records import Report

_HTML = "text/html; charset=utf-8"
_JSON = "application/json"
_MARKDOWN = "text/markdown; charset=utf-8"
_STATIC = {
    "/": ("index.html", _HTML),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    **{f"/{name}": (name, "text/javascript; charset=utf-8") for name in ("words.js", "layers.js", "app.js")},
}


def routes(
    read: Callable[[], Report],
    runbooks: Mapping[str, str],
    runbook_of: Mapping[str, str] | None = None,
    playbooks: Mapping[str, str] | None = None,
    report_seconds: float | None = None,
) -> dict[str, Route]:
    """Return the routes of one watch.

    Args:
        read: Returns the newest report.
        runbooks: Markdown by name; each is served under `/runbooks/`.
        runbook_of: Name of the runbook that fits each trouble; the live page links to it.
        playbooks: Further texts, by name, which are served beside the runbooks.
        report_seconds: Seconds from one report to the next, by which the live page knows an old one.
    """
    renderings, texts = Renderings(), {**runbooks, **(playbooks or {})}
    fitting = {what: f"runbooks/{quote(name)}" for what, name in (runbook_of or {}).items() if name in runbooks}

    def metrics(request: Request) -> Response:
        report, content_type = read(), negotiate(request.accept)
        return renderings.of(report, content_type, lambda: Response(*render(report, request.accept)))

    def report_json(_: Request) -> Response:
        report = read()
        return renderings.of(report, _JSON, lambda: _json(document(report, fitting.get(trouble(report)), report_seconds)))

    def healthz(_: Request) -> Response:
        read()
        return text(200, "ok")

    return {
        **{path: _static(name, content_type) for path, (name, content_type) in _STATIC.items()},
        "/metrics": metrics,
        "/report.json": report_json,
        "/healthz": healthz,
        "/runbooks/": _index({"Runbooks": runbooks, "Playbooks": playbooks or {}}),
        **{f"/runbooks/{name}": _runbook(name, texts) for name in texts},
    }


def trouble(report: Report) -> str:
    """Return what is wrong first of all, or "" where nothing is.

    That is "nonfinite", "gross", "overflow", "drift", "model", "kernel", "warming" or "blind"; an overflow ahead comes before drift of
    the same tier, which it brings with it.
    """
    if report.verdict == "ok":
        return ""
    if report.verdict == "page" and report.first_nonfinite is not None:
        return "nonfinite"
    if report.verdict == "page" and any(seen.gross for seen in report.sites.values()):
        return "gross"
    if report.verdict not in ("page", "ticket"):
        return report.verdict
    if any(seen.headroom.alarm == report.verdict for seen in report.sites.values()):
        return "overflow"
    if report.probe is not None and report.probe.moved and not report.drifting:
        return "model"
    faulty = any(seen.parity is not None and seen.parity.fault for seen in report.sites.values())
    return "kernel" if faulty and not report.drifting else "drift"


def _json(values: Mapping[str, Any]) -> Response:
    return Response(json.dumps(values, allow_nan=False).encode(), _JSON)


def _static(name: str, content_type: str) -> Route:
    kept = Response(_file(name).encode(), content_type)
    return lambda _: kept


def _runbook(name: str, runbooks: Mapping[str, str]) -> Route:
    @cache
    def page() -> Response:
        found = markdown.render(runbooks[name], runbooks)
        return _page(found.title or name, found.html)

    def route(request: Request) -> Response:
        if request.query.get("format") == "md":
            return Response(markdown.relinked(runbooks[name], runbooks).encode(), _MARKDOWN)
        return page()

    return route


def _index(groups: Mapping[str, Mapping[str, str]]) -> Route:
    @cache
    def page() -> Response:
        return _page("Runbooks", "\n".join(_group(title, texts) for title, texts in groups.items() if texts))

    return lambda _: page()


def _group(title: str, texts: Mapping[str, str]) -> str:
    entries = [_entry(name, markdown.render(source).summary) for name, source in texts.items()]
    return f'<h1>{escape(title)}</h1>\n<dl class="index">\n{"".join(entries)}</dl>'


def _entry(name: str, summary: str) -> str:
    return f'<dt><a href="{quote(name)}">{escape(name)}</a></dt>\n<dd>{escape(summary)}</dd>\n'


def _page(title: str, body: str) -> Response:
    """Return a page in the shell of the runbooks; `body` is HTML, `title` is not."""
    return Response(Template(_file("runbook.html")).substitute(title=escape(title), body=body).encode(), _HTML)


def _file(name: str) -> str:
    return files("geluwatch").joinpath("web", name).read_text("utf-8")
