"""From a fault to its bundle, from the bundle to a screen and a replay, and from there to a test that fails until it is mended."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import geluwatch
from geluwatch.analysis import imported
from geluwatch.analysis.incident import inputs, kinds, read, run_pass, run_rows, show
from geluwatch.analysis.incident.regression import source
from geluwatch.analysis.incident.replay import replayed
from geluwatch.bundles.bundle import Bundle, _called
from geluwatch.cli.main import main
from geluwatch.tap.wiring import FORMULAS

ROOT = Path(__file__).resolve().parents[2]

USERS_CODE = '''
"""A user's own factories: the model as it fails, and mended."""

import torch
from torch import nn


class Naive(nn.GELU):
    """x e^1.7x / (1 + e^1.7x), which is NaN for large x."""

    def forward(self, x):
        return x * torch.exp(1.702 * x) / (1 + torch.exp(1.702 * x))


class Net(nn.Module):
    def __init__(self, act):
        super().__init__()
        torch.manual_seed(7)
        self.embed = nn.Embedding(100, 8)
        self.up, self.act, self.down = nn.Linear(8, 16), act, nn.Linear(16, 8)
        self.last = nn.GELU()

    def forward(self, ids, scale=1.0):
        return self.last(self.down(self.act(scale * self.up(self.embed(ids % 100)))))


def broken_weights():
    model = Net(nn.GELU()).eval()
    model.embed.weight.data[46, 2] = model.up.weight.data[3, 2] = 1e30
    return model


def broken_kernel():
    return Net(Naive()).eval()


def mended():
    return Net(nn.GELU()).eval()


def ids():
    return torch.tensor([[918273645, 918273646, 918273647]])


def nothing():
    return None


def raises():
    raise RuntimeError("no weights here")
'''


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a user's module, from which the commands run."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "users_code.py").write_text(USERS_CODE)
    (folder / "broken.npz").write_bytes(b"PK\x03\x04 and no more")
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)
    sys.modules.pop("users_code", None)


TOKENS = (918273645, 918273646, 918273647)
"""Large, so that their digits are in no other number by chance. The second meets the broken weight."""


def fail(factory: str, place: Path, scale: float = 1.0, **settings: object) -> Bundle:
    """Have a model of the user's meet its fault under a watch; return the bundle that this leaves."""
    model = imported.model(f"users_code:{factory}")
    config = geluwatch.Config(window_seconds=None, flush_seconds=3600.0, cost_budget=None, incidents=place, **settings)
    with geluwatch.attach(model, name="net", config=config) as watch, torch.inference_mode():
        model(torch.tensor([[1, 2, 3]]), scale=1e-3)
        watch.close_window()
        model(torch.tensor([TOKENS]), scale=scale)
        assert "page" == watch.flush().verdict
    (path,) = place.iterdir()
    return read(path)


@pytest.fixture(scope="module")
def redacted(desk: Path) -> Bundle:
    """A bundle of a broken weight, without inputs."""
    return fail("broken_weights", desk / "redacted")


@pytest.fixture(scope="module")
def whole(desk: Path) -> Bundle:
    """The same with the inputs of the pass."""
    return fail("broken_weights", desk / "whole", incident_inputs=True)


@pytest.fixture(scope="module")
def kernel(desk: Path) -> Bundle:
    """A bundle of a GELU that makes NaN of finite values, without inputs."""
    return fail("broken_kernel", desk / "kernel", scale=400.0)


def test_inputs_are_nowhere_in_a_bundle_by_default(redacted: Bundle, whole: Bundle) -> None:
    """No token of the failing input is in any entry, as a number or as text; with leave, it is."""

    def mentions(bundle: Bundle, token: int) -> bool:
        forms = (np.int64(token).tobytes(), str(token).encode())
        with zipfile.ZipFile(bundle.path) as file:
            entries = [file.read(name) for name in file.namelist() if not name.endswith(".npz")]
            for name in file.namelist():
                if name.endswith(".npz"):
                    with zipfile.ZipFile(file.open(name)) as arrays:
                        entries += [arrays.read(part) for part in arrays.namelist()]
        return any(form in entry for entry in entries for form in forms)

    assert not any(mentions(redacted, token) for token in TOKENS)
    assert all(mentions(whole, token) for token in TOKENS)
    assert redacted.manifest["inputs"].startswith("redacted")
    assert "kept" == whole.manifest["inputs"]


def test_the_screen_says_what_happened(redacted: Bundle) -> None:
    """Forty lines at most name the reason, the layer, the kinds and channels, what was before, the windows, and the next step."""
    lines = list(show.lines(redacted))
    text = "\n".join(lines)
    assert len(lines) <= 40
    assert "NaN or Inf, first at act." == lines[0]
    for part in (
        "net version 1",
        "verdict page",
        "layer act, number 1 of 2: GELU, erf",
        "1 of 3 rows of a pass at 20",
        "rows: 1 in the bundle (number 1), float32",
        "in channels 3 of 16",
        "Windows at this layer",
        "int64 (1, 3)",
        "inputs are redacted",
        "mode inference",
        "torch 2.",
        f"geluwatch incident replay {redacted.path} --model",
        "geluwatch runbook GeluwatchNonFiniteActivations",
    ):
        assert part in text, part


def test_the_kernel_is_named_where_it_is_to_blame(kernel: Bundle) -> None:
    """Values that are finite before the GELU and not after it are told apart, and the next step needs no model."""
    text = "\n".join(show.lines(kernel))
    assert re.search(r"before the GELU: none\n  after it only: [\d,]+ NaN in channels", text)
    assert "--model" not in text


def test_a_pass_is_reproduced_with_model_and_inputs(whole: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    """The broken model meets the same layer and kinds again and the exit is 0; the mended one meets nothing and it is 1."""
    assert 0 == main(["incident", "replay", str(whole.path), "--model", "users_code:broken_weights"])
    assert "Reproduced.\nran       one pass of the model\n" in capsys.readouterr().out
    assert 1 == main(["incident", "replay", str(whole.path), "--model", "users_code:mended"])
    said = capsys.readouterr().out
    assert "Not reproduced." in said
    assert "replay    no NaN or Inf at any GELU" in said


@pytest.mark.parametrize("given", ["users_code:ids", "ids.npz"])
def test_redacted_inputs_can_be_given(given: str, redacted: Bundle, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A function or a file of the user's takes the place of inputs that were not kept."""
    np.savez(desk / "ids.npz", ids=np.array([TOKENS]))
    assert 0 == main(["incident", "replay", str(redacted.path), "--model", "users_code:broken_weights", "--inputs", given])
    assert "Reproduced." in capsys.readouterr().out


def test_a_kernel_is_reproduced_without_inputs(kernel: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    """The model's own GELU makes NaN of the rows that were kept; torch's own formula does not, which convicts the module."""
    assert 0 == main(["incident", "replay", str(kernel.path), "--model", "users_code:broken_kernel"])
    assert "ran       the model's own layer on the rows" in capsys.readouterr().out
    assert 1 == main(["incident", "replay", str(kernel.path)])
    assert "ran       the declared GELU on the rows" in capsys.readouterr().out
    assert run_rows(kernel).first is None


def test_a_faulty_kernel_of_torch_is_reproduced_from_rows_alone(kernel: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the declared formula itself gives NaN here, the rows are enough: no model and no inputs."""
    monkeypatch.setitem(FORMULAS, "erf", lambda x: torch.where(x > 88.0, torch.nan, nn.functional.gelu(x)))
    assert 0 == main(["incident", "replay", str(kernel.path)])
    seen = run_rows(kernel)
    assert "act" == seen.first
    assert {("post", "nan")} == set(seen.nonfinite["act"])


def test_the_written_tests_fail_until_the_fault_is_mended(whole: Bundle, redacted: Bundle, kernel: Bundle, desk: Path) -> None:
    """pytest, run on the files that were written, fails with the broken models, and passes once the factories return mended ones."""
    weights, files = ["--model", "users_code:broken_weights"], [desk / f"test_{name}.py" for name in ("whole", "redacted", "kernel")]
    ways = ((whole, weights), (redacted, [*weights, "--inputs", "users_code:ids"]), (kernel, ["--model", "users_code:broken_kernel"]))
    for (bundle, arguments), file in zip(ways, files, strict=True):
        assert 0 == main(["incident", "replay", str(bundle.path), *arguments, "--write-test", str(file)])
    assert "3 failed" in _pytest(files, desk)
    code = desk / "users_code.py"
    text = code.read_text()
    code.write_text(f"{text}\n\nbroken_weights = broken_kernel = mended\n")
    assert "3 passed" in _pytest(files, desk)
    code.write_text(text)


def _pytest(files: list[Path], desk: Path) -> str:
    """Run pytest in a process of its own, as the user would; return its last line."""
    environment = {**os.environ, "PYTHONPATH": f"{desk}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, files)]
    run = subprocess.run(command, cwd=desk, env=environment, capture_output=True, text=True, timeout=300, check=False)
    return run.stdout.splitlines()[-1]


def test_no_test_is_written_of_what_was_not_reproduced(whole: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A test that would pass already proves nothing: it is refused, and no file is left; nor is one written over."""
    file = tmp_path / "test_it.py"
    assert 1 == main(["incident", "replay", str(whole.path), "--model", "users_code:mended", "--write-test", str(file)])
    assert "No test was written" in capsys.readouterr().err
    assert not file.exists()
    file.write_text("mine")
    assert 1 == main(["incident", "replay", str(whole.path), "--model", "users_code:broken_weights", "--write-test", str(file)])
    assert "not written over" in capsys.readouterr().err
    assert "mine" == file.read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give --model package.module:function"),
        (["--model", "users_code:broken_weights"], "set Config(incident_inputs=True)"),
        (["--model", "users_code"], "give it as package.module:function"),
        (["--model", "no_such_module:x"], "cannot be imported"),
        (["--model", "users_code:nothing"], "it has to return a torch.nn.Module"),
        (["--model", "users_code:raises"], "no weights here"),
        (["--model", "users_code:broken_weights", "--inputs", "missing.npz"], "numpy.savez"),
        (["--model", "users_code:broken_weights", "--inputs", "broken.npz"], "broken.npz holds no inputs (File is not a zip file); write"),
        (["--model", "users_code:broken_weights", "--inputs", "users_code:nothing"], "The pass raised"),
    ],
)
def test_what_is_wanting_is_said_in_one_sentence(
    arguments: list[str], says: str, redacted: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    """A replay that cannot be is refused with what to give, and a non-zero exit."""
    assert 1 == main(["incident", "replay", str(redacted.path), *arguments])
    said = capsys.readouterr().err
    assert says in said
    assert 1 == said.count("\n")


def test_a_replay_leaves_nothing_behind(whole: Bundle) -> None:
    """Hooks, training mode, seed, flags and threads are after it what they were before."""
    model = imported.model("users_code:broken_weights").train()
    state = torch.random.get_rng_state()
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision())
    run_pass(whole, model)
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert state.equal(torch.random.get_rng_state())
    assert before == (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision())


def test_a_replay_draws_what_was_drawn(desk: Path) -> None:
    """A pass that fails for what a seeded generator gives is reproduced: the seed is in the bundle."""

    class Unlucky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = nn.GELU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.act(x / (torch.rand(4096) > 1e-4).float())

    model, place = Unlucky(), desk / "unlucky"
    seed = next(seed for seed in range(100) if not _lucky(seed))
    config = geluwatch.Config(window_seconds=None, flush_seconds=3600.0, incidents=place, incident_inputs=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        with geluwatch.attach(model, name="unlucky", config=config) as watch:
            model(torch.ones(1, 4096))
            watch.flush()
    (path,) = place.iterdir()
    torch.manual_seed(next(seed for seed in range(100) if _lucky(seed)))
    assert "act" == run_pass(path, model).first


def _lucky(seed: int) -> bool:
    return bool((torch.rand(4096, generator=torch.Generator().manual_seed(seed)) > 1e-4).all())


def test_the_list_names_every_bundle(redacted: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each, oldest first, with model and reason; a damaged one says so and hides none of the others."""
    broken = redacted.path.with_name("incident-20200101T000000Z-net-nonfinite-abcdef.zip")
    broken.write_bytes(b"cut off")
    assert 0 == main(["incident", "list", str(redacted.path.parent)])
    first, second = capsys.readouterr().out.splitlines()
    broken.unlink()
    assert "is damaged or no bundle" in first
    assert redacted.path.name in second
    assert "net 1: NaN or Inf, first at act." in second
    assert 1 == main(["incident", "show", str(broken)])
    assert "cannot be read" in capsys.readouterr().err


def test_kinds_are_counted_as_the_guard_counts(redacted: Bundle) -> None:
    """An element counts after the GELU only where it had been finite before it; without the input all of it was there before."""
    rows = redacted.evidence[0].bad
    pre = np.array([[1.0, math.nan, math.inf, -math.inf]], np.float32)
    post = np.array([[math.nan, math.nan, math.nan, 0.0]], np.float32)
    both = replace(rows, pre=pre, post=post, places=np.array([0]))
    assert {("pre", "nan"): 1, ("pre", "posinf"): 1, ("pre", "neginf"): 1, ("post", "nan"): 1} == kinds.count(both)
    assert [0] == list(kinds.channels(both, "post"))
    assert {("pre", "nan"): 3} == kinds.count(replace(both, pre=None))


def test_the_help_names_what_it_can_do(capsys: pytest.CaptureFixture[str]) -> None:
    """The command's help lists its actions."""
    with pytest.raises(SystemExit):
        main(["incident", "--help"])
    assert {"list", "show", "replay"} <= set(capsys.readouterr().out.split())


def test_what_a_function_gives_is_a_call() -> None:
    """(args, kwargs) is both, a mapping keyword arguments, anything else the only argument."""
    assert ((1,), {"a": 2}) == inputs.from_value(((1,), {"a": 2}))
    assert ((), {"a": 2}) == inputs.from_value({"a": 2})
    assert (([1, 2],), {}) == inputs.from_value([1, 2])


def test_an_argument_that_is_not_finite_is_kept(desk: Path) -> None:
    """JSON has no word for it, and it may be the very cause: the bundle is whole, and the pass can be sent again."""
    found = fail("broken_weights", desk / "endless", scale=math.inf, incident_inputs=True)
    assert {"scale": math.inf} == inputs.given(found, imported.model("users_code:broken_weights"))[1]


def test_an_argument_may_be_called_array(whole: Bundle) -> None:
    """Whether all tensors of a call are there is counted by its tensors, not by names."""
    tree = {"args": [], "kwargs": {"array": {"type": "list", "items": [{"type": "tensor", "array": "tensor0"}]}}}
    assert _called({"tree": tree, "whole": True}, {"tensor0": np.zeros(2)}).whole
    assert not _called({"tree": tree, "whole": True}, {}).whole


def test_a_factory_may_be_a_part_of_a_class(whole: Bundle, tmp_path: Path) -> None:
    """The written test imports what can be imported, and calls the rest of the path."""
    text = source(whole, tmp_path / "test_it.py", "act", model="users_code:Factory.make", inputs=None, whole=True)
    assert compile(text, "test_it.py", "exec")
    assert "from users_code import Factory\n" in text
    assert "Factory.make()" in text


class Frozen(nn.Module):
    """A part in training mode that keeps statistics, and a part that is frozen; it raises for its own NaN where it is told to."""

    def __init__(self, *, raises: bool = False) -> None:
        super().__init__()
        self.norm, self.act, self.frozen, self.raises = nn.BatchNorm1d(4), nn.GELU(), nn.BatchNorm1d(4), raises
        self.train()
        self.frozen.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Divide by a frozen statistic."""
        out: torch.Tensor = self.act(self.norm(x) / self.frozen.running_var)
        if self.raises and not out.isfinite().all():
            raise FloatingPointError("a NaN of its own")
        return out


def broken(place: Path, *, raises: bool) -> tuple[Bundle, Frozen]:
    """Have such a model divide nothing by nothing in a training pass under a watch; return the bundle and the model."""
    model = Frozen(raises=raises)
    model.norm.weight.data.zero_()
    model.frozen.running_var.zero_()
    config = geluwatch.Config(window_seconds=None, flush_seconds=3600.0, cost_budget=None, incidents=place, incident_inputs=True)
    with geluwatch.attach(model, name="net", config=config) as watch:
        with pytest.raises(FloatingPointError) if raises else nullcontext():
            model(torch.randn(3, 4))
        watch.flush()
    (path,) = place.iterdir()
    return read(path), model


@pytest.mark.parametrize("raises", [False, True])
def test_a_training_pass_is_reproduced_and_leaves_the_model_as_it_was(raises: bool, tmp_path: Path) -> None:
    """Frozen parts stay frozen in it, each part's mode and statistics are put back, and an exception for the NaN is no obstacle."""
    bundle, model = broken(tmp_path, raises=raises)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    outcome = replayed(bundle, model)
    assert outcome.reproduced
    assert outcome.whole
    assert (True, True, False) == (model.training, model.norm.training, model.frozen.training)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_bundle_gives_the_terminal_nothing_to_obey(redacted: Bundle) -> None:
    """Control characters in a bundle from elsewhere are shown as their numbers."""
    hostile = replace(redacted, manifest={**redacted.manifest, "reason": "\x1b[2J\x07all is well"})
    assert "\\x1b[2J\\x07all is well" == show.plain(next(iter(show.lines(hostile))))
