"""The digest of weights: equal for equal bits under whatever wrapper, device or tying, another for any other bit."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from geluwatch.tap import origin, weights

# Torch means to do without quantised tensors of its own; models still have them.
pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor"),
    pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated"),
]


class Tied(nn.Module):
    """Two dense layers of the same weights, in one tensor or in two, and buffers of every sort."""

    def __init__(self, *, tied: bool = False) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 4), nn.Linear(4, 4)
        with torch.no_grad():
            for value, layer in enumerate((self.up, self.down)):
                layer.weight.copy_(torch.arange(16.0).reshape(4, 4))
                layer.bias.fill_(value)
        if tied:
            self.down.weight = self.up.weight
        for name, buffer in buffers().items():
            self.register_buffer(name, buffer, persistent=name != "scalar")


def buffers() -> dict[str, torch.Tensor | None]:
    """Return tensors of kinds that have to be read each in its own way."""
    dense = torch.arange(6.0).reshape(2, 3)
    return {
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 3),
        "absent": None,
        "truth": torch.tensor([True, False]),
        "conjugate": torch.tensor([1 + 2j, 3 - 1j]).conj(),
        "eight_bits": dense.to(torch.float8_e4m3fn),
        "turned": dense.to(torch.bfloat16).t(),
        "sparse": dense.to_sparse(),
        "scaled": torch.quantize_per_tensor(dense, 0.1, 3, torch.qint8),
        "channels": torch.quantize_per_channel(dense, torch.tensor([0.1, 0.2]), torch.tensor([0, 1]), 0, torch.qint8),
    }


def distributed_data_parallel(model: nn.Module) -> nn.Module:
    """Wrap a model as a rank of a run does, in a run of one."""
    with tempfile.NamedTemporaryFile() as file:
        distributed.init_process_group("gloo", init_method=f"file://{file.name}.d", rank=0, world_size=1)
    return DistributedDataParallel(model)


def compiled(model: nn.Module) -> nn.Module:
    """Wrap a model as a compiler does; the backend, which is not called, loads quickly."""
    return torch.compile(model, backend="eager")  # type: ignore[return-value]


@pytest.mark.parametrize("wrap", [compiled, nn.DataParallel, distributed_data_parallel], ids=["compile", "data parallel", "ddp"])
def test_wrappers_make_no_difference(wrap: Callable[[nn.Module], nn.Module]) -> None:
    """Digest and names are those of the bare model."""
    model = Tied()
    for name in ("sparse", "scaled", "channels", "eight_bits", "conjugate"):  # which DDP cannot send
        delattr(model, name)
    try:
        assert weights.read(model) == weights.read(wrap(model))
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def test_tying_makes_no_difference() -> None:
    """A tensor with two names counts under both; only the number of parameters tells."""
    one, two = weights.read(Tied(tied=True)), weights.read(Tied())
    assert (one.digest, one.tensors) == (two.digest, two.tensors)
    assert (24, 40) == (one.parameters, two.parameters)
    assert ["scalar", "empty", "truth"] == [name for name in two.tensors if "." not in name][:3]
    assert {16} == {len(digest) for digest in two.tensors.values()}


def test_device_makes_no_difference() -> None:
    """On an accelerator the digest is the one of the host."""
    if not torch.cuda.is_available():
        pytest.skip("there is no accelerator")
    model = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64).to(torch.bfloat16))
    host = weights.read(model)
    there = weights.read(copy.deepcopy(model).cuda())
    assert (host.digest, host.tensors, ("cuda",)) == (there.digest, there.tensors, there.devices)


def test_neither_order_nor_storage_nor_piece_makes_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order in which tensors were put in, how they lie in memory, and how much is read at once do not show."""
    model, turned = nn.ParameterDict(), nn.ParameterDict()
    values = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3)}
    for name, value in values.items():
        model[name] = nn.Parameter(value)
    for name, value in reversed(values.items()):
        turned[name] = nn.Parameter(value.t().contiguous().t() if value.dim() == 2 else value.expand(3).clone())
    known = weights.read(model)
    assert known.digest == weights.read(turned).digest
    monkeypatch.setattr(weights, "_PIECE", 4)
    assert known == weights.read(model)


@given(data=st.data())
def test_any_bit_makes_a_difference(data: st.DataObject) -> None:
    """One bit of one element of one tensor is another: so is the digest, and that tensor's name is the only one to differ."""
    model = Tied()
    known = weights.read(model)
    names = {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point() and not tensor.is_sparse}
    name = data.draw(st.sampled_from(sorted(name for name, tensor in names.items() if tensor.numel() and not tensor.is_quantized)))
    raw = names[name].detach().view(-1) if names[name].is_contiguous() else names[name].detach().t().view(-1)
    bits = raw.view({1: torch.uint8, 2: torch.int16, 4: torch.int32}[raw.element_size()])
    place, bit = data.draw(st.integers(0, bits.numel() - 1)), data.draw(st.integers(0, 8 * raw.element_size() - 2))
    bits[place] ^= 1 << bit
    found = weights.read(model)
    assert known.digest != found.digest
    assert {name} == {each for each in known.tensors if known.tensors[each] != found.tensors[each]}


def changed(name: str, value: torch.Tensor) -> nn.Module:
    """Return the model with another buffer."""
    model = Tied()
    setattr(model, name, value)
    return model


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scalar", torch.tensor(1.5, dtype=torch.float64)),
        ("scalar", torch.tensor([1.5])),
        ("empty", torch.zeros(3, 0)),
        ("truth", torch.tensor([1, 0], dtype=torch.uint8)),
        ("conjugate", torch.tensor([1 + 2j, 3 - 1j])),
        ("scaled", lambda: torch.quantize_per_tensor(torch.arange(6.0).reshape(2, 3) * 2, 0.2, 3, torch.qint8)),
        ("channels", lambda: torch.quantize_per_channel(torch.ones(2, 3), torch.tensor([0.1, 0.2]), torch.tensor([0, 1]), 0, torch.qint8)),
    ],
)
def test_dtype_shape_and_scale_make_a_difference(name: str, value: torch.Tensor | Callable[[], torch.Tensor]) -> None:
    """The same bytes of another dtype, shape, sign or scale are other weights."""
    known, found = weights.read(Tied()), weights.read(changed(name, value() if callable(value) else value))
    assert known.digest != found.digest
    assert {name} == {each for each in known.tensors if known.tensors[each] != found.tensors[each]}


def test_names_make_a_difference() -> None:
    """The same tensors under another name are another model; names of wrappers that the model uses itself are kept apart."""
    one, two = nn.Module(), nn.Module()
    one.a, two.b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    assert weights.read(one).digest != weights.read(two).digest
    one.module = nn.Module()
    one.module.a = nn.Parameter(torch.zeros(2))
    assert ["a", "module.a"] == list(weights.read(one).tensors)


def test_quantised_modules_have_weights_too() -> None:
    """Weights that a quantised module keeps packed are read."""
    torch.manual_seed(0)
    found = []
    for scale in (1.0, 1.0, 3.0):
        model = nn.Sequential(nn.Linear(4, 4))
        with torch.no_grad():
            model[0].weight.copy_(torch.arange(16.0).reshape(4, 4) * scale)
            model[0].bias.zero_()
        found.append(weights.read(torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)))
    assert {"0.weight", "0.bias"} <= set(found[0].tensors)
    assert found[0] == found[1]
    assert found[0].tensors["0.weight"] != found[2].tensors["0.weight"]


class FullyShardedDataParallel(nn.Module):
    """Bears the name of torch's wrapper, which makes shards of the weights."""


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Linear(2, 2, device="meta"), "weight has no values in this process"),
        (nn.Sequential(nn.LazyLinear(2)), "0.weight has no values in this process"),
        (FullyShardedDataParallel(), "the weights are sharded over several processes by FSDP"),
    ],
)
def test_weights_that_are_not_here_are_unknown(model: nn.Module, reason: str) -> None:
    """Then there is no digest but the reason, and what is known besides."""
    found = weights.read(model)
    assert ("", {}, reason) == (found.digest, found.tensors, found.reason)


def test_only_what_is_asked_for_is_read() -> None:
    """Without a digest no weight is read, and number, dtypes and devices are told all the same, those of most first."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(2, 2).to(torch.bfloat16))
    found, full = weights.read(model, digest=False), weights.read(model)
    assert ("", 78, ("float32", "bfloat16"), ("cpu",)) == (found.digest, found.parameters, found.dtypes, found.devices)
    assert (full.parameters, full.dtypes, full.devices) == (found.parameters, found.dtypes, found.devices)


def test_a_real_model_under_the_watch(minilm: nn.Module, attach: Callable[..., Any]) -> None:
    """The digest of the encoder is the same watched, compiled and copied; one changed weight is named among all of them."""
    known = weights.read(minilm)
    attach(minilm)
    other = copy.deepcopy(minilm)
    assert {known.digest} == {weights.read(each).digest for each in (minilm, compiled(minilm), other)}
    with torch.no_grad():
        other.encoder.layer[3].output.dense.bias[7] += 1e-6
    found = weights.read(other)
    assert ["encoder.layer.3.output.dense.bias"] == [name for name in known.tensors if known.tensors[name] != found.tensors[name]]
    assert (22_713_216, ("float32",)) == (known.parameters, known.dtypes)


def test_versions_and_machine() -> None:
    """What the model runs on is named: interpreter, framework, platform and instruction set."""
    found = origin.read(nn.Linear(2, 2))
    assert str(torch.__version__) == found.versions["torch"]
    assert found.versions["python"].startswith("3.")
    assert torch.backends.cpu.get_cpu_capability() == found.machine["cpu"]
    assert "Linux" in found.machine["platform"]
    assert "the model is gone" == origin.read(None).weights.reason
