"""The last phase: a second model, in training, whose loss becomes NaN by itself while a watch looks on."""

from __future__ import annotations

import time

import geluwatch
from geluwatch.cli.demo import trainer, words
from geluwatch.cli.demo.display import short_name
from geluwatch.cli.demo.monitoring import NONFINITE
from geluwatch.cli.demo.stage import ALERT_SECONDS, Detection, Stage
from geluwatch.watch import Watch

MODEL = "tiny-trainer"

_STEP_SECONDS = 0.1  # slows the run down to what eyes, and a scrape a second, can follow
_STEPS_A_WINDOW = 5


def act(stage: Stage, text: str) -> bool:
    """Train on a text until the loss is NaN; return whether the watch named layer and step, and the page came."""
    model = trainer.TinyTransformer()
    config = geluwatch.Config(window_seconds=None, cost_budget=1.0)
    # Open until the end of the story: a page has to be scraped, and its runbook read, after the run is over.
    watch = stage.open.enter_context(geluwatch.attach(model, name=MODEL, config=config))
    stage.links["trainer's live page"] = watch.serve()
    stage.say("info", f"a transformer of {words.weights(model)} in float16; its learning rate grows by 30 % a step, nothing is planted")
    scraped = stage.scrape(MODEL, stage.links["trainer's live page"])
    stage.expect(NONFINITE, MODEL)
    found, note = _run(stage, watch, model, text)
    return stage.judge("A NaN in training is a page", NONFINITE, found, note, right=True) and scraped


def _run(stage: Stage, watch: Watch, model: trainer.TinyTransformer, text: str) -> tuple[Detection, str]:
    found, note = Detection(time.time()), "the loss stayed finite"
    began, best = found.began, float("inf")
    for step in trainer.train(model, text):
        stage.display.progress(step.number, trainer.STEPS)
        report = watch.close_window() if step.number % _STEPS_A_WINDOW == 0 else watch.flush()
        stage.display.report(report)
        if report.first_nonfinite:
            fell = f"the loss had come down to {best:.2f} and is {words.loss(step.loss)}"
            note = f"step {step.number}, learning rate {step.learning_rate:.1f}; {fell}"
            found = Detection(began, report, report.time, report.first_nonfinite)
            stage.say("page", f"NaN or Inf first at {short_name(report, found.layer)}: {note}")
            break  # as training scripts do; another step would only spread the NaN to the first layer
        best = min(best, step.loss)
        time.sleep(_STEP_SECONDS)
        began = time.time()
    stage.display.progress(0, 0)
    alert = stage.alert(NONFINITE, MODEL, timeout=ALERT_SECONDS)
    return Detection(found.began, found.report, found.seen, found.layer, alert), note
