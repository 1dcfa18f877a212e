"""`geluwatch shadow`: a model and its variants on the same inputs, and how many inputs an A/B test takes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geluwatch.analysis.imported import FORM
from geluwatch.cli import results
from geluwatch.errors import ConfigError

if TYPE_CHECKING:
    from geluwatch.analysis.shadow import Shadow


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `shadow`."""
    parser = commands.add_parser(
        "shadow",
        help="what another form of GELU, a table or int8 weights would cost and save",
        description="Send the same inputs through a model and through variants of it, and print what differs, what time is saved, and "
        "how many inputs an A/B test would need. Functions of yours are named as package.module:function and called without arguments.",
    )
    parser.add_argument("model", nargs="?", metavar="FUNCTION", help="returns the model")
    parser.add_argument("--inputs", metavar="FUNCTION", help="returns the inputs, one for each forward pass")
    parser.add_argument("--labels", metavar="FUNCTION", help="returns the right answers, for each pass as many as its output has rows")
    parser.add_argument("--outputs", metavar="FUNCTION", help="takes the tensor to compare from what the model returns")
    parser.add_argument("--demo", action="store_true", help="a trained sentence encoder that tells which package a docstring is from")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of timing (default: 30, at least 6; 0 takes no times)")
    parser.add_argument("--table-entries", type=int, metavar="N", help="entries of the lookup table (default: 256)")
    parser.add_argument("--cost-per-hour", type=float, metavar="PRICE", help="of this machine, for the cost of a million inputs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")
    samples = parser.add_argument_group("only the size of an A/B test", "alpha .05 (two-sided), power .8; without a model")
    samples.add_argument("--samples", action="store_true", help="print how many inputs it takes to see a difference of accuracy")
    samples.add_argument("--baseline-accuracy", type=float, metavar="SHARE", help="for example .95")
    samples.add_argument("--delta", type=float, metavar="SHARE", help="the difference to be seen, for example -.005")
    samples.add_argument("--disagreement", type=float, metavar="SHARE", help="share of inputs that only one of the two gets right")
    parser.set_defaults(func=_shadow)


def _shadow(arguments: argparse.Namespace) -> int:
    if arguments.samples:
        return _samples(arguments)
    found = _demo(arguments) if arguments.demo else _own(arguments)
    results.write(arguments.json, json.dumps(found.document(), indent=1) + "\n")
    print(found)
    return 0


def _own(arguments: argparse.Namespace) -> Shadow:
    """Run the experiment on the user's model."""
    from geluwatch.analysis import imported

    if arguments.model is None or arguments.inputs is None:
        raise ConfigError(f"Name the function that returns the model and, with --inputs, the one that returns the inputs, each as {FORM}.")
    model, inputs = imported.model(arguments.model), imported.passes(arguments.inputs)
    labels = None if arguments.labels is None else imported.passes(arguments.labels)
    outputs = None if arguments.outputs is None else imported.function(arguments.outputs)
    return _run(arguments, model, inputs, labels, outputs)


def _demo(arguments: argparse.Namespace) -> Shadow:
    """Run it on the demonstration's model."""
    if arguments.model or arguments.inputs or arguments.labels:
        raise ConfigError("--demo brings a model, inputs and labels of its own; leave the others away.")
    import torch

    from geluwatch.cli.demo import docstrings

    torch.set_num_threads(1)  # as the demonstration itself
    task = docstrings.load()
    return _run(arguments, task.model, task.inputs, task.labels, None)


def _run(arguments: argparse.Namespace, model: Any, inputs: list[Any], labels: list[Any] | None, outputs: Any) -> Shadow:
    from geluwatch.analysis import imported
    from geluwatch.analysis.shadow import shadow

    given = {name: getattr(arguments, name) for name in ("rounds", "table_entries") if getattr(arguments, name) is not None}
    found: Shadow = imported.run(
        "A pass of the model",
        lambda: shadow(model, inputs, labels, outputs=outputs, cost_per_hour=arguments.cost_per_hour, **given),
    )
    return found


def _samples(arguments: argparse.Namespace) -> int:
    """Print how many inputs it takes."""
    from geluwatch.core.experiment import independent_disagreement, samples_paired, samples_unpaired

    if arguments.baseline_accuracy is None or arguments.delta is None:
        raise ConfigError("--samples needs --baseline-accuracy and --delta, for example --baseline-accuracy .95 --delta -.005.")
    known, delta = arguments.baseline_accuracy, arguments.delta
    arms = samples_unpaired(known, known + delta)
    shares = {"": arguments.disagreement}
    if arguments.disagreement is None:
        shares = {", as few as can be": abs(delta), ", errors unrelated": independent_disagreement(known, known + delta)}
    pairs = [(samples_paired(delta, share), f"only one is right on {100 * share:.3g} %{meaning}") for meaning, share in shares.items()]
    print(f"To see an accuracy of {100 * (known + delta):g} % beside {100 * known:g} %, at alpha .05 (two-sided) and power .8:")
    print(f"  A/B test, each input to one of the two:  {arms:>9,} inputs in each arm")
    for inputs, meaning in pairs:
        print(f"  Paired, each input through both:         {inputs:>9,} inputs ({meaning})")
    return 0
