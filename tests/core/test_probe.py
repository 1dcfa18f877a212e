"""What a replay says: the same within rounding, or moved, first where and how; and what follows for drifting traffic."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geluwatch.core import probe as core
from geluwatch.errors import ProbeError
from geluwatch.records import Bfloat16, Probe, ProbeInput, ProbeResult, Rows

LAYERS = ("b.act", "a.act", "c.act")
"""In the order in which passes come to them, which is not that of their names."""


def probe(dtype: str = "float32") -> Probe:
    """Return a probe of two inputs, with one call of each layer."""
    random = np.random.default_rng(3)

    def rows(layer: str) -> Rows:
        pre, post = (random.normal(size=(4, 6)).astype(np.float32) for _ in range(2))
        return Rows(layer, dtype, pre, post)

    return Probe(100.0, (ProbeInput((), {}),) * 2, tuple(tuple(rows(layer) for layer in LAYERS) for _ in range(2)), 24, dtype)


def moved(known: Probe, from_: int, by: float, side: str = "pre") -> list[tuple[Rows, ...]]:
    """Return what a model gives whose values differ by so much from a layer on, on one side of the GELU there and on both behind it."""
    found = []
    for of_input in known.rows:
        sides = [
            (side,) if place == from_ and side == "post" else ("pre", "post") if place >= from_ else () for place in range(len(of_input))
        ]
        found.append(
            tuple(replace(rows, **{s: getattr(rows, s) * (1 + by) for s in changed}) for rows, changed in zip(of_input, sides, strict=True))
        )
    return found


def compared(known: Probe, now: list[tuple[Rows, ...]], census: tuple[str, ...] = LAYERS, blind: tuple[str, ...] = ()) -> ProbeResult:
    """Compare."""
    return core.compare(known, now, census, blind=blind, baseline="v1", time=200.0)


@given(st.sampled_from(sorted(core.TOLERANCES)), st.integers(0, 2), st.floats(0.0, 0.3), st.sampled_from(["pre", "post"]))
def test_what_moved_is_told_by_the_tolerance_of_its_dtype(dtype: str, layer: int, by: float, side: str) -> None:
    """Below it a model is the same; above, the first layer, the side and the size are those of the change."""
    known = probe(dtype)
    result = compared(known, moved(known, layer, by, side))
    tolerance = core.TOLERANCES[dtype]
    if abs(by - tolerance) < 1e-6:
        return
    assert result.moved == (by > tolerance)
    if result.first:
        assert (LAYERS[layer], side == "post") == (result.first.layer, result.within)
        assert result.size == pytest.approx(by, rel=1e-3, abs=1e-6)
        assert f"the model changed, first at layer {LAYERS[layer]}: " in result.sentence
    else:
        assert result.sentence.startswith("the model gives the same as when the probe was recorded, at 3 GELUs")
    assert LAYERS == tuple(each.layer for each in result.layers)


def test_other_dtypes_calls_and_layers_are_changes() -> None:
    """What differs besides the values is said, and counts at its layer though values may agree."""
    known = probe()
    cast = [tuple(replace(rows, dtype="bfloat16") if rows.layer == "a.act" else rows for rows in each) for each in known.rows]
    assert "a.act (its values are float32 in the baseline and bfloat16 now): its values agree" in compared(known, cast).sentence
    once = [each[:2] if place else each for place, each in enumerate(known.rows)]
    assert "c.act (a pass calls it 1 times in the baseline and 0 times now)" in compared(known, once).sentence
    assert not compared(known, once, blind=("c.act",)).moved
    twice = [(*each, each[2]) for each in known.rows]
    assert "c.act (a pass calls it 1 times in the baseline and 2 times now)" in compared(known, twice).sentence
    gone = compared(known, [each[1:] for each in known.rows], LAYERS[1:])
    assert ("b.act", float("inf")) == (gone.first and gone.first.layer, gone.size)
    assert "b.act (the model lacks it now): it gave no values" in gone.sentence


def test_a_router_that_chooses_another_expert_is_a_change() -> None:
    """A layer that is called for another of the probe's inputs than before is where the model changed, though no two of its rows pair."""
    known = probe()
    chosen = replace(known, rows=(known.rows[0][:2], (known.rows[1][0], known.rows[1][2])))
    swapped = [(known.rows[0][0], known.rows[0][2]), known.rows[1][:2]]
    assert not compared(chosen, list(chosen.rows)).moved
    found = compared(chosen, swapped)
    assert found.moved
    assert f"{LAYERS[1]} (a pass calls it " in found.sentence


def test_a_blind_layer_says_nothing() -> None:
    """It is not compared, and that is said; where no layer gives rows there is no result."""
    known = probe()
    result = compared(known, [each[1:] for each in known.rows], blind=LAYERS[:1])
    assert not result.moved
    assert result.sentence.endswith("at 2 GELUs, within 1e-05; 1 gave no rows, b.act first, and are not compared")
    with pytest.raises(ProbeError, match="No GELU of the probe gave rows"):
        compared(known, [(), ()])


def test_values_that_are_not_finite_are_a_change() -> None:
    """A NaN where there was a number has moved; one where there was one has not."""
    known = probe()
    spoilt = [tuple(replace(rows, post=np.full_like(rows.post, np.nan)) for rows in each) for each in known.rows]
    assert compared(known, spoilt).within
    assert not compared(replace(known, rows=tuple(spoilt)), spoilt).moved


def test_a_probe_is_bounded() -> None:
    """However many calls there are, their rows keep to the limit; nested inputs are measured whole."""
    for calls in (1, 7, 96, 10_000):
        assert 0.9 * core.MOST_BYTES < core.allowance(calls) * calls * 2 * 4 <= core.MOST_BYTES
    array = np.zeros(3, np.int64)
    assert 24 * 2 + 4 + 2 * 8 + 3 == core.nbytes({"a": [array, (array, 2, 1.5)], "b": Bfloat16(np.zeros(2, np.uint16)), "c": "abc"})


def test_what_follows_for_drifting_traffic() -> None:
    """The data where a probe since gave the same, the model where it moved, unknown without one since: another change may be mended."""
    known = probe()
    same, other = compared(known, moved(known, 0, 0.0)), compared(known, moved(known, 1, 0.5))

    def origin(onset: float | None, result: ProbeResult | None, *, has_probe: bool = True) -> tuple[str, str]:
        return core.attribute(onset, result, has_probe=has_probe)

    assert "data" == origin(150.0, same)[0]
    assert origin(150.0, same)[1].startswith("The probe says: the data changed; the model gives the same as")
    assert ("unknown", "No probe has been replayed since the drift began; watch.probe() tells whether the data changed or the model.") == (
        origin(250.0, same)
    )
    assert origin(250.0, same) == origin(250.0, None)
    assert "unknown" == origin(150.0, None, has_probe=False)[0]
    assert origin(250.0, other) == origin(250.0, None)
    for onset, expected in ((150.0, "model"), (None, "")):
        found = origin(onset, other)
        assert expected == found[0]
        assert found[1].startswith("The probe says: the model changed, first at layer a.act: what goes into that GELU differs by 0.5")
    assert ("", "") == origin(None, None)
    assert origin(None, same)[1].startswith("The probe says: the model gives the same")


def half_precision(noise: float, gain: float = 0.0, offset: float = 0.0, giant: bool = False) -> ProbeResult:
    """Compare 8,192 bfloat16 values with the same, each off by noise of so much of it at random, and all by a gain and an offset."""
    random = np.random.default_rng(7)
    pre = random.normal(size=(64, 128)).astype(np.float32)
    to_and_fro = random.choice([-1.0, 1.0], pre.shape)
    if giant:  # a massive activation, which rounds the same way each time
        pre[::16, 7], to_and_fro[::16, 7] = 1030.0, 1.0
    now = (pre * (1 + gain + noise * to_and_fro) + offset).astype(np.float32)
    known = Probe(100.0, (ProbeInput((), {}),), ((Rows("b.act", "bfloat16", pre, pre),),), pre.size, "bfloat16")
    return compared(known, [(Rows("b.act", "bfloat16", now, pre),)], ("b.act",))


@pytest.mark.parametrize("giant", [False, True])
@pytest.mark.parametrize("change", [{"gain": 0.01}, {"gain": -0.01}, {"offset": 0.01}])
def test_in_half_precision_what_all_values_share_is_no_rounding(giant: bool, change: dict[str, float]) -> None:
    """Rounding to and fro by .9 % is no change; a gain or an offset of 1 % under it is, by as much; giants do not speak for all."""
    assert not half_precision(0.009, giant=giant).moved
    if giant and "offset" in change:
        return  # beside values of a thousand an offset of .01 is nothing
    found = half_precision(0.009, giant=giant, **change)
    size = re.search(r"what goes into that GELU differs by (0\.\d+) of its size, all of it alike", found.sentence)
    assert size
    assert float(size[1]) == pytest.approx(0.01, rel=0.1)
    assert not found.within


def test_rounding_in_which_a_change_could_hide_is_no_word_for_the_data() -> None:
    """From one percent on a difference within the tolerance leaves the origin of a drift unknown; below it the data have changed."""
    fine, coarse = half_precision(0.005), half_precision(0.02)
    assert (False, False, False, True) == (fine.moved, fine.doubtful, coarse.moved, coarse.doubtful)
    assert "data" == core.attribute(150.0, fine, has_probe=True).origin
    found = core.attribute(150.0, coarse, has_probe=True)
    assert "unknown" == found.origin
    assert found.sentence.startswith("The probe cannot tell the data from a small change of the weights: the model gives the same")
