"""`geluwatch compare` of models and checkpoints: the real encoder against itself, one layer of it in tanh, and a cast."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from geluwatch.cli.main import main

LAYERS = [f"encoder.layer.{number}.intermediate.intermediate_act_fn" for number in range(6)]

FUNCTIONS = """
import copy
import torch
from torch import nn
from geluwatch.cli.demo import model

ENCODER = model.load()

def known():
    return ENCODER.model

def again():
    return copy.deepcopy(ENCODER.model)

def tanh():
    changed = again()
    changed.encoder.layer[3].intermediate.intermediate_act_fn = nn.GELU(approximate="tanh")
    return changed

def cast():
    return again().to(torch.bfloat16)

def inputs():
    for texts in (["Return a list of the lines.", "Raise an error."], ["The process waits until every child has ended."]):
        yield dict(ENCODER.tokenizer(texts, padding=True, return_tensors="pt"))

def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))

def numbers():
    return [torch.ones(3, 4)]

def none():
    raise OSError("the disk is gone")

def broken():
    yield torch.ones(3, 4)
    raise OSError("the disk is gone")
"""

Compare = Callable[..., tuple[int, list[str], str]]


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a module of functions as users write them."""
    folder = tmp_path_factory.mktemp("functions")
    (folder / "compared.py").write_text(FUNCTIONS)
    return folder


@pytest.fixture
def compare(functions: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Compare:
    """Runs the command in that folder; returns exit status, lines and errors."""
    monkeypatch.chdir(functions)

    def run(*arguments: str) -> tuple[int, list[str], str]:
        status = main(["compare", *arguments])
        printed = capsys.readouterr()
        return status, printed.out.splitlines(), printed.err

    return run


def outcomes(lines: list[str]) -> list[str]:
    """Return the outcome of each layer, and of the output."""
    return [line.split()[1] for line in lines if line.startswith(("encoder.layer.", "output"))]


def test_the_same_passes(compare: Compare) -> None:
    """The encoder against itself exits with 0: nothing differs by more than the last bits, which hang on where weights lie in memory."""
    status, lines, errors = compare("--models", "compared:known", "compared:again", "--inputs", "compared:inputs", "--tolerance", "1e-6")
    assert (0, "", ["same"] * 7) == (status, errors, outcomes(lines))
    assert "The same at 6 GELUs, within 1e-06." == lines[-1]


def test_another_formula_in_one_layer_is_named(compare: Compare, tmp_path: Path) -> None:
    """Tanh in the fourth layer exits with 1; that layer is named, in the table, in JSON and in JUnit."""
    files = ["--json", f"{tmp_path}/found.json", "--junit", f"{tmp_path}/found.xml"]
    status, lines, _ = compare("--models", "compared:known", "compared:tanh", "--inputs", "compared:inputs", *files)
    assert (1, [*["same"] * 3, *["apart"] * 4]) == (status, outcomes(lines))
    assert lines[-1].startswith(f"The models part at {LAYERS[3]} (its formula is erf in one and tanh in the other): the same goes in, ")
    told = json.loads((tmp_path / "found.json").read_text())
    assert ("differs", LAYERS[3]) == (told["outcome"], told["first_layer"])
    assert 0.0 == told["layers"][3]["before"] < told["layers"][3]["after"] < 1e-2
    suite = ElementTree.parse(tmp_path / "found.xml").getroot()  # noqa: S314  # our own file
    assert [*LAYERS[3:], "output"] == [case.attrib["name"] for case in suite if case.find("failure") is not None]


def test_a_cast_is_named_with_its_size(compare: Compare) -> None:
    """bfloat16 exits with 1, at the first layer, with the precision and the size of the effect."""
    status, lines, _ = compare("--models", "compared:known", "compared:cast", "--inputs", "compared:inputs")
    assert (1, ["apart"] * 7) == (status, outcomes(lines))
    sentence = (
        f"The models part at {LAYERS[0]} (its values are float32 in one and bfloat16 in the other): what goes into that GELU differs by"
    )
    assert lines[-1].startswith(sentence)
    assert 1e-3 < float(lines[-1].split()[-4]) < 1e-1


def test_checkpoints_are_compared_in_the_factorys_model(compare: Compare, tmp_path: Path) -> None:
    """The same weights pass; a head that changed behind the last GELU fails, and is said to be there."""
    torch.manual_seed(0)
    state = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.GELU(), torch.nn.Linear(8, 2)).state_dict()
    torch.save(state, tmp_path / "known.pt")
    torch.save({**state, "2.weight": state["2.weight"] * 1.01}, tmp_path / "head.pt")
    where = ["--factory", "compared:small", "--inputs", "compared:numbers"]
    assert 0 == compare("--checkpoints", f"{tmp_path}/known.pt", f"{tmp_path}/known.pt", *where)[0]
    status, lines, _ = compare("--checkpoints", f"{tmp_path}/known.pt", f"{tmp_path}/head.pt", *where)
    assert 1 == status
    assert lines[-1].startswith(
        "The same at 1 GELUs, within 1e-05; behind the last of them the models part: what they return differs by 0.0"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--models small small", "Models are compared on inputs: give --inputs package.module:function"),
        ("--models gone small --inputs numbers", "compared has no gone; give a function of it as package.module:function."),
        ("--models ENCODER small --inputs numbers", "compared:ENCODER is no function, but Encoder; give one that returns it."),
        ("--models numbers small --inputs numbers", "compared:numbers returned list; it has to return a torch.nn.Module."),
        ("--models small small --inputs none", "compared:none failed when it was called without arguments: OSError: the disk is gone."),
        ("--models small small --inputs broken", "compared:broken failed on the way: OSError: the disk is gone."),
        ("--models small small --inputs inputs", "A pass of the models failed: TypeError: "),
        ("--checkpoints small small --inputs numbers", "Weights need a model to be loaded into: give --factory package.module:function"),
    ],
)
def test_what_fails_is_one_sentence(arguments: str, sentence: str, compare: Compare) -> None:
    """Functions and passes that fail exit with 1 and say which, and how."""
    status, lines, errors = compare(*(each if each.startswith("-") else f"compared:{each}" for each in arguments.split()))
    assert (1, []) == (status, lines)
    assert errors.startswith(f"geluwatch: {sentence}")
    assert 1 == errors.count("\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--models", "compared", "x:y", "--inputs", "x:y"], "'compared' does not name a function; give it as package.module:function."),
        (["--models", "gone.x:y", "x:y", "--inputs", "x:y"], "gone.x of gone.x:y cannot be imported: ModuleNotFoundError: No module named"),
        (["http://127.0.0.1:9", "good.baseline"], "One of the two is an address and the other is not;"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(arguments: list[str], sentence: str, compare: Compare) -> None:
    """Names, functions and passes that fail exit with 1 and say which."""
    status, lines, errors = compare(*arguments)
    assert (1, []) == (status, lines)
    assert errors.startswith(f"geluwatch: {sentence}")
    assert 1 == errors.count("\n")
