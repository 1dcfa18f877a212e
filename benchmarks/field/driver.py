"""One driver for all: parts made of cells, each written down when it is done, so that a run may be broken off.

    cd benchmarks
    python -m field                       # every part, in full; hours
    python -m field --part delays         # one part; what it has done before is not done again
    python -m field --size quick --out /tmp/field    # a small run, to see that it works

The rivals' environments are made under build/field, or --cache, from the pins in field/rivals/environments.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import stamp

from . import tables
from .book import RESULTS, Book, source_hash
from .cells import Size
from .rivals import RIVALS, Environments
from .run import Run, Scale

QUICK = Size(values=720, summaries=4_320, baselines=2, trials=6, after=48)
FULL = Size(values=1_440, summaries=43_200, baselines=4, trials=20, after=48)
SMALL = Scale(baselines=2, months=0.5, steps=60, trials=2, seeds=2, files=3_000)
WHOLE = Scale(baselines=20, months=7.5, steps=1_500, trials=5, seeds=20, files=None)

PARTS = {"calm": "calm", "month": "delays", "nulls": "delays", "delays": "delays", "real": "delays", "faults": "faults"}
"""The module of each part, which has a function of its name."""


def main() -> int:
    """Run the parts asked for, and show what is known."""
    parser = argparse.ArgumentParser(prog="python -m field", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=tuple(PARTS), help="only this part; may be repeated")
    parser.add_argument("--size", choices=("quick", "full"), default="full")
    parser.add_argument("--only", default="", help="only cells whose name holds this")
    parser.add_argument("--rivals", default="", help="only these scripts, with commas")
    parser.add_argument("--cache", type=Path, default=stamp.ROOT / "build" / "field", help="streams, baselines and environments")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--tables", action="store_true", help="measure nothing; show what is known")
    parser.add_argument("--pictures", action="store_true", help="draw them as well; takes matplotlib")
    options = parser.parse_args()
    asked = set(filter(None, options.rivals.split(",")))
    if unknown := asked - {rival.script for rival in RIVALS}:
        parser.error(f"--rivals names {', '.join(sorted(unknown))}; there are {', '.join(rival.script for rival in RIVALS)}")
    size, scale = (QUICK, SMALL) if options.size == "quick" else (FULL, WHOLE)
    rivals = tuple(rival for rival in RIVALS if not asked or rival.script in asked)
    cache = options.cache / options.size / source_hash("real")  # other code may draw other streams
    run = Run(size, cache, Environments(options.cache / "environments"), options.only, rivals, scale)
    for part in options.part or PARTS:
        module, plan = PARTS[part], {**asdict(size), **asdict(scale)}
        book = Book(options.out / f"{part}.json", source_hash(module), plan, fresh=options.fresh)
        if not options.tables:
            getattr(import_module(f".{module}", __package__), part)(run, book)
    said = tables.all_of(options.out)
    print(said)
    (options.out / "field.md").write_text(said)
    if options.pictures:
        from . import pictures

        pictures.draw(options.out)
    return 0
