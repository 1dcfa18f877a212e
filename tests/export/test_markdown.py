"""Runbooks from Markdown to HTML."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geluwatch.export.markdown import relinked, render

TEXT = """# Drift at `pre`

## Meaning

Values moved
away from the *baseline*.

| a | b |
|---|---|
| 1 | 2 |
"""


def test_title_and_summary_are_plain_text() -> None:
    """The first heading and the first paragraph lose their marks and line ends."""
    found = render(TEXT)

    assert ("Drift at pre", "Values moved away from the baseline.") == (found.title, found.summary)
    assert "<td>1</td>" in found.html


def test_an_empty_text_has_neither() -> None:
    """Nothing gives nothing."""
    found = render("")

    assert ("", "", "") == (found.title, found.summary, found.html)


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("Other.md", "Other"),
        ("./Other.md#mitigation", "Other#mitigation"),
        ("Unknown.md", "Unknown.md"),
        ("https://example.org/Other.md", "https://example.org/Other.md"),
        ("../Other.md", "Other"),
        ("playbooks/Other.md", "Other"),
        ("elsewhere/Other.md", "elsewhere/Other.md"),
    ],
)
def test_links_between_files_become_links_between_pages(link: str, target: str) -> None:
    """A link to a runbook's file leads to its page; any other link stays as it is."""
    assert f'<a href="{target}">see</a>' in render(f"[see]({link})", {"Other"}).html


@pytest.mark.parametrize("target", ["javascript:alert(1)", "vbscript:x", "data:text/html,x", "JaVaScRiPt:alert(1)"])
def test_links_that_run_code_are_not_made(target: str) -> None:
    """Such a link stays text."""
    assert "href" not in render(f"[see]({target})").html


@given(
    st.lists(
        st.sampled_from(["<script>", "<img src=x onerror=y>", "`", "```\n", "\n", "[a](", ")", "# ", '"', "&lt;", "| ", "<!--", "x"]),
        max_size=12,
    )
)
def test_no_html_of_the_source_passes_through(parts: list[str]) -> None:
    """Whatever is written, the only tags that come out are those of Markdown."""
    found = set(re.findall(r"<\s*/?\s*([a-zA-Z!]+)", render("".join(parts)).html))

    assert found <= {"p", "a", "code", "pre", "h", "ul", "li", "em", "strong", "br", "table", "thead", "tbody", "tr", "th", "td"}


def test_a_source_that_is_served_leads_to_sources() -> None:
    """In the Markdown itself links to texts that are served get the address of those texts' Markdown; others stay."""
    source = "[a](playbooks/Other.md), [b](../Other.md#end), [c](Unknown.md), [d](https://example.org/Other.md)\n"
    expected = "[a](Other?format=md), [b](Other?format=md#end), [c](Unknown.md), [d](https://example.org/Other.md)\n"
    assert expected == relinked(source, {"Other"})


def test_steps_of_a_checklist_can_be_ticked() -> None:
    """A mark at the beginning of a step is a box; anywhere else it stays the text that it is."""
    html = render("- [ ] first, then `[ ]`\n\n- second [ ] third\n").html
    assert 1 == html.count('<input type="checkbox" aria-label="done">first, then <code>[ ]</code>')
    assert "second [ ] third" in html
