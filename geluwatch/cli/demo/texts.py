"""Traffic for the demonstration, from what every Python installation carries: the standard library.

English prose is the paragraphs of its docstrings, program code is the bodies of its functions. The same Python and
the same seed give the same texts, and no prose text is both in the baseline and in what is served afterwards.
"""

from __future__ import annotations

import ast
import os
import random
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from geluwatch.errors import MissingPartError

SHORTEST = 100
"""Characters a text has at least."""
LONGEST = 400
"""Characters a text is cut to; the demonstration's models read no further."""

_NOT_PROSE_SOURCE = frozenset({"__pycache__", "dist-packages", "idlelib", "lib2to3", "pydoc_data", "site-packages", "test", "tests"})
_WORD = re.compile(r"""[("'*]*[A-Za-z][a-z]*(?:['-][a-z]+)*[.,;:!?)"'*]*""")
_SENTENCE_BEGINS = re.compile(r"[A-Z][a-z]*[ ,]")
_NO_SENTENCE = re.compile(r">>>|::|([^\w\s])\1\1")  # sessions, examples, ruled lines
_COMMON_WORD = re.compile(r"an?|and|are|as|at|be|by|can|for|from|has|if|in|is|its?|not|of|on|or|that|the|then|this|to|when|which|will|with")
# Lists of names, tables and specifications are made of words too, but would make a few windows unlike all others.
_LEAST_SHARE_OF_WORDS = 0.85
_LEAST_SHARE_OF_COMMON_WORDS = 0.2
_SHORTEST_FUNCTION = 8  # lines; shorter ones are mostly their signature
_OPENING = 40  # characters in which two texts must differ, else one is a variant of the other


@dataclass(frozen=True, slots=True)
class Texts:
    """What is sent through the model, in the order in which it is sent."""

    baseline: tuple[str, ...]
    """Prose that counts as normal."""
    held_out: tuple[str, ...]
    """Prose of the same kind that the baseline has not seen."""
    code: tuple[str, ...]
    """Program code: traffic that has drifted."""


def load(*, baseline: int = 1536, held_out: int = 1152, code: int = 640, seed: int = 6) -> Texts:
    """Return texts from the installed standard library.

    Args:
        baseline: Prose texts for the baseline.
        held_out: Further prose texts, none of them in the baseline; fewer where the library is small.
        code: Program texts; fewer where the library is small.
        seed: Chooses files and order.

    Raises:
        MissingPartError: The library has no sources, or too few.
    """
    order = random.Random(seed)  # noqa: S311  # no secret is drawn
    files = source_files(Path(sysconfig.get_paths()["stdlib"]))
    order.shuffle(files)
    prose: dict[str, str] = {}
    programs: dict[str, str] = {}
    for tree, lines in parsed(files):
        gather(tree, lines, prose, programs)
        # Twice as many as are needed, so that texts of one file lie far apart once they are shuffled.
        if len(prose) >= 2 * (baseline + held_out) and len(programs) >= 2 * code:
            break
    if len(prose) < baseline + held_out // 4 or not programs:
        raise MissingPartError(
            f"The standard library's sources yield {len(prose)} texts, too few for the demonstration; use a Python installed with them."
        )
    shuffled, chunks = list(prose.values()), list(programs.values())
    order.shuffle(shuffled)
    order.shuffle(chunks)
    return Texts(tuple(shuffled[:baseline]), tuple(shuffled[baseline : baseline + held_out]), tuple(chunks[:code]))


def source_files(root: Path) -> list[Path]:
    """Return the Python files under a folder, tests and third parties left out, in a fixed order."""
    found = []
    for folder, below, names in os.walk(root):
        below[:] = sorted(set(below) - _NOT_PROSE_SOURCE)
        found += [Path(folder, name) for name in sorted(names) if name.endswith(".py")]
    return found


def parsed(files: Iterable[Path]) -> Iterator[tuple[ast.Module, list[str]]]:
    """Yield the syntax tree and the lines of each file that can be read."""
    for path in files:
        try:
            source = path.read_text(encoding="utf-8")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an invalid escape in somebody else's file is not our reader's concern
                yield ast.parse(source), source.splitlines()
        except (OSError, SyntaxError, ValueError):
            continue


def gather(tree: ast.Module, lines: list[str], prose: dict[str, str], programs: dict[str, str]) -> None:
    """Add the prose and the program texts of a file, each under its opening, where that is new."""
    for node in ast.walk(tree):
        _keep(prose, filter(_is_prose, _paragraphs(node)))
        _keep(programs, _body(node, lines))


def _keep(kept: dict[str, str], texts: Iterable[str]) -> None:
    """Add texts under their opening, digits left out: the second of two that begin alike is the same text again."""
    for text in texts:
        kept.setdefault(re.sub(r"[\d\W]+", " ", text[:_OPENING]).casefold(), text)


def _paragraphs(node: ast.AST) -> Iterator[str]:
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        for paragraph in re.split(r"\n\s*\n", ast.get_docstring(node) or ""):
            text = " ".join(paragraph.split())
            if len(text) >= SHORTEST:
                yield text[:LONGEST]


def _is_prose(text: str) -> bool:
    if not _SENTENCE_BEGINS.match(text) or _NO_SENTENCE.search(text):
        return False
    words = text.split()
    plain = sum(_WORD.fullmatch(word) is not None for word in words)
    common = sum(_COMMON_WORD.fullmatch(word.lower()) is not None for word in words)
    return plain >= _LEAST_SHARE_OF_WORDS * len(words) and common >= _LEAST_SHARE_OF_COMMON_WORDS * len(words)


def _body(node: ast.AST, lines: list[str]) -> Iterator[str]:
    """Yield a function's source without its docstring."""
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return
    first = node.body[1] if ast.get_docstring(node, clean=False) is not None and len(node.body) > 1 else node.body[0]
    text = "\n".join(lines[first.lineno - 1 : node.end_lineno])
    if text.count("\n") >= _SHORTEST_FUNCTION and len(text) >= SHORTEST:
        yield text[:LONGEST]
