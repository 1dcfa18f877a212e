"""`geluwatch shadow`: the user's functions, the demonstration's model, the size of an A/B test, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from geluwatch.analysis.shadow import shadow
from geluwatch.cli.demo import docstrings
from geluwatch.cli.main import main

FUNCTIONS = """
import torch
from torch import nn

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3))

def inputs():
    yield torch.ones(5, 4)
    yield torch.zeros(5, 4)

def labels():
    return [[0, 1, 2, 0, 1]] * 2

def pair():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model()
        def forward(self, x):
            return "text", self.inner(x)
    return Pair()

def second(returned):
    return returned[1]

def wide():
    return [torch.ones(5, 7)]
"""


@pytest.fixture(autouse=True)
def _functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a module of functions into the working directory."""
    (tmp_path / "shadowed.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)


def test_functions_of_the_user_are_called(capsys: pytest.CaptureFixture[str]) -> None:
    """Model, inputs and labels come from named functions; the table is printed and the JSON written."""
    command = ["shadow", "shadowed:model", "--inputs", "shadowed:inputs", "--labels", "shadowed:labels", "--rounds", "6"]
    assert 0 == main([*command, "--cost-per-hour", "2.5", "--table-entries", "1024", "--json", "found.json"])
    printed, errors = capsys.readouterr()
    assert "" == errors
    assert printed.startswith("Sequential: 1 GELUs, 10 inputs\n\nvariant  output differs by")
    assert "a table of 1024 entries" in printed
    told = json.loads(Path("found.json").read_text())
    assert (10, 10, 2.5) == (told["inputs"], told["labelled"], told["cost_per_hour"])


def test_the_output_may_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    """A function takes the tensor out of what the model returns."""
    assert 0 == main(["shadow", "shadowed:pair", "--inputs", "shadowed:inputs", "--outputs", "shadowed:second", "--rounds", "0"])
    assert "Pair: 1 GELUs, 10 inputs" in capsys.readouterr().out


def test_the_size_of_a_test_needs_no_model(capsys: pytest.CaptureFixture[str]) -> None:
    """The calculator prints both designs, the paired one within its ends, or for the disagreement given."""
    assert 0 == main(["shadow", "--samples", "--baseline-accuracy", ".95", "--delta", "-.005"])
    lines = capsys.readouterr().out.splitlines()
    assert ["31,234", "1,568", "31,237"] == [line.split(":")[1].split()[0] for line in lines[1:]]
    assert 0 == main(["shadow", "--samples", "--baseline-accuracy", ".95", "--delta", "-.005", "--disagreement", ".01"])
    assert "3,138 inputs (only one is right on 1 %)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Name the function that returns the model and, with --inputs, the one that returns the inputs"),
        (["shadowed:model"], "Name the function that returns the model and, with --inputs"),
        (["shadowed:model", "--inputs", "shadowed:wide"], "A pass of the model failed: RuntimeError: "),
        (["shadowed:model", "--inputs", "shadowed:inputs", "--rounds", "2"], "rounds must be 0 or a whole number of at least 6, got 2."),
        (["--demo", "--inputs", "shadowed:inputs"], "--demo brings a model, inputs and labels of its own"),
        (["--samples", "--delta", ".1"], "--samples needs --baseline-accuracy and --delta"),
        (["--samples", "--baseline-accuracy", "95", "--delta", ".1"], "An accuracy must be between 0 and 1, got 95"),
        (["shadowed:model", "--inputs", "shadowed:inputs", "--rounds", "0", "--json", "no/x.json"], "no/x.json cannot be written (No such"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each exits with 1, prints no table and says what to do."""
    assert 1 == main(["shadow", *arguments])
    printed, errors = capsys.readouterr()
    assert "" == printed
    assert errors.startswith(f"geluwatch: {sentence}")
    assert 1 == errors.count("\n")


def test_the_demonstration_is_a_real_encoder(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Of short texts in place of paragraphs: all six GELUs are replaced, tanh changes next to nothing, ReLU a lot."""
    said = {subject: [f"{subject} {number}" for number in range(16)] for subject in ("A letter to a friend", "The thread is locked")}
    monkeypatch.setattr(docstrings, "_paragraphs", lambda: said)
    assert 0 == main(["shadow", "--demo", "--rounds", "0", "--json", "found.json"])
    assert capsys.readouterr().out.startswith("MiniLM: 6 GELUs, 16 inputs")
    told = json.loads(Path("found.json").read_text())
    assert 1.0 == told["accuracy"]
    tanh, relu = (next(each for each in told["variants"] if each["name"] == name) for name in ("tanh", "relu"))
    assert tanh["relative"] < 0.01 < 0.1 < relu["relative"]
    assert (6, 6) == (tanh["calls"], tanh["expected"])


@pytest.mark.full
def test_the_demonstration_has_real_answers() -> None:
    """The encoder tells eight packages apart by their docstrings, far above chance, and tanh loses next to none of that."""
    task = docstrings.load(most=64)
    found = shadow(task.model, task.inputs, task.labels, rounds=0)
    assert found.accuracy is not None
    assert 0.6 < found.accuracy < 1
    tanh = found.variant("tanh").accuracy
    assert tanh is not None
    assert abs(tanh.change) < 0.01
