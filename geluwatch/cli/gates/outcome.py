"""What a gate found, and the forms in which it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree


@dataclass(frozen=True, slots=True)
class Case:
    """One layer, passed unless a kind of failure is given."""

    name: str
    failure: str = ""
    said: str = ""
    """What is wrong with it, in a line."""
    sentence: str = ""
    """What is wrong with the whole."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a gate found."""

    title: str
    """What was compared with what."""
    group: str
    """What the layers belong to."""
    lines: tuple[str, ...]
    """For people."""
    document: dict[str, Any]
    """For programs, as JSON."""
    cases: tuple[Case, ...]
    passed: bool


def junit(found: Outcome) -> str:
    """Return a JUnit report, a test case for each layer."""
    failed = sum(bool(case.failure) for case in found.cases)
    suite = ElementTree.Element(
        "testsuite", name=f"geluwatch compare {found.title}", tests=str(len(found.cases)), failures=str(failed), errors="0"
    )
    for case in found.cases:
        entry = ElementTree.SubElement(suite, "testcase", classname=f"geluwatch.{found.group}", name=case.name)
        if case.failure:
            ElementTree.SubElement(entry, "failure", type=case.failure, message=case.said).text = case.sentence
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of columns to the left."""
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    return ["  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip() for row in (heads, *rows)]
