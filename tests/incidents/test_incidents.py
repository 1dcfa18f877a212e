"""Every kind of incident on real parts: processes and a canary serve, something breaks, one alert comes, it is mended, it ends.

Faults go into weights, inputs and processes. Prometheus has the rendered rules, their durations scaled down as printed
(promtool proves the shipped ones); Alertmanager has the rendered example. Lanes of incidents run beside each other, each
with models of its own; within a lane one incident follows the other.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace

import expressions
import pytest
import yaml
from stage import ExampleAlertmanager, Incident, Process, Stage

from geluwatch.cli.demo.servers import Prometheus, get
from geluwatch.cli.demo.webhook import Alert, WebhookReceiver
from geluwatch.mixin.alertmanager import example as alertmanager_example
from geluwatch.mixin.rulefile import rule_file
from geluwatch.mixin.settings import MixinSettings
from geluwatch.mixin.thresholds import Thresholds
from geluwatch.tap import usage

pytestmark = pytest.mark.e2e

SHIPPED = MixinSettings()
SCALED = replace(
    MixinSettings.quick(),
    rate_window="8s",
    # Shipped, drift waits for fifteen windows, longer than any page of it; here they are of two seconds, and come late at times.
    drift_for="40s",
    page_for="4s",
    blind_for="8s",
    baseline_missing_for="40s",
    keep_firing_for="4s",
    fault_keep_firing_for="10s",
    # The machine's memory is more than a test should fill: a gigabyte is under pressure here. A pass may be late by two
    # seconds, for the machine may be busy.
    thresholds=Thresholds(memory_share=2**30 / (usage.memory().limit or 2**40), latency_seconds=2.5, latency_factor=4.0),
)
TIMEOUT = 150.0
"""Seconds in which an incident has to be told: what waits for as long as drift takes up to eighty on a slow machine."""
CALM = 75.0
"""Seconds without any notification before the first incident."""
STEP = 4.0
"""Seconds from one point of a query to the next: finer ones take Prometheus minutes on a slow machine."""
BRIEF = 2.5 * STEP


@dataclass(frozen=True)
class Fault:
    """One incident: what is broken where, and what must come of it, each once and nothing else."""

    name: str
    pods: dict[str, str]
    """Pods that are broken, each with its process."""
    expected: tuple[Incident, ...]
    says: str = ""
    """What the first expected alert's description must hold."""
    later: tuple[Incident, ...] = ()
    """Alerts that come when the incident is over, because it was one."""
    lasts: float = 0.0
    """Seconds for which it goes on after the alert: `BRIEF` for one that is told so soon that the queries' steps may miss it."""
    begin: Callable[[Stage], None] | None = None
    """How it begins, where that is no fault of a pod that runs."""
    finish: Callable[[Stage], None] | None = None
    """How it is mended then."""


def play(stage: Stage, lane: str, models: tuple[str, ...], faults: tuple[Fault, ...]) -> list[str]:
    """Play incidents one after the other; return what was wrong with any, and print what was seen of each."""
    wrong = []
    for fault in faults:
        try:
            print(f"{lane:9} {one(stage, lane, models, fault)}", flush=True)
        except Exception as error:  # noqa: BLE001  # the other incidents of the lane are to be seen as well
            print(f"{lane:9} {fault.name}: {error!r}", flush=True)
            wrong.append(f"{lane}: {fault.name}: {error!r}")
            calm_down(stage, models)
    return wrong


def one(stage: Stage, lane: str, models: tuple[str, ...], fault: Fault) -> str:
    """Break, wait for the alert, mend, wait for its end, and see that nothing else came."""
    began = time.time()
    if fault.begin is not None:
        fault.begin(stage)
    for pod, process in fault.pods.items():
        stage.processes[process].tell(pod=pod, do=fault.name)
    try:
        took = stage.wait_for(fault.expected, "firing", began, TIMEOUT)
        told = since(stage, models, began)
        for about in fault.expected:
            helps(told[about][0])
        said = told[fault.expected[0]][0].annotations["description"]
        assert fault.says in said, said
        time.sleep(fault.lasts)
    finally:
        for pod, process in fault.pods.items():
            stage.processes[process].tell(pod=pod, undo=fault.name)
        if fault.finish is not None:
            fault.finish(stage)
    everything = (*fault.expected, *fault.later)
    over = stage.wait_for(everything, "resolved", began, 4 * TIMEOUT)
    told = since(stage, models, began)
    texts = (f"{about}: {history[0].annotations['description']}" for about, history in told.items())
    statuses = {about: [alert.status for alert in history] for about, history in told.items()}
    assert {about: ["firing", "resolved"] for about in everything} == statuses, "\n".join(texts)
    alerts = ", ".join(f"{name} ({severity}) of {model}" for name, severity, model in everything)
    return f"{fault.name:10} {took:5.1f} s to {alerts}; over {over:.1f} s after it was mended"


def calm_down(stage: Stage, models: tuple[str, ...]) -> None:
    """Wait, after an incident that went wrong, until nothing of it fires that would be taken for the next one's."""
    until = time.time() + TIMEOUT
    while time.time() < until and any(history[-1].status == "firing" for history in stage.changes(models).values()):
        time.sleep(1.0)


def since(stage: Stage, models: tuple[str, ...], began: float) -> dict[Incident, list[Alert]]:
    """Return what some models' people were told since a moment."""
    came = {about: [alert for alert in history if alert.received >= began] for about, history in stage.changes(models).items()}
    return {about: history for about, history in came.items() if history}


def helps(alert: Alert) -> None:
    """See that an alert says whose it is, and links to a runbook of its own that opens while it burns."""
    assert alert.labels["owner"] in {"model", "infrastructure"}
    status, page = get(alert.runbook_url)
    assert (200, True) == (status, f"<h1>{alert.name}</h1>" in page.decode())


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The processes, the servers and the inbox, each pod with traffic and a baseline."""
    folder = tmp_path_factory.mktemp("incidents")
    store = f"sqlite:///{folder / 'baselines.db'}"

    example = alertmanager_example(SCALED)
    with ExitStack() as stack:
        inbox = stack.enter_context(WebhookReceiver())
        alertmanager = stack.enter_context(ExampleAlertmanager(folder / "alertmanager", inbox.url, example))
        prometheus = stack.enter_context(Prometheus(folder / "prometheus", eased(rule_file(SCALED)), alertmanager.url))
        processes = {name: stack.enter_context(Process(store, folder / f"{name}.log")) for name in ("one", "two", "canary", "other")}
        stage = Stage(processes, prometheus, inbox)
        begin(stage)
        yield stage


def eased(rules: bytes) -> bytes:
    """Return the rules, those of a fleet evaluated every four seconds only: they read every bucket, which takes longer than one."""
    document = yaml.safe_load(rules)
    for group in document["groups"]:
        if group["name"] == "geluwatch-fleet":
            group["interval"] = "4s"
    return yaml.safe_dump(document).encode()


def begin(stage: Stage) -> None:
    """Start every pod; those of one model share a baseline, which the first of them records."""

    def first() -> None:
        stage.start("one", "a1", model="ranker", record="v1", labels={"region": "eu"})
        stage.start("one", "a2", model="ranker", arm="v1", labels={"region": "eu"}, traffic=2)
        stage.start("one", "g1", record="v1", **GRADED)
        stage.start("one", "h1", model="hungry", record="v1")
        stage.start("one", "d1", model="tagger", record="v1")

    def second() -> None:
        stage.start("two", "s1", model="sluggish", record="v1", callers=6, pause=0.4)
        stage.start("two", "f1", model="flaky", record="v1")
        stage.start("two", "t1", model="trainer", trains=True, config={"gradients": True, "window_seconds": 1.0})
        # Short windows, which take long to fill where most rows are missing; little memory for rows that wait.
        short = {"window_seconds": 1.0, "flush_seconds": 0.5, "minimum_rows": 380, "pending_bytes": 1 << 20}
        stage.start("two", "l1", model="elder", record="v1", config=short)

    def third() -> None:
        canary(stage, "c1", "2", record="v2")
        stage.start("canary", "q1", model="reader", record="v1", labels={"region": "eu"})
        stage.start("canary", "q2", model="reader", arm="v1", labels={"region": "eu"}, traffic=6)
        stage.start("canary", "q3", model="reader", arm="v1", labels={"region": "eu"}, traffic=7)

        stage.start("canary", "k1", model="keeper", record="v1", probed=True, config=PROBED)

    def fourth() -> None:
        # Memory is that of a process, so this one has its own.
        stage.start("other", "o1", model="burden", record="v1", config={"cost_budget": 0.002})

    with ThreadPoolExecutor(4) as pool:
        for started in [pool.submit(start) for start in (first, second, third, fourth)]:
            started.result()
    stage.start("two", "b1", model="ranker", arm="v1", labels={"region": "eu"}, traffic=4)
    stage.start("two", "e1", model="tagger", arm="v1", traffic=5)
    stage.start("two", "k2", model="keeper", arm="v1", traffic=8, config=PROBED)
    for process in stage.processes.values():
        process.tell(open=True)


PROBED = {"probe_seconds": 2.0}
"""Settings of pods that replay a probe."""


def canary(stage: Stage, pod: str, version: str, **order: object) -> None:
    """Start a canary of the ranker."""
    stage.start("canary", pod, model="ranker", version=version, labels={"region": "eu", "track": "canary"}, traffic=3, **order)


def worse(stage: Stage) -> None:
    """Put a canary with other weights in the place of the one that runs; its own baseline finds nothing."""
    stage.stop("canary", "c1", "ranker")
    canary(stage, "c2", "3", weights="candidate", record="v3")


def better(stage: Stage) -> None:
    """Take that canary back."""
    stage.stop("canary", "c2", "ranker")
    canary(stage, "c1", "2", arm="v2")


GRADED = {"model": "grader", "judged": True, "notes": {"cost_per_hour": 1.0}}
"""How a pod of the grader is started."""


def dearer(stage: Stage) -> None:
    """Start another pod, which costs as much and does a third of the work."""
    stage.start("canary", "g2", arm="v1", pause=0.35, **GRADED)


def as_cheap_as_before(stage: Stage) -> None:
    """End it."""
    stage.stop("canary", "g2", "grader")


def unarmed(stage: Stage) -> None:
    """Start a model without a baseline, its values so large that their growth is a page as soon as it can be told."""
    stage.start("two", "r1", model="rookie", weights="large")


def armed(stage: Stage) -> None:
    """Put one with a baseline in its place."""
    stage.stop("two", "r1", "rookie")
    stage.start("two", "r2", model="rookie", record="v1")


RANKER = (
    Fault(
        "traffic",
        {"a1": "one", "a2": "one", "b1": "two", "c1": "canary"},
        (("ActivationDrift", "critical", "ranker 1"), ("ActivationDrift", "critical", "ranker 2")),
        "first at layer blocks.0.act. Most layers moved alike",
    ),
    Fault("astray", {"a1": "one"}, (("PodDrift", "warning", "ranker 1"),), "not as a whole (3 pods)"),
    Fault(
        "saturated",
        {"a1": "one", "a2": "one", "b1": "two", "c1": "canary"},
        (
            ("ActivationDrift", "critical", "ranker 1"),
            ("Saturation", "warning", "ranker 1"),
            ("ActivationDrift", "critical", "ranker 2"),
            ("Saturation", "warning", "ranker 2"),
        ),
        "first at layer blocks.1.act",
    ),
    Fault("canary", {}, (("CanaryDivergence", "warning", "ranker"),), "blocks.1.act", begin=worse, finish=better),
)
READER = (
    Fault("nan", {"q1": "canary"}, (("NonFiniteActivations", "critical", "reader 1"),), "first at layer blocks.2.act"),
    Fault("dead", {"q3": "canary"}, (("GrossFault", "critical", "reader 1"),), "blocks.1.act: dead"),
    Fault(
        "kernel", {"q2": "canary"}, (("KernelMismatch", "warning", "reader 1"),), "blocks.3.act: declared erf in float32, measured quick"
    ),
    Fault("growth", {"q1": "canary"}, (("OverflowAhead", "critical", "reader 1"),), "blocks.2.act: ", lasts=5.0),
)
KEEPER = (
    Fault("tuned", {"k1": "canary"}, (("ModelChanged", "warning", "keeper 1"),), "on 1 of 2 pods"),
    Fault("traffic", {"k1": "canary", "k2": "two"}, (("ActivationDrift", "critical", "keeper 1"),), "the data changed"),
)
TAGGER = (
    Fault("detached", {"d1": "one"}, (("AgentMissing", "warning", "tagger"),), "has lost an agent"),
    Fault("mixed", {"e1": "two"}, (("BaselineMixed", "warning", "tagger 1"),)),
    Fault("skipping", {"d1": "one", "e1": "two"}, (("SitesBlind", "warning", "tagger 1"),), "blocks.3.act"),
    Fault("mask", {"d1": "one"}, (("AgentFaulty", "warning", "tagger 1"),), " mask"),
)
GRADER = (
    Fault("coarse", {"g1": "one"}, (("QuantizedAccuracy", "warning", "grader 1"),), lasts=BRIEF),
    Fault("labels", {"g1": "one"}, (("AccuracyDrop", "warning", "grader 1"),)),
    Fault("dearer", {}, (("CostUp", "warning", "grader"),), begin=dearer, finish=as_cheap_as_before),
)
HUNGRY = (
    Fault(
        "bulk",
        {"h1": "one"},
        (("OutOfMemory", "critical", "hungry 1"), ("ErrorBudgetBurn", "critical", "hungry 1")),
        "ran out of memory in",
        later=(("ErrorBudgetBurn", "warning", "hungry 1"),),
    ),
)
FLAKY = (
    Fault(
        "failing",
        {"f1": "two"},
        (("ErrorBudgetBurn", "critical", "flaky 1"),),
        later=(("ErrorBudgetBurn", "warning", "flaky 1"),),
    ),
)
SLUGGISH = (
    Fault("slower", {"s1": "two"}, (("LatencySpike", "warning", "sluggish 1"),), "take up to"),
    Fault(
        "slow",
        {"s1": "two"},
        (("ErrorBudgetBurn", "critical", "sluggish 1"),),
        later=(("ErrorBudgetBurn", "warning", "sluggish 1"),),
    ),
)
ELDER = (
    Fault("aged", {"l1": "two"}, (("BaselineStale", "warning", "elder 1"),)),
    Fault("starved", {"l1": "two"}, (("AgentFaulty", "warning", "elder 1"),), "no window for"),
    Fault("hung", {"l1": "two"}, (("AgentFaulty", "warning", "elder 1"),), "its background thread stands still", lasts=2.0),
    Fault("unused", {"l1": "two"}, (("SitesBlind", "warning", "elder 1"),), "blocks.3.act"),
)
ROOKIE = (
    Fault(
        "swelling",
        {"r1": "two"},
        (("OverflowAhead", "critical", "rookie 1"), ("BaselineMissing", "warning", "rookie 1")),
        "at the present rate",
        begin=unarmed,
        finish=armed,
    ),
)
BURDEN = (
    Fault("unpaced", {"o1": "other"}, (("AgentOverBudget", "warning", "burden 1"),)),
    Fault("ballast", {"o1": "other"}, (("MemoryPressure", "warning", "burden 1"),)),
)
TRAINER = (
    Fault("poisoned", {"t1": "two"}, (("TrainingFault", "warning", "trainer 1"),), "steps with a NaN or an Inf as loss", lasts=BRIEF),
)

LANES: dict[str, tuple[tuple[str, ...], tuple[Fault, ...]]] = {
    "ranker": (("ranker",), RANKER),
    "reader": (("reader",), READER),
    "keeper": (("keeper",), KEEPER),
    "tagger": (("tagger",), TAGGER),
    "hungry": (("hungry",), HUNGRY),
    "grader": (("grader",), GRADER),
    "flaky": (("flaky",), FLAKY),
    "sluggish": (("sluggish",), SLUGGISH),
    "trainer": (("trainer",), TRAINER),
    "elder": (("elder",), ELDER),
    "rookie": (("rookie",), ROOKIE),
    "burden": (("burden",), BURDEN),
}


def test_every_incident_is_told_once_and_ends(stage: Stage) -> None:
    """After a calm stretch without any notification, each fault brings exactly its alerts, which say where, link to a runbook, and end."""
    print(scale())
    time.sleep(CALM)
    assert {} == stage.changes()
    with ThreadPoolExecutor(len(LANES)) as pool:
        lanes = {lane: pool.submit(play, stage, lane, *story) for lane, story in LANES.items()}
        assert [] == [wrong for playing in lanes.values() for wrong in playing.result()]


def scale() -> str:
    """Return how each duration of the rules was scaled."""
    names = [name for name in MixinSettings.__dataclass_fields__ if isinstance(getattr(SHIPPED, name), (str, tuple)) and name not in WORDS]
    lines = [f"{name}: {_words(getattr(SHIPPED, name))} -> {_words(getattr(SCALED, name))}" for name in names]
    return "\n".join(["", "time scale of the rules, shipped -> here", *lines])


WORDS = {"selector", "expected_targets", "canary"}


def _words(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)


HARDWARE = "geluwatch_device_"
"""In expressions that may find nothing here, for they need an accelerator."""


def test_every_query_of_every_artefact_finds_something_finite(stage: Stage) -> None:
    """Over the time of the incidents, each expression of rules, dashboards, runbooks and playbooks finds values, all of them finite.

    Only those that look for an accelerator may find nothing; they are no more than one in twenty.
    """
    stage.close()
    asked = expressions.every(SCALED, SCALED.rate_window, "1m")
    found = {query: stage.prometheus.query_range(_asked(query), began=stage.began, step=STEP) for query in asked}
    empty = [query for query, series in found.items() if not series]
    infinite = [
        query for query, series in found.items() for each in series for _, value in each["values"] if not math.isfinite(float(value))
    ]
    print(f"\n{len(asked)} expressions; {len(empty)} without values:", *(f"{query.source}: {query.expr}" for query in empty), sep="\n")
    print("not finite:", *sorted({f"{query.source}: {query.expr}" for query in infinite}), sep="\n")
    assert [] == infinite
    assert [] == [query for query in empty if HARDWARE not in query.expr]
    assert len(empty) <= 0.05 * len(asked)


def _asked(query: expressions.Query) -> str:
    """Return the expression; that of a text without the matchers that its template fills in."""
    return re.sub(r"{[^}]*}", "", query.expr) if query.source.startswith("annotation of ") else query.expr
