"""Causes: planted faults are named for what they are, calm traffic and the unknown are left unnamed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import ndtr

from geluwatch.core import cause, histogram, lattice
from geluwatch.core.window import merge_points, observe
from geluwatch.records import PointWindow

CHANNELS = 384

Rng = np.random.Generator
Fault = Callable[[Rng, np.ndarray, np.ndarray], np.ndarray]


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Values rounded to bfloat16, half up in magnitude, as float32."""
    return ((values.astype(np.float32).view(np.uint32) + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)


def to_e4m3(values: np.ndarray) -> np.ndarray:
    """Values rounded to four significant bits, from 2**-6 on, as fp8 e4m3 has them."""
    step = np.exp2(np.maximum(np.floor(np.log2(np.maximum(np.abs(values), 1e-30))), -6) - 3)
    return np.clip(np.round(values / step) * step, -448, 448)


def to_int8(values: np.ndarray) -> np.ndarray:
    """Values rounded to 255 evenly spaced levels."""
    step = np.abs(values).max() / 127
    return np.round(values / step) * step


def some(rng: Rng, channels: int, share: float) -> np.ndarray:
    """A mask of a share of the channels."""
    return rng.permutation(channels) < round(share * channels)


FAULTS: dict[str, tuple[str | None, Fault]] = {
    "none": (None, lambda _rng, x, _sd: x),
    "shift .1": ("shift", lambda _rng, x, _sd: x + 0.1 * x.std()),
    "shift -.3": ("shift", lambda _rng, x, _sd: x - 0.3 * x.std()),
    "scale 1.05": ("scale", lambda _rng, x, _sd: 1.05 * x),
    "scale 1.15": ("scale", lambda _rng, x, _sd: 1.15 * x),
    "scale .8": ("scale", lambda _rng, x, _sd: 0.8 * x),
    "tail 1 % x 5": ("tail", lambda rng, x, _sd: np.where(rng.random(x.shape) < 0.01, 5 * x, x)),
    "dead 2 %": ("dead_channels", lambda rng, x, _sd: np.where(some(rng, x.shape[1], 0.02), 0.0, x)),
    "dead 10 %": ("dead_channels", lambda rng, x, _sd: np.where(some(rng, x.shape[1], 0.1), x.mean(axis=0), x)),
    "saturation": ("saturation", lambda rng, x, sd: x - 3 * sd * some(rng, x.shape[1], 1 / 3)),
    "new mode": ("new_mode", lambda rng, x, _sd: np.where(rng.random(x.shape) < 0.02, rng.normal(12, 0.3, x.shape), x)),
    "fp8 e4m3": ("precision", lambda _rng, x, _sd: to_e4m3(x)),
    "bfloat16": ("precision", lambda _rng, x, _sd: to_bfloat16(x)),
    "int8": ("precision", lambda _rng, x, _sd: to_int8(x)),
}


def traffic(seed: int, rows: int, *, heavy: bool = False) -> tuple[Rng, PointWindow, np.ndarray, np.ndarray]:
    """A generator, a baseline of four windows, one more window's rows, and the channels' scales; channels differ in both."""
    rng = np.random.default_rng(seed)
    means, scales = rng.normal(-0.4, 0.5, CHANNELS), np.exp(rng.normal(-0.2, 0.35, CHANNELS))
    noise = (lambda: rng.laplace(0, 0.7, (rows, CHANNELS))) if heavy else (lambda: rng.standard_normal((rows, CHANNELS)))
    *calm, last = (means + scales * noise() for _ in range(5))
    return rng, merge_points([see(window) for window in calm]), last, scales


def see(values: np.ndarray, dtype: str = "float32") -> PointWindow:
    """Rows as the agent observes them."""
    return observe(values.astype(np.float32), dtype)


@pytest.mark.parametrize(("rows", "seeds"), [(1500, 2), (384, 4)])
@pytest.mark.parametrize("heavy", [False, True], ids=["normal", "laplace"])
def test_planted_faults_are_named_rightly(rows: int, seeds: int, heavy: bool) -> None:
    """Of those named at least 95 % are right, at least 80 % of the faults are named, and calm is never blamed."""
    named: Counter[tuple[str | None, str | None]] = Counter()
    for seed in range(seeds):
        rng, baseline, rows_now, scales = traffic(seed, rows, heavy=heavy)
        for expected, plant in FAULTS.values():
            found = cause.diagnose(baseline, see(plant(rng, rows_now, scales)))
            named[expected, found.kind if found else None] += 1
    right = sum(count for (expected, kind), count in named.items() if kind and kind == expected)
    assert right >= 0.95 * sum(count for (_, kind), count in named.items() if kind), named
    assert right >= 0.8 * sum(count for (expected, _), count in named.items() if expected), named
    assert not any(count for (expected, kind), count in named.items() if kind and not expected), named


@pytest.mark.parametrize(
    ("fault", "parts"),
    [
        ("shift -.3", ("pre-GELU values moved by -0.30 standard deviations (mean -", "spread is 1.00 times")),
        ("scale 1.15", ("pre-GELU values are 1.15 times as spread out as in the baseline (standard deviation ", "the mean moved by -0.0")),
        ("tail 1 % x 5", ("of pre-GELU values lie beyond the baseline's 0.1 % and 99.9 % quantiles (was 0.20%)", "no few channels")),
        ("dead 2 %", ("8 of 384 pre-GELU channels no longer vary (channel ", ", ...).")),
        ("saturation", ("of pre-GELU values are -3 or less, where the gate is closed (was ", "128 of 384 channels moved down")),
        ("new mode", ("% of pre-GELU values now lie about 1", "0.00% of the baseline's lie that far out.")),
        ("fp8 e4m3", ("pre-GELU values keep 4 significant bits (as fp8 e4m3 does): 100% lie on that grid",)),
        ("bfloat16", ("pre-GELU values keep 8 significant bits (as bfloat16 does): 100% lie on that grid",)),
        ("int8", ("pre-GELU values fill ", "as rounding to integers makes one.")),
    ],
)
def test_the_text_is_one_sentence_with_the_numbers(fault: str, parts: tuple[str, ...]) -> None:
    """What changed and by how much, ending in a full stop."""
    rng, baseline, rows_now, scales = traffic(0, 600)
    found = cause.diagnose(baseline, see(FAULTS[fault][1](rng, rows_now, scales)))
    assert found is not None
    assert all(part in found.text for part in parts), found.text
    assert found.text.endswith(".")
    assert 0.0 < found.share <= 1.0


def test_shares_say_how_much_is_concerned() -> None:
    """The dead channels' part, the new mode's part, and nearly all of the distance for a shift."""
    rng, baseline, rows_now, scales = traffic(1, 600)
    shares = {name: cause.diagnose(baseline, see(FAULTS[name][1](rng, rows_now, scales))) for name in ("dead 10 %", "new mode", "shift .1")}
    assert {name: round(found.share, 1) if found else None for name, found in shares.items()} == {
        "dead 10 %": 0.1,
        "new mode": 0.0,
        "shift .1": 1.0,
    }


def test_a_tail_of_few_channels_names_them() -> None:
    """One channel fifty times as wide is a tail, and the text says which channel it is."""
    _, baseline, rows_now, _ = traffic(2, 600)
    found = cause.diagnose(baseline, see(rows_now * np.where(np.arange(CHANNELS) == 7, 50, 1)))
    assert found is not None
    assert ("tail", True) == (found.kind, "comes from 1 of 384 channels (channel 7)" in found.text)


def test_one_request_repeated_is_a_layer_that_no_longer_varies() -> None:
    """Equal rows fill few cells, which is not taken for rounding."""
    _, baseline, rows_now, _ = traffic(3, 600)
    found = cause.diagnose(baseline, see(np.repeat(rows_now[:1], 600, axis=0)))
    assert found is not None
    assert ("dead_channels", 1.0) == (found.kind, found.share)


def test_changes_that_the_histogram_does_not_show_are_left_unnamed() -> None:
    """Channels that changed places leave the distribution as it was, and no cause is made up."""
    rng, baseline, rows_now, _ = traffic(4, 1500)
    assert cause.diagnose(baseline, see(rows_now[:, rng.permutation(CHANNELS)])) is None


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_low_precision_model_is_not_blamed_for_its_own_grid(dtype: str) -> None:
    """Against a baseline of the same precision there is no comb, and fp8 rounding is still seen."""
    cast = to_bfloat16 if dtype == "bfloat16" else (lambda values: values.astype(np.float16))
    rng = np.random.default_rng(5)
    then, now = (rng.normal(-0.4, 1, (400, 64)) for _ in range(2))
    baseline = see(cast(then), dtype)
    assert cause.diagnose(baseline, see(cast(now), dtype)) is None
    found = cause.diagnose(baseline, see(to_e4m3(now), dtype))
    assert found is not None
    assert found.kind == "precision"


def test_values_after_the_gelu_are_diagnosed_too() -> None:
    """A shift before shows after as something else or nothing, rounding after as rounding, and words name the side."""
    rng = np.random.default_rng(6)
    then, now = (rng.normal(-0.4, 1, (600, 64)) for _ in range(2))
    then, now = then * ndtr(then), now * ndtr(now)
    assert cause.diagnose(see(then), see(now), "post") is None
    found = cause.diagnose(see(then), see(to_bfloat16(now)), "post")
    assert found is not None
    assert found.text.startswith("post-GELU values keep 8 significant bits")


def test_a_bounded_baseline_gives_the_same_cause() -> None:
    """Coarser cells below a floor, or 16 bits throughout, change no name, but for rounding to 16 bits, which they cannot show."""
    rng, baseline, rows_now, scales = traffic(7, 600)
    for name, (expected, plant) in FAULTS.items():
        if name == "bfloat16":
            continue
        window = see(plant(rng, rows_now, scales))
        for bits in (lattice.compose(24, 124), lattice.compose(16, 122)):
            coarse = PointWindow(histogram.coarsen(baseline.histogram, bits), baseline.moments)
            found = cause.diagnose(coarse, window)
            assert (name, expected) == (name, found.kind if found else None)


finite = hnp.arrays(np.float32, st.tuples(st.integers(0, 40), st.just(3)), elements=st.floats(width=32, allow_nan=True))


@given(then=finite, now=finite)
def test_no_input_breaks_the_diagnosis(then: np.ndarray, now: np.ndarray) -> None:
    """Whatever was captured, infinities, constants and nothing included, the answer is a cause or None."""
    found = cause.diagnose(see(then), see(now))
    assert found is None or found.text.endswith(".")


def test_layers_of_different_widths_have_no_cause() -> None:
    """Channels that cannot be matched are not compared."""
    assert cause.diagnose(see(np.ones((9, 3))), see(np.ones((9, 4)))) is None
