"""Which kernel made the values after a GELU: told from pairs of values, in every dtype, and never from too few."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geluwatch.core import parity
from geluwatch.core.kernels import Kernels
from geluwatch.records import Parity, Rows, Site

Kernel = Callable[[torch.Tensor], torch.Tensor]
DTYPES = ("float64", "float32", "float16", "bfloat16")


def spelled_out(x: torch.Tensor) -> torch.Tensor:
    """The tanh form, operation by operation in the dtype of its input."""
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


def erf_spelled_out(x: torch.Tensor) -> torch.Tensor:
    """The erf form, operation by operation."""
    return x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))


def within(dtype: torch.dtype, kernel: Kernel) -> Kernel:
    """A kernel that computes in another dtype than that of its values."""
    return lambda x: kernel(x.to(dtype)).to(x.dtype)


NATIVE: dict[str, Kernel] = {
    "erf": torch.nn.functional.gelu,
    "tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "quick": lambda x: x * torch.sigmoid(1.702 * x),
}


def values(dtype: str, level: float = -0.5, spread: float = 1.5, count: int = 20_000, seed: int = 0) -> torch.Tensor:
    """Normal values (count / 10, 10) of a dtype."""
    drawn = torch.randn(count // 10, 10, generator=torch.Generator().manual_seed(seed))
    return (drawn * spread + level).to(getattr(torch, dtype))


def measured(x: torch.Tensor, kernel: Kernel, declared: str, dtype: str | None = None) -> Parity | None:
    """What is measured of a kernel on some values."""
    pairs = parity.choose(x.float().numpy(), kernel(x).float().numpy(), 4096)
    return parity.compare(*pairs, dtype or str(x.dtype).removeprefix("torch."), declared)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", list(NATIVE))
def test_each_formula_is_named_and_no_fault_where_it_is_declared(dtype: str, name: str) -> None:
    """The framework's own kernels are told apart in every dtype, within three units of last place for 99 % of the values."""
    found = measured(values(dtype), NATIVE[name], name)
    assert found is not None
    assert (name, dtype, "") == (found.variant, found.precision, found.fault)
    assert 0 < found.typical <= found.most < 3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("declared", "computed"), [(one, other) for one in NATIVE for other in NATIVE if one != other])
def test_another_formula_than_the_declared_one_is_a_fault(dtype: str, declared: str, computed: str) -> None:
    """Each formula instead of each other is told in every dtype, bfloat16 included, with both names and the size."""
    found = measured(values(dtype), NATIVE[computed], declared)
    assert found is not None
    assert (computed, dtype) == (found.variant, found.precision)
    assert f"declared {declared} in {dtype}, measured {computed}: off by up to" in found.fault
    assert found.absolute > 3e-4


@pytest.mark.parametrize("declared", ["float64", "float32"])
@pytest.mark.parametrize("narrow", ["float16", "bfloat16"])
@pytest.mark.parametrize(("name", "kernel"), [*NATIVE.items(), ("tanh", spelled_out), ("erf", erf_spelled_out)])
def test_work_in_a_narrower_dtype_is_a_fault_that_names_it(declared: str, narrow: str, name: str, kernel: Kernel) -> None:
    """Values of 32 or 64 bits from a kernel of 16 bits are told, with the dtype, spelled out or not."""
    found = measured(values(declared), within(getattr(torch, narrow), kernel), name)
    assert found is not None
    assert narrow == found.precision
    assert found.variant in ("", name)
    assert f"errors of the size of {narrow}'s" in found.fault


def test_bfloat16_within_float16_is_a_fault_and_float16_within_bfloat16_is_none() -> None:
    """What has fewer bits than the values is told; what has more does no harm."""
    narrower = measured(values("float16"), within(torch.bfloat16, NATIVE["erf"]), "erf")
    wider = measured(values("bfloat16"), within(torch.float16, NATIVE["erf"]), "erf")
    assert narrower is not None
    assert wider is not None
    assert ("bfloat16", "bfloat16", "") == (narrower.precision, wider.precision, wider.fault)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(("level", "spread"), [(-0.5, 1.5), (-1.0, 0.5), (-2.0, 0.3), (0.0, 0.5), (1.5, 0.5), (0.0, 4.0)])
@pytest.mark.parametrize(("declared", "kernel"), [("tanh", spelled_out), ("erf", erf_spelled_out)])
def test_a_formula_spelled_out_in_16_bits_is_no_fault(dtype: str, level: float, spread: float, declared: str, kernel: Kernel) -> None:
    """It loses hundreds of units of last place where its terms cancel, wherever the values lie, and is still what is declared."""
    for seed in range(5):
        found = measured(values(dtype, level, spread, seed=seed), kernel, declared)
        assert found is not None
        assert "" == found.fault


@pytest.mark.parametrize(
    "kernel", [torch.relu, torch.nn.functional.silu, lambda x: NATIVE["erf"](x) * 1.05, lambda x: NATIVE["erf"](x) + 0.02]
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_no_gelu_is_other(dtype: str, kernel: Kernel) -> None:
    """Another activation, one that is scaled or shifted: no formula and no precision explains it."""
    found = measured(values(dtype), kernel, "erf")
    assert found is not None
    assert ("other", "") == (found.variant, found.precision)
    assert "none of the known formulas" in found.fault


def test_a_clamped_output_is_still_its_formula() -> None:
    """A GELU whose output is clamped, however close, is neither another formula nor another precision."""
    for low, high in ((-10.0, 10.0), (-10.0, 1.0), (-0.1, 1.0), (-0.1, 0.5)):
        found = measured(values("float32"), lambda x, low=low, high=high: NATIVE["erf"](x).clamp(low, high), "erf")
        assert found is not None
        assert ("erf", "") == (found.variant, found.fault)


def test_what_was_changed_in_place_tells_nothing() -> None:
    """Zeros of a dropout on both sides, and an input that was overwritten by its output, are no kernel's."""
    dropped = lambda x: torch.nn.functional.dropout(NATIVE["erf"](x), 0.1)  # noqa: E731  # as short as it is
    assert measured(values("float32"), dropped, "erf") is None
    assert measured(values("float32"), lambda x: x, "erf") is None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fill", [0.0, -0.0, 1.0, -3.0, 1e4, -1e4, 5.0, math.nan, math.inf, -math.inf, 1e-30])
def test_values_all_alike_tell_nothing(dtype: str, fill: float) -> None:
    """Constant, zero, huge or non-finite values lead to no finding, whatever is declared."""
    for declared in ("erf", "tanh", "quick", "other"):
        assert measured(torch.full((100, 10), fill).to(getattr(torch, dtype)), NATIVE["erf"], declared) is None


def test_few_values_tell_nothing() -> None:
    """Fewer distinct inputs than it takes, be they repeated ever so often, lead to no finding."""
    few = values("float32", count=60)
    assert measured(few, NATIVE["tanh"], "erf") is None
    assert measured(few.repeat(100, 1), NATIVE["tanh"], "erf") is None
    assert measured(values("float32", count=100), NATIVE["tanh"], "erf") is not None


def test_where_two_formulas_agree_none_is_named() -> None:
    """Positive values of bfloat16 cannot tell erf from tanh, and no fault is made of it; quick is told even there."""
    above = values("bfloat16", 2.5, 0.3)
    undecided, other = measured(above, NATIVE["tanh"], "erf"), measured(above, NATIVE["quick"], "erf")
    assert undecided is not None
    assert other is not None
    assert ("", "") == (undecided.variant, undecided.fault)
    assert "quick" == other.variant
    assert other.fault


def test_where_nothing_is_declared_the_measured_formula_is_no_fault() -> None:
    """A site of a class of the user's own reports what it computes, also when that is no GELU."""
    for kernel, variant in ((NATIVE["quick"], "quick"), (torch.relu, "other")):
        found = measured(values("float32"), kernel, "other")
        assert found is not None
        assert (variant, "") == (found.variant, found.fault)


@given(
    level=st.floats(-4, 4),
    spread=st.floats(0.01, 6),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from(DTYPES),
    name=st.sampled_from(list(NATIVE)),
)
def test_the_right_kernel_is_never_a_fault(level: float, spread: float, seed: int, dtype: str, name: str) -> None:
    """Wherever the values lie, the declared formula in the declared dtype raises nothing."""
    found = measured(values(dtype, level, spread, 2_000, seed), NATIVE[name], name)
    assert found is None or "" == found.fault


def test_chosen_values_come_from_all_rows_and_channels() -> None:
    """A bounded number of pairs, spread over rows and channels, all of them where formulas differ."""
    rows, channels = 2048, 1536
    before = np.full((rows, channels), 9.0, np.float32)
    numbers = np.arange(rows * channels).reshape(rows, channels)
    before[:] = 1.0 + numbers / (rows * channels)
    pre, post = parity.choose(before, before, 1024)
    assert 512 < pre.size <= 1024
    assert (pre == post).all()
    places = np.round((pre.astype(np.float64) - 1.0) * rows * channels).astype(int)
    assert np.unique(places // channels // 256).size == rows // 256
    assert np.unique(places % channels // 96).size == channels // 96
    assert 0 == parity.choose(np.full((10, 10), 9.0, np.float32), before[:10, :10], 1024)[0].size


def rows_of(x: torch.Tensor, kernel: Kernel, layer: str = "a", *, derived: bool = False) -> Rows:
    """Rows as a source gives them."""
    return Rows(layer, str(x.dtype).removeprefix("torch."), x.float().numpy(), kernel(x).float().numpy(), derived)


SITES = (Site("a", 0, "module", "GELU", "erf"), Site("b", 1, "module", "GELU", "tanh"))


def test_pairs_are_gathered_until_they_suffice() -> None:
    """Batches too small by themselves tell together, over several windows; the finding stands until there is a new one."""
    kernels = Kernels()
    for number in range(6):
        kernels.add([rows_of(values("float32", count=10, seed=number), NATIVE["tanh"])])
        assert {} == kernels.measure(SITES)
    kernels.add([rows_of(values("float32", count=20, seed=9), NATIVE["tanh"])])
    assert {"a": "tanh"} == {layer: found.variant for layer, found in kernels.measure(SITES).items()}
    assert kernels.measure(SITES)["a"].fault
    kernels.add([rows_of(values("float32"), NATIVE["erf"])])
    assert "" == kernels.measure(SITES)["a"].fault


def test_rows_whose_output_was_computed_anew_tell_nothing() -> None:
    """What was derived from the input is no kernel's work."""
    kernels = Kernels()
    kernels.add([rows_of(values("float32"), NATIVE["tanh"], derived=True)])
    assert {} == kernels.measure(SITES)


def test_a_layer_that_runs_in_two_dtypes_shows_the_faulty_one() -> None:
    """Each dtype is measured by itself, in either order, and a fault is not hidden by the other dtype's health."""
    right, wrong = rows_of(values("float32"), NATIVE["erf"]), rows_of(values("float16"), NATIVE["quick"])
    for batches in ([right, wrong], [wrong, right]):
        kernels = Kernels()
        kernels.add(batches)
        found = kernels.measure(SITES)["a"]
        assert ("float16", "quick") == (found.dtype, found.variant)
        assert found.fault


def test_what_is_kept_of_a_long_window_is_bounded() -> None:
    """However many batches a window has, a few thousand pairs are kept of each layer and dtype, of its beginning too."""
    kernels = Kernels()
    for number in range(40):
        before = np.full((100, 64), 0.5 + number / 100, np.float32)
        kernels.add([Rows("a", "float32", before, before)])
    pre, post = kernels._pairs["a", "float32"]
    assert pre.size == post.size <= 4096
    assert pre.min() < 0.6
    assert pre.max() > 0.85
