"""Real texts for the benchmarks, from what is installed anyway: docstrings and function bodies of Python packages.

Prose is the paragraphs of docstrings, code the bodies of functions, of the standard library and of the packages that
the demonstration takes. Texts stay with their source file, so that a baseline and what is judged by it can be split by
file: paragraphs of one file resemble each other.
"""

from __future__ import annotations

import random
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from geluwatch.cli.demo import texts

PACKAGES = ("torch", "transformers", "scipy", "numpy")


@dataclass(frozen=True)
class SourceFile:
    """Texts of one file, in its order; none of them opens like one of another file."""

    prose: tuple[str, ...]
    code: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """Prose for a baseline, prose to be judged and code, none from a file of another part but the last two; file by file."""

    baseline: tuple[str, ...]
    unseen: tuple[str, ...]
    code: tuple[str, ...]

    def shuffled(self, seed: int) -> Split:
        """Return the same split with the texts of each part in random order."""
        order = random.Random(seed)  # noqa: S311  # no secret is drawn
        parts = [order.sample(part, len(part)) for part in (self.baseline, self.unseen, self.code)]
        return Split(*map(tuple, parts))


def load(most: int | None = None) -> list[SourceFile]:
    """Return the texts of the standard library and of `PACKAGES`; of no more than `most` files."""
    roots = [Path(sysconfig.get_paths()["stdlib"]), *map(_folder, PACKAGES)]
    prose: dict[str, str] = {}
    programs: dict[str, str] = {}
    found = []
    for path in [path for root in roots for path in texts.source_files(root)][:most]:
        known, programs_known = len(prose), len(programs)
        for tree, lines in texts.parsed([path]):
            texts.gather(tree, lines, prose, programs)
        found.append(SourceFile(tuple(islice(prose.values(), known, None)), tuple(islice(programs.values(), programs_known, None))))
    return found


def split(files: Sequence[SourceFile], baseline: int, seed: int) -> Split:
    """Return at least so many texts for a baseline, from files drawn at random, and those of all other files."""
    order = random.Random(seed)  # noqa: S311  # no secret is drawn
    drawn = order.sample(files, len(files))
    first: list[str] = []
    while len(first) < baseline and drawn:
        first += drawn.pop().prose
    code = [text for file in drawn for text in file.code]
    return Split(tuple(first), tuple(text for file in drawn for text in file.prose), tuple(order.sample(code, len(code))))


def _folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"The benchmark reads the sources of {package}, which is not installed; pip install 'geluwatch[demo]'.")
    return Path(spec.origin).parent
