"""How costs grow, what scrapes cost a model at full load, and how fast a thousand layers are judged.

    python benchmarks/scale.py                                          # all sections, about a quarter of an hour
    python benchmarks/scale.py --section growth --sites 10 30 100 --channels 64 256 --no-save
    python benchmarks/scale.py --section scrape --pairs 5 --no-save
    python benchmarks/scale.py --section scoring

Each section says at the top of its module how it measures: growth.py, scraping.py, judging.py. A section that is left out keeps
the results it has. torch has one thread, so that growth shows nothing of threads that wait for each other, and the scraper has a
core of its own where there are two.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from typing import Any

import growth
import judging
import scraping
import stamp
import torch

RESULTS = stamp.ROOT / "benchmarks" / "results"
MODULES = {"growth": "growth", "scrape": "scraping", "scoring": "judging"}
SHARED = ("contenders", "scale", "scoring", "scraper", "stack")

TEXTS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "growth": ("Growth", growth.text),
    "scrape": ("Scrapes at full load", scraping.text),
    "scoring": ("Judging a thousand layers", judging.text),
}


def facts(section: str) -> dict[str, Any]:
    """Return what the figures of a section depend on: a hash of the sources, the machine, torch."""
    return {
        "source": stamp.of([*stamp.package(), *stamp.scripts(*SHARED, MODULES[section])]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, CPU only",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def report(results: dict[str, Any]) -> str:
    """Return the sections that there are as one Markdown page."""
    parts = [f"## {title}\n\n{show(results[name]['figures'])}" for name, (title, show) in TEXTS.items() if name in results]
    if "growth" in results:
        parts[0] += "\n![The same as curves](scale.svg)\n"
    return "\n".join(parts)


def save(measured: dict[str, Any]) -> None:
    """Write down what was measured beside what was measured before, and draw the growth."""
    from charts import growth as draw

    RESULTS.mkdir(exist_ok=True)
    stored = RESULTS / "scale.json"
    results = {**(json.loads(stored.read_text()) if stored.exists() else {}), **measured}
    stored.write_text(json.dumps(results, indent=1) + "\n")
    (RESULTS / "scale.md").write_text(report(results))
    if "growth" in measured:
        draw(measured["growth"]["figures"], RESULTS / "scale.svg")


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--section", action="append", choices=MODULES, help="only this section; may be repeated")
    parser.add_argument("--sites", type=int, nargs="+", default=growth.SITES, help="numbers of sites, ascending")
    parser.add_argument("--channels", type=int, nargs="+", default=growth.CHANNELS, help="numbers of channels, ascending")
    parser.add_argument("--scrapes", type=int, default=240, help="scrapes whose latency is taken, four a second")
    parser.add_argument("--pairs", type=int, default=40, help="pairs of stretches with a scrape and without, ten seconds each")
    parser.add_argument("--tested", type=int, default=200, help="layers that ks_2samp goes through, of a thousand")
    parser.add_argument("--no-save", action="store_true", help="print only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    work: dict[str, Callable[[], object]] = {
        "growth": lambda: growth.measure(tuple(options.sites), tuple(options.channels)),
        "scrape": lambda: scraping.measure(options.scrapes, options.pairs),
        "scoring": lambda: judging.measure(options.tested),
    }
    measured = {}
    for section in options.section or MODULES:
        measured[section] = {**facts(section), "figures": work[section]()}
        print(report({section: measured[section]}), flush=True)
    if not options.no_save:
        save(measured)


if __name__ == "__main__":
    main()
