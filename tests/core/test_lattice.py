"""The float lattice: order, nesting, losslessness, edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from geluwatch.catalog import FULL_EDGES
from geluwatch.core import lattice
from geluwatch.errors import LatticeError

PLAIN = (lattice.COARSE_BITS, lattice.FINE_BITS)
COUNTED = (*PLAIN, lattice.SINGLE_BITS)
EVERY = (*COUNTED, lattice.compose(24, 124), lattice.compose(19, 121), lattice.compose(16, 110), lattice.compose(16, 255))
EXTREMES = [-3.4028234663852886e38, -1.401298464324817e-45, -0.0, 0.0, 1.401298464324817e-45, 1.1754943508222875e-38, 3.4028234663852886e38]

floats32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def array(values: list[float]) -> np.ndarray:
    """Values as float32."""
    return np.array(values, dtype=np.float32)


def every_float16() -> np.ndarray:
    """All finite float16 values, as float32."""
    values = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    return values[np.isfinite(values)]


def every_bfloat16() -> np.ndarray:
    """All finite bfloat16 values, as float32."""
    values = (np.arange(1 << 16, dtype=np.uint32) << 16).view(np.float32)
    return values[np.isfinite(values)]


@pytest.mark.parametrize("bits", EVERY)
@given(values=st.lists(floats32, min_size=2, max_size=50))
@example(values=EXTREMES)
def test_cells_are_monotone_in_the_value(bits: int, values: list[float]) -> None:
    """A larger value never lies in a lower cell, subnormals, zeros and the largest floats included."""
    cells = lattice.cells_of(np.sort(array(values)), bits)
    assert (np.diff(cells) >= 0).all()


@pytest.mark.parametrize("bits", EVERY)
@given(values=st.lists(floats32, min_size=1, max_size=50))
@example(values=EXTREMES)
def test_a_cell_holds_its_values_between_its_edges(bits: int, values: list[float]) -> None:
    """A magnitude is at least its cell's lower edge and as far from its middle at most; the sign is the cell's."""
    cells = lattice.cells_of(array(values), bits)
    magnitude = np.abs(array(values).astype(np.float64))
    lower, middle = np.abs(lattice.lower_edges(cells, bits)), np.abs(lattice.midpoints(cells, bits))
    assert (lower <= magnitude).all()
    assert (magnitude <= 2.0 * middle - lower)[cells != 0].all()
    assert (np.sign(array(values)) == np.sign(cells)).all()


@given(value=st.floats(2.0**-126, 2.0**127, width=32))
def test_a_middle_is_close_to_every_value_of_its_cell(value: float) -> None:
    """Off by a 256th at most where 16 bits or more are kept, and by a 16th below a floor."""
    for bits, off in ((16, 2.0**-8), (19, 2.0**-8), (lattice.compose(16, 255), 2.0**-4)):
        (middle,) = lattice.midpoints(lattice.cells_of(array([value]), bits), bits)
        assert abs(middle - value) <= off * value


def test_both_zeros_share_cell_zero_alone() -> None:
    """Zero of either sign lies in cell 0, and the smallest subnormal does not."""
    assert lattice.cells_of(array([0.0, -0.0]), 16).tolist() == [0, 0]
    assert lattice.cells_of(array([EXTREMES[1], EXTREMES[4]]), 16).tolist() == [-1, 1]


@given(values=st.lists(floats32, min_size=1, max_size=50), pair=st.tuples(st.sampled_from(EVERY), st.sampled_from(EVERY)))
@example(values=EXTREMES, pair=(16, 19))
def test_fine_cells_coarsen_to_the_cells_of_the_common_lattice(values: list[float], pair: tuple[int, int]) -> None:
    """Coarsening a value's cell on either of two lattices gives its cell on their common one."""
    common = lattice.meet(*pair)
    expected = lattice.cells_of(array(values), common).tolist()
    for bits in pair:
        assert expected == lattice.coarsen(lattice.cells_of(array(values), bits), bits, common).tolist()


@given(st.lists(st.sampled_from(EVERY), min_size=3, max_size=3))
def test_the_common_lattice_does_not_depend_on_order_or_grouping(bits: list[int]) -> None:
    """Commutative, associative, and of a lattice with itself that lattice."""
    a, b, c = bits
    assert lattice.meet(a, b) == lattice.meet(b, a)
    assert lattice.meet(lattice.meet(a, b), c) == lattice.meet(a, lattice.meet(b, c))
    assert lattice.meet(a, a) == a


def test_old_and_new_float32_lattices_have_the_old_cells_in_common_above_the_floor() -> None:
    """A value of 1/256 or more has the same cell on 16 bits alone and on the lattice common to it and float32's."""
    values = np.geomspace(2.0**-8, 3e38, 5000, dtype=np.float32)
    common = lattice.meet(lattice.COARSE_BITS, lattice.SINGLE_BITS)
    assert lattice.cells_of(values, 16).tolist() == lattice.cells_of(values, common).tolist()


def test_float32_s_lattice_is_fine_where_a_gelu_has_its_minimum() -> None:
    """From -0.171875 to -0.15625 there are 1,024 cells, one for each 2**-16; mirrored above zero there are sixteen."""
    values = np.linspace(0.15625, 0.171875, 100_000, endpoint=False, dtype=np.float32)
    assert (1024, 16) == tuple(np.unique(lattice.cells_of(side, lattice.SINGLE_BITS)).size for side in (np.nextafter(-values, -1), values))


@pytest.mark.parametrize(("values", "bits"), [(every_float16(), 19), (every_bfloat16(), 16)], ids=["float16", "bfloat16"])
def test_every_low_precision_value_has_a_cell_of_its_own(values: np.ndarray, bits: int) -> None:
    """All finite float16 values at 19 bits, and all bfloat16 values at 16, are read back exactly from their cells."""
    cells = lattice.cells_of(values, bits)
    assert lattice.lower_edges(cells, bits).tolist() == values.astype(np.float64).tolist()
    assert np.unique(values).size == np.unique(cells).size
    assert lattice.on_lattice(values, bits)


@pytest.mark.parametrize("bits", COUNTED)
def test_a_value_between_lattice_points_is_seen(bits: int) -> None:
    """One value with a bit below the lattice among many on it is enough to lose the mark of losslessness."""
    values = array([0.5, 1.0, -0.0, float(np.nextafter(np.float32(1), np.float32(2)))])
    assert lattice.on_lattice(values[:3], bits)
    assert not lattice.on_lattice(values, bits)


def test_a_value_below_the_floor_is_seen() -> None:
    """A bfloat16 value is a point of float32's lattice from 1/256 on, and below only with three bits of fraction."""
    assert lattice.on_lattice(array([1.0078125, -(2.0**-8), 1.125 * 2.0**-9]), lattice.SINGLE_BITS)
    assert not lattice.on_lattice(array([1.0078125 * 2.0**-9]), lattice.SINGLE_BITS)


def test_the_dtype_decides_the_resolution() -> None:
    """The low precisions have lattices of their own; float32 and float64 share one."""
    assert {name: lattice.bits_for(name) for name in ("float16", "bfloat16", "float32", "float64")} == {
        "float16": 19,
        "bfloat16": 16,
        "float32": 7640,
        "float64": 7640,
    }


@pytest.mark.parametrize(("bits", "limit"), [(16, 32_640), (19, 261_120)])
def test_the_largest_float_lies_in_the_last_cell(bits: int, limit: int) -> None:
    """The largest and the smallest finite float lie in the outermost cells, one below those of the infinities."""
    assert lattice.cells_of(array([EXTREMES[0], EXTREMES[-1]]), bits).tolist() == [-limit, limit]


@pytest.mark.parametrize("bits", [8, 0, 17, -48, lattice.compose(16, 256)])
def test_other_lattices_are_refused(bits: int) -> None:
    """A lattice of 8 bits does not exist, nor one with a floor above all floats."""
    with pytest.raises(LatticeError, match=f"base of 16, 19 or 24 bits and a floor of 0 to 255, got number {bits}"):
        lattice.split(bits)


@pytest.mark.parametrize("edge", [0.1, -0.1, 1.00390625, 1e-50, 1e39, float("inf"), float("-inf"), float("nan")])
def test_edges_off_the_lattice_are_refused(edge: float) -> None:
    """An edge between lattice points, or beyond the finite floats, has no exact count and is refused by name."""
    with pytest.raises(LatticeError, match=r"Bucket edge .* is no finite point of the 16-bit lattice"):
        lattice.edge_cells((0.5, edge), 16, inclusive=True)


@pytest.mark.parametrize("point", ["pre", "post"])
def test_the_catalogue_s_edges_are_lattice_points(point: str) -> None:
    """Every published bucket edge names a cell on every lattice, however coarse, in ascending order."""
    for bits in EVERY:
        assert (np.diff(lattice.edge_cells(FULL_EDGES[point], bits, inclusive=True)) > 0).all()


lattice_edges = st.integers(-32_640, 32_640).map(lambda cell: float(lattice.lower_edges(np.array([cell], np.int32), 16)[0]))


@given(edge=lattice_edges, values=st.lists(floats32, max_size=50))
def test_exclusive_edges_count_values_in_between_exactly(edge: float, values: list[float]) -> None:
    """For any floats the cells up to an exclusive edge hold the values <= edge, but those equal to a positive edge."""
    (end,) = lattice.edge_cells((edge,), 16, inclusive=False)
    drawn = array([*values, edge])
    expected = (drawn <= edge) & ~((drawn == edge) & (edge > 0))
    assert expected.tolist() == (lattice.cells_of(drawn, 16) <= end).tolist()


@given(edge=lattice_edges, cells=st.lists(st.integers(-32_640, 32_640), max_size=50))
def test_inclusive_edges_count_lattice_values_exactly(edge: float, cells: list[int]) -> None:
    """For values on the lattice the cells up to an inclusive edge hold the values <= edge, equality included."""
    (end,) = lattice.edge_cells((edge,), 16, inclusive=True)
    values = array([*lattice.lower_edges(np.array(cells, np.int32), 16), edge])
    assert (values <= edge).tolist() == (lattice.cells_of(values, 16) <= end).tolist()
