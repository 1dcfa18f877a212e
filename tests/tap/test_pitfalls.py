"""The list of pitfalls is whole and its tests exist; and the few facts on it that no other file proves."""

from __future__ import annotations

import ast
import inspect
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from geluwatch.tap.deferred import DeviceGuard, DeviceRows

TESTS = Path(__file__).parent.parent
ROWS = [line.split("|") for line in (TESTS / "tap" / "PITFALLS.md").read_text().splitlines() if re.match(r"\| *\d+ *\|", line)]
PROOFS = [(int(number), proof) for _, number, _, proof, _ in ROWS]


def test_the_list_is_whole() -> None:
    """The rows are numbered from 1 to 41, each once, and each names a test or says why the pitfall is none of ours."""
    assert list(range(1, 42)) == [number for number, _ in PROOFS]
    for number, proof in PROOFS:
        assert "::" in proof or proof.strip().startswith("Does not apply: "), number


@pytest.mark.parametrize(("number", "proof"), PROOFS, ids=[str(number) for number, _ in PROOFS])
def test_every_test_on_the_list_exists(number: int, proof: str) -> None:
    """Each path and name in a row is that of a test function."""
    named = re.findall(r"`([^`]+)`", proof)
    for path, _, name in (each.partition("::") for each in named):
        tree = ast.parse((TESTS / path).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{path}::{name}"
        assert name.startswith("test_")


def test_hooks_are_on_forwards_alone(
    attach: Callable[..., Any], block: Callable[..., Any], hook_census: Callable[[nn.Module], Any]
) -> None:
    """A watch adds no backward hook to a module or a tensor, nor any hook to state dictionaries."""
    model = nn.Sequential(block(), block())
    before = hook_census(model)
    attach(model)
    x = torch.randn(2, 8, requires_grad=True)
    y = model(x)
    after = hook_census(model)
    added = {kind for name in before for kind in before[name] if before[name][kind] != after[name][kind]}
    assert {"_forward_hooks", "_forward_pre_hooks"} <= added
    assert all(kind.startswith("_forward_") for kind in added)
    assert [None] * 10 == [tensor._backward_hooks for tensor in (x, y, *model.parameters())]


def test_forwards_stay_what_they_are(attach: Callable[..., Any], block: Callable[..., Any]) -> None:
    """No module's forward is replaced, on the object or its class, and its signature is what it was."""
    model = nn.Sequential(block(), nn.GELU())
    before = [(type(part), type(part).forward, inspect.signature(part.forward), "forward" in vars(part)) for part in model.modules()]
    attach(model)
    model(torch.randn(2, 8))
    after = [(type(part), type(part).forward, inspect.signature(part.forward), "forward" in vars(part)) for part in model.modules()]
    assert before == after


class Notes(TorchDispatchMode):
    """Records every operation."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note the operation and run it."""
        self.operations.append(str(func))
        return func(*args, **(kwargs or {}))


def test_the_drain_runs_no_operation_of_a_device() -> None:
    """Reading the device guard's counters from another thread touches no tensor: it would spoil a capture that is under way."""
    guard = DeviceGuard(1)
    for _ in range(40):
        guard.look(0, (torch.tensor([[math.nan]]),), None)
        guard.end_pass()
    with Notes() as notes:
        assert guard.counts()[2] > 0
    assert [] == notes.operations


def test_rows_under_way_have_memory_of_their_own() -> None:
    """Rows of several sites, all captured before any has arrived, arrive with the values of their own site."""
    rows = DeviceRows()
    for site in range(5):
        pre = torch.full((4, 2), float(site))
        rows.capture(str(site), pre, -pre, rows.pick(4, None, torch.device("cpu"), 1.0, 3))
    arrived = list(rows.arrived())
    assert [str(site) for site in range(5)] == [captured.layer for captured in arrived]
    for site, captured in enumerate(arrived):
        assert torch.equal(torch.full((3, 2), float(site)), captured.pre)
        assert torch.equal(torch.full((3, 2), -float(site)), captured.post)
