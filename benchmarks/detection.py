"""What the watch sees and what it does not mind, on a real model and real texts, with the settings everybody gets.

    python benchmarks/detection.py                        # both sections, about three quarters of an hour
    python benchmarks/detection.py --section harmless
    python benchmarks/detection.py --seeds 0,1,2 --section signal
    python benchmarks/detection.py --quick --no-save      # a few windows of everything

Section signal: a baseline of 100 windows of prose, then from the same armed state each time: program code, code mixed
into prose, each layer's weights before its GELU 5 % larger, and unseen prose, of which nothing may be said. Section
harmless: what changes in service without the traffic changing, 100 windows of each, no alarm allowed. No text is in two
windows of a case (but for ten times the rate, which needs more than there are), and none of those judged comes from a
source file of the baseline. A window is 32 texts and a simulated minute; the trained MiniLM-L6 runs for each.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import corpus
import stamp
import torch
from stage import TEXTS, Seen, Stage, Texts, batches, in_turn, look, scaled, windows

from geluwatch.cli.demo import model
from geluwatch.ports import BaselineStore
from geluwatch.records import Report
from geluwatch.store import SqlBaselines
from geluwatch.store.memory import MemoryBaselines

RESULTS = stamp.ROOT / "benchmarks" / "results"
Minutes = list[list[Texts]]


@dataclass(frozen=True)
class Plan:
    """How many windows each part takes."""

    baseline: int = 100
    calm: int = 300
    harmless: int = 100
    fast: int = 100
    """Windows at ten times the rate, of ten times the texts; these come again, for there are not so many."""
    slow: int = 250
    """Minutes at a tenth of the rate: two and a half make a window."""
    ebbing: int = 150
    """Minutes of ebbing traffic: three make two windows."""
    code: int = 6
    mixed: int = 30
    scaled: int = 10
    layers: tuple[int, ...] = (0, 1, 2, 3, 4, 5)


QUICK = Plan(baseline=45, calm=12, harmless=4, fast=2, slow=10, ebbing=10, code=3, mixed=4, scaled=3, layers=(0, 4))


@dataclass(frozen=True)
class Outcome:
    """A line of the tables."""

    section: str
    seed: int
    order: str
    wanted: str
    met: bool
    seen: Seen


def prose(texts: Texts, count: int) -> Minutes:
    """Return minutes of prose as it is served when nothing changes."""
    return [batches(window) for window in windows(texts, count)]


def recorded(stage: Stage, texts: Texts, plan: Plan) -> None:
    """Record a baseline of prose."""
    for _ in stage.minutes(prose(texts, plan.baseline)):
        pass
    stage.watch.record_baseline("calm", arm=True)


def mixed(texts: Texts, code: Texts, count: int, seed: int) -> Minutes:
    """Return minutes in which a tenth of the texts, 3.2 of 32 on average, is code."""
    order = random.Random(seed)  # noqa: S311  # no secret is drawn
    minutes, prose_used, code_used = [], 0, 0
    for _ in range(count):
        programs = 3 + (order.random() < 0.2)
        window = [*texts[prose_used : prose_used + TEXTS - programs], *code[code_used : code_used + programs]]
        prose_used, code_used = prose_used + TEXTS - programs, code_used + programs
        minutes.append(batches(window))
    return minutes


def signal(encoder: model.Encoder, files: list[corpus.SourceFile], plan: Plan, seed: int, order: str) -> Iterator[Outcome]:
    """Yield what is seen of changed traffic, of changed weights, and of calm."""
    texts = corpus.split(files, plan.baseline * TEXTS, seed)
    if order == "shuffled":
        texts = texts.shuffled(seed)

    def outcome(wanted: str, most: int, seen: Seen, layer: str = "") -> Outcome:
        named = not layer or seen.first_layer == layer
        return Outcome("signal", seed, order, wanted, named and seen.alarm is not None and seen.alarm <= most, seen)

    with Stage(encoder, MemoryBaselines()) as stage:
        recorded(stage, texts.baseline, plan)

        def case(name: str, minutes: Minutes, *, until_alarm: bool = True) -> Seen:
            stage.watch.arm("calm")
            return look(name, stage.minutes(minutes), until_alarm=until_alarm)

        yield outcome("<= 2", 2, case("source code", prose(texts.code, plan.code)))
        yield outcome("<= 20", 20, case("10 % source code", mixed(texts.unseen, texts.code, plan.mixed, seed)))
        for number in plan.layers:
            with scaled(encoder, number, 1.05) as layer:
                seen = case(f"layer {number} x 1.05", prose(texts.unseen, plan.scaled))
            yield outcome(f"<= 5, layer {number}", 5, seen, layer)
        calm = case("unseen prose", prose(texts.unseen, plan.calm), until_alarm=False)
        yield Outcome("signal", seed, order, "no page, <= 1 ticket", not calm.pages and calm.episodes <= 1, calm)


def harmless(encoder: model.Encoder, files: list[corpus.SourceFile], plan: Plan, seed: int, only: str = "") -> Iterator[Outcome]:
    """Yield what is said of changes that are none; of those alone whose name holds `only`, where that is given."""
    texts = corpus.split(files, plan.baseline * TEXTS, seed).shuffled(seed)
    count = plan.harmless
    calm = windows(texts.unseen, count)

    def outcome(name: str, reports: Iterator[Report]) -> Outcome:
        seen = look(name, reports)
        return Outcome("harmless", seed, "shuffled", "no alarm", not seen.episodes and not seen.pages, seen)

    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/baselines.db"
        with Stage(encoder, SqlBaselines(url)) as stage:
            recorded(stage, texts.baseline, plan)
            plain = prose(texts.unseen, count)
            cases = {
                "as recorded: batches of 8, padded to the longest, by length": plain,
                "batches of 1": [batches(window, 1) for window in calm],
                "batches of 32": [batches(window, 32) for window in calm],
                "in reverse": [in_turn(sorted(window, key=len, reverse=True)) for window in calm],
                "not by length, but as they come": [in_turn(window) for window in calm],
                "a tenth of the rate": tenth(texts.unseen, plan.slow),
                "ten times the rate": [batches(window) for window in windows(4 * texts.unseen, plan.fast, 10 * TEXTS)],
                "down to nothing and back": ebbing(windows(texts.unseen, plan.ebbing)),
            }
            for name, minutes in cases.items():
                if only in name:
                    stage.watch.arm("calm")
                    yield outcome(name, stage.minutes(minutes))
            if only:
                return
            stage.watch.arm("calm")
            yield outcome("padded to 128", stage.minutes(plain, pad=True))
            stage.watch.arm("calm")
            yield outcome("another number of threads", on_threads(3 - min(torch.get_num_threads(), 2), stage.minutes(plain)))
        yield outcome("another phase: sampling begins elsewhere", shifted(encoder, SqlBaselines(url), plain))
        yield outcome("a restart in the middle", restarted(encoder, lambda: SqlBaselines(url), plain))


def tenth(texts: Texts, count: int) -> Minutes:
    """Return minutes at a tenth of the rate: a batch of 8 in two minutes of five."""
    served = iter(in_turn(texts[: count * TEXTS // 10]))
    return [[next(served)] if turn % 5 in {0, 2} and turn * 2 // 5 < count * TEXTS // 80 else [] for turn in range(count)]


def ebbing(calm: list[Texts]) -> Minutes:
    """Return minutes in which the traffic falls by halves to nothing and comes back, over and over."""
    served = (4, 2, 1, 0, 0, 0, 1, 2, 4, 4)
    return [batches(window)[: served[turn % len(served)]] for turn, window in enumerate(calm)]


def on_threads(count: int, reports: Iterator[Report]) -> Iterator[Report]:
    """Yield reports of a model that runs on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield from reports
    finally:
        torch.set_num_threads(before)


def shifted(encoder: model.Encoder, store: BaselineStore, minutes: Minutes) -> Iterator[Report]:
    """Yield reports of a watch that began at an odd moment and has sampled other passes before."""
    with Stage(encoder, store, began=1_700_000_017.31) as stage:
        for _ in stage.minutes(minutes[-3:]):
            pass
        stage.watch.arm("calm")
        yield from stage.minutes(minutes)


def restarted(encoder: model.Encoder, store: Callable[[], BaselineStore], minutes: Minutes) -> Iterator[Report]:
    """Yield reports of a watch that is taken off half-way, and of one that goes on with the stored baseline."""
    middle = len(minutes) // 2
    for part in (minutes[:middle], minutes[middle:]):
        with Stage(encoder, store()) as stage:
            stage.watch.arm("calm")
            yield from stage.minutes(part)


def table(outcomes: list[Outcome]) -> str:
    """Return the outcomes as Markdown tables."""
    heads = ("section", "seed", "order", "case", "wanted", "windows to alarm", "alarms", "pages", "first layer", "rows", "evidence", "met")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for outcome in outcomes:
        seen = outcome.seen
        layer = seen.first_layer.removeprefix("encoder.").removesuffix(".intermediate.intermediate_act_fn")
        cells = (
            outcome.section, outcome.seed, outcome.order, seen.case, outcome.wanted, seen.alarm or f"none in {seen.windows}",
            seen.episodes, seen.pages, layer, seen.rows, trajectory(seen.evidence), "yes" if outcome.met else "NO",
        )  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def trajectory(evidence: tuple[float, ...]) -> str:
    """Return the first windows' evidence, and the most of all."""
    most = max((value for value in evidence if not math.isnan(value)), default=math.nan)
    return " ".join(f"{value:.2f}" for value in evidence[:8]) + (f" ... most {most:.2f}" if len(evidence) > 8 else "")


def run(options: argparse.Namespace) -> Iterator[Outcome]:
    """Yield the outcomes of the sections asked for."""
    plan = QUICK if options.quick else Plan()
    encoder, files = model.load(), corpus.load(800 if options.quick else None)
    for seed in map(int, options.seeds.split(",")):
        if options.section in {"signal", "all"}:
            for order in options.order or ("shuffled", "file"):
                yield from signal(encoder, files, plan, seed, order)
        if options.section in {"harmless", "all"}:
            yield from harmless(encoder, files, plan, seed, options.only)


def save(outcomes: list[Outcome], options: argparse.Namespace) -> None:
    """Write the tables and all trajectories."""
    RESULTS.mkdir(exist_ok=True)
    facts = {
        "source": stamp.of([*stamp.package(), *stamp.scripts("corpus", "detection", "stage")]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, CPU only",
        "torch": torch.__version__,
        "plan": asdict(QUICK if options.quick else Plan()),
        "outcomes": [asdict(outcome) for outcome in outcomes],
    }
    (RESULTS / "detection.json").write_text(json.dumps(facts, indent=1) + "\n")
    (RESULTS / "detection.md").write_text(table(outcomes))


def main() -> int:
    """Measure, print and store; the exit status says whether everything wanted was met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--section", choices=("signal", "harmless", "all"), default="all")
    parser.add_argument("--order", action="append", choices=("shuffled", "file"), help="only this order; may be repeated")
    parser.add_argument("--seeds", default="0", help="seeds of the split into baseline and unseen, with commas")
    parser.add_argument("--only", default="", help="of the harmless changes of traffic, those whose name holds this; prints only")
    parser.add_argument("--threads", type=int, default=1, help="threads of the model")
    parser.add_argument("--quick", action="store_true", help="a few windows of everything, to see that it runs")
    parser.add_argument("--no-save", action="store_true", help="print only")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    began, outcomes = time.perf_counter(), []
    for outcome in run(options):
        outcomes.append(outcome)
        print(f"{time.perf_counter() - began:6.0f} s  {table([outcome]).splitlines()[-1]}", file=sys.stderr, flush=True)
    print(table(outcomes))
    if not (options.no_save or options.only):
        save(outcomes, options)
    return 0 if all(outcome.met for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
