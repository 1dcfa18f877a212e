"""Renders runbooks from Markdown to HTML that is safe to serve: no HTML of the source's own passes through."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.token import Token

_PARSER = MarkdownIt("commonmark", {"html": False}).enable("table")
_FILE = re.compile(r"(?:\./|\.\./|playbooks/)?([^/#?]+)\.md(#.*)?")
_BOX = "[ ] "
_LINK = re.compile(rf"\]\({_FILE.pattern}\)")


@dataclass(frozen=True, slots=True)
class Rendered:
    """A Markdown text, rendered."""

    title: str
    """Its first heading, as plain text; empty without one."""
    summary: str
    """Its first paragraph, as plain text; empty without one."""
    html: str


def render(source: str, names: Collection[str] = ()) -> Rendered:
    """Render a Markdown text.

    Args:
        source: The text.
        names: Names of the texts beside it. A link to the file `Name.md`, which works where the files lie, is made a
            link to `Name`, which works where they are served, all in one place.
    """
    tokens = _PARSER.parse(source)
    for token in _links(tokens):
        _point_at_page(token, names)
    for inline in (token for token in tokens if token.type == "inline"):
        _make_box(inline)
    html = _PARSER.renderer.render(tokens, _PARSER.options, {})
    return Rendered(_first(tokens, "heading_open"), _first(tokens, "paragraph_open"), html)


def relinked(source: str, names: Collection[str]) -> str:
    """Return a Markdown text whose links to the files of these names lead to their sources where they are served."""

    def served(link: re.Match[str]) -> str:
        return f"]({link[1]}?format=md{link[2] or ''})" if link[1] in names else link[0]

    return _LINK.sub(served, source)


def _links(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield from (child for child in token.children or () if child.type == "link_open")


def _point_at_page(link: Token, names: Collection[str]) -> None:
    found = _FILE.fullmatch(str(link.attrGet("href")))
    if found and found[1] in names:
        link.attrSet("href", found[1] + (found[2] or ""))


def _make_box(inline: Token) -> None:
    """Make a box to tick of the mark that a step of a checklist begins with."""
    first = inline.children[0] if inline.children else None
    if first is not None and first.type == "text" and first.content.startswith(_BOX):
        first.content = first.content.removeprefix(_BOX)
        box = Token("html_inline", "", 0, content='<input type="checkbox" aria-label="done">')
        inline.children = [box, *(inline.children or ())]


def _first(tokens: list[Token], kind: str) -> str:
    """Return the plain text of the first block of a kind; its one inline token follows the opening one."""
    inline = next((tokens[place + 1] for place, token in enumerate(tokens) if token.type == kind), None)
    if inline is None:
        return ""
    return "".join(" " if child.type == "softbreak" else child.content for child in inline.children or ())
